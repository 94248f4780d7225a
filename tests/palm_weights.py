"""A tiny PALM for the tests: weights by the formula of tests/golden/make_palm.py, under the names of SOFA and of a snapshot."""

import numpy as np

from modeling.palm.config import PalmConfig
from tools.checkpoint_model import array_tensor
from tools.checkpoint_palm import Entry, entries, head_entries, to_variables

CONFIG = PalmConfig(
    vocab_size=51,
    hidden_size=20,
    num_hidden_layers=3,
    dec_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=36,
    max_position_embeddings=15,
    type_vocab_size=3,
)


def _size(entry: Entry, config):
    """Shape of one of SOFA's tensors."""
    hidden, wide = config.hidden_size, config.intermediate_size
    name = entry.theirs
    tables = {"word": config.vocab_size, "position": config.max_position_embeddings, "token_type": config.type_vocab_size}
    for start, rows in tables.items():
        if f"embeddings.{start}_embeddings" in name:
            return rows, hidden
    if name == "cls.predictions.bias":
        return (config.vocab_size,)
    if "layernorm." in name.lower():
        return (hidden,)
    out, into = len(entry.ours) * hidden, hidden
    if "seq_relationship" in name:
        out = 3
    if "intermediate" in name:
        out = wide
    elif "output" in name and "attention" not in name:
        into = wide
    return (out, into) if name.endswith("weight") else (out,)


def tensors(config=CONFIG, heads=False):
    """dict of SOFA's name -> float32 array."""
    left = set() if heads else {entry.theirs for entry in head_entries()}
    table = sorted((entry for entry in entries(config) if entry.theirs not in left), key=lambda entry: entry.theirs)
    found = {}
    for place, entry in enumerate(table):
        shape = _size(entry, config)
        value = 0.3 * np.sin(0.37 * np.arange(int(np.prod(shape))) + 1.3 * place)
        found[entry.theirs] = (value + entry.theirs.lower().endswith("layernorm.weight")).astype(np.float32).reshape(shape)
    return found


def variables(config=CONFIG, heads=False):
    """dict of documented name -> float32 array."""
    return to_variables({name: array_tensor(value) for name, value in tensors(config, heads).items()}, config)
