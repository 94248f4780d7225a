"""Estimates the memory that a run needs, and reads how much is free."""

import contextlib

from modeling.bert.dropout import DropoutPlan

_PROCESS_BYTES = 500e6  # Python, OneFlow and MKL without any graph
# OneFlow's CPU engine has a separate buffer for the output of each operation of a graph. Measured bytes, divided by the bytes of the
# forward pass from `_forward_floats`: 0.9 to 1.3 for prediction, 1.9 to 2.2 for training (models of 6 x 384 with batches of 4 x 128 and
# 24 x 128, and of 12 x 768 with batches of 4 x 128)
_PREDICT_FACTOR, _TRAIN_FACTOR = 1.1, 2.1
_PREDICT_LAYER_BYTES, _TRAIN_LAYER_BYTES = 8e6, 25e6  # for a graph's operations, per encoder layer and lane


def _forward_floats(config, batch, length):
    """Number of output values of all operations in an encoder's forward pass (modeling/engine/kernels.py, modeling/bert/encoder.py)."""
    tokens = batch * length
    hidden, inner = tokens * config.hidden_size, tokens * config.intermediate_size
    scores = batch * config.num_attention_heads * length * length
    return config.num_hidden_layers * (31 * hidden + 5 * inner + 4 * scores)


def memory_estimate(config, num_parameters, trained, graphs, frozen_layers=0, lanes=1):
    """Rough estimate of the memory of a process with these graphs, in bytes.

    Args:
        config: `BertConfig`.
        num_parameters: number of parameters of all variables in memory.
        trained: number of parameters with moments and gradients.
        graphs: list of (trains, batch size, length).
        frozen_layers: number of encoder layers without a backward pass.
        lanes: number of lanes of the `Engine`.
    """
    frozen = frozen_layers / config.num_hidden_layers
    floats = num_parameters + 2 * trained
    layers = 0.0
    for trains, batch, length in graphs:
        backward = (1 - frozen) if trains else 0.0
        floats += (_PREDICT_FACTOR + backward * (_TRAIN_FACTOR - _PREDICT_FACTOR)) * _forward_floats(config, batch, length)
        layers += _PREDICT_LAYER_BYTES + backward * (_TRAIN_LAYER_BYTES - _PREDICT_LAYER_BYTES)
        if trains:  # each lane has its own gradients
            floats += DropoutPlan(config, 0, "cpu").kept_numbers(batch, length) + lanes * trained
    return _PROCESS_BYTES + 4 * floats + layers * config.num_hidden_layers * lanes


def available_memory():
    """Bytes of memory that are available to a new process; None if the system does not report it."""
    return _memory_fields().get("MemAvailable")


def total_memory():
    """Bytes of memory and swap space of the machine; None if the system does not report it."""
    fields = _memory_fields()
    return fields["MemTotal"] + fields.get("SwapTotal", 0) if "MemTotal" in fields else None


def _memory_fields():
    """The fields of /proc/meminfo in bytes; {} if the system has no such file."""
    fields = {}
    with contextlib.suppress(OSError, ValueError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            fields[name] = int(value.split()[0]) * 1024
    return fields
