"""Reads and writes PALM as SOFA has it: config.json (model_type palm), vocab.txt, palm_model.pt.

The weights are a dict of PyTorch tensors whose names have no prefix `model.`; this module also reads them as model.safetensors, and writes them
so, since it writes no pickle: `safetensors.torch.load_file` gives the dict that SOFA's `load_state_dict` takes. SOFA has query, key and
value of a layer as one matrix [3 H, H], key and value of a cross-attention as one [2 H, H]; a snapshot has them apart, [H, H] each.
"""

import json
import os
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save

from modeling.bert import names
from modeling.bert.config import PALM
from modeling.checkpoints.snapshot import TASK_FILE, VOCAB_FILE, Snapshot
from modeling.checkpoints.snapshot_tokenizer import stored_settings
from modeling.palm.config import PalmConfig
from ofrecord_util.errors import UserError
from ofrecord_util.reading import read_json
from ofrecord_util.tokenizer_settings import TokenizerSettings
from tools.checkpoint_files import read_vocabulary, refuse_pointer, write_folder
from tools.checkpoint_model import Checkpoint, check_finite, is_float
from tools.checkpoint_tensors import SAFETENSORS, read_state, read_tensors

WEIGHTS = "palm_model.pt"
FILES = ("config.json", SAFETENSORS, VOCAB_FILE)  # the files that `write` makes
CONFIG = "config.json"
_PREFIX = "model."  # of the names in a dict of SOFA's whole module
_REMEDY = "download the model again, or check --model_dir"
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
    return head + list(_dense("cls.seq_relationship", names.SENTENCE_HEAD[0][: -len("-weight")]))


def to_variables(tensors, config):
    """Renames, checks, cuts and transposes the tensors of a checkpoint.

    Args:
        tensors: dict of name -> `Tensor`.
        config: `PalmConfig`.
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
        raise UserError(f"the tensors are not those of a {config.description}: {'; '.join(parts)}")
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
