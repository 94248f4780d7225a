"""The tokenizer of a snapshot: its vocabulary, and settings that travel in `tokenizer_config.json`."""

import dataclasses
import json
import os

from modeling.bert.config import BERT, PALM
from modeling.checkpoints.snapshot import TASK_FILE, VOCAB_FILE
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say
from ofrecord_util.json_reading import read_json
from ofrecord_util.json_tokenizer import load_tokenizer, vocabulary_tokens
from ofrecord_util.tokenizer_settings import TokenizerSettings

TOKENIZER_FILE = "tokenizer_config.json"


def stored_settings(snapshot) -> TokenizerSettings:
    """The `TokenizerSettings` of a `Snapshot`, from `tokenizer_config.json`, or the casing from task.json, or the defaults.

    Raises:
        UserError: the file is damaged.
    """
    path = os.path.join(snapshot.path, TOKENIZER_FILE)
    if os.path.isfile(path):
        return TokenizerSettings.from_dict(read_json(path, "convert or train the model again"), path)
    task = snapshot.task() or {}
    return TokenizerSettings.from_dict({"do_lower_case": task.get("do_lower_case")}, os.path.join(snapshot.path, TASK_FILE))


def settings_text(settings: TokenizerSettings) -> str:
    """The text of `tokenizer_config.json`."""
    return json.dumps(settings.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def open_tokenizer(snapshot, config, vocab_file=None, do_lower_case=None, log=say) -> TextEncoder:
    """The tokenizer of a model. All scripts and tools that read text for a model use this function.

    Args:
        snapshot: the model's `Snapshot`, or None to start from initial values.
        config: its `BertConfig`.
        vocab_file: --vocab_file; None for the snapshot's own.
        do_lower_case: --do_lower_case where the user gave it, else None: the casing of the snapshot, or true.
        log: called with one line for each difference from the snapshot.
    Raises:
        UserError: there is no vocabulary, or it does not fit the model.
    """
    own_file = snapshot and snapshot.vocab_file()
    path = vocab_file or own_file
    if not path:
        raise UserError(
            "--vocab_file is needed: {}".format(f"{snapshot.path} has no {VOCAB_FILE}" if snapshot else "no snapshot is loaded")
        )
    settings = stored_settings(snapshot) if snapshot else TokenizerSettings()
    stored = settings.do_lower_case
    if do_lower_case is not None:
        settings = dataclasses.replace(settings, do_lower_case=do_lower_case)
        if stored not in (None, do_lower_case):
            given, own = (str(value).lower() for value in (do_lower_case, stored))
            log(f"warning: --do_lower_case {given} contradicts {snapshot.path}, which has {own}")
    tokenizer = load_tokenizer(path, settings, trusted=stored is not None and stored == settings.do_lower_case)
    if bool(tokenizer.second_segment) != (config.model_type in (BERT, PALM)):
        raise UserError(f"{path} is the vocabulary of another kind of model; this one is a {config.model_type}: give its own --vocab_file")
    _check_size(tokenizer, config, own_file, snapshot, log)
    return tokenizer


def _check_size(tokenizer, config, own_file, snapshot, log):
    """Compares a vocabulary with the table of word embeddings, and with the snapshot's own vocabulary.

    Many models have more rows than tokens, because the number of rows was rounded up. No id refers to the other rows, so they do no harm
    where the snapshot itself has this vocabulary.
    """
    path, size = tokenizer.vocab_file, tokenizer.vocab_size
    own = None
    if own_file and os.path.isfile(own_file):
        own = tokenizer.tokens if os.path.realpath(own_file) == os.path.realpath(path) else vocabulary_tokens(own_file)
    allowed = config.vocab_size if own is None else min(len(own), config.vocab_size)
    if size != allowed:
        words = f"{config.vocab_size} word embeddings"
        if own is not None and allowed < config.vocab_size:
            words += f", and its own {VOCAB_FILE} has {allowed} pieces"
        remedy = (
            f": give the model's own --vocab_file, or --vocab_size {size}" if snapshot is None else ": give the model's own --vocab_file"
        )
        if own is not None:
            remedy += f", {own_file}, or leave the flag out"
        raise UserError(f"{path} has {size} pieces, but the model has {words}{remedy}")
    if own is not None and own != tokenizer.tokens:
        different = [row for row, (one, other) in enumerate(zip(own, tokenizer.tokens)) if one != other]
        row = different[0]
        log(
            f"warning: {path} is not the vocabulary of {snapshot.path}: {len(different)} of {size} pieces differ "
            f"(line {row + 1} is {tokenizer.tokens[row]!r:.60}, the model's {own[row]!r:.60})"
        )
