"""A BERT between two formats: its variables under their documented names, its sizes, its vocabulary.

Each format's file (checkpoint_hugging_face.py, …) reads to and writes from a `Checkpoint`; the rules that hold for every
format are here: all names known and none missing, shapes that fit, finite float32 values, which layers are kept.
"""

import dataclasses
from typing import Callable, NamedTuple, Optional

import numpy as np

from modeling.bert.config import BertConfig
from ofrecord_util.errors import UserError
from tools import checkpoint_names

_HEAD_SIZE = 64  # of every BERT that Google published
_FLOATS = ("F32", "F16", "BF16", "F64")


class Tensor(NamedTuple):
    """A stored tensor: shape, type as safetensors names it, and `read()`, which gives a float32 array."""

    shape: tuple
    dtype: str
    read: Callable


class Checkpoint(NamedTuple):
    """A BERT of no particular format."""

    variables: dict  # documented name -> float32 array, dense weights [in, out]
    config: BertConfig
    vocab: Optional[str] = None  # text of vocab.txt
    task: Optional[dict] = None  # parsed task.json of a trained snapshot
    do_lower_case: Optional[bool] = None  # None: nothing on disk says it
    notes: tuple = ()  # lines about what was found and left behind

    @property
    def num_labels(self):
        """Labels of the classifier, 0 where there is none."""
        return len(self.variables.get(checkpoint_names.CLASSIFIER[0].snapshot, ()))

    @property
    def has_pooler(self):
        return checkpoint_names.POOLER[0].snapshot in self.variables


def array_tensor(array):
    """A `Tensor` of a NumPy array; one of another kind than floating point keeps NumPy's name, for the message."""
    dtype = {2: "F16", 4: "F32", 8: "F64"}.get(array.dtype.itemsize) if array.dtype.kind == "f" else None

    def read():
        # A value beyond float32's range becomes infinite here, and is refused as such.
        with np.errstate(over="ignore"):
            return array.astype(np.float32)

    return Tensor(tuple(array.shape), dtype or str(array.dtype), read)


def check_names(stored, form, num_hidden_layers, origin):
    """The pairs of what a checkpoint holds: embeddings, encoder layers, and the heads that it has.

    Args:
        stored: dict of name as `form` spells it -> name as stored.
        form: a name of `Pair`.
        num_hidden_layers: how many layers are wanted.
        origin: who says so, for the message.
    Raises:
        UserError: missing or unknown names (all listed).
    """
    pairs = checkpoint_names.encoder_pairs(num_hidden_layers)
    for head in (checkpoint_names.POOLER, checkpoint_names.CLASSIFIER):
        if any(getattr(pair, form) in stored for pair in head):  # a head comes whole or not at all
            pairs.extend(head)
    names = [getattr(pair, form) for pair in pairs]
    missing = [name for name in names if name not in stored]
    unknown = sorted(stored[name] for name in set(stored) - set(names))
    if missing or unknown:
        parts = (["missing " + ", ".join(missing)] if missing else []) + (["unknown " + ", ".join(unknown)] if unknown else [])
        raise UserError(f"the tensors are not those of a BERT of {num_hidden_layers} layers ({origin}): " + "; ".join(parts))
    return pairs


def _value(name, tensor, transposed, shape):
    """The tensor as the snapshot holds it: float32 of `shape`, dense weights transposed."""
    value = check_finite(name, tensor.read())
    value = value.T if transposed else value
    return np.ascontiguousarray(value.reshape(shape), np.float32)


def check_finite(name, value):
    """`value`, if all of it is finite; a UserError names the tensor otherwise."""
    if not np.isfinite(value).all():
        raise UserError(f"tensor {name} holds values that are no finite float32 numbers")
    return value


def read_variables(tensors, stored, form, config, origin):
    """Checks, renames and transposes tensors.

    Args:
        tensors: dict of name as stored -> Tensor.
        stored, form, origin: as for `check_names`.
        config: the encoder's BertConfig.
    Returns:
        dict of documented name -> float32 array.
    Raises:
        UserError: missing or unknown tensors, wrong shapes, types that are no floating point (all named), values that
            are not finite.
    """
    from modeling.bert.variables import classifier_shapes, encoder_shapes  # late: OneFlow comes with it, seconds of import

    pairs = check_names(stored, form, config.num_hidden_layers, origin)
    shapes = encoder_shapes(config)
    bias = stored.get(getattr(checkpoint_names.CLASSIFIER[1], form))
    if bias is not None:
        shapes.update(classifier_shapes(config, int(np.prod(tensors[bias].shape))))
    problems = []
    for pair in pairs:
        name, shape = stored[getattr(pair, form)], tuple(shapes[pair.snapshot])
        tensor = tensors[name]
        wanted = shape[::-1] if checkpoint_names.is_transposed(pair, form) else shape
        if tensor.dtype not in _FLOATS:
            problems.append(f"{name} is of type {tensor.dtype}, no floating point of 16 to 64 bits")
        elif tensor.shape != wanted:
            problems.append(f"{name} has shape {list(tensor.shape)}, {origin} says {list(wanted)}")
    if problems:
        raise UserError("the tensors do not fit: " + "; ".join(problems))
    values = {}
    for pair in pairs:
        name = stored[getattr(pair, form)]
        values[pair.snapshot] = _value(name, tensors[name], checkpoint_names.is_transposed(pair, form), shapes[pair.snapshot])
    return values


def rename(variables, pairs, form):
    """dict of name in `form` -> array in that format's layout, C-contiguous, for the pairs that `variables` holds."""
    return {
        getattr(pair, form): np.ascontiguousarray(
            variables[pair.snapshot].T if checkpoint_names.is_transposed(pair, form) else variables[pair.snapshot]
        )
        for pair in pairs
        if pair.snapshot in variables
    }


def number_of_heads(hidden_size, num_heads, path):
    """`num_heads` (`--num_attention_heads`), or as many heads of 64 as the hidden size has room for.

    Raises:
        UserError: the hidden size is no multiple of 64.
    """
    if num_heads is None and hidden_size % _HEAD_SIZE:
        raise UserError(
            f"{path} does not say how many heads there are, and hidden size {hidden_size} is no multiple of "
            f"{_HEAD_SIZE}: give --num_attention_heads"
        )
    return hidden_size // _HEAD_SIZE if num_heads is None else num_heads


def select_layers(checkpoint, layers):
    """The checkpoint with the encoder layers `layers` (from 0) only, numbered anew in that order.

    Raises:
        UserError: no layer, one that is not there, or one named twice.
    """
    count = checkpoint.config.num_hidden_layers
    if not layers or len(set(layers)) != len(layers) or not all(0 <= layer < count for layer in layers):
        given, there = ",".join(map(str, layers)), ",".join(map(str, range(count)))
        raise UserError(f"--layers {given}: the encoder has the layers {there}, each at most once")
    prefixes = {f"bert-encoder-layer_{old}-": f"bert-encoder-layer_{new}-" for new, old in enumerate(layers)}
    variables = {}
    for name, value in checkpoint.variables.items():
        if not name.startswith("bert-encoder-layer_"):
            variables[name] = value
            continue
        for old, new in prefixes.items():
            if name.startswith(old):
                variables[new + name[len(old) :]] = value
    note = f"layers {', '.join(map(str, layers))} of {count} kept, now 0 to {len(layers) - 1}"
    config = dataclasses.replace(checkpoint.config, num_hidden_layers=len(layers))
    return checkpoint._replace(variables=variables, config=config, notes=(*checkpoint.notes, note))
