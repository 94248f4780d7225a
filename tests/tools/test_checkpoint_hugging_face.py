"""tools/checkpoint_hugging_face.py: values land where they belong, in and out; what is not BERT is refused in one line."""

import json
import math
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
    fake_torch,
    hugging_face_shapes,
    hugging_face_tensors,
    write_folder,
)
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from modeling.bert.config import BertConfig
from modeling.checkpoints.snapshot import Snapshot, write_variables
from modeling.engine.runtime import flow
from ofrecord_util.errors import UserError
from tools.checkpoint_hugging_face import read_tensors
from tools.convert_checkpoint import convert

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLDEN = os.path.join(ROOT, "tests", "golden", "tiny_bert.npz")


def write_raw_safetensors(path, entries):
    """Writes (name, dtype, shape, bytes) by hand: the NumPy side of the library has no bfloat16."""
    header, data = {}, b""
    for name, dtype, shape, raw in entries:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode("utf-8")
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def load(folder):
    """The snapshot as OneFlow itself reads it."""
    return {name: value.numpy() for name, value in flow.load(str(folder)).items()}


def refused(model_dir, tmp_path):
    """The message of the refusal; nothing may have been written."""
    with pytest.raises(UserError) as caught:
        convert(str(model_dir), str(tmp_path / "out"), log=lambda line: None)
    assert not [name for name in os.listdir(str(tmp_path)) if "out" in name]
    return str(caught.value)


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

    for part in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        equal("bert-embeddings-" + part, plain[f"embeddings.{part}.weight"])
    equal("bert-embeddings-LayerNorm-gamma", plain["embeddings.LayerNorm.weight"])
    equal("bert-embeddings-LayerNorm-beta", plain["embeddings.LayerNorm.bias"])
    equal("bert-pooler-dense-weight", plain["pooler.dense.weight"].T)
    equal("bert-pooler-dense-bias", plain["pooler.dense.bias"])
    for i in range(LAYERS):
        ours, theirs = f"bert-encoder-layer_{i}-", f"encoder.layer.{i}."
        for part in (
            "attention-self-query",
            "attention-self-key",
            "attention-self-value",
            "attention-output-dense",
            "intermediate-dense",
            "output-dense",
        ):
            equal(ours + part + "-weight", plain[theirs + part.replace("-", ".") + ".weight"].T)
            equal(ours + part + "-bias", plain[theirs + part.replace("-", ".") + ".bias"])
        for part in ("attention-output-LayerNorm", "output-LayerNorm"):
            equal(ours + part + "-gamma", plain[theirs + part.replace("-", ".") + ".weight"])
            equal(ours + part + "-beta", plain[theirs + part.replace("-", ".") + ".bias"])
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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "camembert"}, "'camembert'"),
        ({"model_type": "distilbert"}, "'distilbert'"),
        ({"model_type": None, "architectures": ["XLMModel"]}, "'XLMModel'"),
        ({"model_type": ["bert"]}, "['bert']"),
        ({"architectures": "BertModel"}, "architectures"),
        ({"hidden_act": "gelu_new"}, "'gelu_new'"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'"),
        ({"is_decoder": True}, "is_decoder"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"num_attention_heads": 4}, "num_attention_heads 4"),
        ({"hidden_size": "6"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps"),
        ({"layer_norm_eps": -1}, "layer_norm_eps"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob"),
    ],
)
def test_what_is_not_this_bert_is_refused(tmp_path, change, words):
    message = refused(write_folder(tmp_path / "hf", hugging_face_tensors(), dict(CONFIG, **change)), tmp_path)
    assert words in message
    assert "config.json" in message


def test_missing_sizes_are_named(tmp_path):
    config = {key: value for key, value in CONFIG.items() if key not in ("vocab_size", "hidden_size")}
    message = refused(write_folder(tmp_path / "hf", hugging_face_tensors(), config), tmp_path)
    assert "vocab_size" in message
    assert "hidden_size" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff", "[" * 100000])
def test_config_that_is_no_json_object(tmp_path, text):
    folder = write_folder(tmp_path / "hf", hugging_face_tensors())
    (tmp_path / "hf" / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "config.json" in refused(folder, tmp_path)


def test_missing_files_are_named(tmp_path):
    assert "no such folder" in refused(tmp_path / "nowhere", tmp_path)
    (tmp_path / "hf").mkdir()
    assert "config.json: no such file" in refused(tmp_path / "hf", tmp_path)
    write_folder(tmp_path / "hf", None, save=False)
    assert "neither model.safetensors nor pytorch_model.bin" in refused(tmp_path / "hf", tmp_path)
    (tmp_path / "hf" / "vocab.txt").unlink()
    assert "vocab" in refused(tmp_path / "hf", tmp_path)


def test_missing_and_unknown_tensors_are_all_listed(tmp_path):
    tensors = hugging_face_tensors("bert.")
    for name in ("encoder.layer.1.output.dense.bias", "embeddings.LayerNorm.weight", "pooler.dense.bias"):
        del tensors["bert." + name]
    tensors["bert.encoder.layer.3.output.dense.bias"] = np.zeros(H, np.float32)
    tensors["adapter.up"] = np.zeros(H, np.float32)
    message = refused(write_folder(tmp_path / "hf", tensors), tmp_path)
    for name in ("encoder.layer.1.output.dense.bias", "embeddings.LayerNorm.weight", "pooler.dense.bias"):
        assert name in message.split("unknown")[0]
    for name in ("bert.encoder.layer.3.output.dense.bias", "adapter.up"):
        assert name in message.split("unknown")[1]


def test_the_same_tensor_twice(tmp_path):
    tensors = dict(hugging_face_tensors(), **{"bert.pooler.dense.bias": np.zeros(H, np.float32)})
    assert "pooler.dense.bias" in refused(write_folder(tmp_path / "hf", tensors), tmp_path)


def test_wrong_shapes_and_types_are_all_listed(tmp_path):
    tensors = hugging_face_tensors()
    tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((H, F), np.float32)
    tensors["embeddings.word_embeddings.weight"] = np.zeros((VOCAB, H), np.int8)
    message = refused(write_folder(tmp_path / "hf", tensors), tmp_path)
    assert "encoder.layer.0.intermediate.dense.weight has shape [6, 10], but must have [10, 6]" in message
    assert "embeddings.word_embeddings.weight is of type I8" in message


@pytest.mark.parametrize("bias", [(LABELS + 1,), (LABELS, 1), ()])
def test_classifier_that_does_not_fit(tmp_path, bias):
    tensors = hugging_face_tensors()
    tensors.update({"classifier.weight": np.zeros((LABELS, H), np.float32), "classifier.bias": np.zeros(bias, np.float32)})
    config = dict(CONFIG, architectures=["BertForSequenceClassification"])
    assert "classifier." in refused(write_folder(tmp_path / "hf", tensors, config), tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_no_finite_float32(tmp_path, value):
    tensors = hugging_face_tensors()
    tensors["pooler.dense.bias"] = np.full(H, value, np.float64)
    assert "pooler.dense.bias" in refused(write_folder(tmp_path / "hf", tensors), tmp_path)


def test_damaged_safetensors(tmp_path):
    folder = write_folder(tmp_path / "hf", hugging_face_tensors())
    path = tmp_path / "hf" / "model.safetensors"
    whole = path.read_bytes()
    for data in (b"", b"\x01", whole[:100], whole[:-1], b"\xff" * 8 + whole[8:], whole[:8] + b"[" + whole[9:]):
        path.write_bytes(data)
        assert "not a complete safetensors file" in refused(folder, tmp_path)


def test_vocabulary_out_of_tokenizer_json(tmp_path):
    folder = write_folder(tmp_path / "hf", hugging_face_tensors(), tokens=None)
    tokenizer = tmp_path / "hf" / "tokenizer.json"

    def write(kind, vocab):
        tokenizer.write_text(json.dumps({"model": {"type": kind, "vocab": vocab}}))

    ids = {token: i for i, token in enumerate(TOKENS)}
    write("WordPiece", dict(sorted(ids.items())))
    convert(folder, str(tmp_path / "converted"))
    assert (tmp_path / "converted" / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1] == TOKENS
    write("BPE", ids)
    assert "WordPiece" in refused(folder, tmp_path)
    for bad in (dict(ids, a=40), dict(ids, a="5"), dict(ids, a=None), {"[PAD]": 0, "a\nb": 1}):
        write("WordPiece", bad)
        assert "token ids" in refused(folder, tmp_path)
    tokenizer.write_text("{}")
    assert "WordPiece" in refused(folder, tmp_path)


def test_vocabulary_that_does_not_fit(tmp_path):
    assert "14 tokens" in refused(write_folder(tmp_path / "hf", hugging_face_tensors(), tokens=[*TOKENS, "more"]), tmp_path)
    assert "[CLS], [SEP]" in refused(write_folder(tmp_path / "hf", hugging_face_tensors(), tokens=["[PAD]", "[UNK]"]), tmp_path)
    (tmp_path / "hf" / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    assert "not UTF-8" in refused(tmp_path / "hf", tmp_path)


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


# ------------------------------------------------------------------------------------------------- out, to transformers


DOMAIN_HEAD = {
    "corrupted_domain_classification-domain_projection": (4, H),
    "corrupted_domain_classification-domain_weights": (4, H),
    "corrupted_domain_classification-domain_bias": (4,),
}
TASK = {"name": "t", "domains": ["d"], "labels": ["no", "maybe", "yes", "ça", "x"], "pair": False, "do_lower_case": False}


def write_snapshot(folder, task=TASK, tokens=TOKENS, classifier=True, pooler=True, labels=LABELS):
    """A trained snapshot with random values; returns its variables."""
    from modeling.bert.variables import encoder_shapes

    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=H,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=F,
        max_position_embeddings=POSITIONS,
        type_vocab_size=TYPES,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.3,
        layer_norm_eps=1e-7,
    )
    shapes = dict(encoder_shapes(config), **DOMAIN_HEAD)
    if classifier:
        shapes.update({"classification-output_weights": (labels, H), "classification-output_bias": (labels,)})
    draw = np.random.RandomState(3)
    variables = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if not pooler:
        variables = {name: value for name, value in variables.items() if "pooler" not in name}
    files = {"bert_config.json": config.to_json(), "vocab.txt": "".join(token + "\n" for token in tokens)}
    if task is not None:
        files["task.json"] = json.dumps(task)
    write_variables(str(folder), variables, files)
    return variables


def export(source, target, **flags):
    """Converts to Hugging Face; returns (tensors, parsed config.json, parsed tokenizer_config.json, log)."""
    log = []
    convert(str(source), str(target), to="hugging_face", log=log.append, **flags)
    texts = [json.loads((target / name).read_text(encoding="utf-8")) for name in ("config.json", "tokenizer_config.json")]
    return (load_file(str(target / "model.safetensors")), *texts, log)


def test_export_has_the_names_shapes_and_layout_of_transformers(tmp_path):
    variables = write_snapshot(tmp_path / "snapshot")
    tensors, config, tokenizer, log = export(tmp_path / "snapshot", tmp_path / "hf")
    shapes = {"bert." + name: shape for name, shape in hugging_face_shapes().items()}
    shapes.update({"classifier.weight": (LABELS, H), "classifier.bias": (LABELS,)})
    assert {name: value.shape for name, value in tensors.items()} == shapes
    assert all(value.dtype == np.float32 for value in tensors.values())

    def equal(theirs, value):
        np.testing.assert_array_equal(tensors[theirs], value, err_msg=theirs)

    for i in range(LAYERS):
        ours, theirs = f"bert-encoder-layer_{i}-", f"bert.encoder.layer.{i}."
        for part in (
            "attention-self-query",
            "attention-self-key",
            "attention-self-value",
            "attention-output-dense",
            "intermediate-dense",
            "output-dense",
        ):
            equal(theirs + part.replace("-", ".") + ".weight", variables[ours + part + "-weight"].T)
            equal(theirs + part.replace("-", ".") + ".bias", variables[ours + part + "-bias"])
        for part in ("attention-output-LayerNorm", "output-LayerNorm"):
            equal(theirs + part.replace("-", ".") + ".weight", variables[ours + part + "-gamma"])
            equal(theirs + part.replace("-", ".") + ".bias", variables[ours + part + "-beta"])
    for part in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        equal(f"bert.embeddings.{part}.weight", variables["bert-embeddings-" + part])
    equal("bert.embeddings.LayerNorm.weight", variables["bert-embeddings-LayerNorm-gamma"])
    equal("bert.embeddings.LayerNorm.bias", variables["bert-embeddings-LayerNorm-beta"])
    equal("bert.pooler.dense.weight", variables["bert-pooler-dense-weight"].T)
    equal("classifier.weight", variables["classification-output_weights"])

    wanted = dict(
        CONFIG, architectures=["BertForSequenceClassification"], hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.3, layer_norm_eps=1e-7, num_labels=LABELS, pad_token_id=0,
        id2label={"0": "no", "1": "maybe", "2": "yes", "3": "ça", "4": "x"},
        label2id={"no": 0, "maybe": 1, "yes": 2, "ça": 3, "x": 4},
    )  # fmt: skip
    del wanted["transformers_version"]
    assert {key: config[key] for key in wanted} == wanted
    assert tokenizer["do_lower_case"] is False
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"  # BertTokenizer ignores the limit of 200 characters below
    assert tokenizer["model_max_length"] == POSITIONS
    parsed = json.loads((tmp_path / "hf" / "tokenizer.json").read_text(encoding="utf-8"))
    assert parsed["model"]["max_input_chars_per_word"] == 200
    assert (parsed["normalizer"]["type"], parsed["normalizer"]["lowercase"]) == ("BertNormalizer", False)
    special = json.loads((tmp_path / "hf" / "special_tokens_map.json").read_text())
    assert special == {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
                       "mask_token": "[MASK]"}  # fmt: skip
    assert (tmp_path / "hf" / "vocab.txt").read_bytes() == (tmp_path / "snapshot" / "vocab.txt").read_bytes()
    assert any(line.startswith("left out") and all(name in line for name in DOMAIN_HEAD) for line in log)
    with safe_open(str(tmp_path / "hf" / "model.safetensors"), framework="np") as file:
        assert file.metadata() == {"format": "pt"}  # or transformers refuses it


def test_there_and_back_is_bit_equal(tmp_path):
    variables = write_snapshot(tmp_path / "snapshot")
    export(tmp_path / "snapshot", tmp_path / "hf")
    convert(str(tmp_path / "hf"), str(tmp_path / "back"))
    back = load(tmp_path / "back")
    assert set(back) == set(variables) - set(DOMAIN_HEAD)
    assert all(back[name].tobytes() == variables[name].tobytes() for name in back)
    assert Snapshot(str(tmp_path / "back")).config() == Snapshot(str(tmp_path / "snapshot")).config()


def test_encoder_without_classifier_is_a_bert_model(tmp_path):
    write_snapshot(tmp_path / "snapshot", classifier=False, task=None)
    with pytest.raises(UserError, match="--do_lower_case to true"):
        export(tmp_path / "snapshot", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
    tensors, config, tokenizer, _ = export(tmp_path / "snapshot", tmp_path / "hf", do_lower_case=True)
    assert {name: value.shape for name, value in tensors.items()} == hugging_face_shapes()
    assert config["architectures"] == ["BertModel"]
    assert "id2label" not in config
    assert tokenizer["do_lower_case"] is True


def test_export_without_a_pooler(tmp_path):
    write_snapshot(tmp_path / "trained", pooler=False)
    with pytest.raises(UserError, match="classifier but no pooler"):
        export(tmp_path / "trained", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
    write_snapshot(tmp_path / "encoder", pooler=False, classifier=False)
    tensors, _, _, log = export(tmp_path / "encoder", tmp_path / "hf")
    assert not any("pooler" in name for name in tensors)
    assert any("none is written" in line for line in log)


def test_labels_of_the_export(tmp_path):
    write_snapshot(tmp_path / "unnamed", task=None)
    _, config, _, log = export(tmp_path / "unnamed", tmp_path / "hf", do_lower_case=False)
    assert config["id2label"] == {str(i): f"LABEL_{i}" for i in range(LABELS)}
    assert any("LABEL_0 to LABEL_4" in line for line in log)
    write_snapshot(tmp_path / "four", labels=4)
    with pytest.raises(UserError, match=r"names 5 labels .* classifier has 4"):
        export(tmp_path / "four", tmp_path / "hf_four")


def test_vocabulary_without_a_mask_token(tmp_path):
    write_snapshot(tmp_path / "snapshot", tokens=["[CLS]", "[SEP]", "[UNK]", "[PAD]", "a"])
    _, config, tokenizer, _ = export(tmp_path / "snapshot", tmp_path / "hf")
    assert config["pad_token_id"] == 3
    assert tokenizer["mask_token"] is None
    assert "mask_token" not in json.loads((tmp_path / "hf" / "special_tokens_map.json").read_text())


def bert_logits(tensors, config, input_ids, attention_mask, token_type_ids):
    """Logits of a BertForSequenceClassification, float64, from the formulas and Hugging Face's names: x W^T + b."""
    value = {name: array.astype(np.float64) for name, array in tensors.items()}
    batch, length = input_ids.shape
    heads = config["num_attention_heads"]

    def dense(x, name):
        return x @ value[name + ".weight"].T + value[name + ".bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return scaled * value[name + ".weight"] + value[name + ".bias"]

    def split(x):  # [B, S, H] -> [B, N, S, D]
        return x.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)

    def gelu(x):
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    embeddings = "bert.embeddings."
    x = value[embeddings + "word_embeddings.weight"][input_ids]
    x = x + value[embeddings + "token_type_embeddings.weight"][token_type_ids]
    x = norm(x + value[embeddings + "position_embeddings.weight"][:length], embeddings + "LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}."
        query, key, inner = (split(dense(x, layer + "attention.self." + part)) for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
        scores = np.where(attention_mask[:, None, None, :] == 1, scores, -1e30)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        context = (weights / weights.sum(-1, keepdims=True)) @ inner
        context = context.transpose(0, 2, 1, 3).reshape(batch, length, -1)
        x = norm(x + dense(context, layer + "attention.output.dense"), layer + "attention.output.LayerNorm")
        wide = gelu(dense(x, layer + "intermediate.dense"))
        x = norm(x + dense(wide, layer + "output.dense"), layer + "output.LayerNorm")
    return dense(np.tanh(dense(x[:, 0], "bert.pooler.dense")), "classifier")


def test_golden_model_of_transformers_comes_back_whole(tmp_path):
    """A real BertForSequenceClassification's weights, in and out again: bit for bit, and with its logits."""
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = {name: file[name] for name in file.files}
    weights = {name[len("weight/") :]: value for name, value in golden.items() if name.startswith("weight/")}
    config = json.loads(str(golden["config"]))
    tokens = TOKENS[:5] + [f"w{i}" for i in range(config["vocab_size"] - 5)]
    source = dict(config, model_type="bert", architectures=["BertForSequenceClassification"])
    convert(write_folder(tmp_path / "hf", weights, source, tokens), str(tmp_path / "snapshot"))
    tensors, exported, _, _ = export(tmp_path / "snapshot", tmp_path / "again", do_lower_case=True)

    assert set(tensors) == set(weights)
    for name, value in weights.items():
        assert tensors[name].shape == value.shape, name
        assert tensors[name].tobytes() == value.tobytes(), name
    assert {key: exported[key] for key in config} == config
    inputs = (golden["input/" + name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    np.testing.assert_allclose(bert_logits(tensors, exported, *inputs), golden["output/logits"], rtol=0, atol=1e-5)
