"""Values of records outside their ranges; records that are selected."""

import struct

import numpy as np
import ofrecord_samples as samples
import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.reader import check_ranges, read_split


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
