"""finetuning.py --task_type regression and multi_label, from text to predictions, with a tiny encoder. The labels follow from the words."""

import json
import os
import random
import shutil
import signal
import sys

import numpy as np
import pytest
import tiny

from modeling.predictor import Predictor
from modeling.report.comparison import group_rows, read_comparison
from modeling.run.measures import NUMBERS, SET_SCALARS
from ofrecord_util.reader import read_split
from tools import evaluate, inspect, predict
from tools.convert_checkpoint import convert

pytestmark = pytest.mark.slow

WORDS = ("cats", "dogs", "sleep")
NAMES = {"regression": NUMBERS, "multi_label": ("accuracy", "cross_entropy", *SET_SCALARS)}
LINE = (
    "finetuning.py --task_name mine --data_dir data --model_load_dir encoder --seq_length 24 --batch_size_per_device 5 "
    "--learning_rate 1e-2 --num_epochs 9 --dev_every_step_num 13 --warmup_proportion 0.1 --task_type {kind} --model_save_dir output/{kind}"
)


def label_of(kind, words):
    """The label that the words of a text have: the number of good words, or which of WORDS it contains."""
    if kind == "regression":
        return str(sum(word in tiny.GOOD for word in words) - 0.5)
    return "|".join(word for word in WORDS if word in words)


def check_numbers(result, predicted, label):
    """Compares an evaluation of a regression with the formulas."""
    error = predicted - label
    ranks = [np.array([np.mean(np.flatnonzero(np.sort(values) == value)) for value in values]) for values in (predicted, label)]
    expected = {
        "mse": np.mean(error**2),
        "rmse": np.sqrt(np.mean(error**2)),
        "mae": np.mean(np.abs(error)),
        "pearson": np.corrcoef(predicted, label)[0, 1],
        "spearman": np.corrcoef(*ranks)[0, 1],
    }
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-5), name


def check_sets(result, probabilities, label):
    """Compares an evaluation of sets of labels with the formulas."""
    predicted = probabilities > 0.5
    hits, found, there = (predicted & label).sum(0), predicted.sum(0), label.sum(0)
    expected = {
        "accuracy": (predicted == label).all(axis=1).mean(),
        "cross_entropy": -np.mean(np.where(label, np.log(probabilities), np.log1p(-probabilities))),
        "micro_f1": 2 * hits.sum() / (found.sum() + there.sum()),
        "macro_f1": np.mean(2 * hits / (found + there)),
        "hamming_loss": np.mean(predicted != label),
    }
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-4), name
    for place, word in enumerate(WORDS):
        f1 = 2 * hits[place] / (found[place] + there[place])
        assert result["by_class"][word]["f1"] == pytest.approx(f1)
        assert result["by_class"][word]["support"] == there[place]


def rows(kind, count, seed):
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words = [draw.choice(tiny.COMMON + tiny.GOOD + WORDS) for _ in range(draw.randint(3, 9))]
        found.append((" ".join(words), draw.choice(("mr", "cr")), label_of(kind, words)))
    return found


@pytest.fixture(scope="module", params=["regression", "multi_label"])
def trained(request, tmp_path_factory):
    """(project, type of task, `Run`)."""
    kind, project = request.param, tiny.Project(tmp_path_factory.mktemp(request.param))
    tiny.write_encoder(project.path("encoder"))
    for split, count in (("train", 41), ("dev", 17), ("test", 23)):
        tiny.write_rows(project.path("data"), split, rows(kind, count, split))
    project.call_well(LINE.format(kind=kind))
    return project, kind, tiny.Run(project.path("output", kind))


def test_records(trained):
    project, kind, _ = trained
    records = read_split(project.path("data"), "train")
    texts = rows(kind, 41, "train")
    if kind == "regression":
        assert records.label.dtype == np.float32
        assert records.label.tolist() == [float(label) for _, _, label in texts]
    else:
        assert records.label.dtype == np.int32
        assert records.label.tolist() == [[int(word in label.split("|")) for word in WORDS] for _, _, label in texts]
    assert records.manifest["task"]["task_type"] == kind
    again = read_split(project.path("data"), "train", fast=False)
    assert np.array_equal(again.label, records.label)


def test_run(trained):
    _, kind, run = trained
    for split, count in (("dev", 17), ("test", 23)):
        with open(run.path(f"predictions_{split}.tsv"), encoding="utf-8") as file:
            header, *lines = [line.rstrip("\n").split("\t") for line in file]
        result = run.rows(split)[-1] if split == "test" else [row for row in run.rows("dev") if row["best"]][-1]
        texts = rows(kind, count, split)
        assert [line[-1] for line in lines] == [text for text, _, _ in texts]
        assert result["total"] == count
        if kind == "regression":
            assert header == ["idxs", "domain", "label", "predicted", "text"]
            label, predicted = (np.array([float(line[place]) for line in lines]) for place in (2, 3))
            assert label.tolist() == [float(label) for _, _, label in texts]
            check_numbers(result, predicted, label)
        else:
            assert header == ["idxs", "domain", "labels", "predicted", *(f"p({word})" for word in WORDS), "text"]
            label, predicted = (np.array([[word in line[place].split(",") for word in WORDS] for line in lines]) for place in (2, 3))
            assert label.tolist() == [[word in label.split("|") for word in WORDS] for _, _, label in texts]
            probabilities = np.array([[float(value) for value in line[4:-1]] for line in lines])
            assert np.array_equal(predicted, probabilities > 0.5)
            check_sets(result, probabilities, label)
    best = [row for row in run.rows("dev") if row["best"]][-1]
    assert run.best() == f"snapshot_best_ft_model_mine_dev_{best['mse' if kind == 'regression' else 'accuracy']!r}"
    with open(run.path(run.best(), "task.json"), encoding="utf-8") as file:
        assert json.load(file)["task_type"] == kind
    first, last = run.rows("train")[0]["loss"], run.rows("train")[-1]["loss"]
    assert last < first


def test_a_resumed_run_is_an_unbroken_one(trained):
    project, kind, run = trained
    if kind == "regression":
        project.check_resumed(LINE.format(kind=kind).split(" --model_save_dir")[0], run, 17, signal.SIGTERM)
    else:
        project.check_resumed(LINE.format(kind=kind).split(" --model_save_dir")[0], run, 23, signal.SIGKILL)


def test_predictions_of_texts(trained, capsys):
    """The snapshot alone gives the predictions of the run, in Python, by predict.py, evaluate.py, and as JSON."""
    project, kind, run = trained
    snapshot, texts = run.path(run.best()), [text for text, _, _ in rows(kind, 23, "test")]
    found = list(Predictor(snapshot, log=lambda _line: None)(texts))
    with open(run.path("predictions_test.tsv"), encoding="utf-8") as file:
        lines = [line.split("\t") for line in file.read().splitlines()[1:]]
    for prediction, line, text in zip(found, lines, texts):
        values = prediction.to_dict()
        if kind == "regression":
            assert prediction.label == pytest.approx(float(line[3]), abs=2e-6)
            assert values == {"text": text, "label": prediction.label}
            assert predict.as_text(text, prediction) == f"{prediction.label:.6f}\t{text}"
        else:
            assert ",".join(prediction.label) == line[3]
            assert list(prediction.probabilities.values()) == pytest.approx([float(value) for value in line[4:-1]], rel=1e-4)
            assert values == {"text": text, "labels": list(prediction.label), "probabilities": prediction.probabilities}
            probabilities = ",".join(f"{prediction.probabilities[name]:.6f}" for name in prediction.label)
            assert predict.as_text(text, prediction) == f"{line[3]}\t{probabilities}\t{text}"
        assert json.loads(predict.as_json(text, prediction)) == values

    argv, measured, written = sys.argv, project.path("measures.json"), project.path("predictions.tsv")
    sys.argv = ["evaluate.py", snapshot, project.path("data", "test.csv"), "--output", measured, "--predictions", written]
    try:
        evaluate.main()
    finally:
        sys.argv = argv
    with open(measured, encoding="utf-8") as file:
        values = json.load(file)
    for name in NAMES[kind]:
        assert values[name] == pytest.approx(run.rows("test")[-1][name], abs=1e-5), name
    assert values["task"]["task_type"] == kind
    assert [line.split("\t")[:3] for line in tiny.read_bytes(written).decode("utf-8").splitlines()[1:]] == [line[:3] for line in lines]
    assert ("Pearson correlation" if kind == "regression" else "micro F1") in capsys.readouterr().out


def test_report_and_cards(trained):
    _, kind, run = trained
    page, card = (tiny.read_bytes(path).decode("utf-8") for path in (run.path("report.html"), run.path(run.best(), "README.md")))
    assert "Not on this page" not in page
    assert f"type of task: {kind}" in card
    wanted = "Pearson correlation" if kind == "regression" else "subset accuracy"
    assert wanted in card
    assert wanted in page
    assert ("with the largest errors" if kind == "regression" else "a wrong set of labels") in page
    assert os.path.getsize(run.path("curves.png")) > 10_000
    header, (row,) = group_rows(read_comparison([run.folder]))
    first, further = ("pearson", "mse") if kind == "regression" else ("accuracy", "macro_f1")
    assert header[2:4] == [f"best dev {wanted}", f"test {wanted}"]
    result = run.rows("test")[0]
    assert [str(cell) for cell in (row[3], row[5])] == [f"{result[name]:.4f}" for name in (first, further)]


def test_inspect(trained):
    project, kind, run = trained
    records = read_split(project.path("data"), "dev")
    described = inspect.describe_records(records, records.manifest["task"])
    texts = rows(kind, 17, "dev")
    if kind == "regression":
        assert sum(counts["score"] for counts in described["counts"].values()) == 17
        assert "mean" in described["labels"]
    else:
        for word in WORDS:
            count = sum(word in label.split("|") for _, _, label in texts)
            assert sum(counts.get(word, 0) for counts in described["counts"].values()) == count
    line = json.loads(next(inspect.record_lines(records, 1)))
    assert line["label"] == (float(texts[0][2]) if kind == "regression" else [int(word in texts[0][2].split("|")) for word in WORDS])
    trained_as = inspect.describe_snapshot(run.path(run.best()))["trained"]
    assert trained_as["dev"]["total"] == 17
    assert trained_as["test"].get("mse" if kind == "regression" else "accuracy") is not None


def test_hugging_face_and_back(trained, tmp_path):
    """The configuration names the problem_type, and the model that is read back gives the same outputs."""
    _, kind, run = trained
    out, back = str(tmp_path / "hugging_face"), str(tmp_path / "back")
    convert(run.path(run.best()), out, to="hugging_face", log=lambda _line: None)
    with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    assert config["problem_type"] == {"regression": "regression", "multi_label": "multi_label_classification"}[kind]
    assert config["num_labels"] == {"regression": 1, "multi_label": 3}[kind]
    convert(out, back, log=lambda _line: None)
    texts = [text for text, _, _ in rows(kind, 23, "test")]
    found = [list(Predictor(folder, log=lambda _line: None)(texts)) for folder in (run.path(run.best()), back)]
    assert found[0] == found[1]
    del config["problem_type"]
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    shutil.rmtree(back)
    convert(out, back, log=lambda _line: None)
    with open(os.path.join(back, "task.json"), encoding="utf-8") as file:  # as transformers takes it
        assert json.load(file).get("task_type", "classification") == {"regression": "regression", "multi_label": "classification"}[kind]


def test_onnx(trained, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    tokenizers = pytest.importorskip("tokenizers")
    _, kind, run = trained
    path, texts = str(tmp_path / "model.onnx"), [text for text, _, _ in rows(kind, 5, "test")]
    convert(run.path(run.best()), path, to="onnx", log=lambda _line: None)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["task_type"]) == kind
    encode = tokenizers.Tokenizer.from_str(about["tokenizer.json"]).encode
    for text, prediction in zip(texts, Predictor(run.path(run.best()), log=lambda _line: None)(texts)):
        ids = np.array([encode(text).ids])
        (logits,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
        if kind == "regression":
            assert prediction.label == pytest.approx(float(logits[0, 0]), abs=1e-5)
        else:
            assert list(prediction.probabilities.values()) == pytest.approx((1 / (1 + np.exp(-logits[0]))).tolist(), abs=1e-5)


def test_evaluation_without_training(trained):
    project, kind, run = trained
    line = f"finetuning.py --task_name mine --data_dir data --model_load_dir {run.path(run.best())} --seq_length 24 --do_train false"
    project.call_well(f"{line} --task_type {kind} --model_save_dir output/again")
    again = tiny.Run(project.path("output", "again"))
    for name in NAMES[kind]:
        assert again.rows("test")[0][name] == pytest.approx(run.rows("test")[-1][name], abs=1e-5), name
    shutil.rmtree(project.path("output", "again"))
    code, _, errors = project.call(line + " --domains mr,cr --label_list a,b")
    assert code == 2
    assert "--task_type" in errors or "stale" in errors


@pytest.mark.parametrize("kind", ["regression", "multi_label"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--class_weights balanced", ("--class_weights: --task_type {kind} has no such term",)),
        ("--label_smoothing 0.1 --consistency_weight 1", ("--label_smoothing, --consistency_weight: --task_type",)),
        ("--adversarial_factor 5e-5", ("--adversarial_factor",)),
        ("--metric_for_best matthews", ("--metric_for_best matthews: --task_type {kind} does not measure it: give ",)),
    ],
)
def test_flags_of_classification_are_refused(trained_project, kind, flags, words):
    refused(trained_project, LINE.format(kind=kind) + " " + flags, kind, *words)


@pytest.fixture
def trained_project(tmp_path):
    """A project with text of numbers, and nothing else."""
    project = tiny.Project(tmp_path / "project")
    tiny.write_encoder(project.path("encoder"))
    for split in ("train", "dev"):
        tiny.write_rows(project.path("data"), split, rows("regression", 9, split))
    return project


def refused(project, line, kind, *words):
    """Checks that a command is refused in one line, and writes nothing."""
    before = tiny.tree(project.folder)
    code, output, errors = project.call(line)
    assert code == 2, output
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    for word in words:
        assert word.format(kind=kind) in errors
    assert tiny.tree(project.folder) == before


def test_what_does_not_fit_is_refused(trained_project):
    project, line = trained_project, LINE.format(kind="regression")
    refused(project, line.replace("regression", "classification") + " --metric_for_best mse", "", "--metric_for_best mse", "classification")
    refused(project, line + " --label_list a,b", "", "--label_list", "one number")
    for script in ("meta_finetuning", "preprocess"):
        refused(
            project, f"{script}.py --task_name mine --data_dir data --task_type regression", "", "--task_type, which only finetuning.py"
        )
    path = project.path("data", "dev.csv")
    with open(path, "a", encoding="utf-8") as file:
        file.write("a film\tmr\tfive\n")
    refused(project, line, "", "data/dev.csv", "row 10", "'five' is not a finite number")
    os.remove(path)
    tiny.write_rows(project.path("data"), "dev", rows("regression", 9, "dev"))
    project.call_well(line)
    shutil.rmtree(project.path("output"))
    os.remove(project.path("data", "train.csv"))
    refused(project, line.replace("regression", "multi_label"), "", "train/manifest.json", "--task_type regression, not of multi_label")
    refused(project, line.replace("regression", "classification"), "", "--task_type regression, not of classification")
