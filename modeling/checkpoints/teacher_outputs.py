"""The teacher's outputs for each training sample, on disk. meta_teacher_eval.py writes them and meta_distill.py reads them.

The folder contains one .npy file per array, and `manifest.json`, which is written last:

    idxs           int32   [N]             row numbers of the samples in the training split
    token_offsets  int64   [N + 1]         sample i has the real tokens token_offsets[i] to token_offsets[i + 1]
    logits         float32 [N, C]
    representation float32 [N, H]          r^T = masked mean of the last layer + E_dom(d)
    hidden         float16 [tokens, L, H]  outputs of the chosen layers, real tokens only
    attention      float16 [values]        scores before softmax, for each sample [L, heads, len, len]
    checksums      uint32  [N, K]          CRC-32 of the values of each sample in the K arrays of representation, hidden and attention that
                                           are written, in this order

L is the number of chosen layers. The manifest contains the SHA-256 of the small arrays, including `checksums`. The large arrays have
checksums by sample, because a training step reads some samples only: the values of a sample are checked when they are first read, and
nothing is read twice. They are read with `pread` (`reading.PartFile`) and not mapped.

The manifest identifies the teacher by its snapshot's digest, and the samples by the digests of the text and the vocabulary. The folder is
written under a temporary name and renamed when it is complete (`files.replacing_folder`).
"""

import contextlib
import hashlib
import io
import os
import zlib
from typing import NamedTuple

import numpy as np

from modeling.bert.config import LARGEST
from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS, REPRESENTATION, Knowledge
from ofrecord_util import files
from ofrecord_util.errors import UserError
from ofrecord_util.files import check_space
from ofrecord_util.reading import ARRAY_LIMIT, PartFile, parse_npy, read_bytes, read_json, size_text

MANIFEST = "manifest.json"
FORMAT = "teacher outputs 2"
STEP = "run meta_teacher_eval.py"
FLOAT16_MAX = float(np.finfo(np.float16).max)
_SMALL = ("idxs", "token_offsets", "logits", "checksums")  # read completely and checked by digest
_LARGE = ("representation", "hidden", "attention")  # read by sample and checked by `checksums`
_LARGEST = 1 << 50  # bytes of a large array, more than any disk has: its size is compared with the manifest's


class Layout(NamedTuple):
    """The sizes that determine the shapes of the arrays."""

    knowledge: Knowledge
    hidden_size: int
    num_attention_heads: int
    num_labels: int

    def values_per_token(self, length):
        """Number of values that the teacher computes for a token in rows of `length` tokens: of hidden states and attention scores."""
        knowledge = self.knowledge
        values = knowledge.hidden * self.hidden_size + knowledge.attention * self.num_attention_heads * length
        return len(knowledge.layers) * values

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
        plan["checksums"] = ((count, len(self.large())), "<u4")
        return plan

    def large(self):
        """Names of the arrays that are read by sample."""
        return [name for name in _LARGE if getattr(self.knowledge, name)]

    def places(self, lengths):
        """Where the values of each sample are in the large arrays.

        Args:
            lengths: int64 [N].
        Returns:
            dict of name -> int64 [N + 1]; sample i has the values places[i] to places[i + 1], counted in values of the array.
        """
        layers = len(self.knowledge.layers)
        counts = {
            "representation": np.full(len(lengths), self.hidden_size, np.int64),
            "hidden": lengths * layers * self.hidden_size,
            "attention": lengths**2 * layers * self.num_attention_heads,
        }
        return {name: np.concatenate([[0], np.cumsum(counts[name])]) for name in self.large()}


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
        self.clipped = {"hidden": 0, "attention": 0}
        self._idxs, self._written = np.asarray(idxs, np.int32), np.zeros(len(idxs), bool)
        self._logits = np.zeros((len(idxs), layout.num_labels), "<f4")
        self._places = layout.places(self.lengths)
        self._checksums = np.zeros((len(idxs), len(self._places)), "<u4")
        self._files, self._replacing = {}, contextlib.ExitStack()  # name -> (file, byte at which the values start)

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
                for name in self._places:
                    self._files[name] = stack.enter_context(_reserve(self._path(name), *arrays[name]))
                self._replacing = stack.pop_all()
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror or error}); check --teacher_output_dir") from error
        return self

    def _path(self, name):
        return os.path.join(self._temporary, name + ".npy")

    def write(self, rows, outputs):
        """Writes the outputs of some samples.

        Args:
            rows: int [b], positions of the samples in `idxs`.
            outputs: dict of name -> float32 [B, ...] with B >= b; the names are those of `teacher_knowledge`.
        """
        layout, count = self.layout, len(rows)
        if not np.isfinite(outputs[LOGITS][:count]).all():
            row = rows[int(np.flatnonzero(~np.isfinite(outputs[LOGITS][:count]).all(axis=1))[0])]
            raise UserError(f"the teacher's logits of training row {self._idxs[row]} are not finite: train the teacher again")
        self._logits[rows] = outputs[LOGITS][:count]
        layers = layout.knowledge.layers
        for place, row in enumerate(rows):
            length = self.lengths[row]
            if layout.knowledge.representation:
                self._write_values("representation", row, np.ascontiguousarray(outputs[REPRESENTATION][place], "<f4"))
            if layout.knowledge.hidden:
                states = np.stack([outputs[HIDDEN.format(layer)][place, :length] for layer in layers], axis=1)
                self._write_values("hidden", row, self._to_half("hidden", states))
            if layout.knowledge.attention:
                scores = np.stack([outputs[ATTENTION.format(layer)][place, :, :length, :length] for layer in layers])
                self._write_values("attention", row, self._to_half("attention", scores))
        self._written[rows] = True

    def _to_half(self, name, values):
        values, clipped = to_half(values)
        self.clipped[name] += clipped
        return values

    def _write_values(self, name, row, values):
        """Writes the values of one sample, and notes their checksum."""
        file, start = self._files[name]
        data = values.tobytes()
        try:
            file.seek(start + int(self._places[name][row]) * values.itemsize)
            file.write(data)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
        self._checksums[row, list(self._places).index(name)] = zlib.crc32(data)

    def logits(self):
        """The logits written so far, float32 [N, C]."""
        return self._logits.copy()

    def summary(self):
        """Size on disk and number of values clipped to float16's range, for the log."""
        clipped = ", ".join(f"{count} values of {name} clipped to float16" for name, count in self.clipped.items() if count)
        return size_text(estimate(self.layout.arrays(self.lengths))) + (", " + clipped if clipped else "")

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
        about, small = {}, {"idxs": self._idxs, "token_offsets": self.offsets, "logits": self._logits, "checksums": self._checksums}
        for name, (shape, dtype) in self.layout.arrays(self.lengths).items():
            about[name] = {"shape": list(shape), "dtype": dtype, "bytes": file_bytes(shape, dtype)}
            if name in small:
                data = io.BytesIO()
                np.save(data, small[name].astype(dtype, copy=False), allow_pickle=False)
                about[name]["sha256"] = hashlib.sha256(data.getvalue()).hexdigest()
                with open(self._path(name), "wb") as file:
                    file.write(data.getvalue())
            else:
                self._files[name][0].flush()
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


@contextlib.contextmanager
def _reserve(path, shape, dtype):
    """Creates a .npy file with its disk blocks, so that a disk that is too full shows before the work. The context yields (file open for
    writing, byte at which the values start).
    """
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        start = file.tell()
        os.posix_fallocate(file.fileno(), 0, file_bytes(shape, dtype))
        yield file, start


def _check_replaceable(folder):
    if not os.path.lexists(folder):
        return
    is_ours = os.path.isdir(folder) and os.path.isfile(os.path.join(folder, MANIFEST))
    if is_ours:
        with contextlib.suppress(UserError):
            is_ours = read_json(os.path.join(folder, MANIFEST), "").get("format") == FORMAT
    if not is_ours and not (os.path.isdir(folder) and not os.listdir(folder)):
        raise UserError(
            f"--teacher_output_dir {folder}: contains something other than teacher outputs and is not replaced: give another folder"
        )


class TeacherOutputs:
    """Teacher outputs on disk. The constructor checks them. Of the large arrays it reads the headers only; `batch` reads the samples of a
    batch, and checks each when it reads it for the first time.

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
        if not os.path.isfile(path) or os.path.islink(path):
            raise UserError(f"{folder}: no teacher outputs ({MANIFEST} is missing): {STEP} first, or give --teacher_outputs online")
        self.manifest = read_json(path, STEP + " again")
        if self.manifest.get("format") != FORMAT:
            raise UserError(f"{path}: format {self.manifest.get('format')!r} is not {FORMAT!r}; {STEP} again")
        self._arrays = {name: self._read_small(name) for name in _SMALL}
        self.idxs, self.offsets = self._arrays["idxs"], self._arrays["token_offsets"]
        numbers = all(value.ndim == 1 and value.dtype.kind == "i" and value.size for value in (self.idxs, self.offsets))
        lengths = np.diff(self.offsets) if numbers else np.zeros(1)
        if (
            (lengths < 1).any()
            or self.offsets[0] != 0
            or len(np.unique(self.idxs)) != len(lengths)
            or lengths.max() > LARGEST["max_position_embeddings"]
        ):
            raise self._damaged("token_offsets or idxs have invalid values")
        self.layout = self._layout()
        self._files = {}  # name -> (`PartFile`, byte at which the values start)
        for name, (shape, dtype) in self.layout.arrays(lengths).items():
            found = self._arrays[name] if name in _SMALL else self._open_large(name)
            if found.shape != shape or found.dtype != np.dtype(dtype):
                raise self._damaged(f"{name} is {found.dtype} {list(found.shape)}, expected {np.dtype(dtype)} {list(shape)}")
        self._places = self.layout.places(lengths)
        self._checked = np.zeros((len(lengths), len(self._places)), bool)
        self._buffers = {}  # name -> array that `_values` fills, as large as the largest sample so far
        self._lengths = lengths
        self._order = np.argsort(self.idxs, kind="stable")

    def _damaged(self, what):
        return UserError(f"{self.folder}: damaged teacher outputs: {what}; {STEP} again")

    def _layout(self):
        manifest, logits = self.manifest, self._arrays["logits"]
        layers, sizes = manifest.get("layers"), [manifest.get("hidden_size"), manifest.get("num_attention_heads")]
        numbers = isinstance(layers, list) and all(type(value) is int and value >= 0 for value in layers + sizes)
        if not numbers or layers != sorted(set(layers)) or max(layers + sizes, default=0) > LARGEST["hidden_size"]:
            raise self._damaged(f"{MANIFEST} lacks valid layers, hidden_size or num_attention_heads")
        has = manifest["arrays"]
        knowledge = Knowledge(tuple(layers), "hidden" in has, "attention" in has, "representation" in has)
        return Layout(knowledge, *sizes, logits.shape[-1] if logits.ndim else 0)

    def _about(self, name):
        """(path of an array, its description in the manifest) after a check of the file's kind and size."""
        about = self.manifest.get("arrays")
        about = about.get(name) if isinstance(about, dict) else None
        path = os.path.join(self.folder, name + ".npy")
        if not isinstance(about, dict) or not os.path.lexists(path):
            raise self._damaged(f"{name}.npy is missing")
        if os.path.islink(path):
            raise self._damaged(f"{name}.npy is a symbolic link, but the folder must contain its own files")
        if os.path.getsize(path) != about.get("bytes"):
            raise self._damaged(f"{name}.npy has {os.path.getsize(path)} bytes, but the manifest says {about.get('bytes')!r:.40}")
        return path, about

    def _read_small(self, name):
        path, about = self._about(name)
        data = read_bytes(path, STEP + " again", ARRAY_LIMIT, links=False)
        if hashlib.sha256(data).hexdigest() != about.get("sha256"):
            raise self._damaged(f"{name}.npy has changed since it was written")
        try:
            return parse_npy(data)
        except ValueError as error:
            raise self._damaged(f"{name}.npy is not an array ({error})") from error

    def _open_large(self, name):
        """The header of a large array, whose file stays open."""
        file = PartFile(self._about(name)[0], STEP + " again", _LARGEST, links=False)
        try:
            header = file.npy_header()
        except ValueError as error:
            raise self._damaged(f"{name}.npy is not an array ({error})") from error
        if header.order != "C":
            raise self._damaged(f"{name}.npy is not in C order")
        self._files[name] = file, header.start
        return header

    def _values(self, name, position):
        """The values of one sample in a large array, one axis. The array is filled again by the next call with this name.

        Raises:
            UserError: the file has been cut, or the values are not those that were written.
        """
        (file, start), kind = self._files[name], np.dtype("<f4" if name == "representation" else "<f2")
        begin, end = self._places[name][position : position + 2].tolist()
        if end - begin > self._buffers.get(name, np.empty(0)).size:
            self._buffers[name] = np.empty(end - begin, kind)
        values = file.read(self._buffers[name][: end - begin], start + begin * kind.itemsize)
        column = list(self._places).index(name)
        if not self._checked[position, column]:
            if zlib.crc32(values.data) != self._arrays["checksums"][position, column]:
                raise self._damaged(f"{name}.npy has changed since it was written (training row {self.idxs[position]})")
            self._checked[position, column] = True
        return values

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
                "--train_example_num, --held_out_domains, --data_portion and --seed"
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
        positions, layout, count = self._positions(idxs), self.layout, len(idxs)
        layers, heads = layout.knowledge.layers, 1 if average_heads else layout.num_attention_heads
        # without terms of layers, the files may lack them
        wanted = [(layer, layers.index(layer)) for layer in needs.layers] if needs.hidden or needs.attention else []
        result = {LOGITS: np.asarray(self._arrays["logits"][positions], np.float32)}
        if needs.representation:
            result[REPRESENTATION] = np.empty((count, layout.hidden_size), np.float32)
            for out, position in zip(result[REPRESENTATION], positions):
                out[:] = self._values("representation", position)
        if needs.hidden:
            result.update({HIDDEN.format(layer): np.zeros((count, length, layout.hidden_size), np.float32) for layer in needs.layers})
            for row, position in enumerate(positions):
                real = self._lengths[position]
                values = self._values("hidden", position).reshape(real, len(layers), layout.hidden_size)
                for layer, place in wanted:
                    result[HIDDEN.format(layer)][row, :real] = values[:, place]
        if needs.attention:
            result.update({ATTENTION.format(layer): np.zeros((count, heads, length, length), np.float32) for layer in needs.layers})
            for row, position in enumerate(positions):
                real = self._lengths[position]
                values = self._values("attention", position).reshape(len(layers), layout.num_attention_heads, real, real)
                for layer, place in wanted:
                    scores = values[place].mean(axis=0, dtype=np.float32) if average_heads else values[place]
                    result[ATTENTION.format(layer)][row, :, :real, :real] = scores
        return result


def _listed(layers):
    return ",".join(map(str, layers))


def with_teacher_outputs(batches, outputs, needs, average_heads=False):
    """Adds the teacher's outputs to each batch of `iterate_training`."""
    for batch in batches:
        yield dict(batch, **outputs.batch(batch["idxs"], batch["word_rows"].shape[1], needs, average_heads))
