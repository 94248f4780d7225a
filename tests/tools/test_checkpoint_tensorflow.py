"""tools/checkpoint_tensorflow.py: Google's names, read through a stand-in for TensorFlow."""

import json
import os
import sys
import types

import numpy as np
import pytest

from modeling.checkpoints.snapshot import Snapshot
from modeling.engine.runtime import flow
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import convert

# odd sizes that no two axes share
H, F, VOCAB, POSITIONS, TYPES, LAYERS, LABELS = 6, 10, 13, 7, 2, 3, 5
CONFIG = {  # as Google writes it
    "attention_probs_dropout_prob": 0.1, "directionality": "bidi", "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": H, "initializer_range": 0.02, "intermediate_size": F, "max_position_embeddings": POSITIONS,
    "num_attention_heads": 2, "num_hidden_layers": LAYERS, "pooler_fc_size": 768, "type_vocab_size": TYPES,
    "vocab_size": VOCAB,
}  # fmt: skip


def google_shapes():
    """Names and shapes of the published checkpoints, written out on their own: the table is under test."""
    shapes = {
        "bert/embeddings/word_embeddings": (VOCAB, H),
        "bert/embeddings/token_type_embeddings": (TYPES, H),
        "bert/embeddings/position_embeddings": (POSITIONS, H),
        "bert/embeddings/LayerNorm/gamma": (H,),
        "bert/embeddings/LayerNorm/beta": (H,),
        "bert/pooler/dense/kernel": (H, H),
        "bert/pooler/dense/bias": (H,),
    }
    for i in range(LAYERS):
        layer = f"bert/encoder/layer_{i}/"
        for name in ("attention/self/query", "attention/self/key", "attention/self/value", "attention/output/dense"):
            shapes.update({layer + name + "/kernel": (H, H), layer + name + "/bias": (H,)})
        shapes.update({layer + "intermediate/dense/kernel": (H, F), layer + "intermediate/dense/bias": (F,)})
        shapes.update({layer + "output/dense/kernel": (F, H), layer + "output/dense/bias": (H,)})
        for name in ("attention/output/LayerNorm", "output/LayerNorm"):
            shapes.update({layer + name + "/gamma": (H,), layer + name + "/beta": (H,)})
    return shapes


def google_variables():
    draw = np.random.RandomState(5)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in google_shapes().items()}


class FakeReader:
    """As much of TensorFlow's CheckpointReader as is used; remembers what was read."""

    def __init__(self, variables):
        self.variables, self.read = variables, []

    def get_variable_to_shape_map(self):
        return {name: list(value.shape) for name, value in self.variables.items()}

    def get_tensor(self, name):
        self.read.append(name)
        return self.variables[name]


def fake_tensorflow(monkeypatch, variables):
    reader = FakeReader(variables)

    def load_checkpoint(prefix):
        assert os.path.basename(prefix) == "bert_model.ckpt"
        if isinstance(variables, Exception):
            raise variables
        return reader

    train = types.SimpleNamespace(load_checkpoint=load_checkpoint)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(train=train))
    return reader


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "uncased"
    path.mkdir()
    (path / "bert_config.json").write_text(json.dumps(CONFIG))
    (path / "vocab.txt").write_text("".join(t + "\n" for t in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *list("abcdefgh")]))
    for end in ("index", "meta", "data-00000-of-00001"):
        (path / ("bert_model.ckpt." + end)).write_bytes(b"opaque here")
    return path


def refused(folder, tmp_path):
    with pytest.raises(UserError) as caught:
        convert(str(folder), str(tmp_path / "out"), log=lambda line: None)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_every_variable_lands_under_its_documented_name(tmp_path, folder, monkeypatch):
    theirs = google_variables()
    fake_tensorflow(monkeypatch, theirs)
    convert(str(folder), str(tmp_path / "out"))
    ours = {name: value.numpy() for name, value in flow.load(str(tmp_path / "out")).items()}
    assert len(ours) == len(theirs)
    for name, value in theirs.items():
        documented = name.replace("/", "-").replace("kernel", "weight")  # kernels are [in, out] on both sides
        np.testing.assert_array_equal(ours[documented], value, err_msg=name)
    config = Snapshot(str(tmp_path / "out")).config()
    assert (config.num_attention_heads, config.layer_norm_eps) == (2, 1e-12)
    assert (tmp_path / "out" / "vocab.txt").read_text() == (folder / "vocab.txt").read_text()


def test_optimizer_and_other_heads_stay_behind(tmp_path, folder, monkeypatch):
    theirs = google_variables()
    more = {name + slot: np.zeros_like(value) for name, value in theirs.items() for slot in ("/adam_m", "/adam_v")}
    more.update({"global_step": np.zeros((), np.int64), "cls/predictions/output_bias": np.zeros(VOCAB, np.float32)})
    more["cls/seq_relationship/output_weights"] = np.zeros((2, H), np.float32)
    reader, log = fake_tensorflow(monkeypatch, dict(theirs, **more)), []
    convert(str(folder), str(tmp_path / "out"), log=log.append)
    assert set(reader.read) == set(theirs)
    assert f"left out: {2 * len(theirs) + 1} variables of the optimizer (adam_m, adam_v, global_step)" in log
    assert "left out: cls/predictions/output_bias, cls/seq_relationship/output_weights" in log


def test_the_head_of_masked_language_modelling_is_kept(tmp_path, folder, monkeypatch):
    shapes = {"transform/dense/kernel": (H, H), "transform/dense/bias": (H,), "output_bias": (VOCAB,)}
    shapes.update({"transform/LayerNorm/gamma": (H,), "transform/LayerNorm/beta": (H,)})
    head = {f"cls/predictions/{name}": np.random.RandomState(4).standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    other, log = {"cls/seq_relationship/output_bias": np.zeros(2, np.float32)}, []
    fake_tensorflow(monkeypatch, dict(google_variables(), **head, **other))
    convert(str(folder), str(tmp_path / "out"), log=log.append)
    ours = flow.load(str(tmp_path / "out"))
    for name, value in head.items():
        np.testing.assert_array_equal(ours[name.replace("/", "-").replace("kernel", "weight")].numpy(), value)
    assert "left out: cls/seq_relationship/output_bias" in log


def test_classifier_of_googles_script_is_kept(tmp_path, folder, monkeypatch):
    head = {"output_weights": np.ones((LABELS, H), np.float32), "output_bias": np.arange(LABELS, dtype=np.float32)}
    fake_tensorflow(monkeypatch, dict(google_variables(), **head))
    convert(str(folder), str(tmp_path / "out"))
    ours = flow.load(str(tmp_path / "out"))
    np.testing.assert_array_equal(ours["classification-output_weights"].numpy(), head["output_weights"])
    np.testing.assert_array_equal(ours["classification-output_bias"].numpy(), head["output_bias"])


def test_tensorflow_is_asked_for_in_one_line(tmp_path, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    message = refused(folder, tmp_path)
    assert "pip install tensorflow" in message
    assert "\n" not in message


def test_what_does_not_fit_is_refused(tmp_path, folder, monkeypatch):
    fake_tensorflow(monkeypatch, ValueError("Unsuccessful"))
    assert "cannot be read: ValueError" in refused(folder, tmp_path)
    theirs = google_variables()
    bad = dict(theirs, **{"bert/encoder/layer_3/output/dense/bias": np.zeros(H, np.float32)})
    del bad["bert/encoder/layer_1/output/dense/kernel"]
    fake_tensorflow(monkeypatch, bad)
    missing, unknown = refused(folder, tmp_path).split("; unknown ")
    assert "bert/encoder/layer_1/output/dense/kernel" in missing
    assert "bert/encoder/layer_3/output/dense/bias" in unknown
    fake_tensorflow(monkeypatch, dict(theirs, **{"bert/encoder/layer_0/intermediate/dense/kernel": np.zeros((F, H), np.float32)}))
    assert "has shape [10, 6], but must have [6, 10]" in refused(folder, tmp_path)
    (folder / "bert_config.json").unlink()
    assert "bert_config.json: no such file" in refused(folder, tmp_path)
