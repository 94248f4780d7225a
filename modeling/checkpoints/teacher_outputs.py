"""The teacher's outputs for each training sample, on disk: their layout and their reader. meta_teacher_eval.py writes them and
meta_distill.py reads them.

The folder contains one .npy file per array, and `manifest.json`, which is written last:

    idxs           int32   [N]             row numbers of the samples in the training split
    token_offsets  int64   [N + 1]         sample i has the real tokens token_offsets[i] to token_offsets[i + 1]
    logits         float32 [N, C]
    representation float32 [N, H]          r^T = masked mean of the last layer + E_dom(d)
    hidden         float16 [tokens, L, H]  outputs of the chosen layers, real tokens only
    attention      float16 [values]        scores before softmax, for each sample [L, heads, len, len]
    projections    float16 [values]        queries, keys and values of the last layer, for each sample [3, heads, len, H / heads]
    checksums      uint32  [N, K]          CRC-32 of the values of each sample in the K arrays of representation, hidden, attention and
                                           projections that are written, in this order

L is the number of chosen layers. The manifest contains the SHA-256 of the small arrays, including `checksums`. The large arrays have
checksums by sample, because a training step reads some samples only: the values of a sample are checked when they are first read, and
nothing is read twice. They are read with `pread` (`reading.PartFile`) and not mapped.

The manifest identifies the teacher by its snapshot's digest, and the samples by the digests of the text and the vocabulary.
modeling/checkpoints/teacher_output_writer.py writes the folder.
"""

import contextlib
import hashlib
import io
import os
import zlib
from typing import NamedTuple

import numpy as np

from modeling.bert.config import LARGEST
from modeling.cli.flags import training_split
from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS, PROJECTIONS, REPRESENTATION, Knowledge
from ofrecord_util.array_reading import PartFile, parse_npy
from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.reading import ARRAY_LIMIT, read_bytes

MANIFEST = "manifest.json"
FORMAT = "teacher outputs 2"
STEP = "run meta_teacher_eval.py"
_SMALL = ("idxs", "token_offsets", "logits", "checksums")  # read completely and checked by digest
_LARGE = ("representation", "hidden", "attention", "projections")  # read by sample and checked by `checksums`
_LARGEST = 1 << 50  # bytes of a large array, more than any disk has: its size is compared with the manifest's


class Layout(NamedTuple):
    """The sizes that determine the shapes of the arrays."""

    knowledge: Knowledge
    hidden_size: int
    num_attention_heads: int
    num_labels: int

    def values_per_token(self, length):
        """Number of values that a student compares with the teacher's for a token in rows of `length` tokens: hidden states, attention
        scores, and the relations of the last layer with the projections that they are computed from."""
        knowledge, scores = self.knowledge, self.num_attention_heads * length
        values = len(knowledge.layers) * (knowledge.hidden * self.hidden_size + knowledge.attention * scores)
        return values + knowledge.projections * (len(PROJECTIONS) * self.hidden_size + 2 * scores)

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
        if self.knowledge.projections:
            plan["projections"] = ((int(lengths.sum()) * len(PROJECTIONS) * self.hidden_size,), "<f2")
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
            "projections": lengths * len(PROJECTIONS) * self.hidden_size,
        }
        return {name: np.concatenate([[0], np.cumsum(counts[name])]) for name in self.large()}


def output_folder(flags):
    """`--teacher_output_dir`, or DATA_DIR/ofrecord/teacher, with --unlabelled DATA_DIR/ofrecord/teacher_unlabelled."""
    name = "teacher" if training_split(flags) == "train" else "teacher_" + training_split(flags)
    return flags.teacher_output_dir or os.path.join(flags.data_dir, "ofrecord", name)


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


class TeacherOutputs:
    """Teacher outputs on disk. The constructor checks them. Of the large arrays it reads the headers only; `batch` reads the samples of a
    batch, and checks each when it reads it for the first time.

    Args:
        folder: path.
        unlabelled: whether the samples are those of --unlabelled, for messages.
    Attributes:
        folder: path.
        manifest: dict, the content of the manifest.
        layout: `Layout` of the arrays.
        idxs, offsets: the arrays idxs and token_offsets.
    Raises:
        UserError: the outputs are missing, incomplete or damaged. The message names the step to run.
    """

    def __init__(self, folder, unlabelled=False):
        self.folder = folder
        self._step = STEP + (" --unlabelled" if unlabelled else "")
        path = os.path.join(folder, MANIFEST)
        if not os.path.isfile(path) or os.path.islink(path):
            raise UserError(f"{folder}: no teacher outputs ({MANIFEST} is missing): {self._step} first, or give --teacher_outputs online")
        self.manifest = read_json(path, self._step + " again")
        if self.manifest.get("format") != FORMAT:
            raise UserError(f"{path}: format {self.manifest.get('format')!r} is not {FORMAT!r}; {self._step} again")
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
        return UserError(f"{self.folder}: damaged teacher outputs: {what}; {self._step} again")

    def _layout(self):
        manifest, logits = self.manifest, self._arrays["logits"]
        layers, sizes = manifest.get("layers"), [manifest.get("hidden_size"), manifest.get("num_attention_heads")]
        numbers = isinstance(layers, list) and all(type(value) is int and value >= 0 for value in layers + sizes)
        if not numbers or layers != sorted(set(layers)) or max(layers + sizes, default=0) > LARGEST["hidden_size"]:
            raise self._damaged(f"{MANIFEST} lacks valid layers, hidden_size or num_attention_heads")
        has = manifest["arrays"]
        if "projections" in has and (not sizes[1] or sizes[0] % sizes[1]):
            raise self._damaged(f"{MANIFEST}: num_attention_heads {sizes[1]} does not divide hidden_size {sizes[0]}")
        knowledge = Knowledge(tuple(layers), "hidden" in has, "attention" in has, "representation" in has, "projections" in has)
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
        data = read_bytes(path, self._step + " again", ARRAY_LIMIT, links=False)
        if hashlib.sha256(data).hexdigest() != about.get("sha256"):
            raise self._damaged(f"{name}.npy has changed since it was written")
        try:
            return parse_npy(data)
        except ValueError as error:
            raise self._damaged(f"{name}.npy is not an array ({error})") from error

    def _open_large(self, name):
        """The header of a large array, whose file stays open."""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(PartFile(self._about(name)[0], self._step + " again", _LARGEST, links=False))
            try:
                header = file.npy_header()
            except ValueError as error:
                raise self._damaged(f"{name}.npy is not an array ({error})") from error
            if header.order != "C":
                raise self._damaged(f"{name}.npy is not in C order")
            stack.pop_all()  # it stays open
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
        again = f"{self._step} with --model_load_dir {teacher_path}"
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
            ("projections", "--relation_loss_weight above 0"),
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
        if needs.projections:
            size = layout.hidden_size // layout.num_attention_heads
            projections = np.zeros((len(PROJECTIONS), count, layout.num_attention_heads, length, size), np.float32)
            for row, position in enumerate(positions):
                real = self._lengths[position]
                values = self._values("projections", position).reshape(len(PROJECTIONS), layout.num_attention_heads, real, size)
                projections[:, row, :, :real] = values
            result.update(zip(PROJECTIONS, projections))
        return result


def _listed(layers):
    return ",".join(map(str, layers))


def with_teacher_outputs(batches, outputs, needs, average_heads=False):
    """Adds the teacher's outputs to each batch of `iterate_training`."""
    for batch in batches:
        yield dict(batch, **outputs.batch(batch["idxs"], batch["word_rows"].shape[1], needs, average_heads))
