"""Distillation on text without labels, end to end: from files and online, as a first stage, resumed; and its refusals."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import tiny

from modeling.bert.names import HIDDEN_PROJECTION, REPRESENTATION_PROJECTION
from modeling.bert.variables import classifier_shapes, encoder_shapes, initial_value, representation_shapes
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, Snapshot, write_variables

pytestmark = pytest.mark.slow

TEXTS, LABELLED = "data/texts", "data/senti"  # the first has no training split
DOMAINS = ("books", "dvd", "electronics", "kitchen")
COUNT, DEV_COUNT, BATCH = 20, 12, 5
CONFIG = dataclasses.replace(tiny.CONFIG, hidden_size=12, num_attention_heads=3, num_hidden_layers=3, intermediate_size=17)
WIDER = dataclasses.replace(CONFIG, hidden_size=15)
FOUR_HEADS = dataclasses.replace(CONFIG, num_attention_heads=4)
COMMON = "--task_name senti --seq_length 16 --student_num_hidden_layers 2"
TEACH = f"meta_teacher_eval.py {COMMON} --model_load_dir teacher --eval_batch_size_per_device 7"
DISTIL = (
    f"meta_distill.py {COMMON} --teacher_model teacher --num_epochs 2 --batch_size_per_device {BATCH} --eval_batch_size_per_device 9 "
    "--eval_every_step_num 3 --learning_rate 5e-3 --loss_print_every_n_iter 1"
)
STAGE_1 = f"{DISTIL} --data_dir {TEXTS} --student_model wider --unlabelled --relation_loss_weight 0.5"
TERMS = ("hidden_loss", "attention_loss", "prediction_loss", "knowledge_loss", "relation_loss")


def rows(split, count, domains=DOMAINS):
    return [row for domain in domains for row in tiny.opinions(domain, (count, count), split, ("negative", "positive"))]


def write_teacher(folder):
    """A teacher as meta_teacher.py could have left it, with random weights."""
    shapes = {**encoder_shapes(CONFIG), **classifier_shapes(CONFIG, 2), **representation_shapes(CONFIG, len(DOMAINS))}
    task = {"name": "senti", "domains": list(DOMAINS), "labels": ["positive", "negative"], "pair": False}
    files = {CONFIG_FILE: CONFIG.to_json(), TASK_FILE: json.dumps(task), VOCAB_FILE: "".join(token + "\n" for token in tiny.TOKENS)}
    write_variables(folder, {name: initial_value(name, shape, 3, 0.4) for name, shape in shapes.items()}, files)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("unlabelled") / "project")
    for script in ("meta_teacher_eval.py", "meta_distill.py"):
        os.symlink(os.path.join(tiny.ROOT, script), project.path(script))
    write_teacher(project.path("teacher"))
    for name, config in (("encoder", CONFIG), ("wider", WIDER), ("four-heads", FOUR_HEADS)):
        tiny.write_encoder(project.path(name), config)
    for split, count in (("train", 3), ("dev", 2), ("test", 1)):
        tiny.write_rows(project.path(LABELLED), split, rows(split, count, DOMAINS[:3]))
    texts = [(text, domain) for text, domain, _ in rows("unlabelled", 3)]
    tiny.write_rows(project.path(TEXTS), "unlabelled", texts[:COUNT])
    shutil.copy(project.path(LABELLED, "dev.csv"), project.path(TEXTS, "dev.csv"))
    return project


def distil(project, line, name):
    project.call_well(f"{line} --model_save_dir output/{name}")
    return tiny.Run(project.path("output", name))


@pytest.fixture(scope="module")
def outputs(project):
    """What meta_teacher_eval.py prints; its folder is the default one."""
    return project.call_well(f"{TEACH} --data_dir {TEXTS} --unlabelled --relation_loss_weight 0.5")


@pytest.fixture(scope="module")
def student(project, outputs):
    return distil(project, STAGE_1, "first")


def test_outputs_of_the_teacher(project, outputs):
    folder = project.path(TEXTS, "ofrecord", "teacher_unlabelled")
    assert f"{TEXTS}/ofrecord/teacher_unlabelled will take" in outputs
    logits = np.load(os.path.join(folder, "logits.npy"), allow_pickle=False)
    assert logits.shape == (COUNT, 2)
    count = (logits.argmax(axis=1) == 0).sum()
    assert f"labels that the teacher predicts: positive {count}, negative {COUNT - count}" in outputs
    assert "train accuracy" not in outputs
    assert os.path.exists(os.path.join(folder, "projections.npy"))


def test_a_run_without_labels(student):
    assert f"unlabelled: {TEXTS}/unlabelled.csv: tab-separated without a header; columns: text, domain\n" in student.log
    assert f"unlabelled: {COUNT} rows; without labels; books: 6, dvd: 6, electronics: 6, kitchen: 2" in student.log
    assert "unlabelled: example (books): [CLS]" in student.log
    assert "hidden 1, attention 1, prediction 1, knowledge 0.2, relation 0.5; no term uses labels or prototypical scores" in student.log
    assert "all sample weights are 1" in student.log
    assert "also in unlabelled" in student.log  # what the log says of dev
    train = student.rows("train")
    assert len(train) == 2 * COUNT // BATCH
    for row in train:
        assert [name for name in row if name.endswith("_loss")] == list(TERMS)
        assert 0 <= row["agreement"] <= 1
        assert not {"accuracy", "sample_weight"} & set(row)
        weights = (1, 1, 1, 0.2, 0.5)
        assert row["loss"] == pytest.approx(sum(w * row[name] for w, name in zip(weights, TERMS)), rel=1e-4)
    first, last = (sum(row["relation_loss"] for row in part) for part in (train[:4], train[-4:]))
    assert last < first
    assert [row["total"] for row in student.rows("dev")] == [DEV_COUNT] * 3
    assert student.flags["data"]["unlabelled"]["rows"] == COUNT
    assert student.flags["data"]["unlabelled"]["by_domain"]["kitchen"] == {"unlabelled": 2}
    assert "train" not in student.flags["data"]
    page = tiny.read_bytes(student.path("report.html")).decode("utf-8")
    assert "Relation loss" in page
    assert "unlabelled.csv" in page


def test_online_and_disk_teach_the_same(project, student):
    run = distil(project, f"{STAGE_1} --teacher_outputs online --max_steps 3", "online")
    for ours, theirs in zip(run.rows("train"), student.rows("train")):
        for name in (*TERMS, "loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3, abs=1e-5), name
    assert len(run.rows("train")) == 3


def test_resume(project, student):
    project.check_resumed(STAGE_1, student, 5, signal.SIGTERM)


def test_a_second_stage_with_labels(project, student):
    """The snapshot is that of a student: it starts the next distillation, and a fine-tuning."""
    snapshot = os.path.join("output", "first", student.best())
    assert not [name for name in Snapshot(project.path(snapshot)).sizes if name.startswith("distillation-")]
    more = f"--data_dir {LABELLED} --student_model {snapshot} --use_sample_weights false --num_epochs 1"
    run = distil(project, f"{DISTIL} {more} --teacher_outputs online", "second")
    started = [*(HIDDEN_PROJECTION.format(layer) for layer in (0, 1)), REPRESENTATION_PROJECTION]
    assert f"initialised, not in the snapshot or for other labels or domains: {', '.join(started)}\n" in run.log
    assert "label_loss" in run.rows("train")[0]
    assert "relation_loss" not in run.rows("train")[0]
    line = f"finetuning.py --task_name senti --data_dir {LABELLED} --model_load_dir {snapshot} --seq_length 16 --num_epochs 1"
    assert "initialised" not in project.call_well(f"{line} --model_save_dir output/fine")


def fails(project, line, *said):
    code, _, errors = project.call(line)
    assert code == 2, errors
    assert errors.startswith("error: "), errors
    assert errors.count("\n") == 1, errors
    for part in said:
        assert part in errors, errors


def test_refusals(project, outputs):
    line = STAGE_1 + " --model_save_dir output/x"
    fails(project, line + " --label_loss_weight 1", "--unlabelled: the text has no labels", "give --label_loss_weight 0")
    fails(project, line + " --use_sample_weights", "give --use_sample_weights false")
    fails(project, line.replace("wider", "four-heads"), "--relation_loss_weight 0.5", "the student has 4 attention heads and the teacher 3")
    more = "--teacher_outputs online --model_save_dir output/x"
    fails(project, f"{STAGE_1} {more}".replace(TEXTS, LABELLED), f"unlabelled text not found, looked for {LABELLED}/unlabelled.csv")
    fails(
        project,
        TEACH + f" --data_dir {TEXTS} --unlabelled --student_num_hidden_layers 1000000",
        "teacher has 3 encoder layers, give 1 to 3",
    )
    fails(project, line + " --teacher_output_dir nowhere", "run meta_teacher_eval.py --unlabelled first")
    project.call_well(f"{TEACH} --data_dir {TEXTS} --unlabelled --teacher_output_dir output/less")
    fails(project, line + " --teacher_output_dir output/less", "projections is missing", "--relation_loss_weight above 0")
    assert not os.path.exists(project.path("output", "x"))


def test_a_missing_dev_split_is_found_before_records_are_written(project):
    folder = project.path("data", "no-dev")
    os.makedirs(folder)
    shutil.copy(project.path(TEXTS, "unlabelled.csv"), folder)
    shutil.copy(project.path(LABELLED, "train.csv"), folder)
    said = "dev text not found, looked for data/no-dev/dev.csv"
    online = " --teacher_outputs online --model_save_dir output/x"
    for line in (
        STAGE_1.replace(TEXTS, "data/no-dev") + online,
        f"{STAGE_1} --resave_ofrecord".replace(TEXTS, "data/no-dev") + online,
        f"{DISTIL} --data_dir data/no-dev --student_model encoder --use_sample_weights false" + online,
        f"{TEACH} --data_dir data/no-dev --do_eval",
        "finetuning.py --task_name senti --data_dir data/no-dev --model_load_dir encoder --seq_length 16 --model_save_dir output/x",
    ):
        fails(project, line, said)
        assert sorted(os.listdir(folder)) == ["train.csv", "unlabelled.csv"]
    fails(project, STAGE_1.replace(TEXTS, "data/no-dev") + online, "there are no records in data/no-dev/ofrecord/dev either")
