"""Writes the teacher's outputs for each training sample. modeling/checkpoints/teacher_outputs.py describes the files and reads them.

The folder is written under a temporary name and renamed when it is complete (`files.replacing_folder`).
"""

import contextlib
import hashlib
import io
import os
import zlib

import numpy as np

from modeling.checkpoints.teacher_outputs import FORMAT, MANIFEST, estimate, file_bytes
from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS, PROJECTIONS, REPRESENTATION
from ofrecord_util import files
from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.output_checks import check_output_folder, check_space
from ofrecord_util.reading import size_text

FLOAT16_MAX = float(np.finfo(np.float16).max)


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
        self.clipped = dict.fromkeys(("hidden", "attention", *(["projections"] if layout.knowledge.projections else [])), 0)
        self._idxs, self._written = np.asarray(idxs, np.int32), np.zeros(len(idxs), bool)
        self._logits = np.zeros((len(idxs), layout.num_labels), "<f4")
        self._places = layout.places(self.lengths)
        self._checksums = np.zeros((len(idxs), len(self._places)), "<u4")
        self._files, self._replacing = {}, contextlib.ExitStack()  # name -> (file, byte at which the values start)

    def __enter__(self):
        check_folder(self.folder)
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
            if layout.knowledge.projections:
                projections = np.stack([outputs[name][place, :, :length] for name in PROJECTIONS])
                self._write_values("projections", row, self._to_half("projections", projections))
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


def check_folder(folder):
    """Checks before the work that the outputs can be written to a folder.

    Raises:
        UserError: the folder contains something else, is in a snapshot, or cannot be written.
    """
    check_output_folder(folder, "--teacher_output_dir")
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
