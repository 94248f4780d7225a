"""Rows of several texts: the arrays of a packed layout, for short texts that one text per row would mostly fill with padding.

Which texts share a row depends on their lengths only, so a run can continue at any step. The batch holds the masks that separate the
texts in the encoder, and where each begins (modeling/bert/sequence_layout.py).

Letters: B texts per batch, R rows, C texts per row, B = R * C.
"""

from typing import Dict, Tuple

import numpy as np


def deal(lengths: np.ndarray, per_row: int) -> np.ndarray:
    """Assigns texts to rows of equal numbers of texts, so that the fullest row has few tokens. Each round takes the longest remaining
    texts and assigns the longest of them to the row with the fewest tokens, and so on.

    Args:
        lengths: int [..., B], tokens of each text.
        per_row: C, a divisor of B.
    Returns:
        int64 [..., R, C], places in the batch.
    """
    lengths = np.asarray(lengths, np.int64)
    rounds = np.split(np.argsort(-lengths, axis=-1, kind="stable"), per_row, axis=-1)  # each [..., R], longest first
    filled, columns = np.zeros(rounds[0].shape, np.int64), []
    for texts in rounds:
        column = np.empty_like(texts)
        np.put_along_axis(column, np.argsort(filled, axis=-1, kind="stable"), texts, axis=-1)
        filled += np.take_along_axis(lengths, column, axis=-1)
        columns.append(column)
    return np.stack(columns, axis=-1)


def row_tokens(lengths: np.ndarray, per_row: int) -> np.ndarray:
    """Tokens of the fullest row of each batch: int [..., B] -> int64 [...]."""
    lengths = np.asarray(lengths, np.int64)
    rows = deal(lengths, per_row)
    texts = np.take_along_axis(lengths, rows.reshape(lengths.shape), axis=-1)
    return texts.reshape(rows.shape).sum(axis=-1).max(axis=-1)


def pack(values: np.ndarray, lengths: np.ndarray, per_row: int, length: int) -> np.ndarray:
    """Puts texts into rows, `per_row` consecutive ones per row.

    Args:
        values: int32 [B, S], a number for each token of each text.
        lengths: int [B], tokens of each text.
        per_row: C.
        length: P, of a row.
    Returns:
        int32 [R, P], 0 after the last text of a row.
    Raises:
        ValueError: a row's texts have more than P tokens.
    """
    row, start = _places(lengths, per_row, length)
    packed = np.zeros((len(lengths) // per_row, length), np.int32)
    for text, count in enumerate(lengths):
        packed[row[text], start[text] : start[text] + count] = values[text, :count]
    return packed


def describe(lengths: np.ndarray, per_row: int, length: int) -> Dict[str, np.ndarray]:
    """Masks, starts and positions of the texts of packed rows; arguments as in `pack`.

    Returns:
        dict: input_mask float32 [R, C, P], 1 at the tokens of each text; starts float32 [R, C, P], 1 at its first token;
            positions int32 [R, P], of each token within its text.
    """
    row, start = _places(lengths, per_row, length)
    shape = len(lengths) // per_row, per_row, length
    mask, starts, positions = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros((shape[0], length), np.int32)
    for text, count in enumerate(lengths):
        here = slice(start[text], start[text] + count)
        mask[row[text], text % per_row, here] = 1.0
        starts[row[text], text % per_row, start[text]] = 1.0
        positions[row[text], here] = np.arange(count)
    return {"input_mask": mask, "starts": starts, "positions": positions}


def _places(lengths: np.ndarray, per_row: int, length: int) -> Tuple[np.ndarray, np.ndarray]:
    """Row of each text and its first token there: int64 [B] twice."""
    by_row = np.asarray(lengths, np.int64).reshape(-1, per_row)
    ends = np.cumsum(by_row, axis=1)
    if ends[:, -1].max() > length:
        raise ValueError(f"rows of {length} tokens: a row's texts have {ends[:, -1].max()}")
    return np.repeat(np.arange(len(by_row)), per_row), (ends - by_row).reshape(-1)
