"""Files that several checkpoint formats share: JSON objects, vocabularies, and a folder written whole or not at all."""

import json
import os

import six

from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing_folder

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def read_json(path):
    """The object in a JSON file; a UserError where it is none."""
    try:
        with open(path, encoding="utf-8") as f:
            value = json.load(f)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object")
    return value


def read_tokens(path):
    """The tokens of a vocab.txt in id order.

    Raises:
        UserError: not readable, or not UTF-8.
    """
    try:
        with open(path, encoding="utf-8", newline="\n") as f:
            text = f.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]


def vocabulary_text(tokens, path, config):
    """The text of vocab.txt, one token a line.

    Raises:
        UserError: a vocabulary that lacks BERT's special tokens, or more tokens than the embeddings have rows.
    """
    lacking = [token for token in _SPECIAL_TOKENS if token not in tokens]
    if lacking:
        raise UserError(f"{path} lacks {', '.join(lacking)}, so it is no BERT vocabulary")
    if len(tokens) > config.vocab_size:
        raise UserError(f"{path} has {len(tokens)} tokens, the model embeddings for {config.vocab_size} (vocab_size)")
    return "".join(token + "\n" for token in tokens)


def read_vocabulary(path, config):
    """The checked text of the vocabulary `path`; None for None."""
    return None if path is None else vocabulary_text(read_tokens(path), path, config)


def write_folder(folder, files):
    """Writes a folder beside its final name, then renames it; one that is there already is replaced at the end.

    Args:
        folder: path.
        files: dict of file name -> str or bytes.
    Raises:
        UserError: the disk is full or not writable.
    """
    try:
        with replacing_folder(folder) as new:
            for name, data in sorted(files.items()):
                with open(os.path.join(new, name), "wb") as file:
                    file.write(six.ensure_binary(data))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
