"""PALM's checkpoints: SOFA's names and those of a snapshot, both ways, on random weights."""

import json

import numpy as np
import palm_weights
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.errors import UserError
from modeling.palm.config import PalmConfig
from modeling.palm.variables import palm_shapes
from tools.checkpoint_palm import entries, to_tensors
from tools.convert_checkpoint import convert

CONFIG = palm_weights.CONFIG
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "dec_hidden_layers", "num_attention_heads", "intermediate_size",
         "max_position_embeddings", "type_vocab_size")  # fmt: skip


def write_folder(folder, tensors, **more):
    """A folder as SOFA has it, with safetensors in place of PyTorch's file."""
    folder.mkdir()
    values = {"model_type": "palm", "layernorm_epsilon": 1e-12, "pre_ln": True, "attn_separate": False}
    values.update({name: getattr(CONFIG, name) for name in SIZES}, **more)
    (folder / "config.json").write_text(json.dumps(values))
    tiny.write_vocabulary(folder / "vocab.txt", tiny.TOKENS[:50])  # PALM has more rows than tokens
    save_file(tensors, str(folder / "model.safetensors"))
    return str(folder)


@pytest.fixture(scope="module")
def tensors():
    return palm_weights.tensors(heads=True)


def test_there_and_back(tmp_path, tensors):
    lines, copy = [], {"cls.predictions.decoder_weight": tensors["bert.embeddings.word_embeddings.weight"]}
    source = write_folder(tmp_path / "palm", {**tensors, **copy})
    convert(source, str(tmp_path / "snapshot"), log=lines.append)
    snapshot = Snapshot(str(tmp_path / "snapshot"))
    config = snapshot.config(kind=PalmConfig)
    assert config == CONFIG
    assert config.encoder_final_layer_norms == 2
    assert set(snapshot.sizes) == set(palm_shapes(config, snapshot.sizes))
    assert {"bert-pooler-dense-weight", "cls-seq_relationship-bias", "cls-predictions-output_bias"} <= set(snapshot.sizes)
    assert "initialise" not in "".join(lines)
    assert "recipes/generation.py --objective pretraining continues from it" in "".join(lines)
    with pytest.raises(UserError, match="'palm' is none of bert, xlm-roberta, roberta; a PALM is an encoder-decoder, for recipes/gen"):
        snapshot.config()  # of an encoder, as all other scripts read it
    convert(str(tmp_path / "snapshot"), str(tmp_path / "back"), to="palm", log=lines.append)
    back = load_file(str(tmp_path / "back" / "model.safetensors"))
    assert set(back) == {*tensors, *copy}
    for name, value in {**tensors, **copy}.items():
        assert np.array_equal(back[name], value), name
    values = json.loads((tmp_path / "back" / "config.json").read_text())
    assert values["model_type"] == "palm"
    assert {name: values[name] for name in SIZES} == {name: getattr(CONFIG, name) for name in SIZES}
    convert(str(tmp_path / "back"), str(tmp_path / "again"), log=lines.append)
    assert Snapshot(str(tmp_path / "again")).digest() == snapshot.digest()
    convert(str(tmp_path / "snapshot"), str(tmp_path / "back"), to="palm", overwrite=True, log=lines.append)


def test_layout(tensors):
    """Rows of the fused matrices are query, key, value; weights are transposed."""
    ours, width = palm_weights.variables(heads=True), CONFIG.hidden_size
    fused = tensors["bert.encoder.layer.1.attention.self.query_key_value.weight"]
    assert np.array_equal(ours["bert-encoder-layer_1-attention-self-key-weight"], fused[width : 2 * width].T)
    fused = tensors["decoder.decoder.layer.0.cross_attention.key_value.bias"]
    assert np.array_equal(ours["palm-decoder-layer_0-cross_attention-value-bias"], fused[width:])
    assert ours["palm-decoder-layer_1-intermediate-dense-weight"].shape == (width, CONFIG.intermediate_size)
    found = to_tensors(ours, CONFIG)
    assert {entry.theirs for entry in entries(CONFIG)} <= set(found)


def test_heads_may_be_missing(tmp_path):
    convert(write_folder(tmp_path / "palm", palm_weights.tensors()), str(tmp_path / "snapshot"), log=lambda _line: None)
    names = set(Snapshot(str(tmp_path / "snapshot")).sizes)
    assert not any(name.startswith(("cls-", "bert-pooler-")) for name in names)


def test_pytorch_file_with_another_prefix(tmp_path, tensors):
    torch = pytest.importorskip("torch")
    folder = tmp_path / "palm"
    write_folder(folder, {"x": np.zeros(1, np.float32)})
    torch.save({f"model.{name}": torch.from_numpy(value) for name, value in tensors.items()}, str(folder / "palm_model.pt"))
    convert(str(folder), str(tmp_path / "snapshot"), log=lambda _line: None)
    assert Snapshot(str(tmp_path / "snapshot")).config(kind=PalmConfig) == CONFIG


def changed(tensors, **values):
    return {name: value for name, value in {**tensors, **values}.items() if value is not None}


@pytest.mark.parametrize(
    ("values", "config", "message"),
    [
        ({"decoder.decoder.final_layernorm.bias": None}, {}, "missing decoder.decoder.final_layernorm.bias"),
        ({"decoder.decoder.layer.7.output.bias": np.zeros(20, np.float32)}, {}, "unknown decoder.decoder.layer.7.output.bias"),
        (
            {"bert.encoder.LayerNorm.bias": np.zeros(19, np.float32)},
            {},
            r"bert.encoder.LayerNorm.bias has shape \[19\], config.json says \[20\]",
        ),
        (
            {"bert.encoder.LayerNorm.bias": np.full(20, np.nan, np.float32)},
            {},
            "bert.encoder.LayerNorm.bias has values that are not finite",
        ),
        ({"cls.predictions.decoder_weight": np.zeros((51, 20), np.float32)}, {}, "decoder_weight is not equal to bert.embeddings.word"),
        ({}, {"pre_ln": False}, "pre_ln is False; only true is supported"),
        ({}, {"dec_hidden_layers": 0}, "dec_hidden_layers must be a whole number of 1 or more"),
        ({}, {"encoder_final_layer_norms": 3}, "encoder_final_layer_norms is 3, at most 2"),
    ],
)
def test_what_is_refused(tmp_path, tensors, values, config, message):
    source = write_folder(tmp_path / "palm", changed(tensors, **values), **config)
    with pytest.raises(UserError, match=message):
        convert(source, str(tmp_path / "snapshot"), log=lambda _line: None)
    assert not (tmp_path / "snapshot").exists()


@pytest.mark.parametrize(
    ("flags", "message"), [({"to": "onnx"}, "--to onnx: the model is a PALM"), ({"layers": [0]}, "--layers: the model")]
)
def test_formats_of_a_bert(tmp_path, tensors, flags, message):
    source = write_folder(tmp_path / "palm", tensors)
    output = str(tmp_path / ("x.onnx" if flags.get("to") == "onnx" else "x"))
    with pytest.raises(UserError, match=message):
        convert(source, output, log=lambda _line: None, **flags)


def test_a_bert_is_no_palm(tmp_path):
    with pytest.raises(UserError, match="--to palm: the model is not a PALM"):
        convert(tiny.write_encoder(str(tmp_path / "bert")), str(tmp_path / "x"), to="palm", log=lambda _line: None)
