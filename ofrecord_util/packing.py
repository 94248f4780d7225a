"""Rows of several texts: the arrays of a packed layout, for short texts that one text per row would mostly fill with padding.

Which texts share a row depends on their lengths only, so a run can continue at any step. The batch holds the masks that separate the
texts in the encoder, and where each begins (modeling/bert/sequence_layout.py). In training all rows have the same number of texts (`deal`,
`pack`, `describe`). For prediction the order of the texts does not matter, so rows are filled as far as possible (`fill`, `arrange`).

Letters: B texts per batch, R rows, C texts per row, B = R * C.
"""

from typing import Dict, Iterator, List, NamedTuple, Tuple

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


class Rows(NamedTuple):
    """The shape of the batches of a predict function with several texts per row."""

    number: int  # R, rows of a batch
    length: int  # P, tokens of a row
    most: int  # C, texts of a row at most


class Places(NamedTuple):
    """Where the texts of one packed batch lie; arrays of the batch's n texts."""

    row: np.ndarray  # int64 [n]
    slot: np.ndarray  # int64 [n], number of the text within its row, from 0
    start: np.ndarray  # int64 [n], the text's first token within its row


def fill(lengths: np.ndarray, length: int, most: int) -> np.ndarray:
    """Assigns texts to few rows: the longest text first, each to the fullest row that still has room for it.

    Args:
        lengths: int [N], tokens of each text, 1 to P.
        length: P, of a row.
        most: C, texts of a row at most.
    Returns:
        int64 [N], the row of each text. Rows are numbered by their longest texts, the longest first.
    Raises:
        ValueError: a text has more than P tokens.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and lengths.max() > length:
        raise ValueError(f"rows of {length} tokens: a text has {lengths.max()}")
    rows = np.empty(len(lengths), np.int64)
    with_room: List[List[Tuple[int, int]]] = [[] for _ in range(length + 1)]  # (row, texts) of the open rows, by their free tokens
    some, count = 0, 0  # bit f of `some`: there is a row with f free tokens
    for text in np.argsort(-lengths, kind="stable").tolist():
        needed = int(lengths[text])
        fitting = some >> needed
        if fitting:
            free = needed + (fitting & -fitting).bit_length() - 1
            row, texts = with_room[free].pop()
            if not with_room[free]:
                some ^= 1 << free
        else:
            row, texts, free, count = count, 0, length, count + 1
        rows[text] = row
        if texts + 1 < most and free > needed:
            with_room[free - needed].append((row, texts + 1))
            some |= 1 << (free - needed)
    return rows


def packed_batches(lengths: np.ndarray, shape: Rows) -> Iterator[Tuple[np.ndarray, Places]]:
    """The batches of a predict function that packs the texts by `fill`, the longest texts first.

    Args:
        lengths: int [N], tokens of each text.
        shape: `Rows`.
    Yields:
        (int64 [n], the texts of a batch; their `Places`). Each text is in one batch. A batch may have fewer than R rows.
    """
    lengths = np.asarray(lengths, np.int64)
    rows = fill(lengths, shape.length, shape.most)
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    first = np.searchsorted(rows, rows)  # of each text, the first text of its row
    before = np.cumsum(lengths[order]) - lengths[order]
    slot, start = np.arange(len(rows)) - first, before - before[first]
    bounds = np.searchsorted(rows, np.arange(0, (rows[-1] if len(rows) else -1) + 1 + shape.number, shape.number))
    for begin, end in zip(bounds, bounds[1:]):
        yield order[begin:end], Places(rows[begin:end] - rows[begin], slot[begin:end], start[begin:end])


def arrange(word_rows: np.ndarray, segment_ids: np.ndarray, lengths: np.ndarray, places: Places, shape: Rows) -> Dict[str, np.ndarray]:
    """The inputs of a predict function for the texts of a packed batch.

    Args:
        word_rows, segment_ids: int32 [n, S].
        lengths: int [n], tokens of each text.
        places: `Places`.
        shape: `Rows`.
    Returns:
        dict: word_rows, segment_ids int32 [R, P]; input_mask, starts float32 [R, C, P] and positions int32 [R, P] as of `describe`.
            Rows and slots without a text are zeros.
    """
    lengths = np.asarray(lengths, np.int64)
    text = np.repeat(np.arange(len(lengths)), lengths)  # the text of each token
    position = np.arange(len(text)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    row, slot, column = places.row[text], places.slot[text], places.start[text] + position
    arrays = {name: np.zeros((shape.number, shape.length), np.int32) for name in ("word_rows", "segment_ids", "positions")}
    masks = {name: np.zeros((shape.number, shape.most, shape.length), np.float32) for name in ("input_mask", "starts")}
    arrays["word_rows"][row, column] = word_rows[text, position]
    arrays["segment_ids"][row, column] = segment_ids[text, position]
    arrays["positions"][row, column] = position
    masks["input_mask"][row, slot, column] = 1.0
    masks["starts"][places.row, places.slot, places.start] = 1.0
    return {**arrays, **masks}


def outputs_of(outputs: np.ndarray, places: Places, shape: Rows) -> np.ndarray:
    """The rows of a packed batch's outputs [R * C, ...] that belong to its texts: [n, ...]."""
    return outputs[places.row * shape.most + places.slot]
