"""OFRecord files: round trips, OneFlow's own reader on them, files of the earlier implementation."""

import os

import numpy as np
import ofrecord_samples as samples
import pytest
from google.protobuf import descriptor_pb2
from ofrecord_samples import both

from ofrecord_util import reader, wire_format
from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION
from ofrecord_util.reader import read_split
from ofrecord_util.schema import FEATURE_NAMES, FEATURES, features_of, record_class
from ofrecord_util.tasks import Task
from ofrecord_util.writer import write_split


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


def test_a_folder_with_the_name_of_a_part(tmp_path):
    folder = tmp_path / "ofrecord" / "train" / "train.of_record-1"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=r"train.of_record-1: is a folder, and a file is to be written; give another --data_dir"):
        samples.write(tmp_path, part_num=2)
    assert os.listdir(str(folder.parent)) == ["train.of_record-1"]


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
