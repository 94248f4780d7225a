"""Reads and writes snapshots of this project for the conversions."""

import json
import os

from modeling.bert.config import BERT, PALM
from modeling.checkpoints.snapshot import CONFIG_FILE, DATA, DONE, TASK_FILE, Snapshot, stored_task, write_variables
from modeling.checkpoints.snapshot_tokenizer import TOKENIZER_FILE, settings_text, stored_settings
from ofrecord_util.tokenizer_settings import TokenizerSettings
from tools import checkpoint_names
from tools.checkpoint_files import read_vocabulary
from tools.checkpoint_model import Checkpoint, check_finite, check_names, number_of_heads, variable_shapes


def is_snapshot(path):
    """Whether the folder holds a snapshot, complete or not, of this project or of its earlier converter."""
    if os.path.isfile(os.path.join(path, DONE)):
        return True
    return any(os.path.isfile(os.path.join(path, name, DATA)) for name in os.listdir(path))


def read(path, vocab_file=None, num_heads=None):
    """Reads the variables, sizes, vocabulary and task of a snapshot.

    Args:
        path: snapshot folder.
        vocab_file: a vocabulary that replaces the one of the snapshot.
        num_heads: for a snapshot without bert_config.json; None for heads of 64.
    Returns:
        `Checkpoint`.
    Raises:
        UserError: if the folder is not a snapshot, is damaged, or variables are missing or unknown (the message lists them).
    """
    from modeling.bert.names import DOMAIN_HEAD, POOLING_HEADS, REPLACED_HEAD, SENTENCE_HEAD
    from modeling.bert.variables import replaced_head_shapes, sentence_head_shapes  # imported here, because it imports OneFlow

    snapshot = Snapshot(path)
    stored_task(snapshot)  # a damaged one is refused here, with its path
    sizes, origin = snapshot.sizes, os.path.join(path, CONFIG_FILE)
    if not os.path.isfile(origin):
        origin = path
        num_heads = number_of_heads(sizes.get("bert-embeddings-LayerNorm-gamma", 0), num_heads, path)
    config = snapshot.config(num_heads=num_heads)
    shapes = variable_shapes(config, *(sizes.get(head[1].snapshot, 0) for head in (checkpoint_names.CLASSIFIER, checkpoint_names.TAGS)))
    # heads that no other format has
    own = (*DOMAIN_HEAD, *SENTENCE_HEAD, *REPLACED_HEAD, *(name for name in POOLING_HEADS if name in shapes))
    stored = {name: name for name in sizes if name not in own}
    pairs = check_names(stored, "snapshot", config.num_hidden_layers, origin, config.variant)
    shapes.update({**replaced_head_shapes(config), **sentence_head_shapes(config, sizes.get(SENTENCE_HEAD[1], 0))})
    for name in DOMAIN_HEAD:  # a student of Meta-KD has only the first of the three
        size = sizes.get(name, 0)
        shapes[name] = (size,) if name.endswith("bias") else (size // config.hidden_size, config.hidden_size)
    names = [pair.snapshot for pair in pairs] + [name for name in own if name in sizes]
    variables = {name: check_finite(name, snapshot.read(name, shapes[name])) for name in names}
    return Checkpoint(
        variables,
        config,
        read_vocabulary(vocab_file or snapshot.vocab_file(), config),
        snapshot.task(),
        stored_settings(snapshot),
    )


def write(folder, checkpoint):
    """Writes a snapshot folder. If writing fails, no folder is left.

    Returns:
        (names of the variables written, list of notes for the user).
    Raises:
        UserError: if the folder cannot be written.
    """
    files = {CONFIG_FILE: checkpoint.config.to_json(), checkpoint.vocab_name: checkpoint.vocab}
    if checkpoint.settings != TokenizerSettings():
        files[TOKENIZER_FILE] = settings_text(checkpoint.settings)
    if checkpoint.task is not None:
        files[TASK_FILE] = json.dumps(checkpoint.task, indent=2, sort_keys=True) + "\n"
    write_variables(folder, checkpoint.variables, files)
    notes = []
    if not checkpoint.has_pooler and checkpoint.config.model_type != PALM:
        notes.append("no pooler in the checkpoint, so the scripts initialise it")
    if checkpoint.num_labels:
        names = " ({})".format(", ".join(checkpoint.task["labels"])) if checkpoint.task else " without names"
        notes.append(f"classifier of {checkpoint.num_labels} labels{names} kept; a script with other labels initialises its own")
    if checkpoint.num_tags:
        notes.append(f"head of {checkpoint.num_tags} tags kept; recipes/sequence_labeling.py continues from it if the tags are the same")
    if checkpoint_names.SPANS[0].snapshot in checkpoint.variables:
        notes.append("head of answers kept; recipes/span_answering.py continues from it")
    if checkpoint.has_token_head:
        step = "recipes/generation.py --objective pretraining" if checkpoint.config.model_type == PALM else "recipes/pretrain_mlm.py"
        notes.append(f"head of masked language modelling kept; {step} continues from it, other steps do not use it")
    if checkpoint.do_lower_case is False and checkpoint.config.model_type == BERT:
        notes.append("the model is cased; the scripts find that in the snapshot, and run with --do_lower_case false")
    return set(checkpoint.variables), notes
