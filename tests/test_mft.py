"""Meta Fine-tuning end to end: the three scripts, as a user runs them, on a tiny model and text that can be learnt."""

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD
from modeling.bert.variables import encoder_shapes, initial_value
from modeling.checkpoints.snapshot import Snapshot
from modeling.engine.global_function import GlobalFunction
from modeling.engine.runtime import flow, oneflow_version
from modeling.predictor import Predictor
from modeling.run.predictions import predictions_path, read_predictions
from ofrecord_util.errors import UserError
from ofrecord_util.reader import read_split
from ofrecord_util.scores import load_map
from tools.convert_checkpoint import HUGGING_FACE, convert

pytestmark = pytest.mark.slow

DATA = "data/k-shot-cross/g1/16-42"
SINGLE = "data/k-shot-single/SST-2/16-42"
TRAIN_COUNT, DEV_COUNT, TEST_COUNT = 53, 23, 23  # of DATA, DATA and SINGLE: primes, which no batch size divides

# The documented command lines, flag by flag, with smaller values
STEP_1 = (
    f"preprocess.py --task_name g1 --model_load_dir uncased_L-2_H-20_A-4_oneflow --data_dir {DATA} --num_epochs 4 "
    "--seed 42 --seq_length=24 --train_example_num 53 --dev_example_num 23 --vocab_file vocab.txt --resave_ofrecord"
)
STEP_2 = (
    f"meta_finetuning.py --task_name g1 --model_load_dir uncased_L-2_H-20_A-4_oneflow --data_dir {DATA} "
    "--num_epochs 12 --seed 42 --seq_length=24 --train_example_num 53 --dev_example_num 23 --batch_size_per_device 4 "
    "--dev_batch_size_per_device 2 --dev_every_step_num 40 --vocab_file vocab.txt --learning_rate 5e-3 "
    "--resave_ofrecord"
)
STEP_3 = (
    f"finetuning.py --task_name sst-2 --model_load_dir {{snapshot}} --data_dir {SINGLE} --num_epochs 3 --seed 42 "
    "--seq_length=24 --train_example_num 16 --dev_example_num 9 --eval_example_num 23 --batch_size_per_device 3 "
    "--dev_batch_size_per_device 2 --eval_batch_size_per_device 2 --dev_every_step_num 5 --vocab_file vocab.txt "
    "--learning_rate 1e-4 --resave_ofrecord"
)
META_STEPS = -(-TRAIN_COUNT * 12 // 4)
BEST = re.compile(r"snapshot_best_(mft|ft)_model_([^/]+)_dev_([0-9.e-]+)")
TIMING = ("seconds", "samples_per_second")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("mft") / "project")
    tiny.write_encoder(project.path("uncased_L-2_H-20_A-4_oneflow"))
    tiny.write_g1(project.path(*DATA.split("/")))
    tiny.write_single(project.path(*SINGLE.split("/")))
    return project


@pytest.fixture(scope="module")
def step_1(project):
    output = project.run(STEP_1)
    folder = project.path(DATA, "ofrecord", "train")
    return SimpleNamespace(output=output, files=tiny.tree(folder), scores=np.load(os.path.join(folder, "weight.npy")))


@pytest.fixture(scope="module")
def step_2(project, step_1):
    output = project.run(STEP_2)
    run = project.run_of(output)
    run.output, run.records = output, tiny.tree(project.path(DATA, "ofrecord"))
    run.snapshot = run.path(run.best())
    return run


@pytest.fixture(scope="module")
def step_3(project, step_2):
    output = project.run(STEP_3.format(snapshot=os.path.relpath(step_2.snapshot, project.folder)))
    run = project.run_of(output)
    run.output = output
    return run


# --- step 1


def test_scores_are_written(project, step_1):
    scores = step_1.scores
    assert scores.dtype == np.float32
    assert scores.shape == (TRAIN_COUNT,)
    assert (scores <= 1 + 1e-6).all()
    assert (scores >= -1).all()
    assert scores.std() > 1e-3
    records = read_split(project.path(DATA), "train")
    assert np.array_equal(records.sample_weights, scores[records.idxs])
    for split, count in (("train", TRAIN_COUNT), ("dev", DEV_COUNT)):
        assert len(read_split(project.path(DATA), split)) == count
    assert not os.path.exists(project.path(DATA, "ofrecord", "test"))  # there is no test.csv


def test_prototypes_are_written(project, step_1):
    with np.load(project.path(DATA, "ofrecord", "train", "prototypes.npz"), allow_pickle=False) as prototypes:
        assert prototypes["centroids"].shape == (3, 2, 20)
        assert prototypes["counts"].tolist() == [[9, 9], [9, 8], [9, 9]]
        assert prototypes["domains"].tolist() == ["SST-2", "mr", "cr"]
        means = prototypes["score_statistics"][:, prototypes["score_columns"].tolist().index("mean")]
    domain = read_split(project.path(DATA), "train").domain
    assert means == pytest.approx([step_1.scores[domain == index].mean() for index in range(3)], abs=1e-6)


def test_the_map_is_that_of_the_prototypes(project, step_1):
    """A prototype is a mean of representations, and so lies in the plane where the mean of its samples' points lies."""
    records = read_split(project.path(DATA), "train")
    drawn = load_map(project.path(DATA), records.text_digest)
    assert np.array_equal(drawn.domain, records.domain)
    assert np.array_equal(drawn.label, records.label)
    for domain in range(3):
        for label in range(2):
            points = drawn.coordinates[(drawn.domain == domain) & (drawn.label == label)]
            assert drawn.prototypes[domain, label] == pytest.approx(points.mean(axis=0), abs=1e-4)
    assert 0 < drawn.explained[1] <= drawn.explained[0] < 1
    assert np.std(drawn.coordinates, axis=0).min() > 0


def test_step_1_says_what_it_did(project, step_1):
    assert "--num_epochs has no effect" in step_1.output
    assert re.search(r"train: .*; \d+ of \d+ tokens are \[UNK\]", step_1.output)
    for name, count in (("SST-2", 18), ("mr", 17), ("cr", 18)):
        assert re.search(rf"prototypical scores of {name}: {count} samples, mean 0\.\d+, std 0\.\d+", step_1.output)
    with open(project.path("output", "preprocess.log"), encoding="utf-8") as file:
        assert "prototypical scores of mr" in file.read()


# --- step 2


def test_scores_survive_regeneration(project, step_1, step_2):
    assert "written as OFRecord" in step_2.output
    for name, data in step_1.files.items():
        assert step_2.records[os.path.join("train", name)] == data


def test_weights_are_in_the_log(project, step_1, step_2):
    domain = read_split(project.path(DATA), "train").domain
    for index, name in enumerate(("SST-2", "mr", "cr")):
        part = step_1.scores[domain == index]
        assert f"weights of {name}: {len(part)} samples, mean {part.mean():.4f}, std {part.std():.4f}" in step_2.log


def test_documented_names(step_2, step_3):
    for run, kind, task, total in ((step_2, "mft", "g1", DEV_COUNT), (step_3, "ft", "sst-2", 9)):
        assert re.match(r"model_save-\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d$", os.path.basename(run.folder))
        best = [row for row in run.rows("dev") if row["best"]][-1]
        assert run.snapshots() == [f"snapshot_best_{kind}_model_{task}_dev_{best['correct'] / total!r}"]
        assert BEST.match(run.best()).group(3) == repr(best["accuracy"])
        assert max(row["accuracy"] for row in run.rows("dev")) == best["accuracy"]


def test_files_of_a_run(step_2, step_3):
    for run, script in ((step_2, "meta_finetuning"), (step_3, "finetuning")):
        predictions = ["predictions_dev.tsv", "predictions_test.tsv"][: 1 + (run is step_3)]
        files = ["curves.png", "flags.json", "metrics.jsonl", "report.html", "run.flags", "run.log", *predictions, run.best()]
        assert sorted(os.listdir(run.folder)) == sorted(files)
        with open(run.path("curves.png"), "rb") as file:
            picture = file.read()
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert picture.rstrip().endswith(b"IEND\xaeB`\x82")
        width, height = np.frombuffer(picture[16:24], ">u4")
        assert width >= 600
        assert height >= 400
        assert len(picture) > 10000
        assert run.flags["script"] == script
        assert run.flags["command"][0] == script + ".py"
        assert run.flags["flags"]["seq_length"] == 24
        assert run.flags["flags"]["seed"] == 42
        assert run.flags["config"]["hidden_size"] == 20
        assert run.flags["versions"]["oneflow"] == flow.__version__
        assert all(line in run.log for line in run.output.splitlines()[-4:-1])


def test_report_and_card(step_2, step_3):
    for run, names in ((step_2, ("SST-2", "mr", "cr")), (step_3, ("SST-2",))):
        with open(run.path("report.html"), encoding="utf-8") as file:
            page = file.read()
        with open(run.path(run.best(), "README.md"), encoding="utf-8") as file:
            card = file.read()
        best = [row for row in run.rows("dev") if row["best"]][-1]
        assert "http://" not in page
        assert "https://" not in page
        assert "<script" not in page
        assert "Not on this page" not in page
        for name in names:
            assert f'<th scope="row">{name}</th>' in page
            assert f"| {name} |" in card
        assert f"{best['accuracy']:.4f}" in page
        assert f"| {best['accuracy']:.4f} |" in card
        assert f"report {os.path.join('output', os.path.basename(run.folder), 'report.html')}" in run.output.replace("./", "")
        assert run.folder not in card
        assert Snapshot(run.path(run.best())).digest() in card
    assert page.count('class="confusion"') == 2
    assert "test accuracy" in page


def test_predictions_are_those_of_the_best_snapshot(project, step_2, step_3):
    for run, split, data in ((step_2, "dev", DATA), (step_3, "dev", SINGLE), (step_3, "test", SINGLE)):
        _, _, samples = read_predictions(predictions_path(run.folder, split))
        samples = list(samples)
        row = run.rows("test")[-1] if split == "test" else [row for row in run.rows("dev") if row["best"]][-1]
        assert sum(sample.label == sample.predicted for sample in samples) == row["correct"]
        assert len(samples) == row["total"]
        with open(project.path(data, split + ".csv"), encoding="utf-8") as file:
            texts = [line.split("\t")[0] for line in file]
        assert [sample.texts[0] for sample in samples] == texts
        losses = [-math.log(sample.probabilities[int(sample.label)]) for sample in samples]
        assert np.mean(losses) == pytest.approx(row["cross_entropy"], rel=1e-4)


def test_training_metrics(step_2):
    rows = step_2.rows("train")
    assert [row["step"] for row in rows] == [*range(10, META_STEPS, 10), META_STEPS]
    for row in rows:
        assert set(row) == {
            *("kind", "step", "epoch", "learning_rate", "samples_per_second"),
            *("loss", "classification_loss", "domain_loss", "accuracy", "domain_accuracy"),
        }
        assert row["loss"] == pytest.approx(row["classification_loss"] + 0.1 * row["domain_loss"], abs=1e-5)
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["domain_accuracy"] <= 1
        assert row["samples_per_second"] > 0
        assert row["epoch"] == pytest.approx(min(12, row["step"] * 4 / TRAIN_COUNT), abs=1e-4)
    warmup = int(META_STEPS * 0.1)
    assert rows[0]["learning_rate"] == pytest.approx(5e-3 * 9 / warmup)
    assert rows[-1]["learning_rate"] == pytest.approx(5e-3 / META_STEPS)


def test_dev_metrics(step_2, step_3):
    for run, steps, totals in (
        (step_2, [40, 80, 120, META_STEPS], {"SST-2": 8, "mr": 7, "cr": 8}),
        (step_3, [5, 10, 15, 16], {"SST-2": 9}),
    ):
        rows = run.rows("dev")
        assert [row["step"] for row in rows] == steps
        for row in rows:
            by_domain = row["by_domain"]
            assert {name: part["total"] for name, part in by_domain.items()} == totals
            assert row["total"] == sum(totals.values())
            assert row["correct"] == sum(part["correct"] for part in by_domain.values())
            assert row["accuracy"] == row["correct"] / row["total"]
            for part in by_domain.values():
                assert part["accuracy"] == pytest.approx(part["correct"] / part["total"])
            losses = [part["cross_entropy"] * part["total"] for part in by_domain.values()]
            assert row["cross_entropy"] == pytest.approx(sum(losses) / row["total"], rel=1e-5)


def test_the_meta_learner_learns(step_2):
    rows, dev = step_2.rows("train"), step_2.rows("dev")
    losses = [row["classification_loss"] for row in rows]
    assert len(set(losses)) == len(losses)
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert max(row["accuracy"] for row in dev) >= 0.85
    assert all(part["accuracy"] > 0.6 for part in dev[-1]["by_domain"].values())
    # the domain head leaves chance: it cannot know the corrupted domain, but that it is not the true one
    assert np.mean([row["domain_loss"] for row in rows[-3:]]) < 0.97 * math.log(3)


def test_snapshot_holds_what_a_later_step_needs(project, step_2):
    snapshot = step_2.snapshot
    with open(os.path.join(snapshot, "bert_config.json"), encoding="utf-8") as file:
        assert json.load(file)["num_attention_heads"] == 4
    with open(os.path.join(snapshot, "task.json"), encoding="utf-8") as file:
        task = json.load(file)
    assert (task["domains"], task["labels"], task["pair"]) == (["SST-2", "mr", "cr"], ["0", "1"], False)
    with open(os.path.join(snapshot, "vocab.txt"), encoding="utf-8") as file:
        assert file.read().split() == tiny.TOKENS
    with open(os.path.join(snapshot, "tokenizer_config.json"), encoding="utf-8") as file:
        assert json.load(file)["do_lower_case"] is True
    assert os.path.getsize(os.path.join(snapshot, "snapshot_done")) == 0
    loaded = flow.load(snapshot)
    shapes = {**encoder_shapes(tiny.CONFIG), CLASSIFIER[0]: (2, 20), CLASSIFIER[1]: (2,), DOMAIN_HEAD[2]: (3,)}
    shapes.update(dict.fromkeys(DOMAIN_HEAD[:2], (3, 20)))
    assert set(loaded) == set(shapes)
    for name, shape in shapes.items():
        assert tuple(loaded[name].shape) == shape
        assert np.array_equal(loaded[name].numpy().ravel(), tiny.read_variable(snapshot, name))
    start = project.path("uncased_L-2_H-20_A-4_oneflow")
    for name in encoder_shapes(tiny.CONFIG):  # all of them were trained
        assert not np.array_equal(tiny.read_variable(snapshot, name), tiny.read_variable(start, name)), name


# --- step 3


def test_the_whole_test_split_is_counted(step_3):
    (test,) = step_3.rows("test")
    assert test["total"] == TEST_COUNT
    assert list(test["by_domain"]) == ["SST-2"]
    assert test["accuracy"] == test["correct"] / TEST_COUNT >= 0.8
    assert f"({test['correct']}/{TEST_COUNT})" in step_3.output.splitlines()[-5]  # before further measures, curves, report and snapshot
    assert step_3.output.splitlines()[-4].startswith(f"test macro F1 {test['macro_f1']:.4f} (95 % interval ")


def test_step_3_goes_on_from_the_meta_learner(step_3):
    assert "initialised" not in step_3.log  # the labels are the same, so the classifier is kept
    assert "not taken from the snapshot: " + ", ".join(sorted(DOMAIN_HEAD)) in step_3.log
    assert not set(DOMAIN_HEAD) & set(os.listdir(step_3.path(step_3.best())))
    assert step_3.rows("dev")[0]["accuracy"] >= 0.75  # after a few small steps


def test_fine_tuning_metrics(step_3):
    rows = step_3.rows("train")
    assert [row["step"] for row in rows] == [10, 16]
    for row in rows:
        expected = {"kind", "step", "epoch", "learning_rate", "samples_per_second", "loss", "accuracy"}
        assert set(row) == expected
        assert row["loss"] > 0


@pytest.mark.parametrize(("step", "number"), [(39, signal.SIGINT), (101, signal.SIGKILL)])
def test_step_2_goes_on_where_it_was_cut_off(project, step_2, step, number):
    project.check_resumed(STEP_2, step_2, step, number)


@pytest.mark.parametrize(("step", "number"), [(10, signal.SIGTERM), (16, signal.SIGINT)])
def test_step_3_goes_on_where_it_was_cut_off(project, step_2, step_3, step, number):
    project.check_resumed(STEP_3.format(snapshot=step_2.snapshot), step_3, step, number)


def test_the_best_snapshot_is_tested_and_not_the_last_step(project, step_2):
    """The first step's learning rate is 0, the others ruin the model: the test must be that of the first."""
    line = STEP_3.format(snapshot=step_2.snapshot).replace("--num_epochs 3", "--num_epochs 1")
    line = line.replace("--learning_rate 1e-4", "--learning_rate 0.5").replace("step_num 5", "step_num 1")
    ruined = project.run_of(project.call_well(line + " --warmup_proportion 1"))
    assert [row["best"] for row in ruined.rows("dev")] == [True] + [False] * 5
    assert ruined.rows("dev")[-1]["cross_entropy"] > 2 * ruined.rows("dev")[0]["cross_entropy"]
    for name in (*encoder_shapes(tiny.CONFIG), *CLASSIFIER):  # the classifier is kept, bit for bit
        kept = tiny.read_variable(ruined.path(ruined.best()), name)
        assert np.array_equal(kept, tiny.read_variable(step_2.snapshot, name)), name
    line = STEP_3.format(snapshot=step_2.snapshot) + " --do_train false --do_eval --model_save_dir output/test-alone"
    project.call_well(line)
    alone = tiny.Run(project.path("output", "test-alone"))
    assert [row["kind"] for row in alone.metrics] == ["dev", "test"]
    assert not alone.snapshots()
    for kind in ("dev", "test"):
        measured, expected = ruined.rows(kind)[0], alone.rows(kind)[0]
        assert measured["correct"] == expected["correct"]
        assert measured["cross_entropy"] == pytest.approx(expected["cross_entropy"], rel=1e-5)


def test_step_3_does_not_ask_for_scores(project, step_2):
    """It does not use them, so those of another text do not stop it; those that fit stay in the records."""
    folder = project.path("data", "rescored")
    tiny.write_single(folder)
    encoder = "--model_load_dir uncased_L-2_H-20_A-4_oneflow --data_dir data/rescored --seq_length 24"
    project.call_well(f"preprocess.py --task_name sst-2 {encoder} --resave_ofrecord")
    scores = read_split(folder, "train").sample_weights
    line = STEP_3.format(snapshot=step_2.snapshot).replace(SINGLE, "data/rescored").replace("_epochs 3", "_epochs 1")
    line = line.replace("--batch_size_per_device 3", "--batch_size_per_device 16")
    project.call_well(line)
    assert np.array_equal(read_split(folder, "train").sample_weights, scores)
    assert scores.std() > 0
    tiny.write_rows(folder, "train", tiny.opinions("SST-2", (8, 8), "other"))
    output = project.call_well(line)
    assert "weights of" not in output


def test_no_test_where_none_is_asked_for(project, step_2):
    line = STEP_3.format(snapshot=step_2.snapshot).replace("--num_epochs 3", "--num_epochs 1")
    run = project.run_of(project.call_well(line + " --do_train --do_eval false --label_list 1,0 --learning_rate 0"))
    assert not run.rows("test")
    assert len(run.rows("dev")) == 2
    # the order of the labels is another, so the classifier starts anew and the log says so
    assert "initialised, not in the snapshot or for other labels or domains: " + ", ".join(CLASSIFIER) in run.log
    for name, shape in ((CLASSIFIER[0], (2, 20)), (CLASSIFIER[1], (2,))):
        values, old = tiny.read_variable(run.path(run.best()), name), tiny.read_variable(project.path(step_2.snapshot), name)
        assert np.array_equal(values, initial_value(name, shape, 42, tiny.CONFIG.initializer_range, old.tobytes()).ravel())
        assert name.endswith("bias") or not np.array_equal(values, initial_value(name, shape, 42, tiny.CONFIG.initializer_range).ravel())


# --- pooling


def test_pooling(project):
    """The snapshot carries it: later steps and predictions go by it; what contradicts it or has no place for it is refused."""
    folder = project.path("data", "pooled")
    tiny.write_single(folder)
    common = "--task_name sst-2 --data_dir data/pooled --seq_length 24"
    encoder = "--model_load_dir uncased_L-2_H-20_A-4_oneflow"
    scores = []
    for more in ("--resave_ofrecord", "--pooling max"):
        project.call_well(f"preprocess.py {common} {encoder} {more}")
        scores.append(read_split(folder, "train").sample_weights)
        with open(os.path.join(folder, "ofrecord", "train", "weight.json"), encoding="utf-8") as file:
            assert json.load(file)["info"]["pooling"] == ("max" if more == "--pooling max" else "mean")
    assert np.abs(scores[0] - scores[1]).max() > 1e-3

    training = f"{common} --num_epochs 8 --learning_rate 5e-3 --batch_size_per_device 4 --dev_every_step_num 100"
    run = project.run_of(project.call_well(f"finetuning.py {training} {encoder} --pooling max --model_save_dir output/pooled"))
    snapshot = run.path(run.best())
    assert Snapshot(snapshot).config().pooling == "max"
    assert "parameters are trained, 420 frozen" in run.log  # the pooler, which the classifier does not stand on
    for name, size in (("bert-pooler-dense-weight", 400), ("bert-embeddings-LayerNorm-gamma", 20)):
        values = tiny.read_variable(snapshot, name)
        same = np.array_equal(values, tiny.read_variable(project.path("uncased_L-2_H-20_A-4_oneflow"), name))
        assert values.size == size
        assert same == ("pooler" in name)

    predictor = Predictor(snapshot, "cpu", log=lambda line: None)
    with open(os.path.join(folder, "test.csv"), encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    said = list(predictor([text for text, _, _ in rows]))
    (test,) = run.rows("test")
    assert sum(one.label == label for one, (_, _, label) in zip(said, rows)) == test["correct"]
    losses = [-math.log(one.probabilities[label]) for one, (_, _, label) in zip(said, rows)]
    assert np.mean(losses) == pytest.approx(test["cross_entropy"], rel=1e-4)

    line = f"finetuning.py {common} --model_load_dir {snapshot} --do_train false --do_eval --model_save_dir output/pooled-again"
    project.call_well(line)
    (again,) = tiny.Run(project.path("output", "pooled-again")).rows("test")
    assert again["correct"] == test["correct"]
    assert again["cross_entropy"] == pytest.approx(test["cross_entropy"], rel=1e-5)
    code, _, errors = project.call(line + " --pooling mean")
    assert code == 2
    assert f"--pooling mean contradicts {snapshot}, whose classifier was trained with max" in errors
    assert errors.count("\n") == 1
    with pytest.raises(UserError, match="classifier of the checkpoint uses --pooling max"):
        convert(snapshot, project.path("exported"), to=HUGGING_FACE, log=lambda line: None)
    assert not os.path.exists(project.path("exported"))


# --- frozen variables


def check_frozen(run, start, frozen):
    """Frozen variables of a run's snapshots are those of `start` bit for bit; in the last one all others have changed."""
    for snapshot in run.snapshots():
        for name in (*encoder_shapes(tiny.CONFIG), *CLASSIFIER):
            same = np.array_equal(tiny.read_variable(run.path(snapshot), name), tiny.read_variable(start, name))
            assert same if name.startswith(frozen) else snapshot != "snapshot_last" or not same, name


def test_frozen_layers(project, step_2):
    line = STEP_3.format(snapshot=step_2.snapshot).replace("_epochs 3", "_epochs 1")
    run = project.run_of(project.call_well(line + " --weight_decay_rate 0.5 --save_last_snapshot --freeze_layers 1"))
    frozen = ("bert-embeddings-", "bert-encoder-layer_0-")
    check_frozen(run, step_2.snapshot, frozen)
    shapes = {**encoder_shapes(tiny.CONFIG), CLASSIFIER[0]: (2, 20), CLASSIFIER[1]: (2,)}
    sizes = [sum(int(np.prod(s)) for n, s in shapes.items() if n.startswith(frozen) == held) for held in (False, True)]
    assert "{:,} parameters are trained, {:,} frozen".format(*sizes) in run.log


def test_frozen_encoder(project, step_2):
    line = STEP_2.replace(" --resave_ofrecord", "").replace("_epochs 12", "_epochs 1")
    line = line.replace("uncased_L-2_H-20_A-4_oneflow", step_2.snapshot) + " --freeze_encoder --save_last_snapshot"
    run = project.run_of(project.call_well(line + " --model_save_dir output/heads"))
    check_frozen(run, step_2.snapshot, "bert-")
    for name in DOMAIN_HEAD:
        assert not np.array_equal(tiny.read_variable(run.path("snapshot_last"), name), tiny.read_variable(step_2.snapshot, name))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--freeze_layers 3", "--freeze_layers 3: the encoder has 2 layers, give 0 to 2"),
        ("--freeze_layers -1", "--freeze_layers: -1 is not 0 or more"),
        ("--freeze_encoder --freeze_layers 1", "--freeze_layers 1 only the first ones: give one of the two"),
    ],
)
def test_what_cannot_be_frozen(project, step_1, more, said):
    fails_in_one_line(project, f"{STEP_2} {more}", said)


def test_a_new_encoder_is_not_frozen(project, step_1):
    line = STEP_2.replace(" --model_load_dir uncased_L-2_H-20_A-4_oneflow", "")
    fails_in_one_line(project, f"{line} --freeze_encoder --vocab_size {len(tiny.TOKENS)}", "no snapshot is loaded")


def fails_in_one_line(project, line, said):
    code, _output, errors = project.call(line)
    assert code == 2
    assert said in errors
    assert errors.count("\n") == 1


# --- evaluation alone, and padding


@pytest.fixture(scope="module")
def evaluations(project, step_2):
    """The meta learner evaluated alone, twice in the same second, with default folders: as it comes, and all padded."""
    line = STEP_2.replace("uncased_L-2_H-20_A-4_oneflow", step_2.snapshot).replace(" --resave_ofrecord", "")
    line += " --do_train false --do_eval"
    second = time.strptime("2021-06-15 08:54:42", "%Y-%m-%d %H:%M:%S")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling.cli.flags.time.localtime", lambda *_: second)
        project.call_well(line)
        project.call_well(line + " --pad_to_max_length")
    folders = sorted(name for name in os.listdir(project.path("output")) if name.startswith("model_save-2021"))
    return folders, [tiny.Run(project.path("output", name)) for name in folders]


def test_two_runs_in_a_second_have_two_folders(evaluations):
    folders, runs = evaluations
    assert folders == ["model_save-2021-06-15-08:54:42", "model_save-2021-06-15-08:54:42-1"]
    assert [len(run.metrics) for run in runs] == [1, 1]
    assert [run.flags["flags"]["pad_to_max_length"] for run in runs] == [False, True]


def test_evaluation_alone_repeats_the_run(step_2, evaluations):
    best = [row for row in step_2.rows("dev") if row["best"]][-1]
    (measured,) = evaluations[1][0].rows("dev")
    assert (measured["correct"], measured["total"]) == (best["correct"], DEV_COUNT)
    assert measured["cross_entropy"] == pytest.approx(best["cross_entropy"], rel=1e-6)
    assert measured["by_domain"].keys() == best["by_domain"].keys()
    assert not evaluations[1][0].snapshots()


def test_padding_does_not_matter(evaluations):
    (measured,), (padded,) = (run.rows("dev") for run in evaluations[1])
    assert measured["correct"] == padded["correct"]
    assert measured["cross_entropy"] == pytest.approx(padded["cross_entropy"], abs=1e-4, rel=1e-4)
    for name, part in measured["by_domain"].items():
        assert part["cross_entropy"] == pytest.approx(padded["by_domain"][name]["cross_entropy"], abs=1e-4, rel=1e-4)


def test_a_run_is_replayed_from_its_flags(project, evaluations):
    """Into a folder of its own, where the flags name one too; what stands behind the file overrides it."""
    flags = evaluations[1][0].path("run.flags")
    project.call_well(f"meta_finetuning.py @{flags} --model_save_dir output/replayed")
    project.call_well("meta_finetuning.py @output/replayed/run.flags --seed 43")
    runs = [tiny.Run(project.path("output", name)) for name in ("replayed", "replayed-1")]
    for run, seed in zip(runs, (42, 43)):
        assert untimed(run.metrics) == untimed(evaluations[1][0].metrics)
        assert run.flags["flags"]["seed"] == seed
        with open(run.path("run.flags"), encoding="utf-8") as file:
            assert f"--seed {seed}\n" in file.read()
    code, output, errors = project.call(f"finetuning.py @{flags}")
    assert code == 2
    assert output == ""
    assert errors.count("\n") == 1
    assert "line 1: the flags of meta_finetuning.py, this is finetuning.py" in errors


# --- seeds, and which snapshots are kept


@pytest.fixture(scope="module")
def again(project, step_2):
    """Step 2 again as it was, but for what is kept; and for an epoch with another seed."""
    line = STEP_2.replace(" --resave_ofrecord", "")
    keeping = " --keep_all_best --save_last_snapshot --model_save_every_n_iter 70 --model_save_dir output/again"
    processes = [
        project.start(line + keeping),
        project.start(line.replace("--seed 42", "--seed 43 --num_epochs 1") + " --model_save_dir output/other"),
    ]
    for process in processes:
        project.finish(process)
    return SimpleNamespace(same=tiny.Run(project.path("output", "again")), other=tiny.Run(project.path("output", "other")))


def untimed(rows):
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def test_same_seed_same_run(step_2, again):
    assert untimed(again.same.metrics) == untimed(step_2.metrics)
    assert tiny.tree(again.same.path(step_2.best())) == tiny.tree(step_2.snapshot)


@pytest.mark.skipif(oneflow_version() >= (0, 9, 0), reason="0.9.0 sums in the order of the program")
def test_gradients_are_summed_two_by_two(project, step_1, monkeypatch):
    """OneFlow 0.8.0 compiles a sum of gradients in an order that differs from process to process: with three summands
    or more the last bits of a run would follow no seed."""
    tiny.write_encoder(project.path("deep"), dataclasses.replace(tiny.CONFIG, num_hidden_layers=3))
    graphs = []
    make = GlobalFunction._new_graph

    def remember(function, lanes):
        graphs.append((function._trains, make(function, lanes)))
        return graphs[-1][1]

    monkeypatch.setattr(GlobalFunction, "_new_graph", remember)
    line = STEP_2.replace("uncased_L-2_H-20_A-4_oneflow", "deep").replace("--num_epochs 12", "--num_epochs 1")
    line = line.replace(" --resave_ofrecord", "").replace("_size_per_device 4", "_size_per_device 53")
    project.call_well(line + " --domain_layers 0,1,2 --model_save_dir output/sums")
    ((_, graph),) = [made for made in graphs if made[0]]
    sums = [op.user_conf for op in graph._compiled_graph_proto.net.op if op.user_conf.op_type_name == "add_n"]
    assert len(sums) > 20
    for conf in sums:
        assert len(conf.input["in"].s) <= 2, sorted(conf.input["in"].s)


def test_other_seed_other_run(step_2, again):
    first, other = step_2.rows("train")[0], again.other.rows("train")[0]
    assert first["step"] == other["step"] == 10
    for name in ("classification_loss", "domain_loss"):
        assert first[name] != other[name]


def test_snapshots_that_are_kept(step_2, again):
    best = {f"snapshot_best_mft_model_g1_dev_{row['accuracy']!r}" for row in again.same.rows("dev") if row["best"]}
    assert len(best) >= 2
    assert step_2.best() in best
    periodic = {f"snapshot_step_{step}" for step in range(70, META_STEPS, 70)}
    assert set(again.same.snapshots()) == best | periodic | {"snapshot_last"}
    name = CLASSIFIER[0]
    values = [tiny.read_variable(again.same.path(snapshot), name) for snapshot in again.same.snapshots()]
    last_is_best = again.same.rows("dev")[-1]["best"]
    assert len({value.tobytes() for value in values}) == len(values) - (1 if last_is_best else 0)
    for snapshot in again.same.snapshots():
        assert os.path.exists(again.same.path(snapshot, "snapshot_done"))


# --- other models


def test_scores_of_an_older_snapshot(project, step_1):
    """A folder of the earlier converter: no meta, no snapshot_done, no sizes."""
    tiny.write_encoder(project.path("older"), older=True)
    shutil.copytree(project.path(DATA), project.path("data", "older"))
    shutil.rmtree(project.path("data", "older", "ofrecord"))
    line = STEP_1.replace("uncased_L-2_H-20_A-4_oneflow", "older --hidden_size_per_head 5")
    project.call_well(line.replace(DATA, "data/older"))
    scores = np.load(project.path("data", "older", "ofrecord", "train", "weight.npy"))
    assert scores == pytest.approx(step_1.scores, abs=1e-6)


def test_no_pretrained_model(project):
    """Sizes come from the flags; without step 1 the samples' weights have to be declined."""
    tiny.write_g1(project.path("data", "bare"), train=2, dev=1)
    sizes = "--num_hidden_layers 1 --num_attention_heads 3 --hidden_size_per_head 2 --max_position_embeddings 25"
    line = (
        f"meta_finetuning.py --task_name g1 --data_dir data/bare --seq_length 24 --num_epochs 1 --vocab_file vocab.txt "
        f"--vocab_size {len(tiny.TOKENS)} {sizes} --batch_size_per_device 7 --resave_ofrecord "
        "--model_save_dir output/bare --seed 5"
    )
    code, _, errors = project.call(line)
    assert code == 2
    assert "preprocess.py" in errors
    run = project.run_of(project.call_well(line + " --use_sample_weights false"))
    assert "--use_sample_weights false: all sample weights are 1" in run.log
    assert "weights of" not in run.log
    assert run.snapshots() == [run.best(), "snapshot_initial_model"]
    initial = run.path("snapshot_initial_model")
    loaded = flow.load(initial)
    assert tuple(loaded["bert-embeddings-position_embeddings"].shape) == (25, 6)
    for name, value in loaded.items():
        assert np.array_equal(value.numpy(), initial_value(name, tuple(value.shape), 5)), name
    with open(os.path.join(initial, "bert_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]) == (1, 3, 24)


# --- held-out domains


def test_a_held_out_domain(project):
    """Steps 1 and 2 do not depend on the text of a held-out domain; step 3 then adapts to it."""
    more = "--held_out_domains cr --resave_ofrecord --max_steps 6 --loss_print_every_n_iter 1"
    runs = []
    for name in ("unseen", "garbled"):
        tiny.write_g1(project.path(name), train=5, dev=3)
        if name == "garbled":
            path = project.path(name, "train.csv")
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
            swapped = ["the great story was lovely\tcr\t" + line[-1] if line.split("\t")[1] == "cr" else line for line in lines]
            assert swapped != lines
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(swapped) + "\n")
        output = project.call_well(f"{STEP_1} --data_dir {name} --held_out_domains cr")
        assert "--held_out_domains: 10 samples of cr are in no prototype, 19 are" in output
        output = project.call_well(f"{STEP_2} --data_dir {name} {more} --model_save_dir output/{name}")
        runs.append(tiny.Run(project.path("output", name)))
    one, other = runs
    assert tiny.without_times(one.rows("train")) == tiny.without_times(other.rows("train"))
    assert one.best() == other.best()
    assert set(one.rows("dev")[-1]["by_domain"]) == {"SST-2", "mr"}
    assert set(one.rows("dev_held_out")[-1]["by_domain"]) == {"cr"}
    with np.load(project.path("unseen", "ofrecord", "train", "prototypes.npz"), allow_pickle=False) as prototypes:
        assert prototypes["counts"].tolist() == [[5, 5], [5, 4], [0, 0]]
    code, _, errors = project.call(f"{STEP_2} --data_dir unseen --model_save_dir output/x")
    assert code == 2
    assert (
        "the prototypical scores were made with --held_out_domains cr, this run is without it: run preprocess.py again without it" in errors
    )
    code, _, errors = project.call(f"{STEP_2} --data_dir unseen --held_out_domains cr,mr --use_sample_weights false")
    assert code == 2
    assert "--held_out_domains cr,mr: one domain is left, and the domain loss needs two" in errors
    tiny.write_single(project.path("unseen-single"), "cr", train=2)
    line = STEP_3.format(snapshot=f"output/unseen/{one.best()}").replace("sst-2", "cr").replace(SINGLE, "unseen-single")
    output = project.call_well(f"{line} --train_example_num 4 --max_steps 2 --model_save_dir output/adapted")
    assert "initialised" not in output
    assert set(tiny.Run(project.path("output", "adapted")).rows("test")[0]["by_domain"]) <= {"cr"}
