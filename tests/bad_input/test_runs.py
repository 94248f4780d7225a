"""Bad input to the Meta Fine-tuning scripts: when a run is refused, what a refused run leaves, what stops a run."""

import errno
import os
import re
import shutil
from types import SimpleNamespace

import pytest
from bad_input_steps import STEP_1, STEP_2, STEP_3, TRAINING, fails, rewrite

from ofrecord_util import files

pytestmark = pytest.mark.slow


@TRAINING
def test_full_disk_when_a_snapshot_is_saved(project, line, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    fails(project, line, "output/run", "No space left on device")
    assert not [name for name in os.listdir(project.path("output", "run")) if "snapshot" in name]


@TRAINING
def test_disk_too_small_for_the_run(project, line, monkeypatch):
    """Found before the first step, so that no folder is left."""
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(total=10**6, used=10**6 - 999, free=999))
    fails(project, line, "output/run", "999 bytes", "free some, or give a --model_save_dir on another disk")
    often = f"{line} --num_epochs 3 --model_save_every_n_iter 1"
    fails(project, often, "999 bytes", "give a higher --model_save_every_n_iter, or give a --model_save_dir on another disk")
    assert not os.path.exists(project.path("output"))


@TRAINING
def test_a_refused_run_leaves_no_folder(project, line):
    """A fault of the flags, of the data, and of the model, each found at another place of the set-up."""
    fails(project, line + " --texts_per_row 7 --batch_size_per_device 8", "--texts_per_row 7")
    fails(project, line + " --dev_example_num 0", "--dev_example_num (or --eval_example_num) 0")
    fails(project, line + " --label_list x,y,z", "stale")
    assert not os.path.exists(project.path("output"))


@pytest.mark.parametrize("step", [STEP_1, STEP_2])
def test_too_little_memory(project, step):
    fails(
        project,
        step + " --memory_limit 0.001",
        "of memory, but may use only 1.0 MB",
        "free some memory",
        "--memory_limit GB sets another limit",
    )
    assert not os.path.exists(project.path("output"))


def test_step_3_without_a_test_split(project):
    """As in the other scripts, the test split is optional; dev is not."""
    os.remove(project.path("data", "test.csv"))
    shutil.rmtree(project.path("data", "ofrecord"))
    assert "no test split: there is no test.csv" in project.call_well(STEP_3 + " --max_steps 1")
    os.remove(project.path("data", "dev.csv"))
    shutil.rmtree(project.path("data", "ofrecord", "dev"))
    fails(project, STEP_3, "dev text not found, looked for data/dev.csv", "there are no records in data/ofrecord/dev either")


@pytest.mark.slow
def test_a_run_says_the_command_that_continues_it(project):
    line = STEP_3 + " --batch_size_per_device 2 --max_steps 1 --model_save_dir output/a_run"
    output = project.run(line)  # as a process, which lets go of its folder
    (line,) = [line for line in output.splitlines() if "stopped after step 1" in line]
    command = line.split("continue with python3 ")[1]
    assert command.startswith("finetuning.py @output/a_run/run.flags --resume output/a_run --max_steps ")
    assert "after step 1 of" in project.call_well(command)


@TRAINING
def test_a_fault_in_the_last_split_is_found_before_records_are_written(project, line):
    """The records of the first splits would be written."""
    shutil.rmtree(project.path("data", "ofrecord"))
    rewrite(project, "data/test.csv", lambda data: data + b"no columns\n")
    weights = " --use_sample_weights false" if line == STEP_2 else ""
    fails(project, line + weights, "test.csv: row", "1 column ")


def test_a_refused_first_step_leaves_no_folder(project):
    shutil.rmtree(project.path("data", "ofrecord"))
    fails(project, STEP_1 + " --memory_limit 0.001", "may use only 1.0 MB")
    assert sorted(os.listdir(project.path("data"))) == ["dev.csv", "test.csv", "train.csv"]


def test_scores_that_are_not_used_need_not_fit(project):
    """Nothing is said of scores that a run ignores; a run that needs them says one thing about them."""
    with open(project.path("data", "train.csv"), "a", encoding="utf-8") as file:
        file.write("a good film\tsst-2\t1\n")
    fails(project, STEP_2 + " --resave_ofrecord", "weight.npy")
    output = project.call_well(STEP_2 + " --resave_ofrecord --use_sample_weights false")
    assert "weight.npy" not in output
    os.remove(project.path("data", "ofrecord", "train", "weight.npy"))
    code, output, errors = project.call(STEP_2 + " --resave_ofrecord")
    assert code == 2
    assert "no prototypical scores" in errors
    assert "weight 1.0" not in output


@TRAINING
def test_resume_of_what_is_no_run(project, line):
    fails(project, line + " --resume", "output has no interrupted run of")
    fails(project, line + " --resume nowhere", "--resume nowhere", "no such folder")
    os.makedirs(project.path("output", "empty"))
    fails(project, line + " --resume output/empty", "not a run folder", "flags.json")
    fails(project, line + " --resume --do_train false --do_eval", "--resume continues a training")


@TRAINING
def test_training_that_diverges(project, line):
    fails(project, line + " --learning_rate 1e30", "step 1: the dev cross-entropy is nan", "--learning_rate")
    with open(project.path("output", "run", "run.log"), encoding="utf-8") as file:
        assert re.search(r"^[-0-9]+ [:0-9]+ error: step 1: the dev cross-entropy is nan", file.read(), re.MULTILINE)


@TRAINING
def test_run_folder_that_cannot_be_made(project, line):
    fails(project, line.replace("output/run", "vocab.txt/run"), "--model_save_dir vocab.txt/run")
    fails(project, line.replace("output/run", "vocab.txt/run/deep"), "--model_save_dir vocab.txt/run/deep")
    os.symlink(os.devnull, project.path("null"))  # the next name, null-1, would be a surprise: it could be /dev/null-1
    fails(project, line.replace("output/run", "null"), "--model_save_dir null: is not a folder")


def test_log_folder_that_cannot_be_made(project):
    fails(project, STEP_1.replace("--log_dir logs", "--log_dir vocab.txt/logs"), "vocab.txt/logs", "--log_dir")
    os.mkdir(project.path("full"))
    os.mkdir(project.path("full", "preprocess.log"))
    fails(project, STEP_1.replace("--log_dir logs", "--log_dir full"), "full/preprocess.log: is not a regular file")


def test_a_refused_step_leaves_no_log_and_no_records(project):
    """Neither of the two scripts without a run folder, also if the fault is in the split that is read last."""
    shutil.rmtree(project.path("logs"))
    rewrite(project, "data/dev.csv", lambda data: data.replace(b"good", b"great"))  # would be written again
    rewrite(project, "data/test.csv", lambda data: data + b"no columns\n")
    fails(project, STEP_1 + " --resave_ofrecord", "test.csv: row", "1 column ")
    fails(project, STEP_1.replace("encoder", "vocab.txt"), "vocab.txt")
    fails(project, STEP_1.replace("preprocess.py", "meta_teacher_eval.py"), "encoder", "run meta_teacher.py")
    assert not os.path.exists(project.path("logs"))


@pytest.mark.parametrize("planted", ["symbolic", "hard"])
def test_planted_logs_of_steps(project, planted):
    shutil.copy(project.path("vocab.txt"), project.path("mine"))
    os.remove(project.path("logs", "preprocess.log"))
    (os.symlink if planted == "symbolic" else os.link)(project.path("mine"), project.path("logs", "preprocess.log"))
    fails(project, STEP_1, "logs/preprocess.log")


def test_the_remedy_for_a_changed_text_is_complete(project):
    """What the message says is enough."""
    rewrite(project, "data/train.csv", lambda data: data.replace(b"good", b"bad"))
    remedy = "run preprocess.py again with --resave_ofrecord, then this command"
    for line in (STEP_2, STEP_2.replace("--seq_length 24", "--seq_length 23"), STEP_2 + " --resave_ofrecord"):
        fails(project, line, remedy)
    project.call_well(STEP_1 + " --resave_ofrecord")
    project.call_well(STEP_2)


def test_several_domains_in_step_3(project):
    output = project.call_well(STEP_3)
    assert "warning: the training split has 3 domains (SST-2, mr, cr), and step 3 of Meta Fine-tuning trains on one" in output
    rewrite(project, "data/train.csv", lambda data: b"".join(line for line in data.splitlines(True) if b"\tMR\t" in line))
    assert "trains on one" not in project.call_well(STEP_3 + " --resave_ofrecord")
