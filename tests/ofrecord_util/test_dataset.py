"""Where a step's samples come from: written again or used as they are, and never stale without a word."""

import dataclasses
import os

import numpy as np
import ofrecord_samples as samples
import pytest
import tiny
from split_data import ROWS, SCORES

from ofrecord_util.dataset import SCORES_MADE
from ofrecord_util.errors import UserError
from ofrecord_util.records import Records
from ofrecord_util.scores import score_paths
from ofrecord_util.tasks import Task


def test_written_from_text(data):
    records = data.prepare(resave=True)
    assert records.input_ids[1].tolist() == [2, 5, 7, 10, 8, 6, 11, 3]
    assert records.domain.tolist() == [0, 1, 2, 0, 1]
    assert records.label.tolist() == [1, 0, 1, 0, 1]
    assert records.idxs.tolist() == [0, 1, 2, 3, 4]
    assert records.sample_weights.tolist() == [1] * 5
    manifest = records.manifest
    assert manifest["task"] == samples.TASK.to_dict()
    assert (manifest["seq_length"], manifest["do_lower_case"], manifest["truncated"], manifest["pair"]) == (8, True, 0, False)
    assert manifest["vocab_digest"] == data.tokenizer.digest
    assert manifest["num_records"] == 5
    assert manifest["parts"][0]["records"] == 5
    assert any("5 rows" in line and "0 truncated" in line for line in data.lines)
    assert not records.scored
    assert not any("weight" in line for line in data.lines)  # what is missing is said by the step that needs it


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_used_as_they_are(data, split):
    written = data.prepare(split, resave=True, part_num=2)
    before = os.stat(data.path(split, split + ".of_record-0"))
    read = data.prepare(split, part_num=2)
    assert np.array_equal(read.input_ids, written.input_ids)
    assert os.stat(data.path(split, split + ".of_record-0")).st_mtime_ns == before.st_mtime_ns
    os.remove(os.path.join(data.folder, split + ".csv"))  # the records are enough
    assert len(data.prepare(split, part_num=2, tokenizer=None)) == 5


def test_truncation_is_said(data):
    records = data.prepare(resave=True, seq_length=4)
    assert records.manifest["truncated"] == 2  # of 2, 6, 2, 5 and 1 tokens, where 2 have room
    assert any("2 truncated to 4 tokens" in line for line in data.lines)


def test_pairs(data):
    task = Task("p", ("d",), ("no", "yes"), pair=True)
    samples.text(data.folder, [("good", "a book", "d", "yes"), ("bad", "film", "d", "no")])
    records = data.prepare(resave=True, task=task)
    assert records.segment_ids.tolist() == [[0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0]]
    assert records.manifest["pair"] is True
    data.prepare(task=task)


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_records(data, split):
    """Those of the manifest must be there; a split that was never written is written from the text, as with `resave`."""
    path = data.path(split, f"{split}.of_record-0")
    data.prepare(split)
    assert any(f"{split}: 5 rows of " in line and "written as OFRecord" in line for line in data.lines)
    first = tiny.read_bytes(path)
    data.prepare(split)
    assert not any("written as OFRecord" in line for line in data.lines)
    os.remove(path)
    with pytest.raises(UserError, match=f"{split}.of_record-0: no such file.*--resave_ofrecord"):
        data.prepare(split)
    data.prepare(split, resave=True)
    assert tiny.read_bytes(path) == first
    os.remove(path)
    os.remove(data.path(split, "manifest.json"))
    os.remove(os.path.join(data.folder, f"{split}.csv"))
    with pytest.raises(UserError, match=f"{split} text not found, .*; there are no records in .*{split} either; check --data_dir"):
        data.prepare(split)


def test_missing_text(data):
    os.remove(os.path.join(data.folder, "dev.csv"))
    with pytest.raises(UserError, match="dev text not found"):
        data.prepare("dev", resave=True)


def test_resave_needs_a_vocabulary(data):
    with pytest.raises(UserError, match="--vocab_file"):
        data.prepare(resave=True, tokenizer=None)


@pytest.mark.parametrize("resave", [False, True])
def test_cased_vocabulary(data, tmp_path, resave):
    data.prepare(resave=True)
    cased = samples.tokenizer(tmp_path, [*samples.VOCABULARY, "Good", "Bad"])
    with pytest.raises(UserError, match="--do_lower_case false"):
        data.prepare(resave=resave, tokenizer=cased)
    uncased = samples.tokenizer(tmp_path, do_lower_case=False)
    if resave:
        data.prepare(resave=True, tokenizer=uncased)
        assert data.lines[0].startswith("warning: ")
        assert "--do_lower_case true" in data.lines[0]


# ------------------------------------------------------------------------------------------------------------- stale


def stale(data, message, **changes):
    with pytest.raises(UserError, match="stale.*" + message + ".*--resave_ofrecord"):
        data.prepare(**changes)
    data.prepare(resave=True, **changes)  # the remedy that the message names
    data.prepare(**changes)


def test_stale_text(data):
    data.prepare(resave=True)
    samples.text(data.folder, [*ROWS[:-1], ("film film", "dvd", "1")])
    stale(data, "train.csv has changed since")


def test_stale_label(data):
    data.prepare(resave=True)
    samples.text(data.folder, [*ROWS[:-1], ("film", "dvd", "0")])
    stale(data, "train.csv has changed since")


def test_fewer_rows(data):
    data.prepare(resave=True)
    samples.text(data.folder, ROWS[:-1])
    stale(data, "train.csv has changed since")


def test_stale_vocabulary(data, tmp_path):
    data.prepare(resave=True)
    other = samples.tokenizer(tmp_path, [*samples.VOCABULARY, "more"])
    stale(data, "their vocabulary was not .*vocab.txt", tokenizer=other)


def test_stale_casing(data, tmp_path):
    data.prepare(resave=True)
    stale(data, "written with --do_lower_case true", tokenizer=samples.tokenizer(tmp_path, do_lower_case=False))


def test_stale_length(data):
    data.prepare(resave=True)
    stale(data, "their length is 8 and --seq_length is 9", seq_length=9)


@pytest.mark.parametrize(
    "task",
    [
        Task("t", ("dvd", "books", "mr"), ("0", "1")),
        Task("t", ("books", "dvd", "mr"), ("1", "0")),
        Task("t", ("books", "dvd", "mr", "cr"), ("0", "1")),
    ],
)
def test_stale_task(data, task):
    data.prepare(resave=True)
    stale(data, "their task is t with domains books,dvd,mr and labels 0,1", task=task)


def test_the_name_of_a_task_and_its_case_do_not_matter(data):
    data.prepare(resave=True)
    data.prepare(task=Task("other", ("Books", "DVD", "MR"), ("0", "1")))


def test_all_differences_are_named(data, tmp_path):
    data.prepare(resave=True)
    other = samples.tokenizer(tmp_path, [*samples.VOCABULARY, "more"], do_lower_case=False)
    with pytest.raises(UserError, match=r"their length.*their vocabulary.*--do_lower_case"):
        data.prepare(seq_length=9, tokenizer=other)


def test_records_without_manifest(data):
    data.prepare(resave=True)
    os.remove(data.path("train", "manifest.json"))
    assert len(data.prepare()) == 5
    assert "no manifest" in data.lines[0]
    samples.text(data.folder, ROWS[:-1])
    with pytest.raises(UserError, match=r"stale: they are 5 and .*train.csv has 4 rows"):
        data.prepare()


def test_ranges_are_checked(data, tmp_path):
    data.prepare(resave=True)
    os.remove(data.path("train", "manifest.json"))
    small = samples.tokenizer(tmp_path, samples.VOCABULARY[:11])
    with pytest.raises(UserError, match=r"train.of_record-0: record 2 at byte [0-9]+: input_ids is 11, allowed are 0 to 10"):
        data.prepare(tokenizer=small)
    os.remove(os.path.join(data.folder, "train.csv"))
    with pytest.raises(UserError, match=r"record 3 at byte [0-9]+: domain is 2"):
        data.prepare(task=Task("t", ("books", "dvd"), ("0", "1")))


# ---------------------------------------------------------------------------------------------------------- warnings


@pytest.mark.parametrize("resave", [False, True])
def test_texts_that_are_there_twice_or_learned(data, resave):
    samples.text(data.folder, ROWS + ROWS[:2])
    samples.text(data.folder, [*ROWS[3:], ("new", "mr", "1")], "dev")
    for split in ("train", "dev"):
        data.prepare(split, resave=True)
    data.prepare(resave=resave)
    assert [line for line in data.lines if line.startswith("warning: ")] == [
        f"warning: {data.folder}/train.csv: 2 of 7 rows repeat the text of an earlier one, 0 of them under another label"
    ]
    data.prepare("dev", resave=resave)
    assert sum(f"warning: {data.folder}/dev.csv: 2 of 3 rows have a text that is also in" in line for line in data.lines) == 1
    samples.text(data.folder, [("a", "nowhere", "1")])  # a fault of the training text is not the dev split's
    data.prepare("dev", resave=resave)
    assert not any("warning" in line for line in data.lines)


def test_one_class_and_one_domain(data):
    samples.text(data.folder, [("good", "mr", "1"), ("bad", "mr", "1")])
    assert len(data.prepare(resave=True)) == 2
    assert any("all 2 rows have the label 1 (none 0): the classifier cannot learn" in line for line in data.lines)
    assert any("all 2 rows have the domain mr (none books, dvd): prototypical scores compare" in line for line in data.lines)


def test_a_text_of_a_megabyte(data):
    samples.text(data.folder, [("good " * 2**18, "mr", "1"), ("x" * 2**20, "books", "0")])
    records = data.prepare(resave=True)
    assert records.input_ids.tolist() == [[2, 4, 4, 4, 4, 4, 4, 3], [2, 1, 3, 0, 0, 0, 0, 0]]  # a word beyond 200 letters is [UNK]
    assert records.manifest["truncated"] == 1


# ------------------------------------------------------------------------------------------------------------ counts


@pytest.mark.parametrize("resave", [False, True])
def test_example_num(data, resave):
    data.prepare(resave=True)
    assert data.prepare(resave=resave, example_num=3).idxs.tolist() == [0, 1, 2]
    assert sum("--train_example_num 3: the first 3 of 5 rows are used" in line for line in data.lines) == 1
    assert len(data.prepare(resave=resave, example_num=9)) == 5
    assert sum("5 rows, fewer than --train_example_num 9: all are used" in line for line in data.lines) == 1
    assert len(data.prepare(resave=resave, example_num=5)) == 5
    assert not any("--train_example_num" in line for line in data.lines)
    assert len(data.prepare("train", resave=False)) == 5, "the files always hold the whole split"
    for number in (0, -1):
        with pytest.raises(UserError, match="--train_example_num"):
            data.prepare(example_num=number)


def test_flags_of_the_other_splits(data):
    data.prepare("dev", resave=True, example_num=1)
    assert any("--dev_example_num (or --eval_example_num) 1" in line for line in data.lines)
    data.prepare("test", resave=True, example_num=1)
    assert any("--eval_example_num 1" in line for line in data.lines)


# ---------------------------------------------------------------------------------------------------------- one truth


@pytest.mark.parametrize("part_num", [1, 2])
@pytest.mark.parametrize("split", ["train", "dev"])
def test_what_is_written_is_what_is_read(data, split, part_num):
    data.score(SCORES)
    written = data.prepare(split, resave=True, part_num=part_num)
    read = data.prepare(split, part_num=part_num)
    for field in dataclasses.fields(Records):
        one, other = getattr(written, field.name), getattr(read, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype, field.name
            assert np.array_equal(one, other), field.name
        else:
            assert one == other, field.name


def test_a_fault_of_the_parts_shows_before_there_are_scores(data):
    with pytest.raises(UserError, match="--train_data_part_num 6: more parts than the 5 records"):
        data.prepare(resave=True, use_scores=SCORES_MADE, part_num=6)
    assert not os.path.exists(score_paths(data.folder)[0])


def test_text_is_kept_for_those_whose_rows_it_has(data):
    step = data.open(resave=True)
    records = step.records("dev")
    os.remove(os.path.join(data.folder, "dev.csv"))
    assert step.text("dev", records.text_digest).text_a == [text for text, _, _ in ROWS]
    assert step.text("dev", "other") is None
    assert data.open().text("dev", records.text_digest) is None


@pytest.mark.parametrize("resave", [False, True])
def test_the_share_of_unknown_tokens_is_said(data, resave):
    samples.text(data.folder, ROWS + [(f"zzz zzz zzz zzz {number}", "mr", "1") for number in range(6)])
    data.prepare(resave=True)
    data.prepare(resave=resave)
    (line,) = [line for line in data.lines if "[UNK]" in line]
    assert line.startswith("warning: train: ")
    assert "; 30 of 4" in line
    assert "--do_lower_case" in line
    samples.text(data.folder, ROWS)
    data.prepare(resave=True)
    (line,) = [line for line in data.lines if "[UNK]" in line]
    assert line.startswith("train: texts of ")
    assert " 0 of " in line
