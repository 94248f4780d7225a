"""8-bit weights for an ONNX model, and what they cost in accuracy on labelled text. Needs the package onnxruntime."""

import contextlib
import logging
import os
import tempfile

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.json_tokenizer import load_tokenizer
from ofrecord_util.label_kinds import CLASSIFICATION
from ofrecord_util.reading import read_bytes
from ofrecord_util.tasks import Task
from tools.evaluate import read_labelled
from tools.extras import extra

_BATCH = 32
_LIMIT = 1 << 31


@contextlib.contextmanager
def _without_advice():
    """Silences the root logger, on which the library advises to run a step that this graph does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def quantize(model):
    """The bytes of the model with 8-bit weights, one scale per column. Activations are quantised while the model runs.

    Args:
        model: `onnx.ModelProto`.
    """
    quantization = extra("onnxruntime.quantization", "--int8")
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        path = os.path.join(folder, "int8.onnx")
        # 7 bits of the range: products of 8 bits overflow in the instructions of processors without VNNI
        quantization.quantize_dynamic(model, path, weight_type=quantization.QuantType.QInt8, per_channel=True, reduce_range=True)
        return read_bytes(path, "run again", _LIMIT)


def open_session(data):
    """An `onnxruntime.InferenceSession` on the CPU.

    Args:
        data: bytes of an ONNX model.
    """
    onnxruntime = extra("onnxruntime", "--int8")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def logits_of(session, encoded):
    """Logits of a session for N texts.

    Args:
        session: an ONNX Runtime session with the inputs and the one output of tools/checkpoint_onnx.py.
        encoded: `Encoded`, [N, S].
    Returns:
        float32 [N, labels].
    """
    lengths = encoded.input_mask.sum(axis=1)
    order, logits = np.argsort(lengths, kind="stable"), []
    names = [value.name for value in session.get_inputs()]  # ids, mask, segments, as checkpoint_onnx.py lists them
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        arrays = (array[rows, : lengths[rows].max()] for array in (encoded.input_ids, encoded.input_mask, encoded.segment_ids))
        logits.append(session.run(None, {name: array.astype(np.int64) for name, array in zip(names, arrays)})[0])
    return np.concatenate(logits)[np.argsort(order)]


def loss_text(plain, small, checkpoint, dev_file, text_flags):
    """Measures two models on labelled text, and says what differs, on one line.

    Args:
        plain, small: bytes of the ONNX models in float32 and with 8-bit weights.
        checkpoint: `Checkpoint` of both.
        dev_file: path of the labelled text.
        text_flags: dict of the flags that describe text files, by name.
    Raises:
        UserError: the text cannot be read, or its labels are not those of the model.
    """
    if Task.from_dict(checkpoint.task).task_type != CLASSIFICATION:
        raise UserError("--int8 measures its loss by the share of right labels, so it needs a model of --task_type classification")
    _, texts = read_labelled(dev_file, Task.from_dict(checkpoint.task), text_flags)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, checkpoint.vocab_name)
        with open(path, "wb") as file:
            file.write(checkpoint.vocab.encode("utf-8"))
        tokenizer = load_tokenizer(path, checkpoint.settings)
    encoded = tokenizer.encode(texts.text_a, texts.text_b, checkpoint.max_length)
    both = [logits_of(open_session(data), encoded) for data in (plain, small)]
    labels = [logits.argmax(axis=1) for logits in both]
    differing = int((labels[0] != labels[1]).sum())
    full, reduced = (float((found == texts.label).mean()) for found in labels)
    return (
        f"int8 on {len(texts)} rows of {dev_file}: accuracy {reduced:.4f}, in float32 {full:.4f}: "
        f"{100 * (full - reduced):.1f} points lost, "
        f"{'1 label differs' if differing == 1 else f'{differing} labels differ'}, "
        f"a logit by at most {np.abs(both[0] - both[1]).max():.3f}; "
        f"{len(small) / 1e6:.1f} MB instead of {len(plain) / 1e6:.1f} MB"
    )
