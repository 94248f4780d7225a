"""tools/checkpoint_hugging_face.py: what is not BERT, is damaged or does not fit is refused in one line."""

import json

import numpy as np
import pytest
from hugging_face_folder import CONFIG, LABELS, TOKENS, VOCAB, F, H, hugging_face_tensors, refused, write_folder

from tools.convert_checkpoint import convert


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
    message = refused(write_folder(tmp_path / "hf", tensors), tmp_path).replace(str(tmp_path), "")
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
