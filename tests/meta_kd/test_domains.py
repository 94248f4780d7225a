"""Other domains: some that the student does not see, those of MNLI, and a user's own."""

import os

import numpy as np
import pytest
import tiny
from meta_kd_steps import DATA, ENCODER, SHORT, STEP_3A, STEP_3B, TRAIN_COUNT, distil, fails, write_senti

from modeling.bert.names import CLASSIFIER
from modeling.checkpoints.snapshot import Snapshot

pytestmark = pytest.mark.slow


def four_steps(project, data, task, more=""):
    """Runs the four scripts on other data; returns the student's run."""
    common = f"--task_name {task} --data_dir {data} --seq_length 24 --vocab_file vocab.txt {more}"
    train = "--num_epochs 1 --batch_size_per_device 8 --eval_batch_size_per_device 8 --student_num_hidden_layers 2"
    name = data.replace("/", "-")
    project.call_well(f"preprocess.py {common} --model_load_dir {ENCODER} --resave_ofrecord")
    teacher_train = train.replace("--student_num_hidden_layers 2", "")
    project.call_well(f"meta_teacher.py {common} --model_load_dir {ENCODER} {teacher_train} --model_save_dir output/{name}-teacher")
    teacher = f"output/{name}-teacher/" + tiny.Run(project.path("output", name + "-teacher")).best()
    project.call_well(f"meta_teacher_eval.py {common} --model_load_dir {teacher} --student_num_hidden_layers 2")
    distilled = f"--teacher_model {teacher} --student_model {ENCODER} {train} --model_save_dir output/{name}-student"
    project.call_well(f"meta_distill.py {common} {distilled}")
    return tiny.Run(project.path("output", name + "-student"))


def test_domains_that_the_student_does_not_see(scores, teacher, outputs, project):
    """Outputs of all rows, or of the rows that are left, give the same student: they belong to row numbers."""
    held_out = "--held_out_domains dvd,kitchen --use_sample_weights false"
    with open(project.path(DATA, "train.csv"), encoding="utf-8") as file:
        rows = [number for number, line in enumerate(file) if line.split("\t")[1] in ("books", "electronics")]
    whole = distil(project, teacher, "unseen", f"{held_out} {SHORT}")
    assert f"train: --held_out_domains: {TRAIN_COUNT - len(rows)} samples are left out" in whole.output
    for name in ("dev", "test", "teacher_dev", "teacher_test"):
        assert set(whole.rows(name)[0]["by_domain"]) == {"books", "electronics"}
        assert set(whole.rows(name + "_held_out")[0]["by_domain"]) == {"dvd", "kitchen"}
    assert "dev, held-out domains: the student keeps" in whole.output
    folder = "--teacher_output_dir output/left"
    step_3a = f"{STEP_3A.format(teacher=teacher.snapshot)} --held_out_domains dvd,kitchen {folder}"
    project.call_well(step_3a)
    assert np.load(project.path("output", "left", "idxs.npy")).tolist() == rows
    left = distil(project, teacher, "unseen-left", f"{held_out} {folder} {SHORT}")
    assert tiny.without_times(left.rows("train")) == tiny.without_times(whole.rows("train"))
    line = f"{STEP_3B.format(teacher=teacher.snapshot)} --model_save_dir output/x"
    assert f"contains {len(rows)} samples, but not all {TRAIN_COUNT}" in fails(project, f"{line} {folder}")
    errors = fails(project, f"{line} --held_out_domains dvd")
    assert "the prototypical scores were made without it, this run is with --held_out_domains dvd" in errors


def test_mnli(project):
    domains = ("fiction", "government", "slate", "telephone", "travel")
    tiny.write_pairs(project.path("data/mnli"), domains, ("entailment", "neutral", "contradiction"), (8, 5, 4))
    os.remove(project.path("data/mnli/test.csv"))
    run = four_steps(project, "data/mnli", "mnli")
    assert set(run.rows("dev")[0]["by_domain"]) == set(domains)
    assert not run.rows("test")
    assert not run.rows("teacher_test")
    assert "no test split" in run.log
    assert Snapshot(run.path(run.best())).sizes[CLASSIFIER[1]] == 3


def test_own_domains_in_tsv_with_digits(project):
    """A user's own two domains, labels as digits, .tsv with the header."""
    folder = project.path("data/own")
    write_senti(folder, (4, 3, 2), ("0", "1"), ("garden", "Office"))
    for split in ("train", "dev", "test"):
        with open(os.path.join(folder, split + ".csv"), encoding="utf-8") as file:
            rows = file.read()
        os.remove(os.path.join(folder, split + ".csv"))
        with open(os.path.join(folder, split + ".tsv"), "w", encoding="utf-8") as file:
            file.write("review\tdomain\tsentiment\n" + rows)
    run = four_steps(project, "data/own", "senti", "--domains garden,office")
    assert set(run.rows("dev")[0]["by_domain"]) == {"garden", "office"}
    assert Snapshot(run.path(run.best())).task()["labels"] == ["0", "1"]
