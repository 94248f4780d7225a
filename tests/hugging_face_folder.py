"""A tiny BERT as a Hugging Face folder, for the tests of the converter."""

import json
import os
import sys
import types

import numpy as np
import pytest
from safetensors.numpy import save_file

from modeling.engine.runtime import flow
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import convert

# odd sizes that no two axes share
H, F, VOCAB, POSITIONS, TYPES, LAYERS, LABELS = 6, 10, 13, 7, 2, 3, 5
CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": H,
    "intermediate_size": F,
    "num_attention_heads": 2,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": TYPES,
    "layer_norm_eps": 1e-12,
    "transformers_version": "4.8.2",
}
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "ç", "語", "!", "x", "y", "z"]


def hugging_face_shapes():
    """Names and shapes as transformers' BertModel stores them, written out on their own: the table is under test."""
    shapes = {
        "embeddings.word_embeddings.weight": (VOCAB, H),
        "embeddings.position_embeddings.weight": (POSITIONS, H),
        "embeddings.token_type_embeddings.weight": (TYPES, H),
        "embeddings.LayerNorm.weight": (H,),
        "embeddings.LayerNorm.bias": (H,),
        "pooler.dense.weight": (H, H),
        "pooler.dense.bias": (H,),
    }
    for i in range(LAYERS):
        prefix = f"encoder.layer.{i}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes.update({prefix + name + ".weight": (H, H), prefix + name + ".bias": (H,)})
        shapes.update({prefix + "intermediate.dense.weight": (F, H), prefix + "intermediate.dense.bias": (F,)})
        shapes.update({prefix + "output.dense.weight": (H, F), prefix + "output.dense.bias": (H,)})
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes.update({prefix + name + ".weight": (H,), prefix + name + ".bias": (H,)})
    return shapes


def hugging_face_tensors(prefix=""):
    generator = np.random.RandomState(7)
    return {prefix + n: generator.standard_normal(s).astype(np.float32) for n, s in hugging_face_shapes().items()}


def write_folder(folder, tensors, config=None, tokens=TOKENS, save=True):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config), encoding="utf-8")
    if tokens is not None:
        (folder / "vocab.txt").write_text("".join(t + "\n" for t in tokens), encoding="utf-8")
    if save:
        save_file(tensors, str(folder / "model.safetensors"))
    return str(folder)


class FakeTensor:
    """As much of a torch.Tensor as the converter uses."""

    def __init__(self, array, dtype=None):
        self.array, self.shape, self.dtype = array, array.shape, dtype or "torch." + str(array.dtype)

    def detach(self):
        return self

    def to(self, dtype):
        assert dtype == "torch.float32"
        return FakeTensor(self.array.astype(np.float32), dtype)

    contiguous = detach

    def numpy(self):
        return self.array


def fake_torch(monkeypatch, state, version="2.6.0+cpu"):
    def load(path, map_location, weights_only):
        assert map_location == "cpu"
        assert weights_only is True
        if isinstance(state, Exception):
            raise state
        return state

    torch = types.SimpleNamespace(__version__=version, Tensor=FakeTensor, float32="torch.float32", load=load)
    monkeypatch.setitem(sys.modules, "torch", torch)


def load(folder):
    """The snapshot as OneFlow itself reads it."""
    return {name: value.numpy() for name, value in flow.load(str(folder)).items()}


def refused(model_dir, tmp_path):
    """The message of the refusal; nothing may have been written."""
    with pytest.raises(UserError) as caught:
        convert(str(model_dir), str(tmp_path / "out"), log=lambda line: None)
    assert not [name for name in os.listdir(str(tmp_path)) if "out" in name]
    return str(caught.value)


def documented_names():
    """(name of this project, name in transformers, whether it is transposed) of each variable of a BERT encoder."""
    kinds = [
        *((f"attention-self-{part}", True) for part in ("query", "key", "value")),
        *((part, True) for part in ("attention-output-dense", "intermediate-dense", "output-dense")),
        *((part, False) for part in ("attention-output-LayerNorm", "output-LayerNorm")),
    ]
    names = [(f"bert-embeddings-{part}", f"embeddings.{part}.weight", False) for part in ("word_embeddings", "position_embeddings")]
    names.append(("bert-embeddings-token_type_embeddings", "embeddings.token_type_embeddings.weight", False))
    places = [("bert-embeddings-LayerNorm", False), ("bert-pooler-dense", True)]
    places += [(f"bert-encoder-layer_{i}-{part}", is_matrix) for i in range(LAYERS) for part, is_matrix in kinds]
    for ours, is_matrix in places:
        theirs = ours[len("bert-") :].replace("-", ".").replace("layer_", "layer.")
        first, second = ("weight", "bias") if is_matrix else ("gamma", "beta")
        names += [(f"{ours}-{first}", theirs + ".weight", is_matrix), (f"{ours}-{second}", theirs + ".bias", False)]
    return names
