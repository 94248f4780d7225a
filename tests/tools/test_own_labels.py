"""A classifier of Hugging Face with label names of its own: converted, it predicts, is evaluated and is exported with these names."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from modeling.bert.variables import classifier_shapes, encoder_shapes, initial_value
from modeling.cli.errors import run
from modeling.predictor import Predictor
from tools import checkpoint_hugging_face, evaluate
from tools.checkpoint_model import Checkpoint
from tools.convert_checkpoint import convert

NAMES = ("sehr gut", "mittel \u2014 naja", "<schlecht>")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(Hugging Face folder, the snapshot made from it)"""
    place = tmp_path_factory.mktemp("own_labels")
    config = dataclasses.replace(tiny.CONFIG, num_hidden_layers=1)
    shapes = {**encoder_shapes(config), **classifier_shapes(config, 3)}
    variables = {name: initial_value(name, shape, 4, 0.4) for name, shape in shapes.items()}
    checkpoint = Checkpoint(variables, config, "".join(token + "\n" for token in tiny.TOKENS))
    source = place / "hf"
    source.mkdir()
    names = {str(number): name for number, name in enumerate(NAMES)}
    values = dict(checkpoint_hugging_face.to_config(checkpoint, NAMES), id2label=names)
    (source / "config.json").write_text(json.dumps(values), encoding="utf-8")
    (source / "vocab.txt").write_text(checkpoint.vocab, encoding="utf-8")
    (source / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 23}')
    save_file(checkpoint_hugging_face.to_tensors(variables, 1), str(source / "model.safetensors"))
    convert(str(source), str(place / "snapshot"), log=lambda line: None)
    return str(source), str(place / "snapshot")


def labelled(folder):
    """A folder with dev.csv and test.csv whose labels are the names; returns its rows of test."""
    for split in ("train", "dev", "test"):
        tiny.write_rows(str(folder), split, [(text, "converted", label) for text, _, label in tiny.opinions("mr", (3, 4, 2), split, NAMES)])
    return [(text, label) for text, _, label in tiny.opinions("mr", (3, 4, 2), "test", NAMES)]


def test_predict_and_export(folders, tmp_path):
    source, snapshot = folders
    predictor = Predictor(snapshot, "cpu")
    assert tuple(next(iter(predictor(["a good film"]))).probabilities) == NAMES
    assert predictor.seq_length == 23
    convert(snapshot, str(tmp_path / "back"), to="hugging_face", log=lambda line: None)
    config = json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))
    assert tuple(config["id2label"][str(number)] for number in range(3)) == NAMES
    first, second = (load_file(os.path.join(folder, "model.safetensors")) for folder in (source, str(tmp_path / "back")))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    card = (tmp_path / "back" / "README.md").read_text(encoding="utf-8")
    assert "sehr gut, mittel" in card
    assert "\\<schlecht>" in card


def test_evaluate(folders, tmp_path, monkeypatch, capsys):
    rows, (_, snapshot) = labelled(tmp_path), folders
    found = [prediction.label for prediction in Predictor(snapshot, "cpu")([text for text, _ in rows])]
    correct = sum(label == wanted for label, (_, wanted) in zip(found, rows))
    monkeypatch.setattr(sys, "argv", ["evaluate.py", snapshot, str(tmp_path / "test.csv"), "--device", "cpu"])
    with pytest.raises(SystemExit) as end:
        run(evaluate.main)
    output = capsys.readouterr().out
    assert not end.value.code
    assert f"({correct}/9)" in output
    assert all(name in output for name in NAMES)


def test_finetuning_measures_it(folders, tmp_path):
    project = tiny.Project(tmp_path / "project")
    rows, (_, snapshot) = labelled(project.path("data")), folders
    found = [prediction.label for prediction in Predictor(snapshot, "cpu")([text for text, _ in rows])]
    correct = sum(label == wanted for label, (_, wanted) in zip(found, rows))
    line = f"finetuning.py --task_name mine --data_dir data --model_load_dir {snapshot} --seq_length 23 --do_train false --do_eval"
    names = ",".join(NAMES)
    code, _, errors = project.call(line + " --resave_ofrecord")
    assert code == 2
    assert f"in another order: set --label_list '{names}'" in errors
    flags = [*line.split(), "--resave_ofrecord", "--label_list", names]
    argv, here = sys.argv, os.getcwd()
    sys.argv = flags
    os.chdir(project.folder)
    try:
        import finetuning

        with pytest.raises(SystemExit) as end:
            run(finetuning.main)
    finally:
        sys.argv = argv
        os.chdir(here)
    assert not end.value.code
    (run_folder,) = os.listdir(project.path("output"))
    assert f"({correct}/9)" in tiny.Run(project.path("output", run_folder)).log
