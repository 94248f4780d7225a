"""Reads and writes MEAD's NPZ files of a transformer encoder: embeddings and encoder layers, dense weights [out, in].

A file has no pooler, classifier, configuration or vocabulary. The shapes of the arrays give the sizes, and their names the form of the
encoder (modeling/bert/variant.py) as far as they can. Flags give the number of heads, the vocabulary and the rest.

MEAD's default stack normalises x before the residual branches off: x = LN1(x); x = x + attention(x); x = LN2(x); x = x + ffn(x), and a
norm at the end. With the norms of layer l + 1 as the last ones of layer l, this is BERT's stack, so it is read as one.
"""

import os

import numpy as np

from modeling.bert.config import BertConfig
from modeling.bert.variant import (
    AFTER,
    BEFORE,
    BERT_FORM,
    LEARNED,
    LEARNED_WITH_BIAS,
    NO_POSITIONS,
    PLAIN,
    SINUSOIDAL,
    TRANSFORMED,
    Variant,
)
from ofrecord_util.array_reading import npz_names, read_npz
from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing, sync_folder, write_npz
from ofrecord_util.reading import VARIABLE_LIMIT
from tools import checkpoint_names
from tools.checkpoint_files import read_vocabulary
from tools.checkpoint_model import Checkpoint, array_tensor, check_is_bert, check_names, number_of_heads, read_variables, rename
from tools.checkpoint_variant import BEFORE_RESIDUAL

_SIZES = {  # array with two axes -> the sizes that its shape gives
    "TLM/Embeddings/x/weights": ("vocab_size", "hidden_size"),
    "TLM/Embeddings/x/pos_weights": ("max_position_embeddings", "hidden_size"),
    "TLM/Embeddings/tt/weights": ("type_vocab_size", "hidden_size"),
    checkpoint_names.MEAD_LAYERS + "0/ffn/expansion/weights": ("intermediate_size", "hidden_size"),
}

_OUTPUT = ("output/weights", "output/bias")  # of a head: a classifier, or language modelling
_WORDS, _TYPES, _POSITIONS = (f"TLM/Embeddings/{name}" for name in ("x/weights", "tt/weights", "x/pos_weights"))
_EMBEDDINGS_NORM, _FINAL_NORM = "TLM/Embeddings/reduction/ln/", checkpoint_names.MEAD_LAYERS + "ln/"
_TYPES_OF_BERT = 2


def read_arrays(path):
    """Reads a dict of name -> array from an NPZ file. Nothing in the file is unpickled.

    Raises:
        UserError: if the file is not an NPZ file, is damaged, or contains objects.
    """
    return read_npz(path, "download or convert the file again", VARIABLE_LIMIT)


def _layer_count(names):
    """Counts the encoder layers in the names. The result is at least 1."""
    start = checkpoint_names.MEAD_LAYERS
    parts = {name[len(start) :].split("/")[0] for name in names if name.startswith(start)}
    return max(1, sum(part.isdigit() for part in parts))  # a model that normalises first also has an `ln` of the stack


def _has(arrays, prefix):
    return any(name.startswith(prefix) for name in arrays)


def _as_after(arrays, num_hidden_layers, path):
    """The arrays of MEAD's default stack with BERT's names of their norms."""
    if _has(arrays, _EMBEDDINGS_NORM):
        raise UserError(f"--layer_norms {BEFORE_RESIDUAL}: {path} has {_EMBEDDINGS_NORM}* too, and no form here has two norms in a row")
    layers = [f"{checkpoint_names.MEAD_LAYERS}{layer}/ln1/" for layer in range(num_hidden_layers)]
    moved = dict(zip([*layers, _FINAL_NORM], [_EMBEDDINGS_NORM, *layers]))
    renamed = {}
    for name, value in arrays.items():
        prefix = next((prefix for prefix in moved if name.startswith(prefix)), "")
        renamed[moved.get(prefix, "") + name[len(prefix) :]] = value
    return renamed


def _layer_norms(arrays, given, path):
    """Where the norms are, one of LAYER_NORMS or BEFORE_RESIDUAL."""
    first = _has(arrays, _FINAL_NORM)
    if first and given is None:
        raise UserError(
            f"{path} has {_FINAL_NORM}*, so its norms come first, in one of two ways: set --layer_norms {BEFORE_RESIDUAL} (MEAD's default) "
            f"or {BEFORE} (its pre-layer-norm)"
        )
    if given is not None and first != (given != AFTER):
        raise UserError(f"--layer_norms {given}: {path} has {'' if first else 'no '}{_FINAL_NORM}*, the norm after the last layer")
    return given or AFTER


def _positions(arrays, given, path):
    """The kind of positions, one of POSITIONS."""
    if _POSITIONS in arrays:
        if given in (SINUSOIDAL, NO_POSITIONS):
            raise UserError(f"--positions {given}: {path} has {_POSITIONS}, which are learned positions")
        return given or LEARNED
    if given in (LEARNED, LEARNED_WITH_BIAS):
        raise UserError(f"--positions {given}: {path} has no {_POSITIONS}")
    relative = any(name.endswith(checkpoint_names.RELATIVE_KEY) for name in arrays)
    if _WORDS not in arrays:
        return LEARNED  # what is missing is listed later
    if given is None and not relative:
        raise UserError(f"{path} has no {_POSITIONS}: set --positions {SINUSOIDAL} or {NO_POSITIONS}")
    return given or NO_POSITIONS


def _distances(arrays, num_hidden_layers, path):
    """k of each layer with relative positions, empty without them."""
    names = [f"{checkpoint_names.MEAD_LAYERS}{layer}/{checkpoint_names.RELATIVE_KEY}" for layer in range(num_hidden_layers)]
    found = [name for name in names if name in arrays]
    for name in found:
        if arrays[name].ndim != 2 or len(arrays[name]) < 3 or len(arrays[name]) % 2 == 0:
            raise UserError(f"{path}: {name} has shape {list(arrays[name].shape)}, but must have an odd number of rows, 2 k + 1")
    if found and found != names:
        raise UserError(f"{path}: {found[0]} is there, but not {next(name for name in names if name not in found)}")
    return tuple(len(arrays[name]) // 2 for name in found)


def read_variant(arrays, num_hidden_layers, path, layer_norms=None, positions=None, windowed=False):
    """The form of the encoder, and the arrays with the names that its form has.

    Args:
        arrays: dict of name -> array.
        num_hidden_layers: L.
        path: the file, for messages.
        layer_norms, positions, windowed: what the file does not say, as for `read`.
    Returns:
        (`Variant`, dict of name -> array).
    Raises:
        UserError: the file does not say all of its form, or contradicts a flag.
    """
    layer_norms = _layer_norms(arrays, layer_norms, path)
    if layer_norms == BEFORE_RESIDUAL:
        arrays, layer_norms = _as_after(arrays, num_hidden_layers, path), AFTER
    positions, arrays = _positions(arrays, positions, path), dict(arrays)
    words = arrays.get(_WORDS)
    if _TYPES not in arrays and words is not None and words.ndim == 2:  # a model without this feature: zeros add nothing
        arrays[_TYPES] = np.zeros((_TYPES_OF_BERT, words.shape[1]), np.float32)
    if positions == LEARNED_WITH_BIAS and _TYPES in arrays:
        arrays[_TYPES] = arrays[_TYPES][:1]
    distances = _distances(arrays, num_hidden_layers, path)
    if windowed and not distances:
        raise UserError(f"--windowed: {path} has no relative positions: leave the flag out")
    variant = Variant(
        layer_norms=layer_norms,
        embeddings_norm=_has(arrays, _EMBEDDINGS_NORM),
        positions=positions,
        relative_distances=distances,
        relative_values=_has(arrays, f"{checkpoint_names.MEAD_LAYERS}0/{checkpoint_names.RELATIVE_VALUE}"),
        windowed=windowed,
        token_head=PLAIN if _OUTPUT[1] in arrays else TRANSFORMED,
    )
    return variant, arrays


def read_config(arrays, num_hidden_layers, num_heads, path, variant=BERT_FORM):
    """Returns a `BertConfig` with the sizes of the arrays, and BERT's defaults for the rest.

    Raises:
        UserError: if an array does not have two axes, or the sizes are not those of a BERT.
    """
    sizes = {}
    for name, axes in _SIZES.items():
        if name == _POSITIONS and not variant.has_position_table:
            continue
        if arrays[name].ndim != 2:
            raise UserError(f"{path}: {name} has shape {list(arrays[name].shape)}, but must have two axes")
        sizes.update(zip(axes, map(int, arrays[name].shape)))
    sizes["hidden_size"] = int(arrays["TLM/Embeddings/x/weights"].shape[1])
    heads = number_of_heads(sizes["hidden_size"], num_heads, path)
    return BertConfig(num_hidden_layers=num_hidden_layers, num_attention_heads=heads, variant=variant, **sizes)


def read(path, vocab_file=None, num_heads=None, layer_norms=None, positions=None, windowed=False):
    """Reads the encoder of an NPZ file.

    Args:
        path: the file.
        vocab_file: its vocabulary.
        num_heads: None for heads of 64.
        layer_norms, positions: None if the file says them.
        windowed: whether relative positions limit the attention.
    Returns:
        `Checkpoint` without a pooler.
    Raises:
        UserError: if the file is not an NPZ file with the arrays of a BERT encoder.
    """
    arrays, notes = _with_token_head(read_arrays(path))
    layers = _layer_count(arrays)
    variant, arrays = read_variant(arrays, layers, path, layer_norms, positions, windowed)
    stored = {name: name for name in arrays}
    check_names(stored, "mead", layers, path, variant)
    config = read_config(arrays, layers, num_heads, path, variant)
    vocab = read_vocabulary(vocab_file, config)
    tensors = {name: array_tensor(value) for name, value in arrays.items()}
    variables = read_variables(tensors, stored, "mead", config, "the embeddings and layer 0")
    note = (
        f"NPZ has no configuration: {config.num_attention_heads} heads, gelu, layer_norm_eps {config.layer_norm_eps}, "
        f"dropout {config.hidden_dropout_prob}"
    )
    note += "" if variant.has_position_table else f", {config.max_position_embeddings} positions"
    return Checkpoint(variables, config, vocab, notes=(note, *notes))


def _with_token_head(arrays):
    """The arrays with the bias alone of a head of language modelling, whose weights are the word embeddings; and a list of notes."""
    weights, bias = (arrays.get(name) if name in arrays and _is_language_head(arrays, name) else None for name in _OUTPUT)
    if weights is None:
        return arrays, []
    others = {name: value for name, value in arrays.items() if name not in _OUTPUT}
    if not np.array_equal(weights, arrays[_WORDS]):
        left = ", ".join(name for name in _OUTPUT if name in arrays)
        return others, [f"left out: {left}: a head of language modelling whose weights are not the word embeddings"]
    return {**others, _OUTPUT[1]: np.zeros(len(weights), np.float32) if bias is None else bias}, []


def _is_language_head(arrays, name):
    """Whether an array of _OUTPUT has a row for each token of the vocabulary."""
    words = arrays.get(_WORDS)
    return words is not None and arrays[name].shape in (words.shape, words.shape[:1])


def is_npz_of_mead(path):
    """Whether the file at `path` is an archive with the names of this format."""
    return any(name.startswith("TLM/") for name in npz_names(path, VARIABLE_LIMIT))


def write(path, checkpoint):
    """Writes an NPZ file. If writing fails, no file is left.

    Returns:
        (documented names of the variables written, list of notes: variables that were left out).
    Raises:
        UserError: if the file cannot be written.
    """
    check_is_bert(checkpoint, "npz")
    config = checkpoint.config
    pairs, variant = checkpoint_names.encoder_pairs(config.num_hidden_layers, config.variant), config.variant
    if variant.token_head == PLAIN:
        pairs += checkpoint_names.PLAIN_TOKEN_HEAD
    arrays = rename(checkpoint.variables, pairs, "mead")
    if _OUTPUT[1] in arrays:
        arrays[_OUTPUT[0]] = arrays[_WORDS]
    if variant.positions == LEARNED_WITH_BIAS:  # as MEAD writes it
        arrays[_TYPES] = np.concatenate([arrays[_TYPES], np.zeros_like(arrays[_TYPES])])
    elif not arrays[_TYPES].any():
        del arrays[_TYPES]
    parent = os.path.dirname(path) or "."
    try:
        os.makedirs(parent, exist_ok=True)
        with replacing(path) as file:
            write_npz(file, arrays)
        sync_folder(parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    written = {pair.snapshot for pair in pairs}
    left = sorted(set(checkpoint.variables) - written)
    notes = ["left out, because NPZ has no place for them: " + ", ".join(left)] if left else []
    flags = [f"--num_attention_heads {config.num_attention_heads}"]
    flags += [f"--layer_norms {variant.layer_norms}"] if variant.layer_norms == BEFORE else []
    flags += [] if variant.positions == LEARNED else [f"--positions {variant.positions}"]
    flags += ["--windowed"] if variant.windowed else []
    notes.append(f"NPZ has no vocabulary and no configuration; to convert it back, set --vocab_file and {' '.join(flags)}")
    return written, notes
