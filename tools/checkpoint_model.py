"""A BERT between two formats: its variables under their documented names, its sizes and its vocabulary.

The module of each format (checkpoint_hugging_face.py, …) reads a `Checkpoint` and writes one. This module has the checks
that all formats share: no name is unknown or missing, the shapes fit, and all values are finite float32 numbers.
"""

from typing import Callable, NamedTuple, Optional

import numpy as np

from modeling.bert.config import BERT, PALM, BertConfig
from modeling.bert.variant import BERT_FORM
from modeling.checkpoints.snapshot import VOCAB_FILE
from modeling.report.hub_card import UNKNOWN_LICENSE
from ofrecord_util.errors import UserError
from ofrecord_util.json_tokenizer import JSON_FILE, parse_tokenizer
from ofrecord_util.tokenizer_settings import TokenizerSettings
from tools import checkpoint_names

_HEAD_SIZE = 64  # in every BERT that Google published
_FLOATS = ("F32", "F16", "BF16", "F64")


class Tensor(NamedTuple):
    """A stored tensor: its shape, its type in the notation of safetensors, and `read()`, which returns a float32 array."""

    shape: tuple
    dtype: str
    read: Callable


class Checkpoint(NamedTuple):
    """A BERT that does not depend on a file format."""

    variables: dict  # documented name -> float32 array, dense weights [in, out]
    config: BertConfig
    vocab: Optional[str] = None  # text of the file `vocab_name`
    task: Optional[dict] = None  # parsed task.json of a trained snapshot
    settings: TokenizerSettings = TokenizerSettings()  # do_lower_case is None if it is not known
    notes: tuple = ()  # lines for the user, such as the variables that are left out
    source: Optional[str] = None  # the folder of the snapshot whose results are this model's; None if they are not
    license: str = UNKNOWN_LICENSE  # identifier of the hub

    @property
    def do_lower_case(self):
        """Whether the model is uncased, or None if it is not known."""
        return self.settings.do_lower_case

    @property
    def vocab_name(self):
        """The name of the vocabulary's file in a snapshot: vocab.txt, or tokenizer.json of another kind of model than BERT."""
        return VOCAB_FILE if self.config.model_type in (BERT, PALM) else JSON_FILE

    @property
    def num_tokens(self):
        """The number of tokens of the vocabulary."""
        if self.vocab_name == VOCAB_FILE:
            return self.vocab.count("\n")
        return parse_tokenizer(self.vocab.encode("utf-8"), JSON_FILE).get_vocab_size()

    @property
    def num_labels(self):
        """The number of labels of the classifier, or 0 without a classifier."""
        return len(self.variables.get(checkpoint_names.CLASSIFIER[0].snapshot, ()))

    @property
    def num_tags(self):
        """The number of tags of the head that tags words, or 0 without it."""
        return len(self.variables.get(checkpoint_names.TAGS[0].snapshot, ()))

    @property
    def max_length(self):
        """The number of tokens of the longest text: that of the training, or else the number of positions."""
        length = (self.task or {}).get("seq_length")
        positions = self.config.max_position_embeddings
        return min(length, positions) if isinstance(length, int) and length > 0 else positions

    @property
    def has_token_head(self):
        """Whether the model has the head of masked language modelling."""
        return checkpoint_names.PLAIN_TOKEN_HEAD[0].snapshot in self.variables  # both kinds have it

    @property
    def has_pooler(self):
        return checkpoint_names.POOLER[0].snapshot in self.variables


def check_is_bert(checkpoint, form, kinds=(BERT,)):
    """Raises a UserError if a format that has only BERTs, or only encoders of these kinds, is to hold a model of another kind."""
    if checkpoint.config.model_type not in kinds:
        kind = checkpoint.config.model_type
        raise UserError(f"--to {form}: the model is of the kind {kind}, and this format has BERTs only; use --to hugging_face")


def array_tensor(array):
    """Returns the `Tensor` of a NumPy array. Other types than floating point keep the name of NumPy, for error messages."""
    dtype = {2: "F16", 4: "F32", 8: "F64"}.get(array.dtype.itemsize) if array.dtype.kind == "f" else None

    def read():
        # A value beyond float32's range becomes infinite here, and `check_finite` refuses it.
        with np.errstate(over="ignore"):
            return array.astype(np.float32)

    return Tensor(tuple(array.shape), dtype or str(array.dtype), read)


def check_names(stored, form, num_hidden_layers, origin, variant=BERT_FORM):
    """Returns the pairs of a checkpoint: embeddings, encoder layers, and its heads.

    Args:
        stored: dict of name as `form` spells it -> name as stored.
        form: a name of `Pair`.
        num_hidden_layers: the number of layers that must be there.
        origin: the source of this number, for the message.
        variant: `Variant` of the encoder.
    Raises:
        UserError: if names are missing or unknown. The message lists them all.
    """
    pairs = checkpoint_names.encoder_pairs(num_hidden_layers, variant)
    for head in (checkpoint_names.POOLER, *checkpoint_names.head_pairs(variant)):
        if any(getattr(pair, form) in stored for pair in head):  # a head must be complete
            pairs.extend(head)
    names = [getattr(pair, form) for pair in pairs]
    missing = [name for name in names if name not in stored]
    unknown = sorted(stored[name] for name in set(stored) - set(names))
    if missing or unknown:
        parts = (["missing " + ", ".join(missing)] if missing else []) + (["unknown " + ", ".join(unknown)] if unknown else [])
        raise UserError(f"the tensors are not those of a BERT of {num_hidden_layers} layers ({origin}): " + "; ".join(parts))
    return pairs


def _value(name, tensor, transposed, shape):
    """Converts a tensor to the layout of a snapshot: float32, with `shape`, dense weights transposed."""
    value = check_finite(name, tensor.read())
    value = value.T if transposed else value
    return np.ascontiguousarray(value.reshape(shape), np.float32)


def is_float(tensor):
    """Whether a `Tensor` has floating-point numbers that are read."""
    return tensor.dtype in _FLOATS


def check_finite(name, value):
    """Returns `value`. Raises a UserError with the name of the tensor if a number is not finite."""
    if not np.isfinite(value).all():
        raise UserError(f"tensor {name} has values that are not finite float32 numbers")
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
        UserError: if tensors are missing or unknown, shapes or types are wrong (the message lists them all), or values are
            not finite.
    """
    pairs = check_names(stored, form, config.num_hidden_layers, origin, config.variant)
    biases = [stored.get(getattr(head[1], form)) for head in (checkpoint_names.CLASSIFIER, checkpoint_names.TAGS)]
    shapes = variable_shapes(config, *(0 if name is None else int(np.prod(tensors[name].shape)) for name in biases))
    problems = []
    for pair in pairs:
        name, shape = stored[getattr(pair, form)], tuple(shapes[pair.snapshot])
        tensor = tensors[name]
        wanted = shape[::-1] if checkpoint_names.is_transposed(pair, form) else shape
        if not is_float(tensor):
            problems.append(f"{name} is of type {tensor.dtype}, not floating point of 16 to 64 bits")
        elif tensor.shape != wanted:
            problems.append(f"{name} has shape {list(tensor.shape)}, but must have {list(wanted)}")
    if problems:
        raise UserError(f"the tensors do not fit the model of {origin}: " + "; ".join(problems))
    values = {}
    for pair in pairs:
        name = stored[getattr(pair, form)]
        values[pair.snapshot] = _value(name, tensors[name], checkpoint_names.is_transposed(pair, form), shapes[pair.snapshot])
    return values


def variable_shapes(config, num_labels=0, num_tags=0):
    """dict of documented name -> shape of all variables that a format may have.

    Args:
        config: `BertConfig`.
        num_labels, num_tags: outputs of the classifier and of the head that tags words.
    """
    from modeling.bert import names, variables  # imported here, because it imports OneFlow

    heads = {**variables.token_head_shapes(config), **variables.classifier_shapes(config, num_labels)}
    heads.update(variables.dense_head_shapes(config, names.TAG_HEAD, num_tags))
    return {**variables.encoder_shapes(config), **heads, **variables.dense_head_shapes(config, names.SPAN_HEAD, 2)}


def rename(variables, pairs, form):
    """Returns a dict of name in `form` -> C-contiguous array in the layout of that format, for the pairs in `variables`."""
    return {
        getattr(pair, form): np.ascontiguousarray(
            variables[pair.snapshot].T if checkpoint_names.is_transposed(pair, form) else variables[pair.snapshot]
        )
        for pair in pairs
        if pair.snapshot in variables
    }


def number_of_heads(hidden_size, num_heads, path):
    """Returns `num_heads` (`--num_attention_heads`). If it is None, the size of a head is 64.

    Raises:
        UserError: if `num_heads` is None and the hidden size is not a multiple of 64.
    """
    if num_heads is None and hidden_size % _HEAD_SIZE:
        raise UserError(
            f"{path} does not have the number of heads, and the hidden size {hidden_size} is not a multiple of "
            f"{_HEAD_SIZE}; set --num_attention_heads"
        )
    return hidden_size // _HEAD_SIZE if num_heads is None else num_heads


def select_layers(checkpoint, layers):
    """Returns the checkpoint with only the encoder layers `layers` (from 0), renumbered in this order.

    Raises:
        UserError: if `layers` is empty, a layer does not exist, or a layer is listed twice.
    """
    count = checkpoint.config.num_hidden_layers
    if not layers or len(set(layers)) != len(layers) or not all(0 <= layer < count for layer in layers):
        given, there = ",".join(map(str, layers)), ",".join(map(str, range(count)))
        raise UserError(f"--layers {given}: the encoder has the layers {there}, and each may be listed once")
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
    config = checkpoint.config.of_layers(layers)
    return checkpoint._replace(variables=variables, config=config, notes=(*checkpoint.notes, note))
