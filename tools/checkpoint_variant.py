"""Gives a BERT another form of its norms or positions (modeling/bert/variant.py), from which a training can start."""

import dataclasses

import numpy as np

from modeling.bert import names
from modeling.bert.variant import AFTER, BEFORE, BERT_FORM, LEARNED, LEARNED_WITH_BIAS
from ofrecord_util.errors import UserError
from tools.checkpoint_model import Checkpoint

BEFORE_RESIDUAL = "before_residual"  # MEAD's default. By algebra it is "after" with other names (tools/checkpoint_npz.py)


def change_form(checkpoint: Checkpoint, layer_norms=None, positions=None) -> Checkpoint:
    """The checkpoint with its norms or positions in another form. It computes something else then, until it is trained.

    Args:
        checkpoint: a BERT.
        layer_norms: --layer_norms, None to keep them.
        positions: --positions, None to keep them.
    Raises:
        UserError: the checkpoint has another form already, or no checkpoint but MEAD's NPZ has this one.
    """
    variant, variables, config = checkpoint.config.variant, dict(checkpoint.variables), checkpoint.config
    if layer_norms == BEFORE_RESIDUAL:
        raise UserError(f"--layer_norms {BEFORE_RESIDUAL} says how an .npz file is read; this form computes the same as {AFTER}")
    wanted = dataclasses.replace(variant, layer_norms=layer_norms or variant.layer_norms, positions=positions or variant.positions)
    if wanted == variant:
        return checkpoint
    flags = " and ".join(f"--{flag}" for flag, value in (("layer_norms", layer_norms), ("positions", positions)) if value)
    if variant.layer_norms != AFTER or variant.positions != LEARNED:
        raise UserError(
            f"{flags}: the model has another form than BERT already ({variant}): convert the BERT that it was made from, with all flags"
        )
    if wanted.positions == LEARNED_WITH_BIAS:
        variables[names.TOKEN_TYPE_EMBEDDINGS] = variables[names.TOKEN_TYPE_EMBEDDINGS][:1]
        config = dataclasses.replace(config, type_vocab_size=1)
    elif wanted.positions != LEARNED:
        del variables[names.POSITION_EMBEDDINGS]
    if wanted.layer_norms == BEFORE:
        for part, value in (("gamma", 1.0), ("beta", 0.0)):
            variables[f"{names.ENCODER_NORM}-{part}"] = np.full(config.hidden_size, value, np.float32)
    config = dataclasses.replace(config, variant=wanted)
    return checkpoint._replace(
        variables=variables, config=config, notes=(*checkpoint.notes, f"{flags}: the model computes something else now: train it")
    )


def check_form(checkpoint: Checkpoint, to):
    """Raises a UserError if the format `to` has only encoders of BERT's form, and this is another one."""
    variant = checkpoint.config.variant
    if variant != BERT_FORM:
        raise UserError(f"--to {to}: this format does not have the form of the encoder ({variant}): keep the snapshot, or use --to npz")
