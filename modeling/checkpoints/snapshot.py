"""Snapshots: a folder for each variable holding `out` (raw little-endian float32) and `meta`, and `snapshot_done` at
the root, written last.

The format is OneFlow's own of one folder a variable, so `oneflow.load(folder)` reads it; reading and writing here is
plain NumPy. Beside the variables lie `bert_config.json`, `vocab.txt` and `task.json`, and whatever
else is a plain file, such as a model card, says nothing to the reader and is in no digest. Folders of the earlier converter
(no `meta`, no `snapshot_done`, no config) are read too: shapes then come from the graph that is to hold them.
"""

import functools
import hashlib
import json
import operator
import os
import re

import numpy as np
import six

from modeling.bert import names
from modeling.bert.config import BertConfig
from ofrecord_util.errors import UserError
from ofrecord_util.files import recover_folder, replacing_folder

DATA, META, DONE = "out", "meta", "snapshot_done"
PICKLE = "pickled_data"  # of oneflow.save
CONFIG_FILE, VOCAB_FILE, TASK_FILE = "bert_config.json", "vocab.txt", "task.json"


def _meta_text(shape):
    """VariableMetaInfo in protobuf's text form."""
    return "shape {{\n{}}}\ndata_type: kFloat\n".format("".join(f"  dim: {size}\n" for size in shape))


def _write_file(data, *path):
    with open(os.path.join(*path), "wb") as file:
        file.write(six.ensure_binary(data))


def write_variables(folder, variables, files=None):
    """Writes a snapshot folder: beside its final name first, then renamed, so that a reader sees all of it or nothing.

    Args:
        folder: the snapshot's path; a folder that is there already is replaced only once the new one is whole.
        variables: dict of documented variable name -> float32 array.
        files: dict of file name -> str or bytes, put beside the variables.
    Raises:
        UserError: a name is no plain folder name, a variable is not float32, the disk is full or not writable.
    """
    for name, value in variables.items():
        if os.path.basename(name) != name or name in ("", ".", "..") or name.startswith("."):
            raise UserError(f"{name!r} cannot be the name of a snapshot's variable")
        if value.dtype != np.float32:
            raise UserError(f"variable {name} is {value.dtype}, a snapshot holds float32")
    try:
        with replacing_folder(folder) as new:
            for name, value in sorted(variables.items()):
                os.mkdir(os.path.join(new, name))
                _write_file(np.ascontiguousarray(value, "<f4").tobytes(), new, name, DATA)
                _write_file(_meta_text(value.shape), new, name, META)
            for name, data in sorted((files or {}).items()):
                _write_file(data, new, name)
            _write_file(b"", new, DONE)
    except OSError as error:
        raise UserError(f"snapshot {folder} cannot be written: {error.strerror or error}") from error


def _parse_meta(path):
    """Shape that a variable's `meta` says; ValueError with the reason where it says none."""
    with open(path, "rb") as f:
        text = f.read().decode("utf-8", "backslashreplace")
    if "data_type: kFloat" not in text or "kFloat16" in text:
        raise ValueError("{}: only data_type kFloat (float32) is read, found {!r:.100}".format(path, " ".join(text.split())))
    return tuple(int(size) for size in re.findall(r"dim:\s*(\d+)", text))


def _count(shape):
    return functools.reduce(operator.mul, shape, 1)  # in Python's integers: NumPy's would wrap around to a size that fits


class Snapshot:
    """A snapshot folder on disk, checked when opened, its variables read when asked for.

    Attributes:
        path: the folder.
        sizes: dict of variable name -> number of float32 values.
        shapes: dict of variable name -> shape, for the variables that have a `meta`.
    Raises:
        UserError: not a folder, no variables in it, an interrupted save, a file whose size does not fit its shape, a symbolic
            link, a pickle; all faults are listed.
    """

    def __init__(self, path):
        self.path = path.rstrip("/")
        self._digest = None
        recover_folder(self.path)
        if not os.path.isdir(path):
            raise UserError(f"{path}: no such snapshot folder (--model_load_dir; run the step before, or tools/convert_checkpoint.py)")
        self.sizes, self.shapes, problems = {}, {}, []
        for name in sorted(os.listdir(path)):
            try:
                self._check_entry(name)
            except ValueError as error:
                problems.append(str(error))
        if not self.sizes:
            inside = sorted(name for name in os.listdir(path) if os.path.isfile(os.path.join(path, name, DONE)))
            raise UserError(
                "{}: holds no variables (a folder each with a file {!r}); {}".format(
                    path,
                    DATA,
                    "did you mean " + os.path.join(path, inside[-1])
                    if inside
                    else "a Hugging Face folder is converted by tools/convert_checkpoint.py",
                )
            )
        if self.shapes and not os.path.exists(os.path.join(path, DONE)):
            problems.insert(0, f"no {DONE}, an interrupted save is not a snapshot")
        if problems:
            raise UserError(f"{path}: {'; '.join(problems)}")

    def _check_entry(self, name):
        """Takes a variable's size and shape down; ValueError with the reason where an entry of the folder is refused."""
        entry = os.path.join(self.path, name)
        data, meta = os.path.join(entry, DATA), os.path.join(entry, META)
        linked = [path for path in (entry, data, meta) if os.path.islink(path)]
        if linked:
            raise ValueError(f"{os.path.relpath(linked[0], self.path)} is a symbolic link, a snapshot holds its own files")
        if name == PICKLE:
            raise ValueError(f"{PICKLE}, which oneflow.load would unpickle and so run: remove it, nothing here needs it")
        if name.startswith(".") or not os.path.isdir(entry):
            return
        if not os.path.isfile(data):
            raise ValueError(f"{name} has no file {DATA!r}")
        size = os.path.getsize(data)
        if size % 4:
            raise ValueError(f"{name} has {size} bytes, no multiple of 4")
        self.sizes[name] = size // 4
        if os.path.isfile(meta):
            self.shapes[name] = shape = _parse_meta(meta)
            if _count(shape) * 4 != size:
                raise ValueError(f"{name} has {size} bytes, its meta says {list(shape)} = {_count(shape) * 4} bytes")

    def read(self, name, shape):
        """The variable `name` as a float32 array of `shape`.

        Raises:
            UserError: its size or its recorded shape does not fit.
        """
        count = _count(shape)
        recorded = self.shapes.get(name, tuple(shape))
        if self.sizes[name] != count or tuple(size for size in recorded if size != 1) != tuple(size for size in shape if size != 1):
            raise UserError(
                f"{self.path}: variable {name} holds {self.sizes[name]} values of shape {list(recorded)}, the "
                f"model needs {count} of shape {list(shape)}"
            )
        return np.fromfile(os.path.join(self.path, name, DATA), dtype="<f4").astype(np.float32, copy=False).reshape(shape)

    def _json(self, name):
        path = os.path.join(self.path, name)
        if not os.path.isfile(path):
            return None
        try:
            with open(path, encoding="utf-8") as f:
                value = json.load(f)
        except ValueError as error:
            raise UserError(f"{path} is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise UserError(f"{path} is no JSON object")
        return value

    def task(self):
        """The parsed task.json (domains, labels, …) or None."""
        return self._json(TASK_FILE)

    def vocab_file(self):
        """Path of the snapshot's vocab.txt, or None."""
        path = os.path.join(self.path, VOCAB_FILE)
        return path if os.path.isfile(path) else None

    def config(self, head_size=64, num_heads=None):
        """The encoder's `BertConfig`: bert_config.json, or sizes read off the variables where there is none.

        Args:
            head_size: D to assume where nothing on disk says how many heads there are (`--hidden_size_per_head`).
            num_heads: N to assume there instead (`--num_attention_heads`), None to go by `head_size`.
        """
        values = self._json(CONFIG_FILE)
        if values is not None:
            return BertConfig.from_dict(values, os.path.join(self.path, CONFIG_FILE))
        gamma = names.EMBEDDINGS_NORM + "-gamma"
        layers = {names.layer_of(name) for name in self.sizes} - {None}
        words, positions, types = names.WORD_EMBEDDINGS, names.POSITION_EMBEDDINGS, names.TOKEN_TYPE_EMBEDDINGS
        intermediate = f"{names.layer_prefix(0)}{names.INTERMEDIATE}-bias"
        missing = [name for name in (gamma, words, positions, types, intermediate) if name not in self.sizes]
        if missing:
            raise UserError("{} is no BERT snapshot: missing {}".format(self.path, ", ".join(missing)))
        hidden = self.sizes[gamma]
        if num_heads is None and hidden % head_size:
            raise UserError(
                f"{self.path} has no {CONFIG_FILE}, and hidden size {hidden} is no multiple of {head_size}: say --hidden_size_per_head"
            )
        return BertConfig(
            vocab_size=self.sizes[words] // hidden,
            hidden_size=hidden,
            num_hidden_layers=len(layers),
            num_attention_heads=num_heads or hidden // head_size,
            intermediate_size=self.sizes[intermediate],
            max_position_embeddings=self.sizes[positions] // hidden,
            type_vocab_size=self.sizes[types] // hidden,
        )

    def digest(self):
        """sha256 (hex) over the names and bytes of all variables: what a later step names when it says which model it used.

        Computed once per object.
        """
        if self._digest is not None:
            return self._digest
        digest = hashlib.sha256()
        for name in sorted(self.sizes):
            digest.update(name.encode("utf-8") + b"\0")
            with open(os.path.join(self.path, name, DATA), "rb") as f:
                for chunk in iter(lambda: f.read(1 << 20), b""):
                    digest.update(chunk)
        self._digest = digest.hexdigest()
        return self._digest
