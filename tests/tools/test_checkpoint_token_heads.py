"""Heads of tags and of answers to Hugging Face and back: names, classes, labels and values, for BERT and XLM-R."""

import dataclasses
import json

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from modeling.bert.names import POOLER_PREFIX, SPAN_HEAD, TAG_HEAD
from modeling.bert.variables import dense_head_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, Snapshot, write_variables
from tools import checkpoint_roberta

TAGS = ["B-PER", "I-PER", "O"]
HEADS = {"tags": (TAG_HEAD, 3, TAGS), "answers": (SPAN_HEAD, 2, ["end", "start"])}


def write(folder, kind, config=tiny.CONFIG):
    head, outputs, labels = HEADS[kind]
    shapes = {name: shape for name, shape in encoder_shapes(config).items() if not name.startswith(POOLER_PREFIX)}
    shapes.update(dense_head_shapes(config, head, outputs))
    values = {name: initial_value(name, shape, 4, 0.3) + np.float32(name.endswith("bias")) for name, shape in shapes.items()}
    task = {"name": "t", "domains": ["mr"], "labels": labels, "pair": kind == "answers", "seq_length": 37, "do_lower_case": True}
    files = {CONFIG_FILE: config.to_json(), VOCAB_FILE: "".join(token + "\n" for token in tiny.TOKENS), TASK_FILE: json.dumps(task)}
    write_variables(folder, values, files)
    return values


@pytest.mark.parametrize(
    ("kind", "architecture", "name"),
    [("tags", "BertForTokenClassification", "classifier"), ("answers", "BertForQuestionAnswering", "qa_outputs")],
)
def test_a_head_goes_to_transformers_and_back(tmp_path, kind, architecture, name):
    project, head = tiny.Project(tmp_path), HEADS[kind][0]
    values = write(project.path("snapshot"), kind)
    project.call_well("tools.convert_checkpoint.py --model_dir snapshot --output_dir folder --to hugging_face")
    with open(project.path("folder", "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    assert config["architectures"] == [architecture]
    assert ("id2label" in config) == (kind == "tags")
    if kind == "tags":
        assert config["id2label"] == {str(place): tag for place, tag in enumerate(TAGS)}
    tensors = load_file(project.path("folder", "model.safetensors"))
    assert np.array_equal(tensors[name + ".weight"], values[head[0]])
    assert np.array_equal(tensors[name + ".bias"], values[head[1]])
    assert all(other.startswith(("bert.", name + ".")) for other in tensors)
    output = project.call_well("tools.convert_checkpoint.py --model_dir folder --output_dir back")
    assert "predict.py" not in output  # it needs a classifier of texts
    code, _, errors = project.call("tools.convert_checkpoint.py --model_dir folder --output_dir pairs --pair")
    assert code == 2
    assert "has no classifier with names of labels" in errors
    back = Snapshot(project.path("back"))
    assert set(back.sizes) == set(values)
    for own, value in values.items():
        assert np.array_equal(back.read(own, value.shape), value), own
    assert (back.task() or {}).get("labels") == (TAGS if kind == "tags" else None)


def test_names_of_xlm_r():
    arrays = {"bert.encoder.x": np.zeros(1), "classifier.weight": np.zeros(2), "qa_outputs.bias": np.zeros(3)}
    assert set(checkpoint_roberta.own_tensors(arrays, False, True)) == {"roberta.encoder.x", "classifier.weight", "qa_outputs.bias"}
    assert set(checkpoint_roberta.own_tensors(arrays, True, True)) == {"roberta.encoder.x", "classifier.out_proj.weight", "qa_outputs.bias"}
    values = checkpoint_roberta.own_values(
        {"architectures": ["BertForTokenClassification"]}, dataclasses.replace(tiny.CONFIG, model_type="xlm-roberta")
    )
    assert values["architectures"] == ["XLMRobertaForTokenClassification"]
    tensors = dict.fromkeys(("roberta.encoder.x", "classifier.weight", "classifier.bias", "lm_head.bias", "qa_outputs.weight"))
    found, left, is_classifier = checkpoint_roberta.bert_tensors(tensors, tags=True)
    assert set(found) == {"encoder.x", "classifier.weight", "classifier.bias", "qa_outputs.weight"}
    assert left == ["lm_head.bias"]
    assert not is_classifier
    assert checkpoint_roberta.bert_tensors(tensors)[1] == ["classifier.weight", "classifier.bias", "lm_head.bias"]
