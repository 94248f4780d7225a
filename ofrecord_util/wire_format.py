"""Records to bytes and back, many at once with NumPy, in the one layout that this project writes.

It is protobuf's deterministic serialisation of an `OFRecord`: features in the order of their keys, each

    0a ENTRY_SIZE  0a KEY_SIZE key  12 FEATURE_SIZE  (22 int32_list | 12 float_list) LIST_SIZE  0a VALUES_SIZE  values

Sizes and int32 values are varints (7 bits per byte, the lowest first, the high bit is set where more follow; a negative value
is encoded as 64 bits, in 10 bytes), floats little-endian. An 8-byte length precedes each record. Protobuf itself
goes value by value and takes five times as long or more.
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ofrecord_util.schema import FEATURES, LENGTH_BYTES, Feature

PADDING = 64  # bytes after the data of a file, so that `decode` may read past its end
_CHUNK = 4096  # records decoded at once

_KIND_TAG = {"int32_list": b"\x22", "float_list": b"\x12"}


def _by_key(features: Sequence[Feature]) -> List[Feature]:
    """The features in the order of a record."""
    return sorted(features, key=lambda feature: feature.key)


def _tags(feature: Feature) -> Tuple[bytes, bytes, bytes, bytes]:
    """The bytes before the sizes of the entry of a feature, of its `Feature`, of the list and of the values."""
    key = feature.key.encode("ascii")
    return b"\x0a", b"\x0a" + bytes([len(key)]) + key + b"\x12", _KIND_TAG[feature.kind], b"\x0a"


def encode(columns: Sequence[np.ndarray], features: Sequence[Feature] = FEATURES) -> np.ndarray:
    """The bytes of N records with their lengths, as uint8 array. Arguments as in `encode_with_sizes`."""
    return encode_with_sizes(columns, features)[0]


def encode_with_sizes(columns: Sequence[np.ndarray], features: Sequence[Feature] = FEATURES) -> Tuple[np.ndarray, np.ndarray]:
    """The bytes of N records with their lengths.

    Args:
        columns: the arrays of `features` in their order: [N, S] for tokens, [N, count] or [N] for the others; S is at least 1.
        features: of the records, see `schema.features_of`.

    Returns:
        (uint8 array, int64 [N]: bytes of each record with its length).
    """
    arrays = dict(zip((feature.name for feature in features), columns))
    elements = [element for feature in _by_key(features) for element in _elements(feature, arrays[feature.name])]
    sizes = sum(widths.sum(axis=1, dtype=np.int64) for _, widths in elements)
    elements.insert(0, _as_bytes(sizes.astype(f"<i{LENGTH_BYTES}")))
    numbers = np.concatenate([numbers for numbers, _ in elements], axis=1).ravel()
    widths = np.concatenate([widths for _, widths in elements], axis=1).ravel()
    ends = np.cumsum(widths, dtype=np.int64)
    data = np.empty(ends[-1], np.uint8)
    at = ends - widths
    data[at] = numbers.astype(np.uint8)  # the lowest 8 bits
    longer = np.flatnonzero(widths > 1)
    at, numbers, left = at[longer], numbers[longer], widths[longer] - 1
    while left.size:
        data[at] |= 0x80  # the lowest 7 bits are in place: more follow
        at, numbers = at + 1, numbers >> np.uint64(7)
        data[at] = numbers.astype(np.uint8)
        more = left > 1
        at, numbers, left = at[more], numbers[more], left[more] - 1
    return data, np.asarray(sizes) + LENGTH_BYTES


def _elements(feature: Feature, values: np.ndarray) -> List[Tuple[np.ndarray, np.ndarray]]:
    """A feature's entry: pairs of uint64 [N, K] numbers and the uint8 [N, K] bytes that each takes, in written order.

    A number of one byte is that byte, one of more is a varint.
    """
    count = len(values)
    elements = [_as_bytes(values.astype("<f4")) if feature.kind == "float_list" else _as_varints(values.reshape(count, -1))]
    size = elements[0][1].sum(axis=1, keepdims=True, dtype=np.int64)
    for tag in reversed(_tags(feature)):
        elements[:0] = [_as_bytes(np.full(count, np.void(tag))), _as_varints(size)]
        size = size + elements[1][1] + len(tag)
    return elements


def _as_bytes(values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The bytes of [N] values as they are in memory."""
    numbers = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1).astype(np.uint64)
    return numbers, np.ones(numbers.shape, np.uint8)


def _as_varints(values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Integers and the bytes that each takes as a varint (protobuf: a negative one is that of its 64 bits)."""
    numbers = values.astype(np.int64).view(np.uint64)
    widths = np.ones(numbers.shape, np.uint8)
    for group in range(1, 10):
        longer = numbers >= np.uint64(1 << 7 * group)
        if not longer.any():
            break
        widths += longer
    return numbers, widths


def decode(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, seq_length: Optional[int], features: Sequence[Feature] = FEATURES
) -> Optional[Dict[str, np.ndarray]]:
    """The values of a file's N records.

    Args:
        data: uint8, the file's bytes and `PADDING` more.
        starts, ends: int64 [N], the bytes of each record without its length.
        seq_length: S; None takes that of the first record.
        features: of the records, see `schema.features_of`.

    Returns:
        Dict of arrays by feature, [N, S], [N, count] or [N]; None where a record has another layout, a value of more than 28 bits or a
        fault.
    """
    parts = []
    for begin in range(0, len(starts), _CHUNK):
        arrays = _decode_chunk(data, starts[begin : begin + _CHUNK], ends[begin : begin + _CHUNK], seq_length, features)
        if arrays is None:
            return None
        seq_length = arrays["input_ids"].shape[1]
        parts.append(arrays)
    return {feature.name: np.concatenate([arrays[feature.name] for arrays in parts]) for feature in features}


def _decode_chunk(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, seq_length: Optional[int], features: Sequence[Feature]
) -> Optional[Dict[str, np.ndarray]]:
    spans = {}
    at = starts
    for feature in _by_key(features):
        limit = None
        for tag in _tags(feature):
            at, end = _enter(data, at, tag, ends, limit)
            if at is None:
                return None
            limit = end
        spans[feature.name] = (at, end)
        at = end
    if not np.array_equal(at, ends):
        return None
    if seq_length is None:
        seq_length = int(spans["input_mask"][1][0] - spans["input_mask"][0][0])
    arrays = {}
    for feature in features:
        begin, end = spans[feature.name]
        count = seq_length if feature.per_token else feature.count or 1
        values = _floats(data, begin, end) if feature.kind == "float_list" else _integers(data, begin, end, count)
        if values is None or not count:
            return None
        arrays[feature.name] = values if feature.per_token or feature.count else values[:, 0]
    return arrays


def _enter(data: np.ndarray, at: np.ndarray, tag: bytes, ends: np.ndarray, limit: Optional[np.ndarray]) -> Tuple[Any, Any]:
    """Steps into a field: checks the bytes `tag` at each position, reads the size after them.

    Returns (begin, end) of the field's content; (None, None) where the tag is another, or the content does not end at
    `limit` (where that is None: goes beyond the record's end).
    """
    found = data[at[:, None] + np.arange(len(tag))]
    if not (found == np.frombuffer(tag, np.uint8)).all():
        return None, None
    size, begin = _varint(data, at + len(tag))
    if size is None:
        return None, None
    end = begin + size
    if not ((end <= ends).all() if limit is None else np.array_equal(end, limit)):
        return None, None
    return begin, end


def _varint(data: np.ndarray, at: np.ndarray) -> Tuple[Any, Any]:
    """Varints of up to 4 bytes at each position. Returns (values, positions after them), (None, None) for a longer
    one."""
    byte = data[at].astype(np.int64)
    value, at = byte & 0x7F, at + 1
    more = np.flatnonzero(byte & 0x80)
    for shift in (7, 14, 21):
        if not more.size:
            break
        byte = data[at[more]].astype(np.int64)
        value[more] |= (byte & 0x7F) << shift
        at[more] += 1
        more = more[(byte & 0x80) != 0]
    return (None, None) if more.size else (value, at)


def _floats(data: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Optional[np.ndarray]:
    """One float32 per record: [N, 1], or None where a list has another size."""
    if not (end - begin == 4).all():
        return None
    return data[begin[:, None] + np.arange(4)].view("<f4").astype(np.float32)


def _integers(data: np.ndarray, begin: np.ndarray, end: np.ndarray, count: int) -> Optional[np.ndarray]:
    """Packed varints of up to 4 bytes: int32 [N, count], or None where a record has another number of them or a longer
    one."""
    sizes = end - begin
    if (sizes == count).all():
        values = data[begin[:, None] + np.arange(count)]
        return values.astype(np.int32) if not (values & 0x80).any() else None
    if (sizes < count).any() or (sizes > 4 * count).any():
        return None
    total = np.cumsum(sizes)
    flat = data[np.arange(total[-1]) + np.repeat(begin - (total - sizes), sizes)]  # all lists, concatenated
    last = np.flatnonzero(flat < 0x80)  # where each varint ends
    if last.size != len(begin) * count or not np.array_equal(last[count - 1 :: count], total - 1):
        return None
    first = np.empty_like(last)
    first[0], first[1:] = 0, last[:-1] + 1
    width = last - first
    if width.max() > 3:
        return None
    values = (flat[first] & 0x7F).astype(np.int32)
    for extra in (1, 2, 3):
        longer = np.flatnonzero(width >= extra)
        if not longer.size:
            break
        values[longer] |= (flat[first[longer] + extra] & 0x7F).astype(np.int32) << (7 * extra)
    return values.reshape(len(begin), count)
