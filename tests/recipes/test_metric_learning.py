"""recipes/metric_learning.py: objectives and heads end to end, resumed runs, lanes, parts and ranks, and what later steps take."""

import csv
import os
import shutil

import numpy as np
import pytest
import tiny

from modeling.bert.names import layer_of
from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.flags import METRIC_LEARNING

pytestmark = pytest.mark.slow

SCRIPT = os.path.join(tiny.ROOT, "recipes", "metric_learning.py")
LINE = (
    f"{SCRIPT} --task_name g1 --data_dir data --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --seed 3 --device cpu "
    "--batch_size_per_device 6 --num_steps 6 --dev_every_step_num 2 --learning_rate 3e-3 --loss_print_every_n_iter 1 --save_last_snapshot "
    "--model_save_every_n_iter 3"
)
EPISODES = "--objective prototypical --head prototypes --support_num 2 --query_num 3 --episodes_per_step 2 --distance_scale 0.1"
FINETUNED = "--head finetune --num_epochs 1 --within_domain"
CHILD = "--child_tuning {} --reserve_p 0.3 --weight_decay_rate 0"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("metric") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=8, dev=6)
    tiny.write_g1(project.path("three"), train=2, dev=1)
    return project


def run_of(project, name, more=""):
    output = project.run(f"{LINE} {more} --model_save_dir output/{name}")
    return project.run_of(output), output


@pytest.fixture(scope="module")
def contrastive(project):
    return run_of(project, "contrastive")[0]


@pytest.fixture(scope="module")
def episodes(project):
    return run_of(project, "episodes", EPISODES)[0]


@pytest.fixture(scope="module")
def finetuned(project):
    return run_of(project, "finetuned", FINETUNED)[0]


def test_what_a_run_writes(project, contrastive):
    assert contrastive.best().startswith("snapshot_best_metric_model_g1_dev_")
    assert contrastive.flags["script"] == METRIC_LEARNING
    rows = contrastive.rows("train")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "accuracy"} <= set(row) for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert [row["step"] for row in contrastive.rows("dev")] == [2, 4, 6]
    assert set(contrastive.rows("dev")[-1]["by_domain"]) == {"SST-2", "mr", "cr"}
    assert Snapshot(contrastive.path(contrastive.best())).config().pooling == "mean"
    for name in ("report.html", "curves.png", "run.flags", "predictions_dev.tsv"):
        assert os.path.getsize(contrastive.path(name)) > 0
    with open(contrastive.path(contrastive.best(), "README.md"), encoding="utf-8") as file:
        assert "vectors are near for equal labels" in file.read()


@pytest.mark.parametrize(
    ("name", "more", "stops"), [("contrastive", "", (3,)), ("episodes", EPISODES, (3,)), ("finetuned", FINETUNED, (6, 9))]
)
def test_a_run_goes_on_where_it_stopped(project, request, name, more, stops):
    """In each phase, and between the two, bit for bit."""
    whole = request.getfixturevalue(name)
    for stop in stops:
        output = f"output/cut-{name}-{stop}"
        project.run(f"{LINE} {more} --max_steps {stop} --model_save_dir {output}")
        if name == "contrastive":  # a periodic snapshot has the classifier of its own vectors, as one that an evaluation precedes
            fitted = [os.path.join(folder, "classification-output_weights") for folder in ("snapshot_last", "snapshot_step_3")]
            assert tiny.tree(project.path(output, fitted[0])) == tiny.tree(whole.path(fitted[1]))
        project.run(f"{LINE} {more} --resume {output}")
        resumed = tiny.Run(project.path(output))
        for kind in ("train", "dev"):
            assert tiny.without_times(resumed.rows(kind)[-1:]) == tiny.without_times(whole.rows(kind)[-1:])
        assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(whole.path("snapshot_last"))


def test_the_phases_of_a_finetuned_head(finetuned):
    """47 rows in batches of 6 follow 6 steps on pairs. Each phase has its own warm-up and decay."""
    rates = [row["learning_rate"] for row in finetuned.rows("train")]
    assert len(rates) == 6 + 8
    assert rates[:6] == pytest.approx([3e-3 * (1 - step / 6) for step in range(6)])
    assert rates[6:] == pytest.approx([3e-3 * (1 - step / 8) for step in range(8)])
    assert finetuned.log.count("logistic regression on 47 vectors") == 6  # three evaluations, two snapshots, the second phase


@pytest.mark.parametrize(("mode", "stop"), [("F", 7), ("D", 4)])
def test_child_tuning(project, mode, stop):
    """In both phases, and resumed in each bit for bit. Elements outside the child network of D keep their values."""
    more = f"{FINETUNED} {CHILD.format(mode)}"
    whole, output = run_of(project, f"child-{mode}", more)
    assert ("of the encoder layers are trained" in output) == (mode == "D")
    project.run(f"{LINE} {more} --max_steps {stop} --model_save_dir output/cut-child-{mode}")
    project.run(f"{LINE} {more} --resume output/cut-child-{mode}")
    resumed = tiny.Run(project.path("output", f"cut-child-{mode}"))
    assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(whole.path("snapshot_last"))
    before, after = Snapshot(project.path("encoder")), Snapshot(whole.path("snapshot_last"))
    same = total = 0
    for name, shape in before.shapes.items():
        if layer_of(name) is not None:
            equal = before.read(name, shape) == after.read(name, shape)
            same, total = same + equal.sum(), total + equal.size
    if mode == "D":
        assert same / total == pytest.approx(0.7, abs=0.02)
    else:
        assert same / total < 0.1


def test_a_consistency_term(project):
    """Of episodes and of the fine-tuning; 0 for pairs."""
    more = "--consistency_weight 0.5 --max_steps 8"
    episodes = run_of(project, "consistent-episodes", f"{EPISODES} {more}")[0].rows("train")
    tuned = run_of(project, "consistent-finetuned", f"{FINETUNED} {more} --adversarial_factor 5e-5")[0].rows("train")
    assert [row["consistency_loss"] > 0 for row in episodes] == [True] * 6
    for name in ("consistency_loss", "adversarial_loss"):
        assert [row[name] > 0 for row in tuned] == [False] * 6 + [True] * 2
    for row in (*episodes, *tuned):
        further = 0.5 * row["consistency_loss"] + row.get("adversarial_loss", 0.0)
        assert row["loss"] == pytest.approx(row["label_loss"] + further, rel=1e-5)


def test_held_out_domains(project):
    """Their rows are in no pair and in no classifier, and dev is measured on them once, apart from the others."""
    run, output = run_of(project, "held-out", "--held_out_domains mr --num_steps 3")
    assert "15 samples are left out (mr 15), 32 are used" in output
    assert {name: set(run.rows(name)[-1]["by_domain"]) for name in ("dev", "dev_held_out")} == {
        "dev": {"SST-2", "cr"},
        "dev_held_out": {"mr"},
    }
    assert len(run.rows("dev_held_out")) == 1
    assert "logistic regression on 32 vectors" in run.log


def losses(run):
    return [row["loss"] for row in run.rows("train")]


DRY = "--hidden_dropout_prob 0 --attention_probs_dropout_prob 0 --learning_rate 1e-3 --num_steps 3 --dev_every_step_num 3"


@pytest.mark.parametrize("more", ["", EPISODES.replace("--episodes_per_step 2", "--episodes_per_step 6")], ids=["pairs", "episodes"])
def test_pairs_and_episodes_stay_whole(project, more):
    """The losses are those of one batch, in lanes, in parts and in processes: nothing that is compared is divided."""
    kind = "e" if more else "p"
    whole, _ = run_of(project, kind + "-whole", f"{more} {DRY} --cpu_lanes 1")
    by_two = more.replace("--episodes_per_step 6", "--episodes_per_step 2")
    by_three = more.replace("--episodes_per_step 6", "--episodes_per_step 3")
    for name, others in (
        ("lanes", f"{more} {DRY} --cpu_lanes 4"),
        ("parts", f"{by_two} {DRY} --batch_size_per_device 2 --gradient_accumulation_steps 3"),
        ("ranks", f"{by_three} {DRY} --batch_size_per_device 3 --gpu_num_per_node 2"),
    ):
        run, _ = run_of(project, f"{kind}-{name}", others)
        assert losses(run) == pytest.approx(losses(whole), abs=2e-4), name


def test_only_the_classifier(project):
    """With learning rate 0 the encoder stays, and the classifier is that of the frozen vectors."""
    run, _ = run_of(project, "frozen", "--learning_rate 0 --num_steps 1")
    before, after = Snapshot(project.path("encoder")), Snapshot(run.path(run.best()))
    for name, shape in before.shapes.items():
        assert np.array_equal(before.read(name, shape), after.read(name, shape)), name
    assert np.abs(after.read("classification-output_weights", (2, 20))).max() > 0


@pytest.mark.parametrize("name", ["contrastive", "episodes", "finetuned"])
def test_predictions_are_those_of_the_snapshot(project, request, name):
    """tools/predict.py gives the labels of predictions_dev.tsv."""
    run, tool = request.getfixturevalue(name), os.path.join(tiny.ROOT, "tools", "predict.py")
    output = project.run(f"{tool} --model_load_dir {run.path(run.best())} --input data/dev.csv --device cpu")
    ours = [line.split("\t")[0] for line in output.splitlines()]
    with open(run.path("predictions_dev.tsv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert ours == [row["predicted"] for row in rows]
    assert len(set(ours)) == 2
    hits = sum(row["predicted"] == row["label"] for row in rows)
    assert run.best().endswith(f"_dev_{hits / len(rows)!r}")


@pytest.mark.parametrize("name", ["contrastive", "episodes"])
def test_finetuning_takes_the_snapshot(project, request, name):
    run = request.getfixturevalue(name)
    tiny.write_single(project.path("single"))
    output = project.run(
        f"finetuning.py --task_name sst-2 --data_dir single --model_load_dir {run.path(run.best())} --seq_length 24 "
        f"--num_epochs 1 --batch_size_per_device 4 --dev_every_step_num 2 --device cpu --resave_ofrecord "
        f"--model_save_dir output/single-{name}"
    )
    assert "initialised" not in output  # the classifier is that of the snapshot


def test_an_evaluation(project, contrastive):
    output = project.run(
        f"{SCRIPT} --do_train false --task_name g1 --data_dir data --model_load_dir {contrastive.path(contrastive.best())} --seq_length 24 "
        "--device cpu --model_save_dir output/evaluated"
    )
    assert "dev accuracy {:.4f}".format(float(contrastive.best().split("_dev_")[1])) in output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--consistency_weight 1", "--consistency_weight: a pair has no label predictions to compare"),
        ("--adversarial_factor 5e-5", "--adversarial_factor: the term belongs to the fine-tuning of --head finetune"),
        ("--child_tuning F --reserve_p 0", "0 is not between 0.001 and 1"),
        ("--freeze_encoder", "--freeze_encoder: metric learning trains the encoder"),
        ("--batch_size_per_device 5", "--batch_size_per_device 5: half of the pairs have equal labels, give an even number"),
        ("--objective prototypical --within_domain", "an episode needs 10 rows of each of 2 labels"),
        ("--objective prototypical --episode_labels 3", "--episode_labels 3: an episode has 2 to 2 labels"),
        ("--data_dir three --label_list 0,1,2", "--head logistic: label 2 has no row in the training split"),
    ],
)
def test_what_is_refused(project, more, said):
    process = project.start(f"{LINE} {more} --model_save_dir output/refused")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    assert said in errors
    assert not os.path.exists(project.path("output", "refused"))


def test_flags_are_checked_before_records_are_written(project):
    shutil.copytree(project.path("data"), project.path("unwritten"), ignore=shutil.ignore_patterns("ofrecord"))
    process = project.start(f"{LINE} --data_dir unwritten --freeze_encoder --model_save_dir output/refused")
    process.communicate(timeout=100)
    assert process.returncode == 2
    assert not os.path.exists(project.path("unwritten", "ofrecord"))
