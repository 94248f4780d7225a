"""How much memory a run will need, by estimate, and how much is free."""

from modeling.bert.dropout import DropoutPlan

_PROCESS_BYTES = 500e6  # Python, OneFlow and MKL without any graph
# OneFlow's CPU engine keeps the output of every operation of a graph for itself. Bytes measured over those of the forward pass as
# `_forward_floats` counts them: 0.9 to 1.3 for prediction, 1.9 to 2.2 for training (6 x 384 at 4 x 128 and 24 x 128, 12 x 768 at 4 x 128)
_PREDICT_FACTOR, _TRAIN_FACTOR = 1.1, 2.1
_PREDICT_LAYER_BYTES, _TRAIN_LAYER_BYTES = 8e6, 25e6  # of a graph's operations themselves, for each encoder layer in each lane


def _forward_floats(config, batch, length):
    """Numbers that the operations of an encoder's forward pass put out (see modeling/engine/kernels.py, bert.py)."""
    tokens = batch * length
    hidden, inner = tokens * config.hidden_size, tokens * config.intermediate_size
    scores = batch * config.num_attention_heads * length * length
    return config.num_hidden_layers * (31 * hidden + 5 * inner + 4 * scores)


def memory_estimate(config, num_parameters, trained, graphs, frozen_layers=0, lanes=1):
    """Bytes of memory that a process with these graphs takes, roughly.

    Args:
        config: `BertConfig`.
        num_parameters: of all variables in memory.
        trained: how many of them the optimizer holds moments and gradients of.
        graphs: list of (trains, batch size, length).
        frozen_layers: encoder layers without a backward pass.
        lanes: of the `Engine`.
    """
    frozen = frozen_layers / config.num_hidden_layers
    floats = num_parameters + 2 * trained
    layers = 0.0
    for trains, batch, length in graphs:
        backward = (1 - frozen) if trains else 0.0
        floats += (_PREDICT_FACTOR + backward * (_TRAIN_FACTOR - _PREDICT_FACTOR)) * _forward_floats(config, batch, length)
        layers += _PREDICT_LAYER_BYTES + backward * (_TRAIN_LAYER_BYTES - _PREDICT_LAYER_BYTES)
        if trains:  # each lane has gradients of its own
            floats += DropoutPlan(config, 0, "cpu").kept_numbers(batch, length) + lanes * trained
    return _PROCESS_BYTES + 4 * floats + layers * config.num_hidden_layers * lanes


def available_memory():
    """Bytes of memory that a new process could take; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
