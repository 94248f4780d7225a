"""Reads and writes MEAD's NPZ files of a transformer encoder: embeddings and encoder layers, dense weights [out, in].

A file has no pooler, classifier, configuration or vocabulary. The shapes of the arrays give the sizes. Flags give the
number of heads and the vocabulary.
"""

import os

from modeling.bert.config import BertConfig
from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing, sync_folder, write_npz
from ofrecord_util.reading import VARIABLE_LIMIT, npz_names, read_npz
from tools import checkpoint_names
from tools.checkpoint_files import read_vocabulary
from tools.checkpoint_model import Checkpoint, array_tensor, check_is_bert, check_names, number_of_heads, read_variables, rename

_SIZES = {  # array with two axes -> the sizes that its shape gives
    "TLM/Embeddings/x/weights": ("vocab_size", "hidden_size"),
    "TLM/Embeddings/x/pos_weights": ("max_position_embeddings", "hidden_size"),
    "TLM/Embeddings/tt/weights": ("type_vocab_size", "hidden_size"),
    checkpoint_names.MEAD_LAYERS + "0/ffn/expansion/weights": ("intermediate_size", "hidden_size"),
}

_OUTPUT = ("output/weights", "output/bias")  # of a head: a classifier, or language modelling


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


def read_config(arrays, num_hidden_layers, num_heads, path):
    """Returns a `BertConfig` with the sizes of the arrays, and BERT's defaults for the rest.

    Raises:
        UserError: if an array does not have two axes, or the sizes are not those of a BERT.
    """
    sizes = {}
    for name, axes in _SIZES.items():
        if arrays[name].ndim != 2:
            raise UserError(f"{path}: {name} has shape {list(arrays[name].shape)}, but must have two axes")
        sizes.update(zip(axes, map(int, arrays[name].shape)))
    sizes["hidden_size"] = int(arrays["TLM/Embeddings/x/weights"].shape[1])
    heads = number_of_heads(sizes["hidden_size"], num_heads, path)
    return BertConfig(num_hidden_layers=num_hidden_layers, num_attention_heads=heads, **sizes)


def read(path, vocab_file=None, num_heads=None):
    """Reads the encoder of an NPZ file.

    Args:
        path: the file.
        vocab_file: its vocabulary.
        num_heads: None for heads of 64.
    Returns:
        `Checkpoint` without a pooler.
    Raises:
        UserError: if the file is not an NPZ file with the arrays of a BERT encoder.
    """
    arrays = read_arrays(path)
    left = sorted(name for name in _OUTPUT if name in arrays and _is_language_head(arrays, name))
    for name in left:
        del arrays[name]
    stored = {name: name for name in arrays}
    layers = _layer_count(arrays)
    check_names(stored, "mead", layers, path)
    config = read_config(arrays, layers, num_heads, path)
    vocab = read_vocabulary(vocab_file, config)
    tensors = {name: array_tensor(value) for name, value in arrays.items()}
    variables = read_variables(tensors, stored, "mead", config, "the embeddings and layer 0")
    note = (
        f"NPZ has no configuration: {config.num_attention_heads} heads, gelu, layer_norm_eps {config.layer_norm_eps}, "
        f"dropout {config.hidden_dropout_prob}"
    )
    notes = [note]
    if left:
        notes.append(f"left out: {', '.join(left)}: MEAD's head of language modelling is the word embeddings alone, without a transform")
    return Checkpoint(variables, config, vocab, notes=tuple(notes))


def _is_language_head(arrays, name):
    """Whether an array of _OUTPUT has a row for each token of the vocabulary."""
    words = arrays.get("TLM/Embeddings/x/weights")
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
    pairs = checkpoint_names.encoder_pairs(checkpoint.config.num_hidden_layers)
    arrays = rename(checkpoint.variables, pairs, "mead")
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
    heads = checkpoint.config.num_attention_heads
    notes.append(f"NPZ has no vocabulary and no configuration; to convert it back, set --vocab_file and --num_attention_heads {heads}")
    return written, notes
