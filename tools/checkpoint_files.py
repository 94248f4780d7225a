"""Functions for the files that several checkpoint formats share: vocabularies and folders."""

import os

import six

from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing_folder
from ofrecord_util.reading import VOCABULARY_LIMIT, read_text

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def read_tokens(path):
    """Reads the tokens of a vocab.txt in the order of their ids.

    Raises:
        UserError: if the file cannot be read or is not UTF-8.
    """
    text = read_text(path, "set --vocab_file", VOCABULARY_LIMIT)
    return [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]


def vocabulary_text(tokens, path, config):
    """Returns the text of vocab.txt, one token per line.

    Raises:
        UserError: if the vocabulary lacks a special token of BERT, or has more tokens than the embeddings have rows.
    """
    lacking = [token for token in _SPECIAL_TOKENS if token not in tokens]
    if lacking:
        raise UserError(f"{path} lacks {', '.join(lacking)}, so it is not a vocabulary of BERT; set --vocab_file")
    if len(tokens) > config.vocab_size:
        raise UserError(f"{path} has {len(tokens)} tokens, the model has embeddings for {config.vocab_size} (vocab_size); set --vocab_file")
    return "".join(token + "\n" for token in tokens)


def read_vocabulary(path, config):
    """Returns the checked text of the vocabulary `path`, or None if `path` is None."""
    return None if path is None else vocabulary_text(read_tokens(path), path, config)


def write_folder(folder, files):
    """Writes a folder under a temporary name and renames it. The rename replaces an existing folder.

    Args:
        folder: path.
        files: dict of file name -> str or bytes.
    Raises:
        UserError: if the disk is full or the folder is not writable.
    """
    try:
        with replacing_folder(folder) as new:
            for name, data in sorted(files.items()):
                with open(os.path.join(new, name), "wb") as file:
                    file.write(six.ensure_binary(data))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
