"""tools/checkpoint_hugging_face.py: values of transformers land where they belong."""

import json
import os
import sys

import numpy as np
import pytest
from hugging_face_folder import (
    CONFIG,
    LABELS,
    LAYERS,
    POSITIONS,
    TOKENS,
    TYPES,
    VOCAB,
    F,
    FakeTensor,
    H,
    documented_names,
    fake_torch,
    hugging_face_tensors,
    load,
    refused,
    write_folder,
)
from safetensors.numpy import load_file, save_file

from modeling.bert.config import BertConfig
from modeling.checkpoints.snapshot import Snapshot
from tools.checkpoint_hugging_face import read_tensors
from tools.convert_checkpoint import convert


def write_raw_safetensors(path, entries):
    """Writes (name, dtype, shape, bytes) by hand: the NumPy side of the library has no bfloat16."""
    header, data = {}, b""
    for name, dtype, shape, raw in entries:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode("utf-8")
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_every_value_lands_under_its_documented_name(tmp_path, prefix):
    tensors = hugging_face_tensors(prefix)
    convert(write_folder(tmp_path / "hf", tensors), str(tmp_path / "out"))
    variables = load(tmp_path / "out")
    plain = {name[len(prefix) :]: value for name, value in tensors.items()}
    assert len(variables) == len(plain) == 5 + 16 * LAYERS + 2

    def equal(documented, stored):
        np.testing.assert_array_equal(variables[documented], stored, err_msg=documented)
        assert variables[documented].dtype == np.float32

    for ours, theirs, is_transposed in documented_names():
        equal(ours, plain[theirs].T if is_transposed else plain[theirs])
    assert variables["bert-encoder-layer_0-intermediate-dense-weight"].shape == (H, F)


def test_config_and_vocabulary_come_along(tmp_path):
    config = dict(CONFIG, hidden_dropout_prob=0.25, layer_norm_eps=1e-5)
    convert(write_folder(tmp_path / "hf", hugging_face_tensors(), config), str(tmp_path / "out"))
    snapshot = Snapshot(str(tmp_path / "out"))
    assert snapshot.config() == BertConfig(
        vocab_size=VOCAB,
        hidden_size=H,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=F,
        max_position_embeddings=POSITIONS,
        type_vocab_size=TYPES,
        hidden_dropout_prob=0.25,
        layer_norm_eps=1e-5,
    )
    with open(snapshot.vocab_file(), "rb") as f:
        assert f.read() == (tmp_path / "hf" / "vocab.txt").read_bytes()


def test_old_layer_norm_names(tmp_path):
    tensors = hugging_face_tensors("bert.")
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for n, v in tensors.items()}
    assert set(old) != set(tensors)
    convert(write_folder(tmp_path / "new", tensors), str(tmp_path / "out_new"))
    convert(write_folder(tmp_path / "old", old), str(tmp_path / "out_old"))
    assert Snapshot(str(tmp_path / "out_old")).digest() == Snapshot(str(tmp_path / "out_new")).digest()


def test_config_without_model_type_is_bert_of_2019(tmp_path):
    config = {key: value for key, value in CONFIG.items() if key not in ("model_type", "architectures")}
    convert(write_folder(tmp_path / "hf", hugging_face_tensors(), config), str(tmp_path / "out"))
    assert len(load(tmp_path / "out")) == 55


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_become_float32(tmp_path, dtype):
    tensors = {name: value.astype(dtype) for name, value in hugging_face_tensors().items()}
    convert(write_folder(tmp_path / "hf", tensors), str(tmp_path / "out"))
    variables = load(tmp_path / "out")
    expected = tensors["encoder.layer.1.output.dense.weight"].astype(np.float32).T
    np.testing.assert_array_equal(variables["bert-encoder-layer_1-output-dense-weight"], expected)


def test_bfloat16_becomes_float32(tmp_path):
    folder = write_folder(tmp_path / "hf", None, save=False)
    upper = {name: value.view(np.uint32) >> 16 for name, value in hugging_face_tensors().items()}
    write_raw_safetensors(
        tmp_path / "hf" / "model.safetensors",
        [(name, "BF16", bits.shape, bits.astype("<u2").tobytes()) for name, bits in upper.items()],
    )
    convert(folder, str(tmp_path / "out"))
    value = load(tmp_path / "out")["bert-encoder-layer_2-intermediate-dense-weight"]
    bits = upper["encoder.layer.2.intermediate.dense.weight"]
    np.testing.assert_array_equal(value, (bits << 16).astype(np.uint32).view(np.float32).T)
    # the eight bits of bfloat16's fraction are about two decimal places
    np.testing.assert_allclose(value, hugging_face_tensors()["encoder.layer.2.intermediate.dense.weight"].T, rtol=0.01)


def test_one_bfloat16_value_by_hand(tmp_path):
    write_raw_safetensors(tmp_path / "model.safetensors", [("x", "BF16", (2,), b"\xc0\x3f\x20\xc1")])
    np.testing.assert_array_equal(read_tensors(str(tmp_path))["x"].read(), np.array([1.5, -10.0], np.float32))


def test_shards_are_put_together(tmp_path):
    tensors = hugging_face_tensors()
    convert(write_folder(tmp_path / "whole", tensors), str(tmp_path / "out_whole"))
    folder, names = write_folder(tmp_path / "hf", None, save=False), sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, members in parts.items():
        save_file({name: tensors[name] for name in members}, os.path.join(folder, shard))
    where = {name: shard for shard, members in parts.items() for name in members}
    index = tmp_path / "hf" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    convert(folder, str(tmp_path / "shards"))
    assert Snapshot(str(tmp_path / "shards")).digest() == Snapshot(str(tmp_path / "out_whole")).digest()

    (tmp_path / "out_whole").rename(tmp_path / "done")
    index.write_text(json.dumps({"weight_map": dict(where, extra="model-00001-of-00002.safetensors")}))
    assert "not in its files: extra" in refused(folder, tmp_path)
    index.write_text(json.dumps({"weight_map": dict(where, extra="model-00003-of-00003.safetensors")}))
    assert "model-00003-of-00003.safetensors: no such file" in refused(folder, tmp_path)
    index.write_text(json.dumps({"weight_map": dict(where, extra="../hf2/model.safetensors")}))
    assert "not a file of this folder" in refused(folder, tmp_path)
    index.write_text(json.dumps({"weight_map": []}))
    assert "no weight_map" in refused(folder, tmp_path)


def test_sequence_classifier_is_kept(tmp_path):
    tensors = hugging_face_tensors("bert.")
    tensors["classifier.weight"] = np.arange(LABELS * H, dtype=np.float32).reshape(LABELS, H)
    tensors["classifier.bias"] = np.arange(LABELS, dtype=np.float32)
    config = dict(CONFIG, architectures=["BertForSequenceClassification"])
    log = []
    convert(write_folder(tmp_path / "hf", tensors, config), str(tmp_path / "out"), log=log.append)
    variables = load(tmp_path / "out")
    np.testing.assert_array_equal(variables["classification-output_weights"], tensors["classifier.weight"])
    np.testing.assert_array_equal(variables["classification-output_bias"], tensors["classifier.bias"])
    assert any("5 labels" in line for line in log)


def test_other_heads_and_buffers_stay_behind(tmp_path):
    tensors = hugging_face_tensors("bert.")
    tensors["bert.embeddings.position_ids"] = np.arange(POSITIONS, dtype=np.int64)[None]
    tensors["cls.predictions.bias"] = np.zeros(VOCAB, np.float32)
    tensors["cls.seq_relationship.weight"] = np.zeros((2, H), np.float32)
    tensors["classifier.weight"] = np.zeros((LABELS, H), np.float32)
    tensors["classifier.bias"] = np.zeros(LABELS, np.float32)
    config = dict(CONFIG, architectures=["BertForMultipleChoice"])
    log = []
    convert(write_folder(tmp_path / "hf", tensors, config), str(tmp_path / "out"), log=log.append)
    assert len(load(tmp_path / "out")) == 55
    left = "left out: classifier.bias, classifier.weight, cls.predictions.bias, cls.seq_relationship.weight"
    assert left in log


def masked_lm_tensors():
    """Those of BertForMaskedLM, without pooler."""
    tensors = {name: value for name, value in hugging_face_tensors("bert.").items() if "pooler" not in name}
    draw = np.random.RandomState(8)
    shapes = {"transform.dense.weight": (H, H), "transform.dense.bias": (H,), "bias": (VOCAB,)}
    shapes.update({"transform.LayerNorm.weight": (H,), "transform.LayerNorm.bias": (H,)})
    return dict(tensors, **{f"cls.predictions.{name}": draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})


def test_the_head_of_masked_language_modelling(tmp_path):
    """In and out again; a decoder that equals the word embeddings is no variable of its own."""
    tensors = masked_lm_tensors()
    more = {"cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"]}
    more["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    convert(write_folder(tmp_path / "hf", dict(tensors, **more)), str(tmp_path / "out"), do_lower_case=True, log=lambda _: None)
    variables = load(tmp_path / "out")
    np.testing.assert_array_equal(variables["cls-predictions-transform-dense-weight"], tensors["cls.predictions.transform.dense.weight"].T)
    np.testing.assert_array_equal(
        variables["cls-predictions-transform-LayerNorm-gamma"], tensors["cls.predictions.transform.LayerNorm.weight"]
    )
    np.testing.assert_array_equal(variables["cls-predictions-output_bias"], tensors["cls.predictions.bias"])
    convert(str(tmp_path / "out"), str(tmp_path / "back"), to="hugging_face", do_lower_case=True, log=lambda _: None)
    back = load_file(str(tmp_path / "back" / "model.safetensors"))
    assert set(back) == set(tensors)
    assert all(np.array_equal(back[name], value) for name, value in tensors.items())
    config = json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForMaskedLM"]


def test_a_decoder_of_its_own_stays_behind(tmp_path):
    tensors, log = masked_lm_tensors(), []
    tensors["cls.predictions.decoder.weight"] = np.ones((VOCAB, H), np.float32)
    convert(write_folder(tmp_path / "hf", tensors), str(tmp_path / "out"), log=log.append)
    assert not [name for name in load(tmp_path / "out") if name.startswith("cls-")]
    assert any(line.startswith("left out: cls.predictions.bias, cls.predictions.decoder.weight") for line in log)


def test_missing_pooler_is_said(tmp_path):
    tensors = {name: value for name, value in hugging_face_tensors().items() if not name.startswith("pooler")}
    log = []
    convert(write_folder(tmp_path / "hf", tensors), str(tmp_path / "out"), log=log.append)
    assert not any("pooler" in name for name in load(tmp_path / "out"))
    assert any("no pooler" in line for line in log)


def test_cased_model_is_said(tmp_path):
    folder = write_folder(tmp_path / "hf", hugging_face_tensors())
    (tmp_path / "hf" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    log = []
    convert(folder, str(tmp_path / "out"), log=log.append)
    assert any("--do_lower_case false" in line for line in log)


def test_shorter_vocabulary_and_windows_line_ends(tmp_path):
    folder = write_folder(tmp_path / "hf", hugging_face_tensors())
    (tmp_path / "hf" / "vocab.txt").write_bytes("\r\n".join(TOKENS[:9]).encode("utf-8") + b"\r\n\r\n")
    convert(folder, str(tmp_path / "out"))
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == ("\n".join(TOKENS[:9]) + "\n").encode("utf-8")


def test_pytorch_file(tmp_path, monkeypatch):
    tensors = hugging_face_tensors("bert.")
    folder = write_folder(tmp_path / "hf", None, save=False)
    (tmp_path / "hf" / "pytorch_model.bin").write_bytes(b"opaque here")

    monkeypatch.setitem(sys.modules, "torch", None)
    message = refused(folder, tmp_path)
    assert "pip install 'torch>=2.6'" in message
    assert "model.safetensors" in message
    fake_torch(monkeypatch, {}, version="2.5.1")
    assert "PyTorch 2.5.1 may run code" in refused(folder, tmp_path)
    fake_torch(monkeypatch, RuntimeError("Weights only load failed. Use weights_only=False."))
    message = refused(folder, tmp_path)
    assert "holds more than plain tensors" in message
    assert "weights_only" not in message
    fake_torch(monkeypatch, {"step": 3})
    assert "not named tensors" in refused(folder, tmp_path)
    state = {name: FakeTensor(value) for name, value in tensors.items()}
    fake_torch(monkeypatch, dict(state, **{"bert.pooler.dense.bias": FakeTensor(np.zeros(H, np.int64))}))
    assert "of type int64" in refused(folder, tmp_path)

    fake_torch(monkeypatch, state)
    convert(folder, str(tmp_path / "from_torch"))
    monkeypatch.setitem(sys.modules, "torch", None)
    save_file(tensors, os.path.join(folder, "model.safetensors"))  # preferred from here on
    convert(folder, str(tmp_path / "from_safetensors"))
    digests = {Snapshot(str(tmp_path / name)).digest() for name in ("from_torch", "from_safetensors")}
    assert len(digests) == 1
