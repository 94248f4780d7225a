"""What --auto_settings looks at: text or records, model and flags."""

import os

import pytest
import tiny

from modeling.cli.flags import parse_flags
from modeling.run.chosen_settings import apply_auto_settings
from ofrecord_util.dataset import Dataset
from ofrecord_util.question_text import QuestionFolder
from ofrecord_util.tagged_text import TaggedFolder
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextFolder
from ofrecord_util.tokenization import Tokenizer

TASK = Task("t", ("d",), ("0", "1"))
ROWS = [(f"the {'film ' * 20}{number}", "d", str(number % 2)) for number in range(11)]


@pytest.fixture
def folder(tmp_path):
    tiny.write_vocabulary(str(tmp_path / "vocab.txt"))
    tiny.write_rows(str(tmp_path), "train", ROWS)
    return tmp_path


def apply(folder, *words, script="finetuning", ranks=1, task=TASK, kind=TextFolder):
    flags = parse_flags(script, argv=["--task_name", "t", "--data_dir", str(folder), "--auto_settings", *words])
    tokenizer = Tokenizer(str(folder / "vocab.txt"), True)
    note = apply_auto_settings(flags, kind(str(folder)), task, tiny.CONFIG, tokenizer, ranks)
    return flags, note


def test_from_text(folder):
    flags, note = apply(folder)
    assert (flags.seq_length, flags.batch_size_per_device, flags.num_epochs, flags.dev_every_step_num) == (32, 4, 10, 3)
    assert flags.learning_rate == 3e-4
    assert "11 training rows, 2 labels, hidden size 20" in note


def test_flags_that_are_given_stay(folder):
    flags, _ = apply(folder, "--num_epochs", "2", "--seq_length=17", "--dev_every_step_num", "4", "--train_example_num", "7")
    assert (flags.seq_length, flags.batch_size_per_device, flags.num_epochs, flags.dev_every_step_num) == (17, 4, 2, 4)
    assert "7 training rows" in apply(folder, "--train_example_num", "7")[1]
    assert "7 training rows" in apply(folder, "--train_example_num", "70", "--data_portion", "0.6", script="meta_teacher")[1]


def test_rows_of_held_out_domains_do_not_count(tmp_path):
    tiny.write_vocabulary(str(tmp_path / "vocab.txt"))
    tiny.write_rows(str(tmp_path), "train", [(text, "abc"[number % 3], label) for number, (text, _, label) in enumerate(ROWS)])
    words = ["--held_out_domains", "b", "--train_example_num", "10"]
    for script in ("domain_mixing", "meta_teacher"):
        assert "7 training rows" in apply(tmp_path, *words, script=script, task=Task("t", ("a", "b", "c"), ("0", "1")))[1]


def test_from_unlabelled_text(folder):
    tiny.write_rows(str(folder), "unlabelled", [(text * 2, domain) for text, domain, _ in ROWS[:7]])
    words = ("--unlabelled", "--teacher_model", "t", "--student_model", "s")
    flags, note = apply(folder, *words, script="meta_distill")
    assert "7 training rows" in note
    assert flags.seq_length == 40  # the texts are longer than those of the training text, and longer than the model's positions


def test_records_keep_their_length(folder):
    Dataset(str(folder), TASK, Tokenizer(str(folder / "vocab.txt"), True), 13, resave=True, log=lambda _: None).records("train")
    assert apply(folder)[0].seq_length == 13
    assert apply(folder, "--resave_ofrecord")[0].seq_length == 32
    os.remove(str(folder / "train.csv"))
    assert apply(folder)[0].num_epochs == 10


@pytest.mark.parametrize("script", ["preprocess", "meta_teacher_eval"])
def test_scripts_that_do_not_train_choose_the_length(folder, script):
    flags, note = apply(folder, script=script)
    assert flags.seq_length == 32
    assert note.endswith("hidden size 20: --seq_length 32")
    assert flags.num_epochs == 3
    assert flags.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("script", "kind", "write", "length"),
    [("sequence_labeling", TaggedFolder, tiny.write_tagged, 32), ("span_answering", QuestionFolder, tiny.write_questions, 32)],
)
def test_text_of_other_forms(tmp_path, script, kind, write, length):
    tiny.write_vocabulary(str(tmp_path / "vocab.txt"))
    write(str(tmp_path))
    flags, note = apply(tmp_path, script=script, kind=kind)
    assert flags.seq_length == length
    assert note.endswith(f"--seq_length {length}")


def test_devices_and_accumulation(folder):
    assert apply(folder, "--gradient_accumulation_steps", "2", ranks=2)[0].batch_size_per_device == 1


def test_nothing_to_choose_from(folder):
    os.remove(str(folder / "train.csv"))
    flags, note = apply(folder)
    assert note is None
    assert flags.num_epochs == 3
