"""The documented lines of the four steps: what each leaves, and what comes after them."""

import os
import signal

import numpy as np
import pytest
import tiny
from meta_kd_steps import (
    BATCH,
    DATA,
    DEV_COUNT,
    DOMAINS,
    ENCODER,
    SHORT,
    STEP_2,
    STEP_3A,
    STEP_3B,
    TERMS,
    TEST_COUNT,
    TRAIN_COUNT,
    config_of,
    distil,
)

from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD
from modeling.bert.variables import encoder_shapes
from modeling.checkpoints.snapshot import Snapshot
from modeling.engine.runtime import flow

pytestmark = pytest.mark.slow


def test_steps_go_on_where_they_were_cut_off(project, teacher, outputs, student):
    project.check_resumed(STEP_2.replace(" --model_save_dir output/teacher", ""), teacher, 26, signal.SIGTERM)
    project.check_resumed(STEP_3B.format(teacher=teacher.snapshot), student, 21, signal.SIGINT)


def test_teacher(teacher):
    dev, (test,) = teacher.rows("dev"), teacher.rows("test")
    assert len(teacher.rows("train")) == 16
    assert [row["step"] for row in dev] == [25, 50, 75, 80]
    assert all(row["total"] == DEV_COUNT for row in dev)
    assert test["total"] == TEST_COUNT
    assert set(dev[0]["by_domain"]) == set(test["by_domain"]) == set(DOMAINS)
    best = max(row["accuracy"] for row in dev)
    assert best >= 0.9
    assert teacher.best() == f"snapshot_best_mft_model_senti_dev_{best!r}"
    assert teacher.rows("train")[-1]["domain_loss"] < teacher.rows("train")[0]["domain_loss"]
    assert 0 < teacher.rows("train")[-1]["domain_accuracy"] < 1
    assert os.path.getsize(teacher.path("curves.png")) > 1000


def test_outputs(outputs, teacher, project):
    manifest = outputs.manifest
    assert manifest["layers"] == [1, 3]
    assert manifest["num_samples"] == TRAIN_COUNT
    assert manifest["teacher_digest"] == Snapshot(project.path(teacher.snapshot)).digest()
    files = {name: os.path.getsize(os.path.join(outputs.folder, name + ".npy")) for name in manifest["arrays"]}
    assert files == {name: about["bytes"] for name, about in manifest["arrays"].items()}
    assert f"will take {sum(files.values())} bytes" in outputs.output
    logits = np.load(os.path.join(outputs.folder, "logits.npy"), allow_pickle=False)
    assert logits.shape == (TRAIN_COUNT, 2)
    assert "train accuracy" in outputs.output


def test_distillation(student, teacher, outputs, scores, project):
    rows = student.rows("train")
    assert len(rows) == 6
    assert student.flags["teacher_layers"] == student.flags["start_layers"] == [1, 3]
    for row in rows:
        assert all(np.isfinite(row[name]) and row[name] > 0 for name in TERMS)
        weights = (1, 1, 1, 1, 0.2)
        assert row["loss"] == pytest.approx(sum(w * row[name] for w, name in zip(weights, TERMS)), rel=1e-4)
    for name in TERMS:
        assert rows[-1][name] < rows[0][name], name
    # the mean domain-expertise weight of an epoch, from the stored logits and scores
    logits = np.load(os.path.join(outputs.folder, "logits.npy")).astype(np.float64)
    stored = np.load(os.path.join(outputs.folder, "idxs.npy"))
    label = np.array([row["label"] for row in text_rows(project)])[stored]
    p = np.exp(logits)[np.arange(TRAIN_COUNT), label] / np.exp(logits).sum(axis=1)
    expected = (1 + scores[stored]) / (np.exp((p - 1) ** 2) + 1)
    assert rows[0]["sample_weight"] == pytest.approx(expected.mean(), rel=1e-3)


def text_rows(project):
    labels = {"positive": 0, "negative": 1}
    with open(project.path(DATA, "train.csv"), encoding="utf-8") as file:
        return [{"label": labels[line.rstrip("\n").split("\t")[2]]} for line in file]


def test_teacher_and_student_are_measured(student, teacher):
    """The teacher's accuracy is the one that its own run told, over all of dev and test."""
    (teacher_dev,), (teacher_test,), (test,) = (student.rows(kind) for kind in ("teacher_dev", "teacher_test", "test"))
    assert teacher_dev["accuracy"] == float(teacher.best().rsplit("_", 1)[1])
    assert teacher_dev["total"] == DEV_COUNT
    assert teacher_test["correct"] == teacher.rows("test")[0]["correct"]
    assert teacher_test["total"] == TEST_COUNT
    dev = student.rows("dev")
    assert [row["step"] for row in dev] == [20, 30]
    assert all(row["total"] == DEV_COUNT for row in dev)
    best = max(row["accuracy"] for row in dev)
    assert student.best() == f"snapshot_best_distill_model_senti_dev_{best!r}"
    assert test["total"] == TEST_COUNT
    assert f"dev: the student keeps {100 * best / teacher_dev['accuracy']:.1f} % of the teacher's accuracy" in student.log
    assert "test: the student keeps" in student.log
    assert "(2 layers x 20)" in student.log
    assert "(4 layers x 20)" in student.log


def test_report_and_card(student, teacher):
    with open(student.path("report.html"), encoding="utf-8") as file:
        page = file.read()
    with open(student.path(student.best(), "README.md"), encoding="utf-8") as file:
        card = file.read()
    assert "http://" not in page
    assert "https://" not in page
    assert "Not on this page" not in page
    for name in DOMAINS:
        assert f'<th scope="row">{name}</th>' in page
        assert f"| {name} |" in card
    titles = [term.replace("_", " ").capitalize() for term in TERMS]
    for title in ("student, dev", "teacher, dev", "student, test", "teacher, test", *titles):
        assert title in page, title
    (test,), (reference,) = student.rows("test"), student.rows("teacher_test")
    kept = f"{100 * test['accuracy'] / reference['accuracy']:.1f} %"
    assert kept in page
    assert kept in card
    assert student.flags["teacher_digest"] in card
    with open(teacher.path("report.html"), encoding="utf-8") as file:
        assert file.read().count('class="confusion"') == 2 * (1 + len(DOMAINS))


def test_the_student_stands_alone(student, teacher, project):
    config = config_of(student)
    assert config["num_hidden_layers"] == 2
    assert config["hidden_size"] == 20
    snapshot = Snapshot(project.path(student.snapshot))
    expected = set(encoder_shapes(snapshot.config())) | set(CLASSIFIER) | {DOMAIN_HEAD[0]}
    assert set(snapshot.sizes) == expected == set(flow.load(snapshot.path))
    assert snapshot.task()["domains"] == list(DOMAINS)
    assert snapshot.vocab_file()
    line = STEP_2.replace(ENCODER, student.snapshot).replace("output/teacher", "output/check").replace("--do_train ", "--do_train false ")
    project.call_well(line)
    check = tiny.Run(project.path("output", "check"))
    assert check.rows("dev")[0]["accuracy"] == float(student.best().rsplit("_", 1)[1])
    assert check.rows("test")[0]["correct"] == student.rows("test")[0]["correct"]


def test_the_student_is_a_teacher_and_a_start_of_later_steps(student, project):
    folder = "--teacher_output_dir output/second"
    output = project.call_well(f"{STEP_3A.format(teacher=student.snapshot)} {folder} --eval_batch_size_per_device 7 --do_eval")
    assert "layers 0,1" in output
    assert f"dev accuracy {float(student.best().rsplit('_', 1)[1]):.4f}" in output
    run = distil(project, student, "third", f"--student_model {student.snapshot} --student_num_hidden_layers 1 {folder} {SHORT}")
    assert config_of(run)["num_hidden_layers"] == 1
    single = f"--data_dir {DATA} --task_name senti --seq_length 16 --num_epochs 1 --batch_size_per_device {BATCH}"
    output = project.call_well(f"finetuning.py --model_load_dir {run.snapshot} {single} --model_save_dir output/fine")
    assert "initialised" not in output  # the classifier is the student's
