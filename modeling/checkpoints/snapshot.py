"""Snapshots: one folder per variable with `out` (raw little-endian float32) and `meta`, and the file `snapshot_done`, which is written
last.

This is OneFlow's format of one folder per variable, so `oneflow.load(folder)` can read it. This module reads and writes it with plain
NumPy. The folder also contains `bert_config.json`, `vocab.txt` and `task.json`. Other plain files, such as a model card, are ignored,
and no digest covers them. Folders of the earlier converter (without `meta`, `snapshot_done` and config) can be read too. The graph then
determines the shapes.
"""

import functools
import hashlib
import operator
import os
import re

import numpy as np

from modeling.bert import names
from modeling.bert.config import LARGEST, BertConfig
from ofrecord_util.array_reading import PartFile
from ofrecord_util.errors import UserError
from ofrecord_util.files import recover_folder, replacing_folder
from ofrecord_util.json_reading import read_json
from ofrecord_util.json_tokenizer import JSON_FILE
from ofrecord_util.output_checks import SNAPSHOT_DONE
from ofrecord_util.reading import META_LIMIT, VARIABLE_LIMIT, read_bytes, size_text
from ofrecord_util.tasks import Task

DATA, META, DONE = "out", "meta", SNAPSHOT_DONE
PICKLE = "pickled_data"  # of oneflow.save
_MOST_AXES = 8
_REMEDY = "it is a snapshot's own file: restore it, or convert or train the model again"
TASK_LENGTHS = ("target_length", "doc_stride", "max_query_length")  # numbers of tokens in the task.json of the scripts with these flags
CONFIG_FILE, VOCAB_FILE, TASK_FILE = "bert_config.json", "vocab.txt", "task.json"


def _meta_text(shape):
    """VariableMetaInfo in protobuf's text format."""
    return "shape {{\n{}}}\ndata_type: kFloat\n".format("".join(f"  dim: {size}\n" for size in shape))


def _write_file(data, *path):
    """Writes a str, bytes or an array."""
    with open(os.path.join(*path), "wb") as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


def write_variables(folder, variables, files=None):
    """Writes a snapshot folder under a temporary name, then renames it, so that a reader never sees an incomplete snapshot.

    Args:
        folder: path of the snapshot. An existing folder is replaced only when the new one is complete.
        variables: dict of documented variable name -> float32 array. Each array is taken from it once, in the order of the names, so
            that an `OnDemand` needs memory for one array only.
        files: dict of file name -> str or bytes, further files of the snapshot.
    Raises:
        UserError: a name is not a plain folder name, a variable is not float32, or the disk is full or not writable.
    """
    for name in variables:
        if os.path.basename(name) != name or name in ("", ".", "..") or name.startswith("."):
            raise UserError(f"{name!r} is not a valid name for a snapshot's variable")
    try:
        with replacing_folder(folder) as new:
            for name in sorted(variables):
                value = variables[name]
                if value.dtype != np.float32:
                    raise UserError(f"variable {name} is {value.dtype}, but a snapshot must contain float32")
                os.mkdir(os.path.join(new, name))
                _write_file(np.ascontiguousarray(value, "<f4"), new, name, DATA)
                _write_file(_meta_text(value.shape), new, name, META)
            for name, data in sorted((files or {}).items()):
                _write_file(data, new, name)
            _write_file(b"", new, DONE)
    except OSError as error:
        raise UserError(f"snapshot {folder} cannot be written: {error.strerror or error}") from error


def _parse_meta(path):
    """The shape in a variable's `meta`. Raises a ValueError with the reason if the file is invalid."""
    try:
        text = read_bytes(path, "convert the model again", META_LIMIT).decode("utf-8", "backslashreplace")
    except UserError as error:
        raise ValueError(str(error)) from error
    if "data_type: kFloat" not in text or "kFloat16" in text:
        raise ValueError("{}: only data_type kFloat (float32) is supported, found {!r:.100}".format(path, " ".join(text.split())))
    sizes = re.findall(r"dim:\s*(\d+)", text)
    if len(sizes) > _MOST_AXES or any(len(size) > 18 for size in sizes):
        raise ValueError("{}: no variable has the shape {:.100}".format(path, " x ".join(sizes)))
    return tuple(map(int, sizes))


def _count(shape):
    return functools.reduce(operator.mul, shape, 1)  # Python integers: NumPy's could overflow to a size that matches


class Snapshot:
    """A snapshot folder on disk. The constructor checks it; `read` reads a variable.

    Attributes:
        path: the folder.
        sizes: dict of variable name -> number of float32 values.
        shapes: dict of variable name -> shape, for the variables that have a `meta`.
    Raises:
        UserError: the path is not a folder, the folder contains no variables, a symbolic link or a pickle, the save was interrupted, or
            the size of a file does not match its shape. The message lists all problems.
    """

    def __init__(self, path):
        path = os.fspath(path)
        self.path = path.rstrip("/")
        self._digest = None
        recover_folder(self.path)
        if not os.path.isdir(path):
            raise UserError(f"{path}: no such snapshot folder (--model_load_dir): run the previous step, or tools/convert_checkpoint.py")
        self.sizes, self.shapes, problems = {}, {}, []
        try:
            for name in sorted(os.listdir(path)):
                try:
                    self._check_entry(name)
                except ValueError as error:
                    problems.append(str(error))
        except OSError as error:
            raise UserError(f"{error.filename or path}: cannot be read ({error.strerror}); check the rights of the snapshot") from error
        if not self.sizes:
            inside = sorted(name for name in os.listdir(path) if os.path.isfile(os.path.join(path, name, DONE)))
            raise UserError(
                "{}: contains no variables (one folder per variable, with a file {!r}): {}".format(
                    path,
                    DATA,
                    "did you mean " + os.path.join(path, inside[-1])
                    if inside
                    else "convert a Hugging Face folder with tools/convert_checkpoint.py",
                )
            )
        if self.shapes and not os.path.exists(os.path.join(path, DONE)):
            problems.insert(0, f"no {DONE}, so the save was interrupted")
        if problems:
            raise UserError(f"{path}: {'; '.join(problems)}")

    def _check_entry(self, name):
        """Stores the size and shape of a variable. Raises a ValueError with the reason if the entry is not allowed."""
        entry = os.path.join(self.path, name)
        data, meta = os.path.join(entry, DATA), os.path.join(entry, META)
        if not name.isprintable():
            raise ValueError(f"{name!a} is not the name of a variable")
        linked = [path for path in (entry, data, meta) if os.path.islink(path)]
        if linked:
            raise ValueError(f"{os.path.relpath(linked[0], self.path)} is a symbolic link, but a snapshot must contain its own files")
        if name == PICKLE:
            raise ValueError(f"{PICKLE} is a pickle, which can run code when oneflow.load reads it: remove it, no script needs it")
        if name.startswith(".") or not os.path.isdir(entry):
            return
        if not os.path.isfile(data):
            raise ValueError(f"{name} has no file {DATA!r}")
        size = os.path.getsize(data)
        if size > VARIABLE_LIMIT:
            raise ValueError(f"{name} has {size_text(size)}, at most {size_text(VARIABLE_LIMIT)} are read")
        if size % 4:
            raise ValueError(f"{name} has {size} bytes, which is not a multiple of 4")
        self.sizes[name] = size // 4
        if os.path.isfile(meta):
            self.shapes[name] = shape = _parse_meta(meta)
            if _count(shape) * 4 != size:
                raise ValueError(f"{name} has {size} bytes, but its meta says {list(shape)} = {_count(shape) * 4} bytes")

    def read(self, name, shape):
        """The variable `name` as a float32 array of `shape`.

        Raises:
            UserError: its size or its recorded shape does not match.
        """
        count = _count(shape)
        recorded = self.shapes.get(name, tuple(shape))
        if self.sizes[name] != count or tuple(size for size in recorded if size != 1) != tuple(size for size in shape if size != 1):
            raise UserError(
                f"{self.path}: variable {name} holds {self.sizes[name]} values of shape {list(recorded)}, but the "
                f"model needs {count} of shape {list(shape)}"
            )
        with self._open(name) as file:
            return file.read(np.empty(count, "<f4")).astype(np.float32, copy=False).reshape(shape)

    def _open(self, name):
        """The `PartFile` of a variable's values. It is not mapped: a file that is cut short meanwhile is an error, not the end of the
        process."""
        file = PartFile(os.path.join(self.path, name, DATA), "the snapshot has changed since it was opened: run again", VARIABLE_LIMIT)
        if file.size != 4 * self.sizes[name]:
            file.close()
            raise UserError(f"{file.path}: had {4 * self.sizes[name]} bytes and now has {file.size}: another process is writing it")
        return file

    def _json(self, name):
        path = os.path.join(self.path, name)
        return read_json(path, _REMEDY) if os.path.lexists(path) else None

    def task(self):
        """The parsed task.json (domains, labels, seq_length, do_lower_case, …), or None.

        Raises:
            UserError: the file is damaged, or one of the values that this project reads has another type. Domains and labels are checked
                where a `Task` is made of them.
        """
        values, path = self._json(TASK_FILE), os.path.join(self.path, TASK_FILE)
        if values is None:
            return None
        lower, script = (values.get(name) for name in ("do_lower_case", "script"))
        for name in ("seq_length", *TASK_LENGTHS):
            length = values.get(name)
            if length is not None and (type(length) is not int or not 1 <= length <= LARGEST["max_position_embeddings"]):
                raise UserError(f"{path}: {name} is {length!r:.80}, not a number of tokens; {_REMEDY}")
        if lower is not None and not isinstance(lower, bool):
            raise UserError(f"{path}: do_lower_case is {lower!r:.80}, not true or false; {_REMEDY}")
        if script is not None and not isinstance(script, str):
            raise UserError(f"{path}: script is {script!r:.80}, not a name; {_REMEDY}")
        return values

    def vocab_file(self):
        """Path of the snapshot's vocab.txt, or of the tokenizer.json that a model of another kind has; None if there is neither."""
        paths = [os.path.join(self.path, name) for name in (VOCAB_FILE, JSON_FILE)]
        return next((path for path in paths if os.path.isfile(path)), None)

    def config(self, head_size=64, num_heads=None, kind=BertConfig):
        """The encoder's `BertConfig`, from bert_config.json or, if there is none, from the sizes of the variables.

        Args:
            head_size: D to assume if there is no bert_config.json (`--hidden_size_per_head`).
            num_heads: N to assume instead (`--num_attention_heads`), None to use `head_size`.
            kind: the class of the config. That of another model than BERT needs the file.
        Raises:
            UserError: the file is damaged, or is that of a model of another kind.
        """
        values = self._json(CONFIG_FILE)
        if values is not None or kind is not BertConfig:
            return kind.from_dict(values or {}, os.path.join(self.path, CONFIG_FILE))
        gamma = names.EMBEDDINGS_NORM + "-gamma"
        layers = {names.layer_of(name) for name in self.sizes} - {None}
        words, positions, types = names.WORD_EMBEDDINGS, names.POSITION_EMBEDDINGS, names.TOKEN_TYPE_EMBEDDINGS
        intermediate = f"{names.layer_prefix(0)}{names.INTERMEDIATE}-bias"
        missing = [name for name in (gamma, words, positions, types, intermediate) if name not in self.sizes]
        if missing:
            raise UserError("{} is not a BERT snapshot: missing {}".format(self.path, ", ".join(missing)))
        hidden = self.sizes[gamma]
        if num_heads is None and hidden % head_size:
            raise UserError(
                f"{self.path} has no {CONFIG_FILE}, and hidden size {hidden} is not a multiple of {head_size}: give --hidden_size_per_head"
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
        """sha256 (hex) of the names and bytes of all variables. Later steps use it to identify the model.

        The digest is computed once per object.
        """
        if self._digest is not None:
            return self._digest
        digest, chunk = hashlib.sha256(), np.empty(1 << 20, np.uint8)
        for name in sorted(self.sizes):
            digest.update(name.encode("utf-8") + b"\0")
            with self._open(name) as file:
                for start in range(0, file.size, len(chunk)):
                    digest.update(file.read(chunk[: min(len(chunk), file.size - start)], start))
        self._digest = digest.hexdigest()
        return self._digest


def find_snapshot(path):
    """`path` as str, or the best snapshot in it if it is the folder of a run that has exactly one."""
    path = os.fspath(path)
    if os.path.isdir(path) and not os.path.exists(os.path.join(path, DONE)):
        inside = [name for name in os.listdir(path) if name.startswith("snapshot_best_") and os.path.isfile(os.path.join(path, name, DONE))]
        if len(inside) == 1:
            return os.path.join(path, inside[0])
    return path


def stored_task(snapshot):
    """The `Task` for which a `Snapshot` was trained, or None.

    Raises:
        UserError: its task.json is damaged.
    """
    values = snapshot.task()
    return None if values is None else Task.from_dict(values, os.path.join(snapshot.path, TASK_FILE))
