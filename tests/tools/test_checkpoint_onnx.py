"""tools/convert_checkpoint.py --to onnx: ONNX Runtime computes the logits of the snapshot's own graph, for any batch and length."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer as LibraryTokenizer

from modeling.bert.config import CLASSIFIER_POOLINGS
from modeling.bert.names import DOMAIN_HEAD
from modeling.bert.variables import Variables, classifier_shapes, domain_head_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, write_variables
from modeling.engine.global_function import global_function
from modeling.engine.kernels import select_kernels
from modeling.objectives.mft import predict_logits
from modeling.predictor import Predictor
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import ONNX, convert, main

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

LABELS = ("no", "perhaps", "y\u00e9s")
TASK = {"name": "t", "domains": ["d"], "labels": list(LABELS), "pair": False, "seq_length": 21, "do_lower_case": True}


def write_snapshot(folder, pooling="cls", task=TASK, without=(), labels=3, layers=2):
    """A snapshot of random weights; returns (its path, its config, its variables)."""
    config = dataclasses.replace(tiny.CONFIG, pooling=pooling, num_hidden_layers=layers)
    shapes = {**encoder_shapes(config), **classifier_shapes(config, labels), **domain_head_shapes(config, 1)}
    values = {name: initial_value(name, shape, 5, 0.4) for name, shape in shapes.items() if not name.startswith(without or "-")}
    draw = np.random.RandomState(2)
    for name, value in values.items():
        if name.endswith(("bias", "beta")):
            value += draw.standard_normal(value.shape).astype(np.float32) / 8
    files = {CONFIG_FILE: config.to_json(), VOCAB_FILE: "".join(token + "\n" for token in tiny.TOKENS), TASK_FILE: json.dumps(task)}
    write_variables(str(folder), values, files)
    return str(folder), config, values


def to_onnx(folder, path, **flags):
    """Converts; returns (session, lines of the log)."""
    lines = []
    convert(str(folder), str(path), to=ONNX, log=lines.append, **flags)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]), lines


def graph_logits(config, values, inputs):
    """Logits of the graph of modeling/objectives/mft.py."""
    names = {name: value for name, value in values.items() if name not in DOMAIN_HEAD}
    variables, kernels = Variables(names), select_kernels("cpu")

    @global_function(type="predict", variables=variables)
    def job(variables, input_ids, input_mask, segment_ids):
        return predict_logits(variables, config, kernels, input_ids, input_mask, segment_ids)

    return job({name: array.astype(np.int32) for name, array in zip(("input_ids", "input_mask", "segment_ids"), inputs)}).numpy()


def random_inputs(batch, length, seed=0):
    draw = np.random.RandomState(seed)
    lengths = draw.randint(1, length + 1, batch)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    ids = draw.randint(0, len(tiny.TOKENS), (batch, length)) * mask
    return ids, mask, draw.randint(0, 2, (batch, length)) * mask


@pytest.mark.parametrize("pooling", CLASSIFIER_POOLINGS)
def test_logits(tmp_path, pooling):
    folder, config, values = write_snapshot(tmp_path / "snapshot", pooling)
    session, lines = to_onnx(folder, tmp_path / "model.onnx")
    for batch, length in ((1, 1), (3, 13), (7, 40)):
        inputs = random_inputs(batch, length)
        found = session.run(None, dict(zip(("input_ids", "attention_mask", "token_type_ids"), inputs)))[0]
        expected = graph_logits(config, values, inputs)
        assert found.shape == (batch, 3)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))
        assert batch == 1 or np.ptp(expected, axis=0).max() > 0.05
    assert any(DOMAIN_HEAD[0] in line and "left out" in line for line in lines)


def test_as_many_layers_as_bert_large(tmp_path):
    folder, config, values = write_snapshot(tmp_path / "snapshot", layers=24)
    session, _ = to_onnx(folder, tmp_path / "model.onnx")
    inputs = random_inputs(3, 9)
    found = session.run(None, dict(zip(("input_ids", "attention_mask", "token_type_ids"), inputs)))[0]
    np.testing.assert_allclose(found, graph_logits(config, values, inputs), rtol=0, atol=1e-4)


def test_the_file_alone_is_enough(tmp_path):
    """Tokenizer and labels are in its metadata: a text gets the label and the probabilities of the snapshot."""
    folder, _, _ = write_snapshot(tmp_path / "snapshot")
    session, _ = to_onnx(folder, tmp_path / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == list(LABELS)
    assert (json.loads(about["seq_length"]), json.loads(about["pair"])) == (21, False)
    tokenizer = LibraryTokenizer.from_str(about["tokenizer.json"])
    texts = ["a good film", "Great!", "the plot was bad and boring " * 9]
    for text, prediction in zip(texts, Predictor(folder, "cpu")(texts)):
        encoded = tokenizer.encode(text)
        inputs = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
        (logits,) = session.run(None, {name: np.array([value], np.int64) for name, value in inputs.items()})[0].astype(np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(probabilities, list(prediction.probabilities.values()), rtol=0, atol=1e-5)


def test_int8_says_what_it_costs(tmp_path, capsys):
    folder, config, values = write_snapshot(tmp_path / "snapshot")
    rows = [(text, "d", label) for text, _, label in tiny.opinions("mr", (9, 8, 6), "dev", LABELS)]
    tiny.write_rows(str(tmp_path), "dev", rows)
    dev = str(tmp_path / "dev.csv")
    main(["--model_dir", folder, "--output_dir", str(tmp_path / "small.onnx"), "--to", "onnx", "--int8", "--dev_file", dev])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("int8 on 23 rows of")]
    accuracy = np.mean([prediction.label == row[2] for prediction, row in zip(Predictor(folder, "cpu")([row[0] for row in rows]), rows)])
    assert f"in float32 {accuracy:.4f}" in line
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    inputs = random_inputs(5, 17)
    found = session.run(None, dict(zip(("input_ids", "attention_mask", "token_type_ids"), inputs)))[0]
    expected = graph_logits(config, values, inputs)
    assert 1e-4 < np.abs(found - expected).max() < np.ptp(expected)
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(str(tmp_path / "small.onnx")).graph.initializer}
    assert stored["bert-pooler-dense-weight_quantized"] == onnx.TensorProto.INT8


def refused(tmp_path, folder, **flags):
    before = sorted(os.listdir(str(tmp_path)))
    with pytest.raises(UserError) as caught:
        convert(str(folder), str(tmp_path / flags.pop("name", "out.onnx")), to=ONNX, log=lambda line: None, **flags)
    assert sorted(os.listdir(str(tmp_path))) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_refused(tmp_path, monkeypatch):
    folder, _, _ = write_snapshot(tmp_path / "snapshot")
    assert "no classifier" in refused(tmp_path, tiny.write_encoder(str(tmp_path / "encoder")))
    unknown, _, _ = write_snapshot(tmp_path / "unknown", task=dict(TASK, do_lower_case=None))
    assert "set --do_lower_case" in refused(tmp_path, unknown)
    assert "ends in .onnx" in refused(tmp_path, folder, name="out")
    (tmp_path / "mine.onnx").write_bytes(b"mine")
    assert "leaves it alone" in refused(tmp_path, folder, name="mine.onnx", overwrite=True)
    to_onnx(folder, tmp_path / "again.onnx")
    to_onnx(folder, tmp_path / "again.onnx", overwrite=True)
    headless, _, _ = write_snapshot(tmp_path / "headless")
    config = tmp_path / "headless" / "bert_config.json"
    config.write_text(json.dumps(dict(json.loads(config.read_text()), pooling="sha")))
    assert "the pooling is sha, but the checkpoint has no bert-pooler-head_0-query-weight" in refused(tmp_path, headless)
    with pytest.raises(UserError, match="headless: no bert-pooler-head_0-query-weight, which predictions need"):
        Predictor(str(headless), "cpu", log=lambda line: None)
    bad, _, _ = write_snapshot(tmp_path / "bad", labels=4)
    assert "names 3 labels" in refused(tmp_path, bad)
    tiny.write_rows(str(tmp_path), "other", [("a film", "d", "never")])
    assert "'never'" in refused(tmp_path, folder, dev_file=str(tmp_path / "other.csv"))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    folder, _, _ = write_snapshot(tmp_path / "snapshot")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install -r requirements-extras.txt" in refused(tmp_path, folder)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--to onnx --int8", "--int8 needs --to onnx, and --dev_file"),
        ("--to hugging_face --int8 --dev_file d", "--int8 needs --to onnx"),
        ("--to onnx --dev_file d", "add --int8"),
        ("--to onnx --license mit", "--license is written into the card"),
        ("--to hugging_face --license MIT!", "give an identifier of the hub"),
    ],
)
def test_flags_that_do_not_fit(tmp_path, flags, message):
    folder, _, _ = write_snapshot(tmp_path / "snapshot")
    with pytest.raises(UserError, match=message):
        main(["--model_dir", folder, "--output_dir", str(tmp_path / "out.onnx"), *flags.split()])
