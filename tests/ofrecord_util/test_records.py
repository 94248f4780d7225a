"""OFRecord files: round trips, OneFlow's own reader on them, and every fault of a file a UserError."""

import json
import os
import struct

import numpy as np
import ofrecord_samples as samples
import pytest
from google.protobuf import descriptor_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofrecord_util import reader, wire_format
from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION
from ofrecord_util.reader import check_ranges, read_split
from ofrecord_util.schema import FEATURE_NAMES, FEATURES, features_of, record_class
from ofrecord_util.tasks import Task
from ofrecord_util.writer import write_split

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
    database=None,
)


def both(data_dir, **arguments):
    """Reads with and without the fast path: equal records or an equal error. Returns the records or the error's message."""
    results = []
    for fast in (True, False):
        try:
            results.append(read_split(str(data_dir), "train", fast=fast, **arguments))
        except UserError as error:
            results.append(str(error))
    if isinstance(results[0], str) or isinstance(results[1], str):
        assert results[0] == results[1]
    else:
        assert samples.equal(results[0], {name: getattr(results[1], name) for name in FEATURE_NAMES})
    return results[0]


def decode_fast(path):
    data, size = reader._read_bytes(str(path))
    starts, ends = reader._scan(str(path), data, size)
    return wire_format.decode(data, starts, ends, None)


# ------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize(
    ("count", "length", "part_num"), [(1, 1, 1), (1, 5, 1), (3, 128, 1), (3, 128, 2), (13, 7, 1), (13, 7, 13), (300, 3, 2)]
)
def test_round_trip(tmp_path, count, length, part_num):
    values = samples.arrays(count, length)
    paths = samples.write(tmp_path, values, part_num=part_num)
    assert [os.path.basename(path) for path in paths] == [f"train.of_record-{part}" for part in range(part_num)]
    records = both(tmp_path, part_num=part_num)
    assert samples.equal(records, values)
    assert len(records) == count
    assert records.seq_length == length
    assert records.manifest["num_records"] == count
    assert records.manifest["seq_length"] == length
    assert records.text_digest == "0" * 64
    assert all(decode_fast(path) is not None for path in paths), "the fast path must take what the writer writes"
    assert not [name for name in os.listdir(os.path.dirname(paths[0])) if "tmp" in name]


@pytest.mark.parametrize(
    ("count", "length", "least", "most"),
    [(1, 1, 0, 1), (7, 5, 0, 127), (7, 5, -3, 200), (300, 9, 0, 2**31 - 1), (9, 130, -(2**31), 2**31 - 1)],
)
def test_bytes_are_those_of_protobuf(tmp_path, count, length, least, most):
    draw = np.random.default_rng(count)
    values = {
        feature.name: draw.integers(least, most, (count, length) if feature.per_token else count, np.int32, endpoint=True)
        for feature in FEATURES
        if feature.kind == "int32_list"
    }
    values["sample_weights"] = draw.standard_normal(count).astype(np.float32)
    values["sample_weights"][0] = [np.nan, -0.0, np.inf][count % 3]
    path = samples.write(tmp_path, values)[0]
    with open(path, "rb") as file:
        assert file.read() == samples.framed(samples.record_bytes(values, row) for row in range(count))


@pytest.mark.parametrize(
    ("name", "shape"), [("input_ids", (3, 0)), ("input_ids", (3,)), ("segment_ids", (3, 4)), ("label", (2,)), ("idxs", (3, 1))]
)
def test_wrong_shapes(tmp_path, name, shape):
    with pytest.raises(ValueError, match=name):
        samples.write(tmp_path, dict(samples.arrays(3, 5), **{name: np.zeros(shape, np.int32)}))
    assert not os.listdir(tmp_path)


def test_many_chunks(tmp_path, monkeypatch):
    values = samples.arrays(23, 5)
    monkeypatch.setattr("ofrecord_util.writer._CHUNK", 7)
    samples.write(tmp_path, values, part_num=2)
    monkeypatch.setattr(wire_format, "_CHUNK", 4)
    assert samples.equal(both(tmp_path, part_num=2), values)


def test_extreme_values_take_the_slow_path(tmp_path):
    values = samples.arrays(3, 4)
    values["input_ids"][1, 2] = -1
    values["input_ids"][2, 0] = 2**31 - 1
    values["label"][0] = -5
    values["sample_weights"][1] = -0.0
    path = samples.write(tmp_path, values)[0]
    assert decode_fast(path) is None
    assert samples.equal(both(tmp_path), values)


@pytest.mark.parametrize("largest", [2, 127, 128, 129, 2**14, 2**14 + 1, 2**21, 2**21 + 1, 2**28])
def test_varint_widths(tmp_path, largest):
    values = samples.arrays(4, 9)
    values["input_ids"][:, ::2] = largest - 1
    values["idxs"] += max(0, largest - 4)
    path = samples.write(tmp_path, values)[0]
    assert decode_fast(path) is not None
    assert samples.equal(both(tmp_path), values)


def test_equal_data_gives_equal_files(tmp_path):
    path = samples.write(tmp_path)[0]
    with open(path, "rb") as file:
        first = file.read()
    samples.write(tmp_path)
    with open(path, "rb") as file:
        assert file.read() == first


def test_prefix_and_fewer_parts(tmp_path):
    folder = tmp_path / "ofrecord" / "train"
    samples.write(tmp_path, part_num=3)
    samples.write(tmp_path, part_num=1)
    assert sorted(os.listdir(folder)) == ["manifest.json", "train.of_record-0"]
    (folder / "mine").write_bytes(b"kept")
    samples.write(tmp_path, part_num=2, prefix="part-")
    assert sorted(os.listdir(folder)) == ["manifest.json", "mine", "part-0", "part-1"]
    assert len(read_split(str(tmp_path), "train", "part-", 2)) == 5
    with pytest.raises(UserError, match=r"no such file.*--resave_ofrecord"):
        read_split(str(tmp_path), "train")


def test_flags_of_another_run(tmp_path):
    samples.write(tmp_path, part_num=2)
    with pytest.raises(UserError, match=r"lists the parts.*--train_data_part_num"):
        read_split(str(tmp_path), "train", part_num=1)
    with pytest.raises(UserError, match="no such file"):
        read_split(str(tmp_path), "train", part_num=3)
    samples.write(tmp_path, part_num=2, split="dev", with_manifest=False)
    with pytest.raises(UserError, match=r"dev.of_record-1 exists.*--dev_data_part_num"):
        read_split(str(tmp_path), "dev", part_num=1)


@pytest.mark.parametrize(("prefix", "part_num"), [(None, 0), (None, -1), ("a/b-", 1), ("", 1)])
def test_bad_flags(tmp_path, prefix, part_num):
    with pytest.raises(UserError, match="--train_data_"):
        samples.write(tmp_path, prefix=prefix, part_num=part_num)


def test_more_parts_than_records(tmp_path):
    with pytest.raises(UserError, match="--train_data_part_num 6: more parts than the 5 records"):
        samples.write(tmp_path, part_num=6)


def test_a_write_that_fails_leaves_the_old_files(tmp_path, monkeypatch):
    values = samples.arrays(seed=1)
    paths = samples.write(tmp_path, values, part_num=2)
    calls = []

    def fail_at_the_second_part(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("ofrecord_util.files.os.fsync", fail_at_the_second_part)
    with pytest.raises(UserError, match="No space left"):
        samples.write(tmp_path, samples.arrays(seed=2), part_num=2)
    monkeypatch.undo()
    assert not [name for name in os.listdir(os.path.dirname(paths[0])) if "tmp" in name]
    try:  # a part may have been replaced by then: noticed, never taken for the whole
        assert samples.equal(read_split(str(tmp_path), "train", part_num=2), values)
    except UserError as error:
        assert "--resave_ofrecord" in str(error)  # noqa: PT017  either outcome is right


@pytest.mark.parametrize(("name", "shape"), [("input_ids", (5,)), ("input_mask", (5, 6)), ("label", (4,)), ("label", (5, 1))])
def test_wrong_shapes_are_not_written(tmp_path, name, shape):
    values = samples.arrays(5, 7)
    values[name] = np.zeros(shape, np.int32)
    with pytest.raises(ValueError, match=name):
        write_split(str(tmp_path), "train", None, 1, values, samples.manifest())


# ------------------------------------------------------------------------------------------------- OneFlow's reader


@pytest.mark.parametrize(("part_num", "task_type"), [(1, CLASSIFICATION), (2, CLASSIFICATION), (1, REGRESSION), (2, MULTI_LABEL)])
def test_oneflow_reads_the_files(tmp_path, part_num, task_type):
    from modeling.engine.runtime import flow

    count, length = 6, 7
    labels = {CLASSIFICATION: ("0", "1"), REGRESSION: ("score",), MULTI_LABEL: ("a", "b", "c")}[task_type]
    task = Task("t", ("books", "dvd", "mr"), labels, task_type=task_type).to_dict()
    features, values = features_of(task), samples.arrays(count, length)
    draw = np.random.RandomState(5)
    other = {REGRESSION: draw.randn(count).astype(np.float32), MULTI_LABEL: draw.randint(0, 2, (count, 3)).astype(np.int32)}
    values["label"] = other.get(task_type, values["label"])
    write_split(str(tmp_path), "train", None, part_num, values, {**samples.manifest(), "task": task})
    path = str(tmp_path / "ofrecord" / "train" / "train.of_record-0")
    types = {np.int32: flow.int32, np.float32: flow.float32}

    class Decode(flow.nn.Module):
        def __init__(self):
            super().__init__()
            self.records = flow.nn.OFRecordReader(
                os.path.dirname(path),
                batch_size=3,
                data_part_num=part_num,
                part_name_prefix="train.of_record-",
                random_shuffle=False,
                shuffle_after_epoch=False,
            )
            for feature in features:
                shape = (length,) if feature.per_token else (feature.count or 1,)
                decoder = flow.nn.OFRecordRawDecoder(feature.key, shape=shape, dtype=types[feature.dtype])
                setattr(self, "decode_" + feature.name, decoder)

        def forward(self):
            batch = self.records()
            return tuple(getattr(self, "decode_" + name)(batch) for name in FEATURE_NAMES)

    class Job(flow.nn.Graph):
        def __init__(self):
            super().__init__()
            self.decode = Decode()

        def build(self):
            return self.decode()

    job = Job()
    batches = [[tensor.numpy() for tensor in job()] for _ in range(2)]
    for position, feature in enumerate(features):
        found = np.concatenate([batch[position] for batch in batches])
        assert found.dtype == feature.dtype
        np.testing.assert_array_equal(found, values[feature.name].reshape(count, -1))


# ------------------------------------------------------------------------------- files of the earlier implementation

OLDER = {"input_mask": "attention_masks", "segment_ids": "token_type_ids", "domain": "tasks", "label": "labels"}


def test_older_names(tmp_path):
    values = samples.arrays()
    samples.put(tmp_path, samples.framed([samples.record_bytes(values, row, OLDER) for row in range(5)]))
    records = both(tmp_path, seq_length=7)
    assert samples.equal(records, values)
    assert records.manifest is None
    assert records.text_digest.startswith("records:")
    values["sample_weights"][:] = 1
    values["label"][0] ^= 1
    samples.put(tmp_path, samples.framed([samples.record_bytes(values, row, OLDER) for row in range(5)]))
    assert read_split(str(tmp_path), "train").text_digest != records.text_digest


def test_any_order_and_unknown_features(tmp_path):
    values = samples.arrays()
    bodies = []
    for row in range(5):
        # protobuf messages may be put one behind the other, so the order of the features on the wire is ours to choose
        order = np.random.RandomState(row).permutation(len(FEATURES))
        body = b"".join(samples.record_bytes(values, row, order=[position]) for position in order)
        extra = samples.record_bytes(values, row, {"domain": "comment"}, order=[3])
        bodies.append(extra + body)
    path = samples.put(tmp_path, samples.framed(bodies))
    assert decode_fast(path) is None
    assert samples.equal(both(tmp_path), values)


def test_unpacked_lists(tmp_path):
    """Lists of one value a field, which protobuf reads as well."""
    values = samples.arrays(2, 3, largest=100)
    bodies = []
    for row in range(2):
        body = samples.record_bytes(values, row, {"input_ids": None})
        numbers = b"".join(b"\x08" + bytes([number]) for number in values["input_ids"][row])
        feature = b"\x22" + bytes([len(numbers)]) + numbers
        entry = b"\x0a\x09input_ids\x12" + bytes([len(feature)]) + feature
        bodies.append(b"\x0a" + bytes([len(entry)]) + entry + body)
    path = samples.put(tmp_path, samples.framed(bodies))
    assert decode_fast(path) is None
    assert samples.equal(both(tmp_path), values)


# ------------------------------------------------------------------------------------------------------------ faults


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


@given(position=st.integers(0, 10**6), change=st.integers(1, 255), cut=st.integers(0, 40), more=st.binary(max_size=20))
@FUZZ
def test_whatever_is_changed_the_manifest_tells(tmp_path, position, change, cut, more):
    path = samples.write(tmp_path, samples.arrays(4, 5), part_num=2)[position % 2]
    with open(path, "rb") as file:
        content = bytearray(file.read())
    content[position % len(content)] ^= change
    with open(path, "wb") as file:
        file.write(content[: len(content) - cut] + more)
    message = both(tmp_path, part_num=2)
    assert isinstance(message, str)
    assert message.startswith(path)
    assert "--resave_ofrecord" in message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "records", "bytes", "sha256"]), inner),
    max_leaves=5,
)


@pytest.mark.slow
@given(key=st.sampled_from(["format", "parts", "text_digest"]), value=_JSON)
@settings(FUZZ, max_examples=30)
def test_fuzzed_manifests(tmp_path, key, value):
    """Whatever JSON stands in a field that is used: records or a UserError, nothing else."""
    samples.write(tmp_path, samples.arrays(2, 3))
    path = tmp_path / "ofrecord" / "train" / "manifest.json"
    path.write_text(json.dumps(dict(json.loads(path.read_text()), **{key: value})))
    both(tmp_path)


@given(data=st.data())
@FUZZ
def test_fuzzed_files(tmp_path, data):
    """Cut, spliced and changed files: the fast path and protobuf agree on records or message, and nothing else is raised."""
    values = samples.arrays(3, 3, seed=data.draw(st.integers(0, 3)))
    content = bytearray(samples.framed([samples.record_bytes(values, row) for row in range(3)]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        action = data.draw(st.sampled_from(["set", "cut", "insert", "double", "value"]))
        if action == "cut":
            del content[at : at + data.draw(st.integers(1, 20))]
        elif action == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=12))
        elif action == "double":
            content[at:at] = content[at : at + data.draw(st.integers(1, 40))]
        elif at < len(content):
            content[at] = data.draw(st.integers(0, 255))
    samples.put(tmp_path, bytes(content))
    both(tmp_path)


@given(body=st.binary(min_size=1, max_size=60))
@FUZZ
def test_fuzzed_bodies(tmp_path, body):
    samples.put(tmp_path, samples.framed([body, body]))
    assert isinstance(both(tmp_path), str)


@given(seed=st.integers(0, 1000), position=st.integers(0, 5000), value=st.integers(0, 255))
@FUZZ
def test_fuzzed_bytes_within_the_framing(tmp_path, seed, position, value):
    """One changed byte in a record whose length is right."""
    values = samples.arrays(4, 5, seed=seed, largest=2**21)
    bodies = [bytearray(samples.record_bytes(values, row)) for row in range(4)]
    bodies[position % 4][position % len(bodies[position % 4])] = value
    samples.put(tmp_path, samples.framed(bodies))
    both(tmp_path)


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


# ------------------------------------------------------------------------------------------------------ value ranges


def records_of(tmp_path, **changes):
    values = samples.arrays()
    for name, (where, value) in changes.items():
        values[name][where] = value
    samples.write(tmp_path, values)
    return read_split(str(tmp_path), "train")


def test_ranges_hold(tmp_path):
    check_ranges(records_of(tmp_path), 30000, 2, samples.TASK)


@pytest.mark.parametrize(
    ("name", "where", "value", "number", "message"),
    [
        ("input_ids", (2, 1), 30000, 3, "input_ids is 30000, allowed are 0 to 29999; check --vocab_file"),
        ("input_ids", (2, 1), -1, 3, "input_ids is -1"),
        ("input_mask", (0, 0), 2, 1, "input_mask is 2"),
        ("input_mask", (1,), 0, 2, "input_mask has no real token"),
        ("segment_ids", (4, 6), 2, 5, "segment_ids is 2, allowed are 0 to 1; check --type_vocab_size"),
        ("domain", (1,), 3, 2, "domain is 3, allowed are 0 to 2; check --task_name or --domains"),
        ("label", (3,), 2, 4, "label is 2, allowed are 0 to 1; check --task_name or --label_list"),
        ("label", (3,), -1, 4, "label is -1"),
        ("idxs", (3,), -1, 4, "idxs is -1"),
        ("idxs", (3,), 1, 4, "idxs 1 occurs before"),
        ("sample_weights", (2,), np.nan, 3, "the weight is nan"),
        ("sample_weights", (2,), np.inf, 3, "the weight is inf"),
    ],
)
@pytest.mark.parametrize("part_num", [1, 2])
def test_ranges(tmp_path, name, where, value, number, message, part_num):
    """The record is counted within its file: of five, part 0 of two holds the first two."""
    values = samples.arrays()
    values[name][where] = value
    paths = samples.write(tmp_path, values, part_num=part_num)
    part, number = (1, number - 2) if part_num == 2 and number > 2 else (0, number)
    with open(paths[part], "rb") as file:
        data, offset = file.read(), 0
    for _ in range(number - 1):
        offset += 8 + struct.unpack_from("<q", data, offset)[0]
    records = read_split(str(tmp_path), "train", part_num=part_num)
    with pytest.raises(UserError) as error:
        check_ranges(records, 30000, 2, samples.TASK)
    assert str(error.value).startswith(f"{paths[part]}: record {number} at byte {offset}: {message}")


def test_ranges_of_selected_records(tmp_path):
    part = records_of(tmp_path, label=((3,), 7)).select(np.array([0, 3]))
    with pytest.raises(UserError, match="ofrecord/train: record 2: label is 7"):
        check_ranges(part, 30000, 2, samples.TASK)


def test_select(tmp_path):
    records = records_of(tmp_path)
    assert records.select(slice(0, 2)).idxs.tolist() == [0, 1]
    part = records.select(np.array([4, 0]))
    assert part.idxs.tolist() == [4, 0]
    assert part.input_ids.shape == (2, 7)
    assert part.manifest is records.manifest


def test_the_message_is_oneflows_own(tmp_path):
    """The class that is built here and the one of OneFlow, in one process: the same bytes, in both directions."""
    from oneflow.core.record import record_pb2

    from modeling.engine.runtime import flow  # noqa: F401, which loads what OneFlow needs

    own, theirs = record_class(), record_pb2.OFRecord
    assert own is not theirs
    assert own.DESCRIPTOR.full_name == theirs.DESCRIPTOR.full_name == "oneflow.OFRecord"
    copies = [descriptor_pb2.FileDescriptorProto() for _ in range(2)]
    for copy, kind in zip(copies, (own, theirs)):
        kind.DESCRIPTOR.file.CopyToProto(copy)
    assert copies[0] == copies[1]
    lists = {"int32_list": [-1, 0, 300], "float_list": [0.5, -0.0], "double_list": [1e300], "int64_list": [2**40], "bytes_list": [b"\xff"]}
    data = []
    for kind in (own, theirs):
        record = kind()
        for name, values in lists.items():
            getattr(record.feature[name], name).value.extend(values)
        data.append(record.SerializeToString(deterministic=True))
    assert data[0] == data[1]
    for row in range(3):
        data = samples.record_bytes(samples.arrays(3, 5), row)
        for kind in (own, theirs):
            assert kind.FromString(data).SerializeToString(deterministic=True) == data
    read = own.FromString(data)
    assert {name: read.feature[name].WhichOneof("kind") for name in read.feature} == {f.key: f.kind for f in FEATURES}
