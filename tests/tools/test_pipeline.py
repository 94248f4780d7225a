"""Predictor in programs: threads, subclasses, domain scores, the folder of a run; tools/predict.py --pipeline and --domain_scores."""

import dataclasses
import json
import os
import sys
import threading

import numpy as np
import pytest
import tiny

from modeling.bert.config import MEAN
from modeling.bert.encoder import build_bert
from modeling.bert.pooling import pool
from modeling.bert.variables import Variables, classifier_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, write_variables
from modeling.cli.errors import run
from modeling.engine.global_function import global_function
from modeling.engine.kernels import select_kernels
from modeling.predictor import Prediction, Predictor
from modeling.run.domain_prototypes import DomainPrototypes
from ofrecord_util.errors import UserError
from ofrecord_util.tokenization import Tokenizer
from tools.evaluate import read_labelled
from tools.pipeline import load_pipeline
from tools.predict import as_json, as_text, main

CONFIG = dataclasses.replace(tiny.CONFIG, num_hidden_layers=3)
VALUES = {name: initial_value(name, shape, 3, 0.4) for name, shape in {**encoder_shapes(CONFIG), **classifier_shapes(CONFIG, 2)}.items()}
TEXTS = ["a good film", "the plot was bad and boring", "Great!", "this phone is a lovely phone"]

PIPELINE = """
from modeling.predictor import Predictor

class Loud(Predictor):
    def preprocess(self, texts):
        return super().preprocess([text.replace("GOOD", "bad") for text in texts])

    def postprocess(self, texts, outputs):
        return [each._replace(label=each.label.upper()) for each in super().postprocess(texts, outputs)]

class Short(Predictor):
    def postprocess(self, texts, outputs):
        return []

not_a_class = 3
"""


def write_snapshot(folder):
    about = {"name": "t", "domains": ["d"], "labels": ["no", "yes"], "pair": False, "seq_length": 19, "do_lower_case": True}
    files = {CONFIG_FILE: CONFIG.to_json(), VOCAB_FILE: "".join(token + "\n" for token in tiny.TOKENS), TASK_FILE: json.dumps(about)}
    write_variables(str(folder), VALUES, files)
    return str(folder)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return write_snapshot(tmp_path_factory.mktemp("pipeline") / "run" / "snapshot_best_ft_model_t_dev_0.5")


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    (tmp_path / "my_pipeline.py").write_text(PIPELINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_pipeline", None)


def rows(predictor, texts):
    return np.array([list(prediction.probabilities.values()) for prediction in predictor(texts)])


def test_the_folder_of_a_run_is_enough(snapshot):
    predictor = Predictor(os.path.dirname(snapshot), "cpu")
    assert predictor.path == snapshot
    assert [prediction.text for prediction in predictor(TEXTS)] == TEXTS
    write_snapshot(os.path.join(os.path.dirname(snapshot), "snapshot_best_ft_model_t_dev_0.75"))
    with pytest.raises(UserError, match="did you mean"):
        Predictor(os.path.dirname(snapshot), "cpu")


def test_threads(snapshot):
    """Each thread gets the predictions of its own texts."""
    predictor, found = Predictor(snapshot, "cpu"), {}
    given = {number: [" ".join([text] * (1 + number % 3)) for text in TEXTS[number % 3 :]] for number in range(9)}
    threads = [threading.Thread(target=lambda n=number: found.update({n: rows(predictor, given[n])})) for number in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, texts in given.items():
        np.testing.assert_allclose(found[number], rows(predictor, texts), rtol=0, atol=1e-6)


def test_domain_scores(snapshot, tmp_path):
    """Cosine similarities to the nearest prototype of each domain, in the first third of the encoder, from NumPy."""
    labelled = [(text, domain, label) for domain in ("MR", "cr") for text, _, label in tiny.opinions(domain, (3, 4), "x", ("no", "yes"))]
    tiny.write_rows(str(tmp_path), "train", labelled)
    predictor = Predictor(snapshot, "cpu")
    assert next(iter(predictor(TEXTS))).domain_scores is None
    predictor.compare_domains(*read_labelled(str(tmp_path / "train.csv"), predictor.task, {}))
    found = [prediction.domain_scores for prediction in predictor(TEXTS)]

    variables, kernels, third = Variables(VALUES), select_kernels("cpu"), dataclasses.replace(CONFIG, num_hidden_layers=1)

    @global_function(type="predict", variables=variables)
    def job(variables, word_rows, input_mask, segment_ids):
        states = build_bert(variables, third, kernels, word_rows, input_mask, segment_ids).hidden_states[-1]
        return pool(states, input_mask, MEAN, "cpu")

    encoded = Tokenizer(os.path.join(snapshot, VOCAB_FILE), True).encode([row[0] for row in labelled] + TEXTS, None, 19)
    names = {"word_rows": encoded.input_ids, "input_mask": encoded.input_mask, "segment_ids": encoded.segment_ids}
    vectors = job(names).numpy().astype(np.float64)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for scores, vector in zip(found, vectors[len(labelled) :]):
        assert list(scores) == ["MR", "cr"]
        for domain, score in scores.items():
            prototypes = [
                np.mean([v for v, row in zip(vectors, labelled) if row[1:] == (domain, label)], axis=0) for label in ("no", "yes")
            ]
            assert score == pytest.approx(max(cosine(vector, prototype) for prototype in prototypes), abs=1e-5)
    assert len({round(score, 4) for scores in found for score in scores.values()}) > 4


def test_domain_scores_need_two_domains():
    with pytest.raises(UserError, match="have one domain"):
        DomainPrototypes(np.ones((3, 5)), np.ones(3, int), np.zeros(3, int), ("a", "b"), 2)
    prototypes = DomainPrototypes(np.eye(3), np.array([0, 2, 2]), np.array([0, 0, 1]), ("a", "empty", "c"), 2)
    assert prototypes.names == ["a", "c"]
    np.testing.assert_allclose(prototypes.scores(np.array([[2.0, 0, 0], [0, 0, 3.0]])), [[1, 0], [0, 1]])


def test_forms():
    prediction = Prediction("unsure", {"no": 0.25, "yes": 0.75}, "t", {"a": 0.5, "b": 0.625})
    assert as_text("t", prediction) == "unsure\t0.750000\tb\t0.625000\tt"
    assert json.loads(as_json("t", prediction))["domain_scores"] == {"a": 0.5, "b": 0.625}


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["predict.py", "--device", "cpu", *arguments])
    with pytest.raises(SystemExit) as end:
        run(main)
    told = capsys.readouterr()
    return end.value.code or 0, told.out, told.err


def test_a_pipeline(snapshot, pipeline, monkeypatch, capsys):
    flags = "--model_load_dir", snapshot, "--pipeline", "my_pipeline:Loud"
    code, output, _ = call(monkeypatch, capsys, *flags, "GOOD film", "bad film")
    assert code == 0
    lines = [line.split("\t") for line in output.splitlines()]
    assert lines[0][:2] == lines[1][:2]
    assert lines[0][2] == "GOOD film"
    assert lines[0][0] in ("NO", "YES")
    code, _, errors = call(monkeypatch, capsys, "--model_load_dir", snapshot, "--pipeline", "my_pipeline:Short", "text")
    assert (code, errors) == (2, "error: Short.postprocess returned 0 predictions for 1 texts\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_pipeline", "give MODULE:CLASS"),
        ("nowhere:Loud", "ModuleNotFoundError"),
        ("my_pipeline:Quiet", "has no attribute 'Quiet'"),
        ("my_pipeline:not_a_class", "is not a subclass"),
    ],
)
def test_a_pipeline_that_cannot_be_loaded(pipeline, name, message):
    with pytest.raises(UserError, match=message):
        load_pipeline(name)
    assert load_pipeline(None) is Predictor
    assert issubclass(load_pipeline("my_pipeline:Loud"), Predictor)
