"""Functions for the files that several checkpoint formats share: vocabularies and folders."""

import contextlib
import os

import six

from modeling.bert.config import BERT, PALM
from ofrecord_util import tokenization
from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing_folder
from ofrecord_util.json_tokenizer import parse_tokenizer
from ofrecord_util.reading import VOCABULARY_LIMIT, read_bytes
from tools.sentencepiece_model import unigram_tokenizer

_POINTER, _LARGEST_POINTER = b"version https://git-lfs.github.com/spec/", 1024


def is_lfs_pointer(path):
    """Whether a file is a pointer of Git LFS, which stands in a clone for a large file that was not downloaded."""
    with contextlib.suppress(OSError, UserError):
        if os.path.isfile(path) and os.path.getsize(path) < _LARGEST_POINTER:
            return read_bytes(path, "", _LARGEST_POINTER).startswith(_POINTER)
    return False


def refuse_pointer(path):
    """Raises a UserError if the file is a pointer of Git LFS."""
    if is_lfs_pointer(path):
        raise UserError(
            f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in this folder, or download the file from the hub"
        )


def read_tokens(path):
    """Reads the tokens of a vocab.txt in the order of their ids, as the tokenizer reads them.

    Raises:
        UserError: if the file cannot be read or is not UTF-8.
    """
    refuse_pointer(path)
    return tokenization.read_vocabulary(path)


def vocabulary_text(tokens, path, config):
    """Returns the text of vocab.txt, one token per line.

    Raises:
        UserError: if it is not a WordPiece vocabulary of BERT, lacks a special token, or has more tokens than the embeddings have rows.
    """
    tokenization.check_vocabulary(path, tokens)
    if len(tokens) > config.vocab_size:
        raise UserError(f"{path} has {len(tokens)} tokens, the model has embeddings for {config.vocab_size} (vocab_size); set --vocab_file")
    return "".join(token + "\n" for token in tokens)


def read_vocabulary(path, config):
    """Returns the checked text of the vocabulary `path`: of a vocab.txt, or for another kind of model than BERT the tokenizer.json, which a
    model of SentencePiece (.model) becomes. None if `path` is None."""
    if path is None:
        return None
    if config.model_type in (BERT, PALM):
        return vocabulary_text(read_tokens(path), path, config)
    refuse_pointer(path)
    content = read_bytes(path, "check --vocab_file", VOCABULARY_LIMIT)
    if path.endswith(".model"):
        content = unigram_tokenizer(content, path).to_str().encode("utf-8")
    library = parse_tokenizer(content, path)
    size = 1 + max(library.get_vocab().values())
    if size > config.vocab_size:
        raise UserError(f"{path} has {size} tokens, the model has embeddings for {config.vocab_size} (vocab_size); set --vocab_file")
    return six.ensure_text(content, "utf-8")  # not library.to_str(), which may change the last digit of a score


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
