"""StructBERT converts by name: each form of its archives gives the variables, and the logits, of the BERT that it is."""

import json
import os
import subprocess

import numpy as np
import pytest
import six
import tiny
from hugging_face_folder import CONFIG, TOKENS, FakeTensor, H, fake_torch, hugging_face_tensors, write_folder
from safetensors.numpy import load_file

from benchmarks.side_by_side import torch_python
from modeling.bert.encoder import build_bert
from modeling.bert.heads import classification_logits, token_logits
from modeling.bert.names import TOKEN_HEAD
from modeling.bert.variables import Variables, classifier_shapes, encoder_shapes, token_head_shapes
from modeling.checkpoints.snapshot import Snapshot
from modeling.engine.global_function import GlobalFunction
from modeling.engine.kernels import StockKernels
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import convert

GOLDEN = os.path.join(tiny.ROOT, "tests", "golden", "tiny_bert.npz")
OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def renamed(tensors, prefix):
    """The tensors with the names of the older code: gamma and beta, and another prefix for the encoder."""
    found = {}
    for name, value in tensors.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(new, old)
        found[prefix + name[len("bert.") :] if name.startswith("bert.") else name] = value
    return found


def pretraining_heads(vocab_size, hidden, word_embeddings):
    """The heads of an archive. Two classes of next sentences, where the paper has three."""
    draw = np.random.RandomState(5)
    shapes = {
        "predictions.transform.dense.weight": (hidden, hidden),
        "predictions.transform.dense.bias": (hidden,),
        "predictions.transform.LayerNorm.gamma": (hidden,),
        "predictions.transform.LayerNorm.beta": (hidden,),
        "predictions.bias": (vocab_size,),
        "seq_relationship.weight": (2, hidden),
        "seq_relationship.bias": (2,),
    }
    heads = {"cls." + name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return dict(heads, **{"cls.predictions.decoder.weight": word_embeddings})


def forward(snapshot, arrays, head):
    """Output of `head(variables, config, kernels, BertOutput)` for a batch, as an array."""
    config, kernels = snapshot.config(), StockKernels("cpu")
    shapes = {**encoder_shapes(config), **token_head_shapes(config)}
    shapes.update(classifier_shapes(config, snapshot.sizes.get("classification-output_bias", 1)))
    values = {name: snapshot.read(name, shapes[name]) for name in snapshot.sizes}

    def function(variables, word_rows, input_mask, segment_ids):
        return head(variables, config, kernels, build_bert(variables, config, kernels, word_rows, input_mask, segment_ids))

    return GlobalFunction(function, "predict", Variables(values))(arrays).numpy()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def golden_parts(golden):
    """(tensors, config.json without the kind, tokens) of a classifier of transformers."""
    config = json.loads(str(golden["config"]))
    weights = {name[len("weight/") :]: value for name, value in golden.items() if name.startswith("weight/")}
    return weights, config, TOKENS[:5] + [f"w{number}" for number in range(config["vocab_size"] - 5)]


@pytest.mark.parametrize(
    ("about", "old_names"),
    [
        ({"model_type": "sbert", "architectures": ["SbertForSequenceClassification"], "attention_type": "self"}, False),
        ({"model_type": "structbert", "architectures": ["BertForSequenceClassification"]}, True),
        ({"attention_type": "self", "architectures": ["StructBertForSequenceClassification"]}, True),
        ({"attention_type": "self"}, False),
    ],
)
def test_logits_are_those_of_transformers(tmp_path, golden, about, old_names):
    weights, config, tokens = golden_parts(golden)
    source = write_folder(tmp_path / "hf", renamed(weights, "bert.") if old_names else weights, {**config, **about}, tokens)
    (tmp_path / "hf" / "tokenizer_config.json").write_text('{"tokenizer_class": "SbertTokenizer", "do_lower_case": true}')
    convert(source, str(tmp_path / "out"), log=lambda line: None)
    arrays = {"word_rows": golden["input/input_ids"], "input_mask": golden["input/attention_mask"]}
    arrays["segment_ids"] = golden["input/token_type_ids"]
    logits = forward(
        Snapshot(str(tmp_path / "out")),
        arrays,
        lambda variables, config, kernels, bert: classification_logits(variables, kernels, bert.pooled),
    )
    np.testing.assert_allclose(logits, golden["output/logits"], rtol=0, atol=5e-6)


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("name", ["en_model", "ch_model"])
def test_single_files_of_the_first_archives(tmp_path, monkeypatch, prefix, name):
    """A state dict of PyTorch without a suffix beside config.json, which has neither model_type nor architectures."""
    config = {key: value for key, value in CONFIG.items() if key not in ("model_type", "architectures", "layer_norm_eps")}
    tensors = hugging_face_tensors("bert.")
    tensors.update(pretraining_heads(len(TOKENS), H, tensors["bert.embeddings.word_embeddings.weight"]))
    tensors["bert.embeddings.position_ids"] = np.arange(7, dtype=np.int64)[None]
    convert(write_folder(tmp_path / "new", tensors), str(tmp_path / "out_new"), log=lambda line: None)

    folder = write_folder(tmp_path / "old", None, dict(config, attention_type="self"), save=False)
    (tmp_path / "old" / name).write_bytes(b"opaque here")
    fake_torch(monkeypatch, {key: FakeTensor(value) for key, value in renamed(tensors, prefix).items()})
    log = []
    convert(folder, str(tmp_path / "out_old"), log=log.append)
    old, new = (Snapshot(str(tmp_path / folder)) for folder in ("out_old", "out_new"))
    assert old.digest() == new.digest()
    assert set(TOKEN_HEAD) < set(old.sizes)
    assert old.config() == new.config()
    assert any(line.startswith("left out: cls.seq_relationship.bias, cls.seq_relationship.weight") for line in log)

    (tmp_path / "old" / {"en_model": "ch_model", "ch_model": "en_model"}[name]).write_bytes(b"opaque here")
    with pytest.raises(UserError, match="weights of two models"):
        convert(folder, str(tmp_path / "two"), log=lambda line: None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_type": "block_sparse"}, "attention_type is 'block_sparse'; only 'self' is supported"),
        ({"model_type": "bert", "attention_type": 7}, "attention_type is 7; only 'self'"),
        ({"model_type": "palm"}, "hf: the tensors are not those of a PALM"),
        ({"model_type": None, "architectures": ["PalmForConditionalGeneration"]}, "model_type is 'PalmForConditionalGeneration'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ],
)
def test_other_architectures_are_refused(tmp_path, change, words):
    config = dict(CONFIG, model_type="sbert")
    config.update(change)
    source = write_folder(tmp_path / "hf", hugging_face_tensors("bert."), config)
    with pytest.raises(UserError) as caught:
        convert(source, str(tmp_path / "out"), log=lambda line: None)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_does_not_make_another_model_a_structbert(tmp_path):
    """Layers that share their weights, as ALBERT's, have other names."""
    tensors = {name.replace("encoder.layer.0", "encoder.albert_layer_groups.0"): value for name, value in hugging_face_tensors().items()}
    source = write_folder(tmp_path / "hf", tensors, dict(CONFIG, model_type="structbert"))
    with pytest.raises(
        UserError, match=r"not those of a BERT of 3 layers .* missing encoder.layer.0.* unknown encoder.albert_layer_groups.0"
    ):
        convert(source, str(tmp_path / "out"), log=lambda line: None)


# Runs in the Python with torch and transformers: a random model as the first archives hold it, read by this project's reader
_ARCHIVE = r"""
import json, sys
import numpy as np, torch
from safetensors.numpy import save_file
from transformers import BertConfig, BertForPreTraining
from tools.checkpoint_tensors import read_tensors
job = json.load(sys.stdin)
torch.manual_seed(3)
model = BertForPreTraining(BertConfig(**job["config"])).eval()
with torch.no_grad():
    for value in model.parameters():
        value.add_(torch.randn_like(value) / 8)
    batch = [torch.tensor(job[name]) for name in ("ids", "mask", "types")]
    logits = model(*batch).prediction_logits
state = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
         for name, value in model.state_dict().items()}
torch.save(state, job["folder"] + "/ch_model", _use_new_zipfile_serialization=job["new"])
read = {name: tensor.read() for name, tensor in read_tensors(job["folder"]).items()}
assert set(read) == set(state) and all(np.array_equal(read[name], value.numpy()) for name, value in state.items())
save_file({name: np.ascontiguousarray(value) for name, value in read.items()}, job["folder"] + "/model.safetensors")
print(json.dumps(logits.tolist()))
"""


@pytest.mark.slow
@pytest.mark.skipif(torch_python() is None, reason="BENCH_TORCH_PYTHON names no Python with torch and transformers")
@pytest.mark.parametrize("new", [True, False])
def test_an_archive_that_pytorch_wrote(tmp_path, new):
    """Both formats of torch.save; the older one is that of 2019."""
    config = {key: value for key, value in CONFIG.items() if key not in ("model_type", "architectures")}
    folder = write_folder(tmp_path / "hf", None, dict(config, attention_type="self"), save=False)
    ids = np.array([[2, 5, 6, 4, 9, 3, 0], [2, 8, 3, 10, 11, 4, 3]], np.int32)
    types, mask = np.array([[0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1]], np.int32), (ids != 0).astype(np.int32)
    job = {"folder": folder, "config": config, "ids": ids.tolist(), "mask": mask.tolist(), "types": types.tolist(), "new": new}
    (tmp_path / "six.py").symlink_to(six.__file__)  # the one requirement of the reader that torch does not bring
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join((tiny.ROOT, str(tmp_path))))
    made = subprocess.run([torch_python(), "-c", _ARCHIVE], input=json.dumps(job), capture_output=True, text=True, env=environment)
    assert made.returncode == 0, made.stderr
    convert(folder, str(tmp_path / "out"), log=lambda line: None)

    def head(variables, config, kernels, bert):
        return token_logits(variables, config, kernels, bert.hidden_states[-1].reshape(-1, H))

    ours = forward(Snapshot(str(tmp_path / "out")), {"word_rows": ids, "input_mask": mask, "segment_ids": types}, head)
    theirs = np.array(json.loads(made.stdout.splitlines()[-1])).reshape(ours.shape)
    np.testing.assert_allclose(ours[mask.ravel() == 1], theirs[mask.ravel() == 1], rtol=0, atol=1e-5)
    # written back, it is the BERT that transformers has
    convert(str(tmp_path / "out"), str(tmp_path / "back"), to="hugging_face", log=lambda line: None, do_lower_case=True)
    read = renamed(load_file(os.path.join(folder, "model.safetensors")), "bert.")
    for name, value in renamed(load_file(str(tmp_path / "back" / "model.safetensors")), "bert.").items():
        np.testing.assert_array_equal(value, read[name], err_msg=name)
