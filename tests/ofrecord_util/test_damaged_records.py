"""OFRecord files: every fault of a file or of a manifest is a UserError."""

import json
import os
import struct

import numpy as np
import ofrecord_samples as samples
import pytest
from ofrecord_samples import both

from ofrecord_util.errors import UserError
from ofrecord_util.reader import read_split
from ofrecord_util.schema import FEATURE_NAMES, FEATURES


@pytest.mark.parametrize("with_manifest", [False, True])
def test_truncated_at_every_byte(tmp_path, with_manifest):
    path = samples.write(tmp_path, samples.arrays(3, 4), with_manifest=with_manifest)[0]
    with open(path, "rb") as file:
        data = file.read()
    (first,) = struct.unpack_from("<q", data)
    second = 8 + first + 8 + struct.unpack_from("<q", data, 8 + first)[0]
    for end in range(len(data)):
        with open(path, "wb") as file:
            file.write(data[:end])
        if not with_manifest and end in (8 + first, second):
            assert len(both(tmp_path)) == (1 if end == 8 + first else 2)  # whole records: nothing can tell
            continue
        message = both(tmp_path)
        assert isinstance(message, str), end
        assert path in message, end
        assert "--resave_ofrecord" in message, end


@pytest.mark.parametrize("length", [0, -1, 2**45, 2**63 - 1, -(2**63), 10**6])
@pytest.mark.parametrize("which", [0, 1])
def test_bad_length(tmp_path, length, which):
    values = samples.arrays(3, 4)
    bodies = [samples.record_bytes(values, row) for row in range(3)]
    data = bytearray(samples.framed(bodies))
    offset = which * (8 + len(bodies[0]))
    struct.pack_into("<q", data, offset, length)
    path = samples.put(tmp_path, data)
    message = both(tmp_path)
    assert f"{path}: record {which + 1} at byte {offset}: its length is {length} bytes" in message


def test_every_flipped_byte_is_found(tmp_path):
    path = samples.write(tmp_path, samples.arrays(2, 3))[0]
    with open(path, "rb") as file:
        data = file.read()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        with open(path, "wb") as file:
            file.write(changed)
        with pytest.raises(UserError, match="--resave_ofrecord"):
            read_split(str(tmp_path), "train")


@pytest.mark.slow
def test_without_manifest_a_flipped_byte_never_does_more_than_change_a_value(tmp_path):
    values = samples.arrays(2, 3)
    path = samples.write(tmp_path, values, with_manifest=False)[0]
    with open(path, "rb") as file:
        data = file.read()
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with open(path, "wb") as file:
                file.write(changed)
            result = both(tmp_path)
            assert isinstance(result, str) or len(result) in (1, 2)


@pytest.mark.parametrize("with_manifest", [False, True])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_empty_and_missing_parts(tmp_path, part, with_manifest):
    path = samples.write(tmp_path, part_num=3, with_manifest=with_manifest)[part]
    with open(path, "wb"):
        pass
    assert both(tmp_path, part_num=3) == f"{path}: is empty; write the records again with --resave_ofrecord"
    os.remove(path)
    assert both(tmp_path, part_num=3).startswith(f"{path}: no such file; write it by running this step with --resave_ofrecord")
    os.mkdir(path)
    assert "no such file" in both(tmp_path, part_num=3)


def test_junk(tmp_path):
    for data, message in (
        (b"", "is empty"),
        (b"\x00" * 8, "record 1 at byte 0: its length is 0 bytes"),
        (samples.framed([b"\xff\xff\xff"]), "record 1 at byte 0: is not an OFRecord"),
        (samples.framed([b"\x0a\x00"]), "record 1 at byte 0: has no input_ids"),
    ):
        samples.put(tmp_path, data)
        assert message in both(tmp_path)


KEYS = {feature.name: feature.key for feature in FEATURES}


@pytest.mark.parametrize("feature", FEATURE_NAMES)
def test_missing_feature(tmp_path, feature):
    values = samples.arrays(2, 3)
    bodies = [samples.record_bytes(values, 0), samples.record_bytes(values, 1, {feature: None})]
    samples.put(tmp_path, samples.framed(bodies))
    assert f"record 2 at byte {8 + len(bodies[0])}: has no {KEYS[feature]}, only" in both(tmp_path)


@pytest.mark.parametrize(("key", "shown"), [(b"segment\xffids", "segment\\xffids"), (b"segment\nids", "segment\\x0aids")])
def test_a_key_that_is_not_one_line_of_utf_8(tmp_path, capfd, key, shown):
    """libprotobuf would print a line of its own."""
    values = samples.arrays(2, 3)
    bodies = [samples.record_bytes(values, row).replace(b"segment_ids", key) for row in range(2)]
    samples.put(tmp_path, samples.framed(bodies))
    assert f"record 1 at byte 0: has no segment_ids, only domain, idxs, input_ids, input_mask, label, {shown}, weights" in both(tmp_path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("feature", FEATURE_NAMES)
@pytest.mark.parametrize("kind", ["bytes_list", "float_list", "double_list", "int32_list", "int64_list"])
def test_wrong_type(tmp_path, feature, kind):
    values = samples.arrays(2, 3)
    values["sample_weights"][:] = 1
    right = next(f.kind for f in FEATURES if f.name == feature)
    lists = {name: value.astype(int) if name == feature else value for name, value in values.items()}
    bodies = [samples.record_bytes(values, 0), samples.record_bytes(lists, 1, kinds={feature: kind})]
    samples.put(tmp_path, samples.framed(bodies))
    result = both(tmp_path)
    if kind == right:
        assert samples.equal(result, values)
    else:
        assert f"record 2 at byte {8 + len(bodies[0])}: {KEYS[feature]} is of type {kind}, not {right}" in result


@pytest.mark.parametrize(("feature", "per_token", "size"), [(f.name, f.per_token, size) for f in FEATURES for size in (0, 2, 4)])
def test_wrong_list_length(tmp_path, feature, per_token, size):
    values = samples.arrays(2, 3)
    lists = {name: list(value) for name, value in values.items()}
    lists[feature] = [lists[feature][0], np.ones(size, values[feature].dtype)]
    bodies = [samples.record_bytes(lists, row) for row in range(2)]
    samples.put(tmp_path, samples.framed(bodies))
    message = both(tmp_path)
    assert f"record 2 at byte {8 + len(bodies[0])}: {KEYS[feature]}" in message
    assert f"has {size} values, expected {3 if per_token else 1}" in message or "of type none" in message


def test_a_huge_first_record_allocates_nothing_for_the_others(tmp_path):
    """20,000 records of the first one's 200,000 tokens would be 16 GB an array."""
    values = samples.arrays(1, 200000)
    samples.put(tmp_path, samples.framed([samples.record_bytes(values, 0)] + [b"\x0a\x00"] * 20000))
    assert "record 2 at byte" in both(tmp_path)


def test_another_sequence_length(tmp_path):
    samples.write(tmp_path)
    assert "has 7 values, expected 9; give --seq_length 7, or" in both(tmp_path, seq_length=9)


# ---------------------------------------------------------------------------------------------------------- manifest


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"parts": []},
        {"parts": None},
        {"parts": ["train.of_record-0"]},
        {"parts": [{"name": "train.of_record-0"}]},
        {"parts": [{"name": "other", "records": 5, "bytes": 1, "sha256": ""}]},
        {"parts": [{"name": "train.of_record-0", "records": 5, "bytes": 1, "sha256": ""}]},
        {"text_digest": None},
        {"seq_length": "24"},
        {"num_records": -1},
        {"truncated": "x"},
    ],
)
def test_bad_manifest(tmp_path, change):
    samples.write(tmp_path)
    path = tmp_path / "ofrecord" / "train" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.update(change)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="--resave_ofrecord"):
        read_split(str(tmp_path), "train")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100000])
def test_manifest_that_is_no_manifest(tmp_path, content):
    samples.write(tmp_path)
    path = tmp_path / "ofrecord" / "train" / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"manifest.json.*--resave_ofrecord"):
        read_split(str(tmp_path), "train")
    samples.write(tmp_path)  # writing again mends it
    read_split(str(tmp_path), "train")
