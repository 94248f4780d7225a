"""Meta Fine-tuning's three scripts on other tasks than g1: pairs, three labels, a user's own names, one domain."""

import dataclasses
import json
import math
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD
from ofrecord_util.reader import read_split

pytestmark = pytest.mark.slow

INFERENCE = ("entailment", "neutral", "contradiction")


def own_rows(folder):
    for split, counts in (("train", (7, 7)), ("dev", (4, 3)), ("test", (2, 9))):
        rows = [row for name in ("Toys", "music", "art") for row in tiny.opinions(name, counts, split, ("nay", "yea"))]
        tiny.write_rows(folder, split, rows)


# name: (function that writes the data, task of steps 1 and 2, task of step 3, domains, labels, dev rows, test rows)
CHAINS = {
    "g2": (
        lambda folder: tiny.write_pairs(folder, ("mnli", "snli"), INFERENCE),
        *("g2", "g2", ["mnli", "snli"], list(INFERENCE), 19, 21),
    ),
    "g3": (
        lambda folder: tiny.write_pairs(folder, ("MRPC", "qqp"), ("0", "1")),
        *("g3", "g3", ["mrpc", "qqp"], ["0", "1"], 19, 21),
    ),
    "own": (own_rows, "Mine", "mine", ["art", "music", "Toys"], ["nay", "yea"], 21, 33),
    "own with flags": (
        own_rows,
        "mine --domains music,art,toys --label_list yea,nay",
        "mine",
        *(["music", "art", "toys"], ["yea", "nay"], 21, 33),
    ),
    "one domain": (tiny.write_single, "sst-2", "sst-2", ["SST-2"], ["0", "1"], 9, 23),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("tasks") / "project")
    tiny.write_encoder(project.path("shallow"), dataclasses.replace(tiny.CONFIG, num_hidden_layers=1))
    return project


@pytest.fixture(scope="module", params=sorted(CHAINS))
def chain(request, project):
    write, task, last_task, domains, labels, dev, test = CHAINS[request.param]
    data = "data/" + request.param.replace(" ", "-")
    write(project.path(data))
    flags = f"--data_dir {data} --seq_length 21 --seed 3"
    training = f"{flags} --batch_size_per_device 5 --dev_batch_size_per_device 4 --dev_every_step_num 1000"
    project.call_well(f"preprocess.py --task_name {task} --model_load_dir shallow {flags} --resave_ofrecord")
    scores = np.load(project.path(data, "ofrecord", "train", "weight.npy"))
    epochs = 120 * 5 // len(read_split(project.path(data), "train"))
    meta = project.call_well(
        f"meta_finetuning.py --task_name {task} --model_load_dir shallow {training} --num_epochs {epochs} "
        f"--learning_rate 5e-3 --model_save_dir output/{data}-meta"
    )
    meta = project.run_of(meta)
    if request.param == "own with flags":  # step 3 will read labels and domains from the text, in another order
        shutil.rmtree(project.path(data, "ofrecord"))
    fine = project.call_well(
        f"finetuning.py --task_name {last_task} --model_load_dir {meta.path(meta.best())} {training} --num_epochs 1 "
        f"--learning_rate 1e-4 --eval_batch_size_per_device 4 --resave_ofrecord --model_save_dir output/{data}-fine"
    )
    return SimpleNamespace(
        name=request.param,
        scores=scores,
        meta=meta,
        fine=project.run_of(fine),
        domains=domains,
        labels=labels,
        dev=dev,
        test=test,
    )


def test_other_tasks(chain):
    assert chain.scores.std() > 1e-4
    assert all(f"weights of {name}: " in chain.meta.log for name in chain.domains)
    for run, kind in ((chain.meta, "mft"), (chain.fine, "ft")):
        row = run.rows("dev")[-1]
        name = "mine" if chain.name.startswith("own") else CHAINS[chain.name][1]
        assert run.best() == f"snapshot_best_{kind}_model_{name}_dev_{row['accuracy']!r}"
        assert row["total"] == chain.dev
        assert row["correct"] == row["accuracy"] * chain.dev
        assert tiny.read_variable(run.path(run.best()), CLASSIFIER[1]).shape == (len(chain.labels),)
    with open(os.path.join(chain.meta.path(chain.meta.best()), "task.json"), encoding="utf-8") as file:
        task = json.load(file)
    assert (task["domains"], task["labels"]) == (chain.domains, chain.labels)
    assert task["pair"] == chain.name.startswith("g")
    assert list(chain.meta.rows("dev")[0]["by_domain"]) == chain.domains
    assert chain.fine.rows("test")[0]["total"] == chain.test


def test_other_tasks_learn(chain):
    rows = chain.meta.rows("train")
    losses = [row["classification_loss"] for row in rows]
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])
    assert np.mean([row["accuracy"] for row in rows[-3:]]) > 1.4 / len(chain.labels)
    if chain.name.startswith("g"):  # the others have too few rows to carry over to dev
        assert chain.meta.rows("dev")[-1]["accuracy"] > 1.4 / len(chain.labels)


def test_domain_loss_of_other_tasks(chain):
    assert set(DOMAIN_HEAD) <= set(os.listdir(chain.meta.path(chain.meta.best())))
    losses = [row["domain_loss"] for row in chain.meta.rows("train")]
    if len(chain.domains) == 1:
        assert "only one domain" in chain.meta.log
        assert "the domain loss is off" in chain.meta.log
        assert losses == [0.0] * len(losses)
    else:
        assert "the domain loss is off" not in chain.meta.log
        assert min(losses) > 0
        assert losses[0] < 2 * math.log(len(chain.domains))


def test_classifier_in_step_3_of_other_tasks(chain):
    if chain.name == "own with flags":
        assert "initialised, not in the snapshot or for other labels or domains: " in chain.fine.log
        assert CLASSIFIER[0] in chain.fine.log
    else:
        assert "initialised" not in chain.fine.log
    assert "not taken from the snapshot: " + ", ".join(sorted(DOMAIN_HEAD)) in chain.fine.log
