"""Reads and writes PALM as SOFA has it: config.json (model_type palm), vocab.txt, palm_model.pt.

The weights are a dict of PyTorch tensors whose names have no prefix `model.`; this module also reads them as model.safetensors, and writes
them so, since it writes no pickle: `safetensors.torch.load_file` gives the dict that SOFA's `load_state_dict` takes. SOFA has query, key
and value of a layer as one matrix [3 H, H], key and value of a cross-attention as one [2 H, H]; a snapshot has them apart, [H, H] each.
"""

import json
import os
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save

from modeling.bert import names
from modeling.bert.config import PALM
from modeling.checkpoints.snapshot import CONFIG_FILE, VOCAB_FILE, Snapshot
from modeling.checkpoints.snapshot_tokenizer import stored_settings
from modeling.palm.config import PalmConfig
from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.tokenizer_settings import TokenizerSettings
from tools.checkpoint_files import read_vocabulary, refuse_pointer, write_folder
from tools.checkpoint_model import Checkpoint, check_finite, is_float
from tools.checkpoint_tensors import SAFETENSORS, read_state, read_tensors

WEIGHTS = "palm_model.pt"
CONFIG = "config.json"
FILES = (CONFIG, SAFETENSORS, VOCAB_FILE)  # the files that `write` makes
_PREFIX = "model."  # of the names in a dict of SOFA's whole module
_REMEDY = "download the model again, or check --model_dir"
SOFA_FINAL_NORMS = 2
# A second name of the word embeddings, which the output shares
_COPIES = {"cls.predictions.decoder_weight": "bert.embeddings.word_embeddings.weight"}


class Entry(NamedTuple):
    """A tensor of SOFA's, and the variables that it holds, one after the other."""

    theirs: str
    ours: tuple
    transposed: bool = False  # dense weights are [out, in] there and [in, out] here


def _dense(theirs, *ours):
    yield Entry(f"{theirs}.weight", tuple(f"{name}-weight" for name in ours), True)
    yield Entry(f"{theirs}.bias", tuple(f"{name}-bias" for name in ours))


def _norm(theirs, ours):
    yield Entry(f"{theirs}.weight", (f"{ours}-gamma",))
    yield Entry(f"{theirs}.bias", (f"{ours}-beta",))


def _attention(prefix):
    return [f"{prefix}{part}" for part in (names.QUERY, names.KEY, names.VALUE)]


def entries(config):
    """All `Entry`s of a PALM. Those of the pooler and of the heads of pre-training may be missing in a checkpoint.

    Args:
        config: `PalmConfig`.
    """
    tables = (
        ("word_embeddings", names.WORD_EMBEDDINGS),
        ("position_embeddings", names.POSITION_EMBEDDINGS),
        ("token_type_embeddings", names.TOKEN_TYPE_EMBEDDINGS),
    )
    found = [Entry(f"bert.embeddings.{theirs}.weight", (ours,)) for theirs, ours in tables]
    found += _norm("bert.embeddings.LayerNorm", names.EMBEDDINGS_NORM)
    for layer in range(config.num_hidden_layers):
        theirs, ours = f"bert.encoder.layer.{layer}.", names.layer_prefix(layer)
        found += _norm(theirs + "attention.LayerNorm", ours + names.ATTENTION_NORM)
        found += _dense(theirs + "attention.self.query_key_value", *_attention(ours))
        found += _dense(theirs + "attention.output.dense", ours + names.ATTENTION_OUTPUT)
        found += _norm(theirs + "LayerNorm", ours + names.OUTPUT_NORM)
        found += _dense(theirs + "intermediate.dense", ours + names.INTERMEDIATE)
        found += _dense(theirs + "output.dense", ours + names.OUTPUT)
    found += _norm("bert.encoder.LayerNorm", names.ENCODER_NORM)
    for layer in range(config.dec_hidden_layers):
        theirs, ours = f"decoder.decoder.layer.{layer}.", names.decoder_prefix(layer)
        found += _norm(theirs + "input_layernorm", ours + names.SELF_NORM)
        found += _dense(theirs + "attention.query_key_value", *_attention(ours))
        found += _dense(theirs + "attention.dense", ours + names.ATTENTION_OUTPUT)
        found += _norm(theirs + "post_attention_layernorm", ours + names.CROSS_NORM)
        found += _dense(theirs + "cross_attention.query", ours + names.CROSS_QUERY)
        found += _dense(theirs + "cross_attention.key_value", ours + names.CROSS_KEY, ours + names.CROSS_VALUE)
        found += _dense(theirs + "cross_attention.dense", ours + names.CROSS_OUTPUT)
        found += _norm(theirs + "post_cross_attention_layernorm", ours + names.FEED_FORWARD_NORM)
        found += _dense(theirs + "intermediate", ours + names.INTERMEDIATE)
        found += _dense(theirs + "output", ours + names.OUTPUT)
    found += _norm("decoder.decoder.final_layernorm", names.DECODER_NORM)
    return found + head_entries()


def head_entries():
    """The `Entry`s that a checkpoint may lack."""
    head = [*_dense("bert.pooler.dense", names.POOLER), *_dense("cls.predictions.transform.dense", names.TOKEN_DENSE)]
    head += _norm("cls.predictions.transform.LayerNorm", names.TOKEN_NORM)
    head.append(Entry("cls.predictions.bias", (names.TOKEN_BIAS,)))
    return head + list(_dense("cls.seq_relationship", names.PALM_SENTENCE_HEAD[0][: -len("-weight")]))


def to_variables(tensors, config, path="the checkpoint"):
    """Renames, checks, cuts and transposes the tensors of a checkpoint.

    Args:
        tensors: dict of name -> `Tensor`.
        config: `PalmConfig`.
        path: of the checkpoint, for the message.
    Returns:
        dict of documented name -> float32 array.
    Raises:
        UserError: tensors are missing or unknown, have a wrong shape or type (the message lists them), or values are not finite; or the
            output weights are not the word embeddings.
    """
    from modeling.palm.variables import palm_shapes  # imported here, because it imports OneFlow

    tensors = _plain_names(tensors)
    optional = {entry.theirs for entry in head_entries()}
    table = [entry for entry in entries(config) if entry.theirs in tensors or entry.theirs not in optional]
    wanted = {entry.theirs for entry in table}
    missing, unknown = sorted(wanted - set(tensors)), sorted(set(tensors) - wanted - set(_COPIES))
    if missing or unknown:
        parts = (["missing " + ", ".join(missing)] if missing else []) + (["unknown " + ", ".join(unknown)] if unknown else [])
        raise UserError(f"{path}: the tensors are not those of a {config.description}: {'; '.join(parts)}")
    shapes = palm_shapes(config, [name for entry in table for name in entry.ours])
    problems = []
    for entry in table:
        shape = [sum(shapes[name][-1] for name in entry.ours)]
        first = shapes[entry.ours[0]]
        shape = (*first[:-1], *shape)[:: -1 if entry.transposed else 1]
        tensor = tensors[entry.theirs]
        if not is_float(tensor):
            problems.append(f"{entry.theirs} is of type {tensor.dtype}, not floating point of 16 to 64 bits")
        elif tuple(tensor.shape) != tuple(shape):
            problems.append(f"{entry.theirs} has shape {list(tensor.shape)}, config.json says {list(shape)}")
    if problems:
        raise UserError("the tensors do not fit: " + "; ".join(problems))
    found = {}
    for entry in table:
        value = check_finite(entry.theirs, tensors[entry.theirs].read())
        parts = np.split(value.T if entry.transposed else value, len(entry.ours), axis=-1)
        found.update({name: np.ascontiguousarray(part, np.float32) for name, part in zip(entry.ours, parts)})
    for copy, original in _COPIES.items():
        if copy in tensors and not np.array_equal(tensors[copy].read(), tensors[original].read()):
            raise UserError(f"{copy} is not equal to {original}, but PALM has one table for both: not converted")
    return found


def _plain_names(tensors):
    """The tensors under names without _PREFIX."""
    if all(name.startswith(_PREFIX) for name in tensors):
        return {name[len(_PREFIX) :]: tensor for name, tensor in tensors.items()}
    return tensors


def to_tensors(variables, config):
    """dict of SOFA's name -> float32 array, for the variables that are there."""
    found = {}
    for entry in entries(config):
        if all(name in variables for name in entry.ours):
            value = np.concatenate([variables[name] for name in entry.ours], axis=-1)
            found[entry.theirs] = np.ascontiguousarray(value.T if entry.transposed else value)
    if names.TOKEN_BIAS in variables:
        found.update({copy: found[original] for copy, original in _COPIES.items()})
    return found


# --------------------------------------------------------------------------------------------------------------------- files


def is_palm(model_dir):
    """Whether a folder has a PALM: SOFA's config.json, or that of a snapshot, says so. The reader of the format reports a damaged file."""
    for name in (CONFIG, CONFIG_FILE):
        path = os.path.join(model_dir, name)
        if os.path.isfile(path):
            try:
                return read_json(path, _REMEDY).get("model_type") == PALM
            except UserError:
                return False
    return False


def read_config(path):
    """The `PalmConfig` of SOFA's config.json.

    Raises:
        UserError: a value is missing or invalid, or the model computes something else than this project.
    """
    refuse_pointer(path)
    values = read_json(path, _REMEDY)
    for key, only in (("pre_ln", True), ("attn_separate", False)):
        if values.get(key, only) is not only:
            raise UserError(f"{path}: {key} is {values[key]!r:.40}; only {str(only).lower()} is supported")
    if "layernorm_epsilon" in values:
        values = dict(values, layer_norm_eps=values["layernorm_epsilon"])
    return PalmConfig.from_dict(values, path)


def read(path, vocab_file=None, num_heads=None):
    """Reads a PALM: a folder of SOFA's, or a snapshot.

    Args:
        path: the folder.
        vocab_file: a vocabulary that replaces the one of the folder.
    Returns:
        `Checkpoint`.
    Raises:
        UserError: the folder is damaged, or its model is not supported.
    """
    own = os.path.join(path, CONFIG)
    if not os.path.isfile(own):
        return _read_snapshot(path, vocab_file)
    config = read_config(own)
    weights = os.path.join(path, WEIGHTS)
    variables = to_variables(read_state(weights) if os.path.isfile(weights) else read_tensors(path), config, path)
    vocab = os.path.join(path, VOCAB_FILE)
    vocab = vocab_file or (vocab if os.path.isfile(vocab) else None)
    settings = os.path.join(path, "tokenizer_config.json")
    lower = read_json(settings, _REMEDY).get("do_lower_case") if os.path.isfile(settings) else None
    settings = TokenizerSettings.from_dict({"do_lower_case": lower}, settings)
    return Checkpoint(variables, config, read_vocabulary(vocab, config), None, settings)


def _read_snapshot(path, vocab_file):
    from modeling.palm.variables import palm_shapes  # imported here, because it imports OneFlow

    snapshot = Snapshot(path)
    config = snapshot.config(kind=PalmConfig)
    shapes = palm_shapes(config, snapshot.sizes)
    missing, unknown = sorted(set(shapes) - set(snapshot.sizes)), sorted(set(snapshot.sizes) - set(shapes))
    if missing or unknown:
        parts = (["missing " + ", ".join(missing)] if missing else []) + (["unknown " + ", ".join(unknown)] if unknown else [])
        raise UserError(f"{path}: the variables are not those of a {config.description}: {'; '.join(parts)}")
    variables = {name: check_finite(name, snapshot.read(name, shape)) for name, shape in shapes.items()}
    vocab = read_vocabulary(vocab_file or snapshot.vocab_file(), config)
    return Checkpoint(variables, config, vocab, snapshot.task(), stored_settings(snapshot))


def write(folder, checkpoint):
    """Writes a folder with SOFA's names: config.json, model.safetensors, vocab.txt.

    Returns:
        (names of the variables written, list of notes for the user).
    Raises:
        UserError: the folder cannot be written.
    """
    config = checkpoint.config
    tensors = to_tensors(checkpoint.variables, config)
    sizes = config.as_dict()
    ours = ("pooling", "pooler_input_dropout_prob")  # keys that SOFA does not know; encoder_final_layer_norms is kept for the way back
    values = {name: value for name, value in sizes.items() if name not in ours}
    values.update(architectures=["PalmForConditionalGeneration"], layernorm_epsilon=config.layer_norm_eps, pre_ln=True, attn_separate=False)
    files = {CONFIG: json.dumps(values, indent=2, sort_keys=True) + "\n", VOCAB_FILE: checkpoint.vocab}
    write_folder(folder, {**files, SAFETENSORS: save(tensors, {"format": "pt"})})
    written = {name for entry in entries(config) if entry.theirs in tensors for name in entry.ours}
    notes = [f"{SAFETENSORS}: SOFA's names; torch.save(safetensors.torch.load_file(…), {WEIGHTS!r}) makes the file that SOFA reads"]
    if config.encoder_final_layer_norms != SOFA_FINAL_NORMS:
        notes.append(
            f"SOFA applies the encoder's final norm {SOFA_FINAL_NORMS} times, this model was trained with 1: the results differ there"
        )
    return sorted(written), notes
