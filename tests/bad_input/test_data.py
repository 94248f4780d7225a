"""Bad input to the Meta Fine-tuning scripts: text, records, scores of step 1, vocabulary."""

import os
import re
import shutil
import struct

import numpy as np
import pytest
import tiny
from bad_input_steps import ALL, STEP_1, STEP_2, STEP_3, check_error, fails, rewrite

from ofrecord_util.reader import read_split
from ofrecord_util.schema import FEATURE_NAMES
from ofrecord_util.writer import write_split

pytestmark = pytest.mark.slow

# --- the data


@ALL
def test_missing_data_folder(project, line):
    for other in ("nowhere", "nowhere --resave_ofrecord", "vocab.txt"):
        fails(project, line.replace("--data_dir data", "--data_dir " + other), f"{other.split()[0]}: no such folder")


@ALL
def test_empty_train_file(project, line):
    rewrite(project, "data/train.csv", lambda data: b"")
    fails(project, line + " --resave_ofrecord", "train.csv: is empty", "text TAB domain TAB label")


@ALL
@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (b"good film\t1", ("2 columns where 3 are expected", "text, domain, label")),
        (b"good film\tmr\t2", ("label '2' is not one of task 'g1' (0, 1)", "--label_list")),
        (b"good film\tbooks\t1", ("domain 'books' is not one of task 'g1' (SST-2, mr, cr)", "--domains")),
        (b" \tmr\t1", ("the text is empty",)),
        (b"good \xff film\tmr\t1", ("is not UTF-8; convert the file to UTF-8",)),
        (b"caf\xc3\xa9 \xff film\tmr\t1", ("is not UTF-8; other characters of it are UTF-8, so mend this row",)),
    ],
    ids=("two columns", "label", "domain", "no text", "bytes", "a stray byte"),
)
def test_bad_row(project, line, row, parts):
    rewrite(project, "data/train.csv", lambda data: data + row + b"\n")
    fails(project, line + " --resave_ofrecord", "train.csv: row 18: ", *parts)


@pytest.mark.parametrize(("line", "split"), [(STEP_1, "dev"), (STEP_1, "test"), (STEP_2, "dev"), (STEP_3, "dev"), (STEP_3, "test")])
def test_bad_row_of_another_split(project, line, split):
    rewrite(project, f"data/{split}.csv", lambda data: data + b"good film\t1\n")
    fails(project, line + " --resave_ofrecord", f"{split}.csv: row 12: ", "2 columns")


@ALL
@pytest.mark.parametrize(("task", "text"), [("g2", "3 columns where 4 are"), ("sst-2", "'MR' is not one of")])
def test_text_of_another_task(project, line, task, text):
    fails(project, line.replace("--task_name g1", f"--task_name {task}") + " --resave_ofrecord", ".csv: row ", text)


@ALL
def test_unknown_task_without_text(project, line):
    shutil.rmtree(project.path("data", "ofrecord"))
    os.remove(project.path("data", "train.csv"))
    fails(project, line.replace("--task_name g1", "--task_name mine"), "'mine' is unknown", "--domains", "--label_list")


@ALL
def test_task_with_one_label(project, line):
    fails(project, line + " --label_list 1", "has 1 label (1), needs at least 2", "--label_list")


# --- the records


@pytest.mark.parametrize(
    ("line", "split"),
    [
        (STEP_1, "train"),
        (STEP_2, "train"),
        (STEP_2, "dev"),
        (STEP_3, "train"),
        (STEP_3, "dev"),
    ],
)
def test_missing_records(project, line, split):
    """Without a part that the manifest names, and without text."""
    os.remove(project.path("data", "ofrecord", split, f"{split}.of_record-0"))
    fails(project, line, f"{split}.of_record-0: no such file", "--resave_ofrecord")
    shutil.rmtree(project.path("data", "ofrecord", split))
    os.remove(project.path("data", f"{split}.csv"))
    fails(project, line, f"{split} text not found, looked for data/{split}.csv", "there are no records in", "check --data_dir")


@ALL
def test_stale_records(project, line):
    longer = line.replace("--seq_length 24", "--seq_length 25")
    fails(project, longer, "stale", "their length is 24 and --seq_length is 25", "--resave_ofrecord")
    fails(project, line + " --do_lower_case false", "stale", "--do_lower_case true", "--resave_ofrecord")
    fails(project, line + " --label_list 1,0", "stale", "labels 0,1", "--resave_ofrecord")
    rewrite(project, "data/train.csv", lambda data: data.replace(b"good", b"bad"))
    fails(project, line, "stale", "train.csv has changed since", "--resave_ofrecord")


@ALL
def test_damaged_records(project, line):
    rewrite(project, "data/ofrecord/train/train.of_record-0", lambda data: data[:-3])
    fails(project, line, "train.of_record-0", "--resave_ofrecord")


def test_damaged_records_are_named_to_the_byte(project):
    """What would end the process in OneFlow's reader, or pass through its kernels: file, record, offset."""
    path = "data/ofrecord/train/train.of_record-0"
    with open(project.path(*path.split("/")), "rb") as file:
        whole = file.read()
    second = 8 + struct.unpack_from("<q", whole)[0]
    at = f"train.of_record-0: record 2 at byte {second}: "
    for length in (0, -1, 2**45, len(whole)):
        rewrite(project, path, lambda data, length=length: whole[:second] + struct.pack("<q", length) + whole[second + 8 :])
        fails(project, STEP_2, at + f"its length is {length} bytes", "--resave_ofrecord")
    rewrite(project, path, lambda data: whole.replace(b"input_mask", b"input_musk", 2).replace(b"input_musk", b"input_mask", 1))
    fails(project, STEP_2, "its bytes have changed since it was written", "--resave_ofrecord")
    for split in ("train", "dev"):
        os.remove(project.path("data", "ofrecord", split, "manifest.json"))
    fails(project, STEP_2, at + "has no input_mask, only", "--resave_ofrecord")
    records = read_split(project.path("data"), "dev")
    arrays = {name: getattr(records, name) for name in FEATURE_NAMES}
    for name, value in (("input_ids", len(tiny.TOKENS)), ("segment_ids", 2), ("label", 2), ("domain", 3)):
        changed = arrays[name].copy()
        changed[1] = value
        write_split(project.path("data"), "train", None, 1, dict(arrays, **{name: changed}), {"text_digest": records.text_digest})
        with open(project.path(*path.split("/")), "rb") as file:
            second = 8 + struct.unpack("<q", file.read(8))[0]
        at = f"train.of_record-0: record 2 at byte {second}: {name} is {value}, allowed are 0 to {value - 1}; check --"
        fails(project, STEP_2.replace("--data_dir data", "--data_dir data --use_sample_weights false"), at)
    rewrite(project, path, lambda data: b"")
    fails(project, STEP_2, "train.of_record-0: is empty", "--resave_ofrecord")


@ALL
def test_zero_examples(project, line):
    fails(project, line + " --train_example_num 0", "--train_example_num 0: at least 1 is needed")


def test_one_class_and_one_domain(project):
    """Nothing to learn, but no fault: the steps say so and run to their end with finite numbers."""
    rewrite(project, "data/train.csv", lambda data: b"good film\tmr\t1\ngreat plot\tmr\t1\ngood film\tmr\t1\n")
    output = project.call_well(STEP_1 + " --resave_ofrecord")
    for part in ("all 3 rows have the label 1 (none 0)", "all 3 rows have the domain mr (none SST-2, cr)", "1 of 3 rows repeat"):
        assert part in output, output
    output = project.call_well(STEP_2)
    assert "the classifier cannot learn" in output
    assert "--use_domain_loss false" in output
    assert not re.search(r"\b(nan|inf)\b", output), output


# --- the scores of step 1


def test_step_1_is_missing(project):
    for name in ("weight.npy", "weight.json"):
        os.remove(project.path("data", "ofrecord", "train", name))
    parts = ("weight.npy", "run preprocess.py first", "--use_sample_weights false")
    fails(project, STEP_2, *parts)
    check_error(*project.call(STEP_2 + " --resave_ofrecord"), *parts)
    fails(project, STEP_2, *parts)


def test_scores_of_another_text(project):
    rewrite(project, "data/train.csv", lambda data: data.replace(b"good", b"bad"))
    fails(project, STEP_2 + " --resave_ofrecord", "weight.npy", "run preprocess.py again")


def test_scores_for_fewer_rows(project):
    project.call_well(STEP_1 + " --train_example_num 9")
    fails(project, STEP_2 + " --train_example_num 10", "weight.npy", "9 scores", "10", "run preprocess.py again")


def test_damaged_scores(project):
    np.save(project.path("data", "ofrecord", "train", "weight.npy"), np.ones(17, np.float32))
    fails(project, STEP_2, "weight.npy", "run preprocess.py again")


# --- the vocabulary


@ALL
def test_wrong_vocabulary(project, line):
    tiny.write_vocabulary(project.path("vocab.txt"), tiny.TOKENS[:-3])
    fails(
        project,
        line + " --vocab_file vocab.txt --resave_ofrecord",
        f"vocab.txt has {len(tiny.TOKENS) - 3} pieces",
        str(len(tiny.TOKENS)),
        "--vocab_file",
    )
    tiny.write_vocabulary(project.path("vocab.txt"), ["good", "bad"])
    fails(project, line + " --vocab_file vocab.txt", "vocab.txt", "[PAD], [UNK], [CLS], [SEP]")
    fails(project, line + " --vocab_file missing.txt", "missing.txt", "--vocab_file")


@ALL
def test_no_vocabulary(project, line):
    os.remove(project.path("encoder", "vocab.txt"))
    fails(project, line, "--vocab_file is needed", "encoder", "vocab.txt")


@ALL
def test_cased_vocabulary(project, line):
    cased = [token if token.startswith("[") else token.capitalize() for token in tiny.TOKENS]
    tiny.write_vocabulary(project.path("encoder", "vocab.txt"), cased)
    fails(project, line + " --resave_ofrecord", "vocab.txt", "cased", "--do_lower_case false")
