"""The teacher's outputs for each training sample, on disk. meta_teacher_eval.py writes them and meta_distill.py reads them.

The folder contains one .npy file per array, which can be mapped into memory, and `manifest.json`, which is written last:

    idxs           int32   [N]             row numbers of the samples in the training split
    token_offsets  int64   [N + 1]         sample i has the real tokens token_offsets[i] to token_offsets[i + 1]
    logits         float32 [N, C]
    representation float32 [N, H]          r^T = masked mean of the last layer + E_dom(d)
    hidden         float16 [tokens, L, H]  outputs of the chosen layers, real tokens only
    attention      float16 [values]        scores before softmax, for each sample [L, heads, len, len]

L is the number of chosen layers. The manifest identifies the teacher by its snapshot's digest, and the samples by the digests of the
text and the vocabulary. The folder is written under a temporary name and renamed when it is complete (`files.replacing_folder`).
"""

import contextlib
import hashlib
import io
import os
from typing import NamedTuple

import numpy as np

from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS, REPRESENTATION, Knowledge
from ofrecord_util import files
from ofrecord_util.errors import UserError
from ofrecord_util.files import check_space, size_text

MANIFEST = "manifest.json"
FORMAT = "teacher outputs 1"
STEP = "run meta_teacher_eval.py"
FLOAT16_MAX = float(np.finfo(np.float16).max)
_ALWAYS = ("idxs", "token_offsets", "logits")  # small arrays: read completely and checked by digest


class Layout(NamedTuple):
    """The sizes that determine the shapes of the arrays."""

    knowledge: Knowledge
    hidden_size: int
    num_attention_heads: int
    num_labels: int

    def arrays(self, lengths):
        """dict of name -> (shape, dtype); `lengths` is int [N], the number of real tokens per sample."""
        lengths = np.asarray(lengths, np.int64)
        count, layers = len(lengths), len(self.knowledge.layers)
        plan = {
            "idxs": ((count,), "<i4"),
            "token_offsets": ((count + 1,), "<i8"),
            "logits": ((count, self.num_labels), "<f4"),
        }
        if self.knowledge.representation:
            plan["representation"] = ((count, self.hidden_size), "<f4")
        if self.knowledge.hidden:
            plan["hidden"] = ((int(lengths.sum()), layers, self.hidden_size), "<f2")
        if self.knowledge.attention:
            plan["attention"] = ((int((lengths**2).sum()) * layers * self.num_attention_heads,), "<f2")
        return plan


def output_folder(flags):
    """`--teacher_output_dir`, or DATA_DIR/ofrecord/teacher."""
    return flags.teacher_output_dir or os.path.join(flags.data_dir, "ofrecord", "teacher")


def file_bytes(shape, dtype):
    """Size of the .npy file of an array."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return len(header.getvalue()) + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def estimate(arrays):
    """Bytes of the arrays of `Layout.arrays` on disk. The number is exact, because all lengths are known."""
    return sum(file_bytes(shape, dtype) for shape, dtype in arrays.values())


def sample_identity(records, task, tokenizer):
    """Identifies the samples of the outputs: dict for the manifest. `TeacherOutputs.check` compares it."""
    return {
        "text_digest": records.text_digest,
        "vocab_digest": tokenizer.digest,
        "do_lower_case": tokenizer.do_lower_case,
        "seq_length": records.seq_length,
        "domains": list(task.domains),
        "labels": list(task.labels),
    }


def to_half(values):
    """(values as float16, number of values that were clipped to float16's range)."""
    clipped = int((np.abs(values) > FLOAT16_MAX).sum())
    return (np.clip(values, -FLOAT16_MAX, FLOAT16_MAX) if clipped else values).astype(np.float16), clipped


class TeacherOutputWriter:
    """Context manager that writes the folder. If its block raises, the folder is unchanged.

    Args:
        folder: path. Existing teacher outputs are replaced when the new ones are complete.
        layout: `Layout`.
        idxs: int32 [N], row numbers of the samples.
        lengths: int64 [N], number of real tokens per sample.
        facts: dict of further values for the manifest (teacher's digest, `sample_identity`, …).
    Raises:
        UserError: the folder contains something else or cannot be written, or there is not enough disk space.
    """

    def __init__(self, folder, layout, idxs, lengths, facts):
        self.folder = os.path.abspath(folder)
        self.layout, self.facts = layout, facts
        self.lengths = np.asarray(lengths, np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.squares = np.concatenate([[0], np.cumsum(self.lengths**2)])
        self.clipped = {"hidden": 0, "attention": 0}
        self._idxs, self._written = np.asarray(idxs, np.int32), np.zeros(len(idxs), bool)
        self._arrays, self._replacing = {}, contextlib.ExitStack()

    def __enter__(self):
        _check_replaceable(self.folder)
        arrays = self.layout.arrays(self.lengths)
        try:
            with contextlib.ExitStack() as stack:
                self._temporary = stack.enter_context(files.replacing_folder(self.folder))
                check_space(
                    self.folder,
                    estimate(arrays),
                    "the teacher's outputs need",
                    "free some, give a --teacher_output_dir on another disk, leave out the largest part with --attention_loss_weight 0, "
                    "or run meta_distill.py with --teacher_outputs online",
                )
                for name, (shape, dtype) in arrays.items():
                    self._arrays[name] = _reserve(os.path.join(self._temporary, name + ".npy"), shape, dtype)
                self._replacing = stack.pop_all()
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror or error}); check --teacher_output_dir") from error
        self._arrays["idxs"][:] = self._idxs
        self._arrays["token_offsets"][:] = self.offsets
        return self

    def write(self, rows, outputs):
        """Writes the outputs of some samples.

        Args:
            rows: int [b], positions of the samples in `idxs`.
            outputs: dict of name -> float32 [B, ...] with B >= b; the names are those of `teacher_knowledge`.
        """
        layout, arrays, count = self.layout, self._arrays, len(rows)
        if not np.isfinite(outputs[LOGITS][:count]).all():
            row = rows[int(np.flatnonzero(~np.isfinite(outputs[LOGITS][:count]).all(axis=1))[0])]
            raise UserError(f"the teacher's logits of training row {self._idxs[row]} are not finite: train the teacher again")
        arrays["logits"][rows] = outputs[LOGITS][:count]
        if layout.knowledge.representation:
            arrays["representation"][rows] = outputs[REPRESENTATION][:count]
        for position, layer in enumerate(layout.knowledge.layers):
            if layout.knowledge.hidden:
                self._write_hidden(rows, position, outputs[HIDDEN.format(layer)])
            if layout.knowledge.attention:
                self._write_attention(rows, position, outputs[ATTENTION.format(layer)])
        self._written[rows] = True

    def logits(self):
        """The logits written so far, float32 [N, C]. Call it inside the block."""
        return np.array(self._arrays["logits"])

    def summary(self):
        """Size on disk and number of values clipped to float16's range, for the log."""
        clipped = ", ".join(f"{count} values of {name} clipped to float16" for name, count in self.clipped.items() if count)
        return size_text(estimate(self.layout.arrays(self.lengths))) + (", " + clipped if clipped else "")

    def _write_hidden(self, rows, position, states):
        for states_of_row, row in zip(states, rows):
            values, clipped = to_half(states_of_row[: self.lengths[row]])
            self._arrays["hidden"][self.offsets[row] : self.offsets[row + 1], position] = values
            self.clipped["hidden"] += clipped

    def _write_attention(self, rows, position, scores):
        heads, layers = self.layout.num_attention_heads, len(self.layout.knowledge.layers)
        for scores_of_row, row in zip(scores, rows):
            length = self.lengths[row]
            values, clipped = to_half(scores_of_row[:, :length, :length])
            start = heads * (layers * self.squares[row] + position * length * length)
            self._arrays["attention"][start : start + values.size] = values.ravel()
            self.clipped["attention"] += clipped

    def __exit__(self, *raised):
        if raised[0] is not None:
            return self._replacing.__exit__(*raised)
        try:
            with self._replacing:
                if not self._written.all():
                    raise ValueError(f"{(~self._written).sum()} of {len(self._written)} samples have no outputs")
                self._complete()
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
        return False

    def _complete(self):
        about = {}
        for name, (shape, dtype) in self.layout.arrays(self.lengths).items():
            path = os.path.join(self._temporary, name + ".npy")
            self._arrays.pop(name).flush()
            about[name] = {"shape": list(shape), "dtype": dtype, "bytes": os.path.getsize(path)}
            if name in _ALWAYS:
                about[name]["sha256"] = _file_digest(path)
        layout = self.layout
        manifest = dict(
            self.facts,
            format=FORMAT,
            layers=list(layout.knowledge.layers),
            hidden_size=layout.hidden_size,
            num_attention_heads=layout.num_attention_heads,
            num_samples=len(self.lengths),
            num_tokens=int(self.offsets[-1]),
            clipped=self.clipped,
            arrays=about,
        )
        files.write_json(os.path.join(self._temporary, MANIFEST), manifest)


def _reserve(path, shape, dtype):
    """Creates a .npy file, allocates its disk blocks and maps it for writing.

    Without the allocation, a disk that fills up later would kill the process during a write to the map.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with open(path, "rb+") as file:
        os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
    return array


def _check_replaceable(folder):
    if not os.path.lexists(folder):
        return
    is_ours = os.path.isdir(folder) and os.path.isfile(os.path.join(folder, MANIFEST))
    if is_ours:
        with contextlib.suppress(UserError):
            is_ours = files.read_json(os.path.join(folder, MANIFEST), "").get("format") == FORMAT
    if not is_ours and not (os.path.isdir(folder) and not os.listdir(folder)):
        raise UserError(
            f"--teacher_output_dir {folder}: contains something other than teacher outputs and is not replaced: give another folder"
        )


def _file_digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class TeacherOutputs:
    """Teacher outputs on disk. The constructor checks them. The large arrays are mapped into memory and not read.

    Attributes:
        folder: path.
        manifest: dict, the content of the manifest.
        layout: `Layout` of the arrays.
        idxs, offsets: the arrays idxs and token_offsets.
    Raises:
        UserError: the outputs are missing, incomplete or damaged. The message names the step to run.
    """

    def __init__(self, folder):
        self.folder = folder
        path = os.path.join(folder, MANIFEST)
        if not os.path.isfile(path):
            raise UserError(f"{folder}: no teacher outputs ({MANIFEST} is missing): {STEP} first, or give --teacher_outputs online")
        self.manifest = files.read_json(path, STEP + " again")
        if self.manifest.get("format") != FORMAT:
            raise UserError(f"{path}: format {self.manifest.get('format')!r} is not {FORMAT!r}; {STEP} again")
        self._arrays = {name: self._open(name) for name in _ALWAYS}
        self.idxs, self.offsets = (np.array(self._arrays[name]) for name in ("idxs", "token_offsets"))
        lengths = np.diff(self.offsets) if self.offsets.ndim == 1 else np.zeros(1)
        if (lengths < 1).any() or self.offsets[0] != 0 or len(np.unique(self.idxs)) != len(lengths):
            raise self._damaged("token_offsets or idxs have invalid values")
        self.layout = self._layout()
        for name, (shape, dtype) in self.layout.arrays(lengths).items():
            found = self._arrays[name] if name in _ALWAYS else self._open(name)
            if found.shape != shape or found.dtype != np.dtype(dtype):
                raise self._damaged(f"{name} is {found.dtype} {list(found.shape)}, expected {np.dtype(dtype)} {list(shape)}")
            self._arrays[name] = found
        self._squares = np.concatenate([[0], np.cumsum(lengths**2)])
        self._lengths = lengths
        self._order = np.argsort(self.idxs, kind="stable")

    def _damaged(self, what):
        return UserError(f"{self.folder}: damaged teacher outputs: {what}; {STEP} again")

    def _layout(self):
        manifest, logits = self.manifest, self._arrays["logits"]
        layers, sizes = manifest.get("layers"), [manifest.get("hidden_size"), manifest.get("num_attention_heads")]
        numbers = isinstance(layers, list) and all(type(value) is int and value >= 0 for value in layers + sizes)
        if not numbers or layers != sorted(set(layers)):
            raise self._damaged(f"{MANIFEST} lacks valid layers, hidden_size or num_attention_heads")
        has = manifest["arrays"]
        knowledge = Knowledge(tuple(layers), "hidden" in has, "attention" in has, "representation" in has)
        return Layout(knowledge, *sizes, logits.shape[-1] if logits.ndim else 0)

    def _open(self, name):
        about = self.manifest.get("arrays")
        about = about.get(name) if isinstance(about, dict) else None
        path = os.path.join(self.folder, name + ".npy")
        if not isinstance(about, dict) or not os.path.isfile(path):
            raise self._damaged(f"{name}.npy is missing")
        if os.path.getsize(path) != about.get("bytes"):
            raise self._damaged(f"{name}.npy has {os.path.getsize(path)} bytes, but the manifest says {about.get('bytes')}")
        if name in _ALWAYS and _file_digest(path) != about.get("sha256"):
            raise self._damaged(f"{name}.npy has changed since it was written")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise self._damaged(f"{name}.npy is not an array ({error})") from error
        if not array.flags.c_contiguous:
            raise self._damaged(f"{name}.npy is not in C order")
        return array

    def check(self, teacher_path, teacher_digest, records, identity, needs):
        """Checks that these are the outputs that a distillation needs.

        Args:
            teacher_path, teacher_digest: path and digest of --teacher_model.
            records: the training `Records`.
            identity: `sample_identity` of the records.
            needs: `Knowledge`.
        Raises:
            UserError: the outputs belong to another teacher or other samples, or lack a layer or an array.
        """
        again = f"{STEP} with --model_load_dir {teacher_path}"
        if self.manifest.get("teacher_digest") != teacher_digest:
            raise UserError(
                f"{self.folder}: outputs of teacher {str(self.manifest.get('teacher_digest'))[:16]}, but --teacher_model "
                f"{teacher_path} is {teacher_digest[:16]}: {again}"
            )
        for name, value in identity.items():
            stored = self.manifest.get(name)
            if stored != value:
                told, wanted = (str(v)[:16] if name.endswith("_digest") else v for v in (stored, value))
                raise UserError(f"{self.folder}: outputs for records with {name} {told}, but this run's records have {wanted}: {again}")
        positions = self._positions(records.idxs)
        if positions is None:
            raise UserError(
                f"{self.folder}: contains {len(self.idxs)} samples, but not all {len(records)} samples of this run: {again} and the same "
                "--train_example_num, --data_portion and --seed"
            )
        if not np.array_equal(self._lengths[positions], records.lengths):
            raise UserError(f"{self.folder}: the text lengths differ from those of {records.path}: {again}")
        own = self.layout.knowledge
        missing = [layer for layer in needs.layers if layer not in own.layers] if needs.hidden or needs.attention else []
        if missing:
            raise UserError(
                "{}: contains the teacher's layers {}, but the student needs {}: {} --teacher_layers {}".format(
                    self.folder, _listed(own.layers) or "none", _listed(needs.layers), again, _listed(needs.layers)
                )
            )
        for name, flag in (
            ("hidden", "--hidden_loss_weight above 0"),
            ("attention", "--attention_loss_weight above 0"),
            ("representation", "--use_domain_loss and --domain_loss_weight above 0"),
        ):
            if getattr(needs, name) and not getattr(own, name):
                raise UserError(f"{self.folder}: {name} is missing, but the loss needs it: {again} and {flag}, without --pred_distill")

    def _positions(self, idxs):
        """Positions of the samples with these row numbers, int64 [b]; None if one of them is missing."""
        places = np.minimum(np.searchsorted(self.idxs, idxs, sorter=self._order), len(self.idxs) - 1)
        positions = self._order[places]
        return positions if np.array_equal(self.idxs[positions], idxs) else None

    def batch(self, idxs, length, needs, average_heads=False):
        """The outputs for a batch, padded with zeros.

        Args:
            idxs: int32 [B], row numbers.
            length: S, the length to which the batch is padded.
            needs: `Knowledge`.
            average_heads: whether to average the attention scores over the heads: [B, 1, S, S].
        Returns:
            dict of name -> float32 array. The names and shapes are those of `teacher_knowledge`.
        """
        positions, own = self._positions(idxs), self.layout.knowledge
        result = {LOGITS: np.asarray(self._arrays["logits"][positions], np.float32)}
        if needs.representation:
            result[REPRESENTATION] = np.asarray(self._arrays["representation"][positions], np.float32)
        for layer in needs.layers if needs.hidden else ():
            states = np.zeros((len(idxs), length, self.layout.hidden_size), np.float32)
            for out, position in zip(states, positions):
                tokens = slice(self.offsets[position], self.offsets[position + 1])
                out[: self._lengths[position]] = self._arrays["hidden"][tokens, own.layers.index(layer)]
            result[HIDDEN.format(layer)] = states
        for layer in needs.layers if needs.attention else ():
            heads = 1 if average_heads else self.layout.num_attention_heads
            scores = np.zeros((len(idxs), heads, length, length), np.float32)
            for out, position in zip(scores, positions):
                real = self._lengths[position]
                values = self._attention(position, own.layers.index(layer), real)
                out[:, :real, :real] = values.mean(axis=0, dtype=np.float32) if average_heads else values
            result[ATTENTION.format(layer)] = scores
        return result

    def _attention(self, position, layer_position, real):
        """Attention scores of one sample and layer, float16 [heads, len, len]."""
        heads, layers = self.layout.num_attention_heads, len(self.layout.knowledge.layers)
        start = heads * (layers * self._squares[position] + layer_position * real * real)
        return self._arrays["attention"][start : start + heads * real * real].reshape(heads, real, real)


def _listed(layers):
    return ",".join(map(str, layers))


def with_teacher_outputs(batches, outputs, needs, average_heads=False):
    """Adds the teacher's outputs to each batch of `iterate_training`."""
    for batch in batches:
        yield dict(batch, **outputs.batch(batch["idxs"], batch["word_rows"].shape[1], needs, average_heads))
