"""tools/checkpoint_hugging_face.py: a snapshot as a folder of transformers, and back."""

import json
import math
import os

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
    H,
    documented_names,
    hugging_face_shapes,
    load,
    write_folder,
)
from safetensors import safe_open
from safetensors.numpy import load_file

from modeling.bert.config import BertConfig
from modeling.checkpoints.snapshot import Snapshot, write_variables
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import convert

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLDEN = os.path.join(ROOT, "tests", "golden", "tiny_bert.npz")

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

    for ours, theirs, is_transposed in documented_names():
        equal("bert." + theirs, variables[ours].T if is_transposed else variables[ours])
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
