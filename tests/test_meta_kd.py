"""Meta-KD end to end: the four scripts with their documented flags on a tiny model, and the one line of each failure."""

import dataclasses
import json
import os
import random
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD
from modeling.bert.variables import encoder_shapes
from modeling.checkpoints.snapshot import Snapshot
from modeling.engine.runtime import flow
from modeling.run.student import LayerSelection

pytestmark = pytest.mark.slow

DATA = "data/SENTI"
ENCODER = "uncased_L-4_H-20_A-4_oneflow"
DOMAINS = ("books", "dvd", "electronics", "kitchen")
TRAIN_COUNT, DEV_COUNT, TEST_COUNT = 55, 30, 22
BATCH = 11  # divides TRAIN_COUNT: the five rows of an epoch's log are means over all samples
TERMS = ("hidden_loss", "attention_loss", "prediction_loss", "label_loss", "knowledge_loss")

COMMON = "--seed 42 --seq_length=16 --train_example_num 6480 --vocab_file vocab.txt --resave_ofrecord"
STEP_1 = f"preprocess.py --task_name senti --model_load_dir {ENCODER} --data_dir {DATA}/ --num_epochs 4 {COMMON}"
STEP_2 = (
    f"meta_teacher.py --task_name senti --model_load_dir {ENCODER} --data_dir {DATA}/ --num_epochs 16 {COMMON} "
    f"--eval_example_num 720 --batch_size_per_device {BATCH} --eval_batch_size_per_device 9 --eval_every_step_num 25 "
    "--learning_rate 5e-3 --do_train --do_eval --loss_print_every_n_iter 5 --model_save_dir output/teacher"
)
STEP_3A = (
    f"meta_teacher_eval.py --task_name senti --model_load_dir {{teacher}} --data_dir {DATA}/ --num_epochs 4 {COMMON} "
    "--eval_batch_size_per_device 1 --student_num_hidden_layers 2"
)
STEP_3B = (
    f"meta_distill.py --task_name senti --student_model {ENCODER} --teacher_model {{teacher}} --data_dir {DATA}/ "
    f"--num_epochs 6 {COMMON} --eval_example_num 720 --batch_size_per_device {BATCH} --eval_batch_size_per_device 9 "
    "--eval_every_step_num 20 --learning_rate 5e-3 --do_train --do_eval --loss_print_every_n_iter 5 "
    "--student_num_hidden_layers 2"
)
SHORT = "--num_epochs 1 --eval_every_step_num 100"


def write_senti(folder, counts=(7, 4, 3), names=("negative", "positive"), domains=DOMAINS):
    """Rows of each class of each domain; one row less in the second one's first class. The order is shuffled."""
    for split, count in zip(("train", "dev", "test"), counts):
        rows = [
            row
            for place, domain in enumerate(domains)
            for row in tiny.opinions(domain, (count - (place == 1), count - (count < 7 and place == 2)), split, names)
        ]
        random.Random(split).shuffle(rows)
        tiny.write_rows(folder, split, rows)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("meta_kd") / "project")
    for script in ("meta_teacher.py", "meta_teacher_eval.py", "meta_distill.py"):
        if not os.path.lexists(project.path(script)):
            os.symlink(os.path.join(tiny.ROOT, script), project.path(script))
    config = dataclasses.replace(tiny.CONFIG, hidden_size=20, num_attention_heads=4, num_hidden_layers=4)
    tiny.write_encoder(project.path(ENCODER), config)
    narrow = dataclasses.replace(config, hidden_size=12, num_attention_heads=3, num_hidden_layers=3, intermediate_size=17)
    tiny.write_encoder(project.path("narrow"), narrow)
    write_senti(project.path(DATA))
    return project


@pytest.fixture(scope="module")
def scores(project):
    project.call_well(STEP_1)
    return np.load(project.path(DATA, "ofrecord", "train", "weight.npy"))


@pytest.fixture(scope="module")
def teacher(project, scores):
    """The run of meta_teacher.py; `snapshot` is the path that the next steps are given."""
    output = project.call_well(STEP_2)
    run = tiny.Run(project.path("output", "teacher"))
    run.output, run.snapshot = output, os.path.join("output", "teacher", run.best())
    return run


@pytest.fixture(scope="module")
def outputs(project, teacher):
    """The run of meta_teacher_eval.py."""
    output = project.call_well(STEP_3A.format(teacher=teacher.snapshot))
    folder = project.path(DATA, "ofrecord", "teacher")
    with open(os.path.join(folder, "manifest.json")) as file:
        return SimpleNamespace(output=output, folder=folder, manifest=json.load(file))


def distil(project, teacher, name, more=""):
    """Runs meta_distill.py; later flags override the documented ones."""
    output = project.call_well(f"{STEP_3B.format(teacher=teacher.snapshot)} --model_save_dir output/{name} {more}")
    run = tiny.Run(project.path("output", name))
    run.output, run.snapshot = output, os.path.join("output", name, run.best())
    return run


@pytest.fixture(scope="module")
def student(project, teacher, outputs):
    return distil(project, teacher, "student")


def test_steps_go_on_where_they_were_cut_off(project, teacher, outputs, student):
    project.check_resumed(STEP_2.replace(" --model_save_dir output/teacher", ""), teacher, 26, signal.SIGTERM)
    project.check_resumed(STEP_3B.format(teacher=teacher.snapshot), student, 21, signal.SIGINT)


def config_of(run):
    with open(os.path.join(run.folder, run.best(), "bert_config.json")) as file:
        return json.load(file)


# The documented lines


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


# Online, other sizes, other terms


def test_online_and_disk_teach_the_same(student, teacher, project):
    run = distil(project, teacher, "online", "--teacher_outputs online --teacher_output_dir nowhere")
    first, other = student.rows("train")[0], run.rows("train")[0]
    for name in (*TERMS, "loss", "sample_weight"):
        assert other[name] == pytest.approx(first[name], rel=2e-3, abs=1e-5), name
    assert run.rows("dev")[-1]["accuracy"] == pytest.approx(student.rows("dev")[-1]["accuracy"], abs=0.1)


@pytest.mark.parametrize("kind", ["disk", "online"])
def test_two_processes_learn_what_one_learns(outputs, teacher, project, kind):
    """The same global batch in two halves, each with what its teacher says of it; the last batch is half full."""
    common = f"--teacher_outputs {kind} {SHORT} --loss_print_every_n_iter 1 --device cpu"
    one = distil(project, teacher, f"one-{kind}", f"{common} --batch_size_per_device 10")
    line = f"{STEP_3B.format(teacher=teacher.snapshot)} {common} --batch_size_per_device 5".replace("--resave_ofrecord", "")
    project.run(f"{line} --gpu_num_per_node 2 --model_save_dir output/two-{kind}")
    two = tiny.Run(project.path("output", f"two-{kind}"))
    for ours, theirs in zip(two.rows("train"), one.rows("train")):
        for name in (*TERMS, "loss", "sample_weight"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
    assert len(two.rows("train")) == len(one.rows("train")) == 6
    assert [row["total"] for row in two.rows("test")] == [TEST_COUNT]


def test_a_narrow_student_of_other_heads(outputs, teacher, project):
    run = distil(project, teacher, "narrow", f"--student_model narrow --teacher_outputs disk {SHORT} --num_epochs 3")
    assert "3 student heads, 4 teacher heads: attention scores are averaged over heads" in run.output
    assert "the nearest ones: 2 does not divide 3" in run.output
    assert run.flags["start_layers"] == [1, 2]
    rows = run.rows("train")
    assert all(rows[-1][name] < rows[0][name] for name in TERMS)
    config = config_of(run)
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]) == (12, 2, 3)
    assert not [name for name in Snapshot(project.path(run.snapshot)).sizes if name.startswith("distillation-")]


def test_child_tuning_of_the_student(outputs, teacher, project):
    """The Fisher information is that of the distillation, whether the teacher's outputs are on disk or online: the same child network."""
    more = f"{SHORT} --max_steps 1 --child_tuning D --reserve_p 0.3"
    said = []
    for source in ("disk", "online"):
        run = distil(project, teacher, f"child-{source}", f"{more} --teacher_outputs {source}")
        said += [line.split("Child-Tuning: ")[1] for line in run.log.splitlines() if "Child-Tuning: " in line]
    assert len(said) == 2
    assert said[0] == said[1]
    assert "chosen by Fisher information over" in said[0]


def test_frozen_layers_of_the_student(outputs, teacher, project):
    """Terms run over the layers that are trained, whose teacher's layers alone are needed; where none is, they are left out."""
    run = distil(project, teacher, "frozen", f"--student_model narrow --freeze_layers 1 {SHORT}")
    assert "student layers below 1 are frozen: the terms of hidden states and attention scores cover only the other layers" in run.log
    assert set(TERMS) <= set(run.rows("train")[0])
    start = LayerSelection(Snapshot(project.path("narrow")), (1, 2))
    best = Snapshot(project.path(run.snapshot))
    for name, shape in best.shapes.items():
        same = name in start.sizes and np.array_equal(best.read(name, shape), start.read(name, shape))
        assert same == name.startswith(("bert-embeddings-", "bert-encoder-layer_0-")), name

    run = distil(project, teacher, "heads", f"--freeze_encoder {SHORT}")
    assert "all layers of the student are frozen: the terms of hidden states and attention scores are left out" in run.log
    assert [name for name in TERMS if name in run.rows("train")[0]] == ["prediction_loss", "label_loss", "knowledge_loss"]
    line = f"{STEP_3B.format(teacher=teacher.snapshot)} --freeze_encoder --prediction_loss_weight 0 --label_loss_weight 0"
    code, _, errors = project.call(line + " --use_domain_loss false --model_save_dir output/nothing")
    assert code == 2
    assert "no other loss term has a weight" in errors
    assert errors.count("\n") == 1
    code, _, errors = project.call(f"{STEP_3B.format(teacher=teacher.snapshot)} --freeze_layers 3 --model_save_dir output/nothing")
    assert code == 2
    assert "--freeze_layers 3: the encoder has 2 layers, give 0 to 2" in errors


def test_prediction_loss_only(teacher, project):
    small = "--teacher_output_dir output/predictions --pred_distill"
    project.call_well(f"{STEP_3A.format(teacher=teacher.snapshot)} {small} --eval_batch_size_per_device 16")
    assert sorted(os.listdir(project.path("output", "predictions"))) == [
        *("checksums.npy", "idxs.npy", "logits.npy", "manifest.json", "token_offsets.npy")
    ]
    run = distil(project, teacher, "predictions-student", f"{small} --temperature 2 --student_num_hidden_layers 3 {SHORT}")
    row = run.rows("train")[0]
    assert [name for name in row if name.endswith("_loss")] == ["prediction_loss"]
    assert row["loss"] == row["prediction_loss"]
    assert config_of(run)["num_hidden_layers"] == 3  # no layer of the teacher is needed
    code, _, errors = project.call(
        f"{STEP_3B.format(teacher=teacher.snapshot)} --teacher_output_dir output/predictions --model_save_dir output/x"
    )
    assert code == 2
    assert "hidden is missing, but the loss needs it" in errors


def test_a_term_of_weight_zero(student, teacher, project):
    """Without the meta parts and without attention: the other terms of the first steps are the same numbers."""
    more = "--attention_loss_weight 0 --use_sample_weights false --use_domain_loss false --learning_rate 0 --num_epochs 1"
    less = distil(project, teacher, "less", more)
    whole = distil(project, teacher, "whole", "--use_sample_weights false --learning_rate 0 --num_epochs 1")
    row, other = less.rows("train")[0], whole.rows("train")[0]
    assert [name for name in row if name.endswith("_loss")] == ["hidden_loss", "prediction_loss", "label_loss"]
    assert "sample_weight" not in row
    assert "all sample weights are 1" in less.output
    for name in ("hidden_loss", "prediction_loss", "label_loss"):
        assert row[name] == other[name]
    assert row["loss"] == pytest.approx(other["loss"] - other["attention_loss"] - 0.2 * other["knowledge_loss"], rel=1e-5)


def test_only_evaluation(student, teacher, project):
    line = STEP_3B.format(teacher=teacher.snapshot).replace("--do_train ", "--do_train false ").replace(ENCODER, student.snapshot)
    project.call_well(line + " --model_save_dir output/only --teacher_output_dir nowhere")
    run = tiny.Run(project.path("output", "only"))
    assert run.rows("dev")[0]["accuracy"] == float(student.best().rsplit("_", 1)[1])
    assert run.rows("test")[0]["correct"] == student.rows("test")[0]["correct"]
    assert not run.snapshots()


def test_portion_of_the_training_split(scores, teacher, outputs, project):
    """The same part in each step; scores stay with their samples."""
    more = "--data_portion 0.3 --model_save_dir output/portion --num_epochs 2 --loss_print_every_n_iter 1"
    output = project.call_well(f"{STEP_2} {more}")
    count = int(np.ceil(0.3 * TRAIN_COUNT))
    assert f"--data_portion 0.3: {count} of {TRAIN_COUNT} samples are used" in output
    steps = -(-2 * count // BATCH)
    assert len(tiny.Run(project.path("output", "portion")).rows("train")) == steps
    folder = "--teacher_output_dir output/part"
    project.call_well(f"{STEP_3A.format(teacher=teacher.snapshot)} --data_portion 0.3 {folder} --eval_batch_size_per_device 17")
    idxs = np.load(project.path("output", "part", "idxs.npy"))
    assert len(set(idxs.tolist())) == count
    assert (np.diff(idxs) > 0).all()
    distil(project, teacher, "part-student", f"--data_portion 0.3 {folder} {SHORT}")
    code, _, errors = project.call(f"{STEP_3B.format(teacher=teacher.snapshot)} {folder} --model_save_dir output/x")
    assert code == 2
    assert f"contains {count} samples, but not all {TRAIN_COUNT}" in errors


# Other tasks and files


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


# Failures: one line, exit code 2


def fails(project, line):
    code, _, errors = project.call(line)
    assert code == 2, errors
    assert errors.count("\n") == 1, errors
    assert errors.startswith("error: "), errors
    return errors


def test_predecessors_are_named(project, teacher, outputs):
    distill = STEP_3B.format(teacher=teacher.snapshot) + " --model_save_dir output/x"
    assert "run meta_teacher_eval.py first" in fails(project, distill + " --teacher_output_dir nowhere")
    assert "run meta_teacher.py" in fails(project, STEP_3B.format(teacher="output/none") + " --model_save_dir output/x")
    assert "run meta_teacher.py" in fails(project, STEP_3A.format(teacher="output/none"))
    assert "--model_load_dir is needed" in fails(project, STEP_3A.replace("--model_load_dir {teacher}", ""))
    assert "has no task.json, so it cannot be a teacher" in fails(project, STEP_3A.format(teacher=ENCODER))
    assert "has no task.json, so it cannot be a teacher" in fails(project, STEP_3B.format(teacher=ENCODER) + " --model_save_dir output/x")
    shutil.copytree(project.path(DATA), project.path("data/unscored"), ignore=shutil.ignore_patterns("ofrecord"))
    line = STEP_2.replace(DATA, "data/unscored").replace("output/teacher", "output/x")
    assert "run preprocess.py first" in fails(project, line)


def test_foreign_and_stale_outputs_name_both_digests(project, teacher, outputs):
    other = "output/other/snapshot"
    shutil.copytree(project.path(teacher.snapshot), project.path(other))
    bias = project.path(other, CLASSIFIER[1], "out")
    (np.fromfile(bias, "<f4") + 1).astype("<f4").tofile(bias)
    message = fails(project, STEP_3B.format(teacher=other) + " --model_save_dir output/x")
    for path in (teacher.snapshot, other):
        assert Snapshot(project.path(path)).digest()[:16] in message
    assert f"run meta_teacher_eval.py with --model_load_dir {other}" in message

    stale = project.path("data/stale")
    shutil.copytree(project.path(DATA), stale)
    with open(os.path.join(stale, "train.csv"), "a", encoding="utf-8") as file:
        file.write("a great plot\tbooks\tpositive\n")
    line = STEP_3B.format(teacher=teacher.snapshot).replace(DATA, "data/stale") + " --use_sample_weights false"
    message = fails(project, line + " --model_save_dir output/x")  # the scores, which are not used, need not fit
    with open(os.path.join(stale, "ofrecord", "train", "manifest.json")) as file:
        assert json.load(file)["text_digest"][:16] in message
    assert outputs.manifest["text_digest"][:16] in message
    assert "run meta_teacher_eval.py" in message


def test_flags_that_cannot_be_met(project, teacher, outputs):
    distill = STEP_3B.format(teacher=teacher.snapshot) + " --model_save_dir output/x "
    evaluate = STEP_3A.format(teacher=teacher.snapshot) + " "
    assert "has 4 encoder layers" in fails(project, distill + "--student_num_hidden_layers 5")
    message = fails(project, distill + "--student_num_hidden_layers 3")
    assert "contains the teacher's layers 1,3, but the student needs 0,2,3" in message
    assert "--teacher_layers 0,2,3" in message
    assert "--temperature: 0 is not 1e-06 or more" in fails(project, distill + "--temperature 0")
    assert "--data_portion 0 leaves no training samples" in fails(project, distill + "--data_portion 0")
    assert "the weights of all loss terms are 0, so there is no loss" in fails(
        project, distill + "--pred_distill --prediction_loss_weight 0"
    )
    for name in ("hidden_loss_weight", "attention_loss_weight", "label_loss_weight", "relation_loss_weight"):
        message = fails(project, distill + f"--pred_distill --{name} 2")
        assert f"--{name} 2: --pred_distill leaves this term out: give --{name} 0" in message
    assert "the teacher has layers 0 to 3" in fails(project, evaluate + "--teacher_layers 1,4")
    assert "and is not replaced" in fails(project, evaluate + f"--teacher_output_dir {DATA}")
    assert "--teacher_model" in fails(project, STEP_3B.replace("--teacher_model {teacher}", ""))
    message = fails(project, distill + "--domains books,dvd,electronics,toys")
    assert "was trained for domains books,dvd,electronics,kitchen" in message
    assert "run meta_teacher.py on this data" in message


def test_one_vocabulary(project, teacher, outputs):
    tokens = list(tiny.TOKENS)
    tokens[-1], tokens[-2] = tokens[-2], tokens[-1]
    tiny.write_vocabulary(project.path("other-vocab.txt"), tokens)
    line = STEP_3B.format(teacher=teacher.snapshot).replace("vocab.txt", "other-vocab.txt") + " --model_save_dir output/x"
    assert "teacher and student need the same --vocab_file" in fails(project, line)
