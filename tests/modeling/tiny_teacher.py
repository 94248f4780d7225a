"""Outputs of a tiny teacher for five samples, how they are written, and how a step checks them."""

import numpy as np
from tiny_model import random_samples

from modeling.checkpoints.teacher_output_writer import TeacherOutputWriter
from modeling.checkpoints.teacher_outputs import Layout, TeacherOutputs
from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS, PROJECTIONS, REPRESENTATION, Knowledge

LENGTHS = (5, 1, 13, 7, 2)
IDXS = np.array([4, 0, 9, 2, 1], np.int32)
LAYERS, HEADS, SIZE, LABELS = (0, 2), 3, 12, 4
NEEDS = Knowledge(LAYERS, True, True, True)
LAYOUT = Layout(NEEDS, SIZE, HEADS, LABELS)
TEACHER = "ab" * 32
IDENTITY = {"text_digest": "cd" * 32, "vocab_digest": "ef" * 32, "seq_length": 13, "domains": ["a"], "labels": ["0", "1"]}


def outputs(count=5, length=13, layers=LAYERS, seed=0):
    """What a graph gives for a batch: padding included."""
    draw = np.random.RandomState(seed)
    arrays = {LOGITS: draw.randn(count, LABELS), REPRESENTATION: draw.randn(count, SIZE)}
    arrays.update({HIDDEN.format(layer): draw.randn(count, length, SIZE) * 3 for layer in layers})
    arrays.update({ATTENTION.format(layer): draw.randn(count, HEADS, length, length) * 9 for layer in layers})
    arrays.update({name: draw.randn(count, HEADS, length, SIZE // HEADS) * 2 for name in PROJECTIONS})
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def write(folder, layout=LAYOUT, order=((3, 0), (2, 4), (1,)), given=None):
    given = given or outputs()
    with TeacherOutputWriter(str(folder), layout, IDXS, LENGTHS, dict(IDENTITY, teacher_digest=TEACHER)) as writer:
        for rows in order:
            rows = np.array(rows)
            filled = np.concatenate([rows, rows[:1]])  # a batch that is filled up: the row behind the last does not count
            writer.write(rows, {name: array[filled] for name, array in given.items()})
        done = [row for rows in order for row in rows]
        assert np.array_equal(writer.logits()[done], given[LOGITS][done])
    return writer


def records():
    result = random_samples(LENGTHS)
    result.idxs[:] = IDXS
    return result


def check(folder, **changes):
    values = {"teacher_path": "T", "teacher_digest": TEACHER, "records": records(), "identity": IDENTITY, "needs": NEEDS}
    values.update(changes)
    TeacherOutputs(folder).check(**values)
