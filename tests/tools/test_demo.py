"""The demos: their text, how they compare models, and both of them on a tiny encoder and tiny data."""

import dataclasses
import glob
import importlib
import itertools
import json
import os
import re
import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling.bert.names import CLASSIFIER, QUERY, layer_prefix
from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.errors import run
from ofrecord_util.errors import UserError
from tools import demo, demo_kd, demo_steps
from tools.demo_prototypes import write_prototype_classifier
from tools.demo_steps import ALL, DOMAINS, accuracies, compared, difference

DATA = os.path.join(tiny.ROOT, "data", "reviews-demo")
SPLITS = {"train": 48, "dev": 16, "test": 100}  # sentences per domain and label
LABELS = ("negative", "positive")
STOP_WORDS = {
    "a",
    "an",
    "and",
    "but",
    "for",
    "i",
    "in",
    "is",
    "it",
    "my",
    "not",
    "of",
    "on",
    "our",
    "so",
    "that",
    "the",
    "to",
    "was",
    "we",
    "with",
}


# --- the text


def rows(folder, split):
    with open(os.path.join(DATA, folder, split + ".csv"), encoding="utf-8", newline="") as file:
        return [tuple(line.split("\t")) for line in file.read().split("\n")[:-1]]


def test_every_file_is_balanced():
    for split, count in SPLITS.items():
        for domain in DOMAINS:
            labels = [label for _, name, label in rows(domain, split) if name == domain]
            assert [labels.count(label) for label in LABELS] == [count, count], (domain, split)
            assert len(rows(domain, split)) == 2 * count
        assert sorted(rows(ALL, split)) == sorted(row for domain in DOMAINS for row in rows(domain, split))


def test_sentences_are_short_and_differ():
    """6 to 25 words; no two sentences share half of their words, so that none of test is known from train."""
    texts = [text for split in SPLITS for text, _, _ in rows(ALL, split)]
    assert len(texts) == 984
    for text in texts:
        assert 6 <= len(text.split()) <= 25, text
        assert text == text.strip()
        assert text.isascii()
    words = [set(re.findall(r"[a-z']+", text.lower())) - STOP_WORDS for text in texts]
    for one, other in itertools.combinations(range(len(texts)), 2):
        assert 2 * len(words[one] & words[other]) < len(words[one] | words[other]), (texts[one], texts[other])


# --- comparisons


def hits(right, wrong):
    """Hits of a model that labels `right` sentences correctly and then `wrong` ones wrongly, for each domain."""
    return {(domain, str(row)): row < right for domain in DOMAINS for row in range(right + wrong)}


def test_accuracies_by_domain_and_of_all():
    found = hits(3, 1)
    found["hotels", "0"] = False
    assert accuracies(found) == ["75.0 %", "50.0 %", "75.0 %", "66.7 %"]


def test_difference_of_paired_proportions():
    """Of 300 sentences, 24 are right only with one model and 9 only with the other: 15 / 300, se = sqrt(33 - 15^2 / 300) / 300."""
    one, other = hits(100, 0), hits(100, 0)
    for row in range(9):
        one["films", str(row)] = False
    for row in range(20, 44):
        other["hotels", str(row)] = False
    points, low, high = difference(one, other)
    assert points == pytest.approx(5.0)
    half = 196 * np.sqrt(33 - 225 / 300) / 300
    assert (low, high) == pytest.approx((5 - half, 5 + half))
    assert difference(other, one) == pytest.approx((-5, -high, -low))
    assert difference(one, one) == (0, 0, 0)


@pytest.mark.parametrize(
    ("right", "other", "verdict"),
    [(90, 70, "a gain"), (70, 90, "a loss"), (80, 80, "no difference that this test can show"), (81, 80, "no difference")],
)
def test_a_difference_is_claimed_only_beyond_chance(right, other, verdict):
    sentence = compared("MFT", hits(right, 100 - right), "mixing", hits(other, 100 - other))
    assert sentence.startswith(f"MFT against mixing: {right - other:+.1f} points (95 % interval ")
    assert f"), {verdict}" in sentence


# --- prototypes


@pytest.fixture
def encoder(tmp_path):
    return tiny.write_encoder(str(tmp_path / "encoder"))


def write_prototypes(data_dir, centroids, domains=("films", "hotels")):
    folder = os.path.join(str(data_dir), "ofrecord", "train")
    os.makedirs(folder)
    np.savez(os.path.join(folder, "prototypes.npz"), centroids=centroids, domains=np.array(domains), labels=np.array(LABELS))


def test_the_classifier_is_the_prototypes_of_length_one(tmp_path, encoder):
    centroids = np.random.RandomState(0).randn(2, 2, tiny.CONFIG.hidden_size).astype(np.float32)
    write_prototypes(tmp_path, centroids)
    folder = str(tmp_path / "classifier")
    write_prototype_classifier(folder, encoder, str(tmp_path), "hotels")
    snapshot = Snapshot(folder)
    weights = snapshot.read(CLASSIFIER[0], (2, tiny.CONFIG.hidden_size))
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights * np.linalg.norm(centroids[1], axis=1)[:, None], centroids[1], rtol=1e-5)
    assert not snapshot.read(CLASSIFIER[1], (2,)).any()
    assert snapshot.config() == dataclasses.replace(tiny.CONFIG, pooling="mean")
    assert (snapshot.task()["domains"], snapshot.task()["labels"]) == (["hotels"], list(LABELS))
    name = layer_prefix(1) + QUERY + "-weight"
    assert np.array_equal(tiny.read_variable(folder, name), tiny.read_variable(encoder, name))


def test_refusals_of_the_prototype_classifier(tmp_path, encoder):
    with pytest.raises(UserError, match=r"prototypes\.npz: no prototypes of films: run preprocess\.py"):
        write_prototype_classifier(str(tmp_path / "new"), encoder, str(tmp_path), "films")
    write_prototypes(tmp_path, np.ones((2, 2, tiny.CONFIG.hidden_size), np.float32))
    with pytest.raises(UserError, match="no prototypes of cars"):
        write_prototype_classifier(str(tmp_path / "new"), encoder, str(tmp_path), "cars")
    older = tiny.write_encoder(str(tmp_path / "older"), older=True)
    with pytest.raises(UserError, match="not a complete encoder"):
        write_prototype_classifier(str(tmp_path / "new"), older, str(tmp_path), "films")
    assert not os.path.exists(str(tmp_path / "new"))


# --- the demos


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A tiny encoder and tiny data; the demos' commands run within this process, and `project.commands` lists them."""
    config = dataclasses.replace(tiny.CONFIG, num_hidden_layers=4, max_position_embeddings=128)
    tiny.write_encoder(str(tmp_path / "encoder"), config)
    data = tmp_path / "data"
    for split, count in (("train", 4), ("dev", 2), ("test", 3)):
        parts = {domain: tiny.opinions(domain, (count, count), split, LABELS) for domain in DOMAINS}
        for domain, part in parts.items():
            tiny.write_rows(str(data / domain), split, part)
        tiny.write_rows(str(data / ALL), split, [row for part in parts.values() for row in part])
    commands = []

    def run_here(command, cwd):
        script, *flags = command[1:]
        commands.append((script, flags))
        monkeypatch.setattr(sys, "argv", [script, *flags])
        with pytest.raises(SystemExit) as end:
            run(importlib.import_module(script[: -len(".py")].replace("/", ".")).main)
        return SimpleNamespace(returncode=end.value.code or 0)

    monkeypatch.setattr(demo_steps.subprocess, "run", run_here)
    folders = ["--model_dir", tmp_path / "encoder", "--data_dir", data, "--output_dir", tmp_path / "output"]
    return SimpleNamespace(folder=str(tmp_path), flags=[str(word) for word in folders], commands=commands)


def call(main, project, *flags):
    """Folder of the runs of a demo."""
    sys.argv = ["demo.py", *project.flags, *flags]  # the fixture restores it
    main()
    (output,) = glob.glob(os.path.join(glob.escape(project.folder), "output", "demo*"))
    return output


def last_lines(text):
    """What is printed after the last step: the table and the lines below."""
    return text[text.rindex("Test accuracy on ") :]


def check_the_end(printed, report):
    """The line of the report names a page, and the line to try runs."""
    (path,) = re.findall(r"^report +(\S+html);", printed, re.MULTILINE)
    assert path == report
    assert os.path.getsize(path) > 0
    (line,) = re.findall(r"^try it +(.*)$", printed, re.MULTILINE)
    python, script, *arguments = shlex.split(line)
    assert os.path.samefile(os.path.join(tiny.ROOT, python), sys.executable)
    assert script == "tools/predict.py"
    assert Snapshot(arguments[1]).task()["labels"] == list(LABELS)


@pytest.mark.slow
def test_demo(project, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    output = call(demo.main, project, "--epochs", "1", "--domain_epochs", "1", "--finetuning_epochs", "1", "--pair_steps", "2")
    printed = last_lines(capsys.readouterr().out)
    trained = (
        "one domain alone",
        "all domains mixed",
        "MFT: meta learner",
        "MFT: fine-tuned per domain",
        "metric learning, label sentences",
    )
    for row in ("encoder, nearest prototype", *trained):
        (found,) = [line for line in printed.splitlines() if f"│ {row} " in line]
        assert len(re.findall(r"\d+\.\d %", found)) == 4
    assert "domain's 6 test sentences" in printed
    assert len(re.findall(r"^- .* against .* points \(95 % interval .* to .*\), ", printed, re.MULTILINE)) == 4
    check_the_end(printed, os.path.join(output, "meta", "report.html"))
    scripts = [script for script, _ in project.commands]
    once = ("preprocess.py", "recipes/domain_mixing.py", "meta_finetuning.py", "recipes/metric_learning.py")
    assert [scripts.count(name) for name in once] == [1, 1, 1, 1]
    assert scripts.count("finetuning.py") == 6


@pytest.mark.slow
def test_demo_kd(project, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(demo_kd, "TIMED_TEXTS", 20)
    output = call(demo_kd.main, project, "--teacher_epochs", "1", "--student_epochs", "1")
    printed = last_lines(capsys.readouterr().out)
    for row, layers in (("teacher", 4), ("from labels", 3), ("distilled", 3)):
        (found,) = [line for line in printed.splitlines() if f" {row} " in line and "%" in line and " M " in line]
        assert re.search(rf"{row} +│ +{layers} │ +\d+\.\d M │ +\d+\.\d\d s │( +\d+\.\d % │){{4}}", found), found
    assert len(re.findall(r"^- .* against .* points \(95 % interval .* to .*\), ", printed, re.MULTILINE)) == 2
    check_the_end(printed, os.path.join(output, "student", "report.html"))
    with open(os.path.join(output, "student-labels", "metrics.jsonl"), encoding="utf-8") as file:
        kinds = [json.loads(line) for line in file]
    train = [row for row in kinds if row["kind"] == "train"][-1]
    assert not {"hidden_loss", "attention_loss", "prediction_loss"} & set(train), train


def test_a_step_that_fails_ends_the_demo(project, capsys):
    with pytest.raises(UserError, match=r"preprocess\.py ended with exit code 2"):
        call(demo.main, project, "--data_dir", os.path.join(project.folder, "none"))
