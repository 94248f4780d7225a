"""modeling/checkpoints/teacher_output_writer.py: the size is known beforehand, what float16 cannot hold is counted, and a run that ends
early leaves nothing."""

import collections
import errno
import json
import os
import shutil

import numpy as np
import pytest
from tiny_teacher import HEADS, IDENTITY, IDXS, LABELS, LAYERS, LAYOUT, LENGTHS, NEEDS, SIZE, TEACHER, outputs, write

from modeling.checkpoints import teacher_output_writer
from modeling.checkpoints.teacher_output_writer import TeacherOutputWriter, to_half
from modeling.checkpoints.teacher_outputs import MANIFEST, TeacherOutputs, estimate
from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS, Knowledge
from ofrecord_util import files
from ofrecord_util.errors import UserError
from ofrecord_util.output_checks import SNAPSHOT_DONE


@pytest.mark.parametrize(
    ("hidden", "attention", "representation", "projections"), [(1, 1, 1, 1), (1, 0, 1, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0)]
)
def test_the_estimate_is_exact(tmp_path, hidden, attention, representation, projections):
    layout = LAYOUT._replace(knowledge=Knowledge(LAYERS, *map(bool, (hidden, attention, representation, projections))))
    path = tmp_path / "teacher"
    writer = write(path, layout)
    names = [name for name in os.listdir(path) if name.endswith(".npy")]
    assert set(names) == {name + ".npy" for name in layout.arrays(LENGTHS)}
    assert sum(os.path.getsize(path / name) for name in names) == estimate(layout.arrays(LENGTHS))
    assert str(estimate(layout.arrays(LENGTHS))) in writer.summary()
    tokens = sum(LENGTHS)
    data = 4 * 5 * LABELS + 4 * 5 + 8 * 6 + representation * 4 * 5 * SIZE + hidden * 2 * tokens * 2 * SIZE
    data += attention * 2 * 2 * HEADS * sum(n * n for n in LENGTHS)  # real tokens only
    data += projections * 2 * tokens * 3 * SIZE
    assert 0 < estimate(layout.arrays(LENGTHS)) - data <= 256 * len(names)


def test_manifest(folder):
    with open(os.path.join(folder, MANIFEST)) as file:
        manifest = json.load(file)
    assert manifest["teacher_digest"] == TEACHER
    assert manifest["text_digest"] == IDENTITY["text_digest"]
    assert manifest["layers"] == [0, 2]
    assert manifest["num_tokens"] == sum(LENGTHS)
    assert manifest["num_samples"] == 5
    assert manifest["arrays"]["hidden"]["shape"] == [sum(LENGTHS), 2, SIZE]
    assert manifest["arrays"]["hidden"]["dtype"] == "<f2"


def test_values_beyond_float16_are_clipped_and_counted(tmp_path):
    given = outputs()
    given[HIDDEN.format(2)][0, 1, :3] = (1e5, -1e9, 65504)
    given[HIDDEN.format(2)][0, 6, 0] = 1e9  # padding: neither stored nor counted
    given[ATTENTION.format(0)][3, 2, 6, 6] = np.inf
    writer = write(tmp_path / "teacher", given=given)
    assert writer.clipped == {"hidden": 2, "attention": 1}
    assert "clipped" in writer.summary()
    assert TeacherOutputs(str(tmp_path / "teacher")).manifest["clipped"] == {"hidden": 2, "attention": 1}
    hidden = TeacherOutputs(str(tmp_path / "teacher")).batch(IDXS[:1], 13, NEEDS)[HIDDEN.format(2)]
    assert hidden[0, 1, :3].tolist() == [65504, -65504, 65504]
    assert to_half(np.float32([65519.0]))[0] == 65504


def test_a_teacher_that_is_not_finite(tmp_path):
    given = outputs()
    given[LOGITS][2, 1] = np.nan
    with pytest.raises(UserError, match="logits of training row 9 are not finite"):
        write(tmp_path / "teacher", given=given)
    assert os.listdir(tmp_path) == []


# Interruptions and disks


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(tmp_path, there, error):
    path = tmp_path / "teacher"
    if there:
        write(path)
        before = {name: (path / name).read_bytes() for name in os.listdir(path)}
    with pytest.raises(error), TeacherOutputWriter(str(path), LAYOUT, IDXS, LENGTHS, {}) as writer:  # noqa: PT012 (the block is what fails)
        writer.write(np.array([1]), {name: array[1:2] for name, array in outputs().items()})
        raise error
    assert os.listdir(tmp_path) == (["teacher"] if there else [])
    if there:
        assert {name: (path / name).read_bytes() for name in os.listdir(path)} == before


def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path):
    """Ended in the middle without a chance to clean up: no folder of the final name, and the next run clears the rest
    away, but nothing of a run that is still at work."""
    writer = TeacherOutputWriter(str(tmp_path / "teacher"), LAYOUT, IDXS, LENGTHS, {})
    writer.__enter__()
    (left,) = os.listdir(tmp_path)
    assert left == f".teacher.writing-{os.getpid()}"
    for path in ("teacher", left):
        with pytest.raises(UserError, match=r"no teacher outputs .*meta_teacher_eval.py"):
            TeacherOutputs(str(tmp_path / path))
    nobody, parent = 2**22 + 1, os.getppid()  # beyond the highest process number of Linux
    os.rename(tmp_path / left, tmp_path / f".teacher.writing-{nobody}")
    os.mkdir(tmp_path / f".teacher.writing-{nobody}.old")
    os.mkdir(tmp_path / f".teacher.writing-{parent}")
    write(tmp_path / "teacher")
    assert sorted(os.listdir(tmp_path)) == [f".teacher.writing-{parent}", "teacher"]


def test_every_sample_must_have_been_written(tmp_path):
    with pytest.raises(ValueError, match="1 of 5 samples"):
        write(tmp_path / "teacher", order=((3, 0), (2, 4)))
    assert os.listdir(tmp_path) == []


def test_new_outputs_replace_old_ones(folder):
    write(folder, given=outputs(seed=7))
    assert np.array_equal(TeacherOutputs(folder).batch(IDXS, 13, NEEDS)[LOGITS], outputs(seed=7)[LOGITS])
    assert os.listdir(os.path.dirname(folder)) == ["teacher"]


def test_other_folders_are_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine")  # an empty one may be
    shutil.rmtree(tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    for name, text in (("notes.txt", "dear"), (MANIFEST, '{"format": 1}')):
        (tmp_path / "mine" / name).write_text(text)
        with pytest.raises(UserError, match=r"--teacher_output_dir .*mine: contains something other than teacher outputs"):
            write(tmp_path / "mine")
    assert sorted(os.listdir(tmp_path / "mine")) == [MANIFEST, "notes.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: is not a folder, and a folder is to be written; give another --teacher_output_dir"):
        write(tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "file" / "teacher")


def test_outputs_are_not_written_into_a_snapshot(tmp_path):
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / SNAPSHOT_DONE).write_text("")
    with pytest.raises(UserError, match=r"outputs: is in .*snapshot, a snapshot, .*; give another --teacher_output_dir"):
        write(tmp_path / "snapshot" / "outputs")
    assert os.listdir(tmp_path / "snapshot") == [SNAPSHOT_DONE]


def test_space_is_checked_before_anything_is_written(tmp_path, monkeypatch):
    needed = estimate(LAYOUT.arrays(LENGTHS))
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage(10**6, 0, needed - 1))
    with pytest.raises(UserError) as error:
        write(tmp_path / "teacher")
    assert str(needed) in str(error.value)
    assert str(needed - 1) in str(error.value)
    assert "--teacher_outputs online" in str(error.value)
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage(10**6, 0, needed))
    write(tmp_path / "teacher")


def test_a_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(teacher_output_writer.os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"cannot be written .No space left on device"):
        write(tmp_path / "teacher")
    assert os.listdir(tmp_path) == []
