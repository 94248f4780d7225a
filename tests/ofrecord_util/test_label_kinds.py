"""ofrecord_util/label_kinds.py: labels that are numbers or sets of names, from text to records and back."""

import json

import numpy as np
import pytest

from ofrecord_util.dataset import Dataset
from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS, MULTI_LABEL, REGRESSION, TASK_TYPES
from ofrecord_util.reader import check_ranges, read_split
from ofrecord_util.schema import FEATURES, features_of, record_class
from ofrecord_util.summary import describe_split
from ofrecord_util.tasks import Task, resolve_task
from ofrecord_util.text import TextFolder, read_names, read_text
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import read_rows
from ofrecord_util.text_warnings import text_warnings
from ofrecord_util.tokenization import Tokenizer

SCORE = Task("t", ("d", "e"), ("score",), task_type=REGRESSION)
SETS = Task("t", ("d", "e"), ("red", "green", "blue"), task_type=MULTI_LABEL)
ROWS = {  # labels of text, and as arrays
    REGRESSION: (("4", "-0.5", "1e-3", " +2. "), [4.0, -0.5, np.float32(1e-3), 2.0]),
    MULTI_LABEL: (("blue", "", "Red,blue", " green | red "), [[0, 0, 1], [0, 0, 0], [1, 0, 1], [1, 1, 0]]),
}


def task_of(kind):
    return {REGRESSION: SCORE, MULTI_LABEL: SETS}[kind]


def write(folder, labels, name="train.csv"):
    rows = [f"text {number}\t{'de'[number % 2]}\t{label}\n" for number, label in enumerate(labels)]
    (folder / name).write_text("".join(rows), encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize("kind", [REGRESSION, MULTI_LABEL])
def test_from_text_to_records(tmp_path, kind):
    cells, expected = ROWS[kind]
    task = task_of(kind)
    found = read_text(write(tmp_path, cells), task)
    assert found.label.tolist() == pytest.approx(expected) if kind == REGRESSION else found.label.tolist() == expected
    assert found.label.dtype == LABEL_KINDS[kind].dtype
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "text")))
    tokenizer, lines = Tokenizer(str(tmp_path / "vocab.txt"), True), []
    records = Dataset(str(tmp_path), task, tokenizer, 7, log=lines.append).records("train", part_num=2)
    assert np.array_equal(records.label, found.label)
    for fast in (True, False):
        again = read_split(str(tmp_path), "train", part_num=2, fast=fast)
        assert np.array_equal(again.label, found.label)
        assert again.label.dtype == found.label.dtype
        check_ranges(again, tokenizer.vocab_size, 2, task)
    assert again.select(slice(1, 3)).label.tolist() == found.label[1:3].tolist()
    # the bytes are those of protobuf
    data = (tmp_path / "ofrecord" / "train" / "train.of_record-0").read_bytes()
    record = record_class().FromString(data[8 : 8 + int.from_bytes(data[:8], "little")])
    values = getattr(record.feature["label"], LABEL_KINDS[kind].record_kind).value
    assert list(values) == ([expected[0]] if kind == REGRESSION else expected[0])

    # the same text again, with a header and other spellings, is fresh; another task is not
    again = [["4.0", "-.5", "0.001", "2"], ["BLUE", " ", "blue|red", "red,green"]][kind == MULTI_LABEL]
    write(tmp_path, again)
    assert len(Dataset(str(tmp_path), task, tokenizer, 7, log=lines.append).records("train", part_num=2)) == 4
    other = Task("t", ("d", "e"), ("score", "b"))
    with pytest.raises(UserError, match=f"stale: their task is t .* of a {kind}, not t .* of a classification"):
        Dataset(str(tmp_path), other, tokenizer, 7, log=lines.append).records("train", part_num=2)
    found = resolve_task("t", str(tmp_path), task_type=kind).labels
    assert [name.lower() for name in found] == sorted(task.labels)


@pytest.mark.parametrize(
    ("kind", "cell", "message"),
    [
        (REGRESSION, "four", "row 3: the label 'four' is not a finite number"),
        (REGRESSION, "", "row 3: the label '' is not a finite number"),
        (REGRESSION, "nan", "'nan' is not a finite number"),
        (REGRESSION, "1e39", "row 3: the label '1e39' is not from -1e+15 to 1e+15"),
        (REGRESSION, "1e30", "row 3: the label '1e30' is not from -1e+15 to 1e+15"),
        (REGRESSION, "-1.1e15", "row 3: the label '-1.1e15' is not from -1e+15 to 1e+15"),
        (REGRESSION, "1_0", "'1_0' is not a finite number"),
        (REGRESSION, "3,5", "'3,5' is not a finite number"),
        (MULTI_LABEL, "red,yellow", "row 3: label 'yellow' is not one of task 't' (red, green, blue)"),
        (MULTI_LABEL, "0", "row 3: label '0' is not one of task 't'"),
        (MULTI_LABEL, "red,RED", "row 3: a label occurs twice in 'red,RED'"),
        (MULTI_LABEL, "red,,blue", "row 3: an empty name in the labels 'red,,blue'"),
        (MULTI_LABEL, ",|,", "row 3: an empty name in the labels ',|,'; a row without labels has an empty cell"),
        (MULTI_LABEL, " , ", "row 3: an empty name in the labels ','"),
        (MULTI_LABEL, "red,", "row 3: an empty name in the labels 'red,'"),
    ],
)
def test_invalid_labels(tmp_path, kind, cell, message):
    path = write(tmp_path, (*ROWS[kind][0][:2], cell))
    with pytest.raises(UserError) as error:
        read_text(path, task_of(kind))
    assert path in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("cell", [",|,", "|", "red,"])
def test_separators_without_names_in_training_text(tmp_path, cell):
    """The names of an unknown task are read from this text, so it has no task yet."""
    path = write(tmp_path, ("red", "", cell))
    with pytest.raises(UserError) as error:
        resolve_task("t", str(tmp_path), task_type=MULTI_LABEL)
    assert str(error.value).startswith(f"{path}: row 3: an empty name in the labels {cell!r}")


def test_training_text_without_any_label(tmp_path):
    path = write(tmp_path, ("", " ", ""))
    for domains in (None, "d,e"):
        with pytest.raises(UserError) as error:
            resolve_task("t", str(tmp_path), domains, task_type=MULTI_LABEL)
        assert str(error.value).startswith(f"{path}: the label of each of the 3 rows is empty")
        assert "--label_list" in str(error.value)
    assert resolve_task("t", str(tmp_path), label_list="red", task_type=MULTI_LABEL).labels == ("red",)


def test_labels_of_dev_that_train_lacks(tmp_path):
    """The message names the training text, because it gave the labels; those of a flag are the user's own."""
    train, dev = write(tmp_path, ("red", "blue", "")), write(tmp_path, ("red", "green"), "dev.csv")
    task = resolve_task("t", str(tmp_path), task_type=MULTI_LABEL)
    with pytest.raises(UserError) as error:
        read_text(dev, task)
    remedy = f"{train} has no row with it: correct this row, or name all labels with --label_list"
    assert str(error.value) == f"{dev}: row 2: label 'green' is not one of task 't' (blue, red); {remedy}"
    task = resolve_task("t", str(tmp_path), label_list="red,blue", task_type=MULTI_LABEL)
    with pytest.raises(UserError, match="--label_list or --task_name selects others"):
        read_text(dev, task)
    assert task == resolve_task("t", str(tmp_path), "d,e", "red,blue", task_type=MULTI_LABEL)


def test_the_largest_number(tmp_path):
    """The squares of 100 million samples have a sum in float32. Records may come from elsewhere, so their numbers are checked too."""
    label = read_text(write(tmp_path, ("1e15", "-1e15", "1e0")), SCORE).label
    assert np.isfinite(np.float32(1e8) * np.square(label)).all()
    rules = LABEL_KINDS[REGRESSION]
    assert rules.wrong(label, 1) is None
    for value in (np.nan, np.inf, -np.inf, 1e30, -2e15):
        assert rules.wrong(np.array([0, 1e15, value], np.float32), 1) == (2, "-1e+15 to 1e+15")


def test_json_lines(tmp_path):
    values = {REGRESSION: (3, 2.5, "-1"), MULTI_LABEL: (["red", "blue"], [], "green|red")}
    for kind, labels in values.items():
        path = tmp_path / f"{kind}.jsonl"
        path.write_text("".join(json.dumps({"text": f"a {label}", "label": label}) + "\n" for label in labels))
        options = TextOptions(only_domain="d", task_type=kind)
        found = read_text(str(path), task_of(kind), options=options)
        assert found.label.tolist() == {REGRESSION: [3.0, 2.5, -1.0], MULTI_LABEL: [[1, 0, 1], [0, 0, 0], [1, 1, 0]]}[kind]
        with pytest.raises(UserError, match=r"row [12].* 'label' is .*, which is not a text"):
            read_rows(str(path), TextOptions(only_domain="d"))
    for names in (["red,blue"], [""], ["red", " "]):  # not one name, and no name
        path.write_text(json.dumps({"text": "a", "label": names}) + "\n")
        with pytest.raises(UserError, match=r"row 1 .*which is not a text"):
            read_rows(str(path), options)


def test_names_of_an_unknown_task(tmp_path):
    table = read_rows(write(tmp_path, ["b,a", "", "a|c", "b", "a", "c,b", "a,b,c"]))
    assert read_names(table, MULTI_LABEL) == ({"d", "e"}, {"a", "b", "c"}, False)
    numbers = read_rows(write(tmp_path, [str(number / 7) for number in range(9)]))
    assert read_names(numbers, REGRESSION) == ({"d", "e"}, set(), False)
    with pytest.raises(UserError, match="has a label of its own"):
        read_names(numbers)
    task = resolve_task("sst-2", str(tmp_path), task_type=REGRESSION)
    assert (task.domains, task.labels) == (("SST-2",), ("score",))
    assert resolve_task("t", str(tmp_path), label_list="stars", task_type=REGRESSION).labels == ("stars",)
    with pytest.raises(UserError, match="is a regression of one number, but 2 are named"):
        resolve_task("t", str(tmp_path), label_list="a,b", task_type=REGRESSION)


def test_a_bad_label_of_the_first_row(tmp_path):
    """It may be a header, but what a regression needs is a number."""
    rows = read_rows(write(tmp_path, ["good", "1", "2", "3.5", "4", "1", "2", "0"]))
    said = "row 1: the label 'good' is not a finite number .* chooses another column; if the row is a header, remove it$"
    with pytest.raises(UserError, match=said):
        read_names(rows, REGRESSION)


@pytest.mark.parametrize("label", [".5", "1e-1", "0", "-3.5", " +.25 "])
def test_a_number_of_the_first_row_is_no_header(tmp_path, label):
    """Whatever its domain is."""
    path = tmp_path / "train.csv"
    rows = ["a good place\tmotel\t" + label, *(f"text {row}\thotel\t{row % 5 + 1}" for row in range(100))]
    path.write_text("".join(row + "\n" for row in rows))
    assert read_names(read_rows(str(path)), REGRESSION) == ({"motel", "hotel"}, set(), False)
    path.write_text("".join(row + "\n" for row in [rows[0].replace(label, "1e20"), *rows[1:]]))
    with pytest.raises(UserError, match=r"row 1: the label '1e20' is not from -1e\+15 to 1e\+15, .*; if the row is a header, remove it$"):
        read_names(read_rows(str(path)), REGRESSION)


@pytest.mark.parametrize("task_type", [CLASSIFICATION, MULTI_LABEL])
def test_a_label_that_is_not_text(tmp_path, task_type):
    table = read_rows(write(tmp_path, ["a", "b", "a\x1b[31m", "b"]))
    with pytest.raises(UserError, match=r"row 3: the label 'a\\x1b\[31m' contains the character U\+001B"):
        read_names(table, task_type)


def test_tasks_as_json():
    for task in (SCORE, SETS):
        assert task.to_dict()["task_type"] == task.task_type
        assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
        assert not task.same_ids(Task(task.name, task.domains, (*task.labels, "other")))
    assert "task_type" not in Task("t", ("d",), ("a", "b")).to_dict()
    with pytest.raises(UserError, match="'task_type' is 'ordinal', known are classification, regression, multi_label"):
        Task.from_dict({**SCORE.to_dict(), "task_type": "ordinal"})
    assert not Task("t", ("d",), ("a", "b"), task_type=MULTI_LABEL).numbers_are_ids


def test_features():
    assert features_of(None) == features_of(Task("t", ("d",), ("a", "b")).to_dict()) == FEATURES
    label = {task.task_type: next(f for f in features_of(task.to_dict()) if f.name == "label") for task in (SCORE, SETS)}
    assert label[REGRESSION][2:] == ("float_list", np.float32, False, None, None)
    assert label[MULTI_LABEL][2:] == ("int32_list", np.int32, False, None, 3)
    for task in ({"task_type": "ordinal", "labels": ["a"]}, {"task_type": REGRESSION, "labels": "a"}, {"task_type": MULTI_LABEL}):
        with pytest.raises(UserError, match="which a task cannot have"):
            features_of(task)


def test_values_out_of_range():
    assert LABEL_KINDS[CLASSIFICATION].wrong(np.array([0, 2, -1]), 2) == (1, "0 to 1")
    assert LABEL_KINDS[REGRESSION].wrong(np.array([0.5, np.inf, np.nan]), 1) == (1, "-1e+15 to 1e+15")
    assert LABEL_KINDS[MULTI_LABEL].wrong(np.array([[0, 1], [1, 1], [0, 2]]), 2) == (2, "0 and 1 for each label")
    for kind, label in zip(TASK_TYPES, (np.array([0, 1]), np.array([0.5, -3.0]), np.array([[0, 1], [1, 0]]))):
        assert LABEL_KINDS[kind].wrong(label, 2) is None


def test_what_the_log_says(tmp_path):
    texts = {kind: read_text(write(tmp_path, ROWS[kind][0]), task_of(kind)) for kind in (REGRESSION, MULTI_LABEL)}
    lines = {}
    for kind, text in texts.items():
        records = read_records(text)
        lines[kind] = describe_split("train", records, task_of(kind), None)[0]
    spread = f"mean {np.mean(ROWS[REGRESSION][1]):.4g}, standard deviation {np.std(ROWS[REGRESSION][1]):.4g}"
    assert lines[REGRESSION] == f"train: 4 rows; domains: d: 2, e: 2; score from -0.5 to 4, {spread}"
    assert lines[MULTI_LABEL] == (
        "train: 4 rows; domains: d: 2, e: 2; 1.25 labels per row, 1 rows without one; labels: red: 2, green: 1, blue: 2"
    )
    assert text_warnings(texts[REGRESSION], SCORE) == text_warnings(texts[MULTI_LABEL], SETS) == []
    constant, (line,) = read_text(write(tmp_path, ["2", "2.0"]), SCORE), [f"{tmp_path}/train.csv: all 2 rows have the number 2"]
    assert [warning.split(":")[:2] for warning in text_warnings(constant, SCORE)] == [line.split(":")]
    (line,) = text_warnings(read_text(write(tmp_path, ["red", ""]), SETS), SETS)
    assert line.endswith("no row has the labels green, blue: they are not trained")


def read_records(text):
    """`Records` with the labels of a `TextSplit` and texts of three tokens."""
    from ofrecord_util.records import Records

    count = len(text)
    ids, ones = np.full([count, 3], 5, np.int32), np.ones([count, 3], np.int32)
    return Records(ids, ones, ids * 0, text.domain, text.label, np.arange(count, dtype=np.int32), np.ones(count, np.float32))


def test_a_folder_reads_names_once(tmp_path):
    write(tmp_path, ["b,a", "", "a"])
    folder = TextFolder(str(tmp_path), TextOptions(task_type=MULTI_LABEL))
    assert resolve_task("mine", str(tmp_path), folder=folder, task_type=MULTI_LABEL).labels == ("a", "b")
