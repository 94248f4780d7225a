"""tools/checkpoint_roberta.py: XLM-R and RoBERTa come in and go out with the outputs of transformers."""

import json
import os

import numpy as np
import pytest
import tiny
import xlmr
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from benchmarks.hugging_face_parity import ask_transformers
from benchmarks.side_by_side import torch_python
from modeling.bert.encoder import build_bert
from modeling.bert.heads import classification_logits
from modeling.bert.variables import Variables, classifier_shapes, encoder_shapes
from modeling.checkpoints.snapshot import Snapshot
from modeling.checkpoints.snapshot_tokenizer import open_tokenizer
from modeling.engine.global_function import GlobalFunction
from modeling.engine.kernels import StockKernels
from modeling.predictor import Predictor
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import convert

GOLDEN = xlmr.GOLDEN
POSITIONS = "embeddings.position_embeddings.weight"


def silent(line):
    pass


def forward(folder, head):
    """Output of `head(variables, kernels, BertOutput)` for the golden ids, of which 1 is padding."""
    snapshot, kernels = Snapshot(str(folder)), StockKernels("cpu")
    config = snapshot.config()
    shapes = {**encoder_shapes(config), **classifier_shapes(config, GOLDEN["labels"])}
    values = {name: snapshot.read(name, shapes[name]) for name in snapshot.sizes}
    ids = np.array(GOLDEN["ids"], np.int32)
    arrays = {"word_rows": ids, "input_mask": (ids != 1).astype(np.int32), "segment_ids": np.zeros_like(ids)}

    def function(variables, word_rows, input_mask, segment_ids):
        return head(variables, kernels, build_bert(variables, config, kernels, word_rows, input_mask, segment_ids))

    return GlobalFunction(function, "predict", Variables(values))(arrays).numpy()


def test_logits_of_a_classifier(tmp_path):
    lines, labels = [], {"id2label": {"0": "no", "1": "perhaps", "2": "yes"}}
    convert(xlmr.write_folder(tmp_path / "hf", xlmr.formula_tensors("classifier"), about=labels), str(tmp_path / "out"), log=lines.append)
    logits = forward(tmp_path / "out", lambda variables, kernels, bert: classification_logits(variables, kernels, bert.pooled))
    np.testing.assert_allclose(logits, GOLDEN["classifier"]["logits"], rtol=0, atol=5e-6)
    snapshot = Snapshot(str(tmp_path / "out"))
    config = snapshot.config()
    assert (config.model_type, config.max_position_embeddings, config.type_vocab_size) == ("xlm-roberta", 13, 1)
    assert (config.layer_norm_eps, config.pooler_input_dropout_prob) == (1e-5, 0.1)
    assert snapshot.task()["labels"] == ["no", "perhaps", "yes"]
    assert os.path.basename(snapshot.vocab_file()) == "tokenizer.json"
    assert tiny.read_bytes(snapshot.vocab_file()) == (tmp_path / "hf" / "tokenizer.json").read_bytes()
    assert any("51 tokens" in line for line in lines)


def test_states_of_an_encoder(tmp_path):
    convert(xlmr.write_folder(tmp_path / "hf", xlmr.formula_tensors("encoder"), "encoder"), str(tmp_path / "out"), log=silent)
    pooled = forward(tmp_path / "out", lambda variables, kernels, bert: bert.pooled)
    np.testing.assert_allclose(pooled, GOLDEN["encoder"]["pooled"], rtol=0, atol=5e-6)
    states = forward(tmp_path / "out", lambda variables, kernels, bert: bert.hidden_states[-1])
    np.testing.assert_allclose(states[0, :6], GOLDEN["encoder"]["last"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_there_and_back(tmp_path, kind):
    """All values come back bit for bit, apart from the two rows that no text uses."""
    tensors = xlmr.formula_tensors(kind)
    source = xlmr.write_folder(tmp_path / "hf", tensors, kind, about={"classifier_dropout": 0.3})
    convert(source, str(tmp_path / "out"), log=silent)
    convert(str(tmp_path / "out"), str(tmp_path / "back"), to="hugging_face", log=silent)
    back = load_file(str(tmp_path / "back" / "model.safetensors"))
    assert set(back) == set(tensors)
    for name, value in tensors.items():
        start = 2 if name.endswith(POSITIONS) else 0
        assert back[name].shape == value.shape, name
        assert back[name][start:].tobytes() == value[start:].tobytes(), name
        assert not back[name][:start].any()
    names = ("config.json", "tokenizer.json", "tokenizer_config.json")
    config, tokenizer, about = (json.loads((tmp_path / "back" / name).read_text(encoding="utf-8")) for name in names)
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        wanted = json.load(file)
    assert {key: config[key] for key in wanted} == wanted
    assert "pooler_input_dropout_prob" not in config
    assert (about["sep_token"], about["pad_token"], about["model_max_length"]) == ("</s>", "<pad>", 13)
    assert [piece for piece, _ in tokenizer["model"]["vocab"]] == [piece for piece, _ in GOLDEN["tokenizer"]["model"]["vocab"][:51]]
    assert not (tmp_path / "back" / "vocab.txt").exists()
    # the export may be replaced by another one, and is read again
    convert(str(tmp_path / "out"), str(tmp_path / "back"), to="hugging_face", overwrite=True, log=silent)
    convert(str(tmp_path / "back"), str(tmp_path / "again"), log=silent)
    assert Snapshot(str(tmp_path / "again")).digest() == Snapshot(str(tmp_path / "out")).digest()
    snapshots = [Snapshot(str(tmp_path / name)) for name in ("out", "again")]
    tokenizers = [open_tokenizer(snapshot, snapshot.config()) for snapshot in snapshots]
    assert tokenizers[0].whole_texts(GOLDEN["texts"]) == tokenizers[1].whole_texts(GOLDEN["texts"])


def test_a_folder_of_others_is_not_replaced(tmp_path):
    convert(xlmr.write_folder(tmp_path / "hf", xlmr.formula_tensors("classifier")), str(tmp_path / "out"), log=silent)
    convert(str(tmp_path / "out"), str(tmp_path / "back"), to="hugging_face", log=silent)
    (tmp_path / "back" / "README.md").unlink()
    with pytest.raises(UserError, match="--overwrite leaves it alone"):
        convert(str(tmp_path / "out"), str(tmp_path / "back"), to="hugging_face", overwrite=True, log=silent)


def test_other_heads_and_forms(tmp_path):
    """VECO's kind; the head of language modelling, a pooler that the classifier does not use, and other heads are left out."""
    tensors, lines = xlmr.formula_tensors("classifier"), []
    more = {name: np.ones((20, 20), np.float32) for name in ("lm_head.dense.weight", "roberta.pooler.dense.weight")}
    more["roberta.embeddings.position_ids"] = np.arange(15, dtype=np.int64)[None]
    source = xlmr.write_folder(tmp_path / "hf", {**tensors, **more}, about={"model_type": "veco", "architectures": ["VecoModel"]})
    convert(source, str(tmp_path / "out"), log=lines.append)
    assert "left out: lm_head.dense.weight, roberta.pooler.dense.weight" in lines
    value = Snapshot(str(tmp_path / "out")).read("bert-pooler-dense-weight", (20, 20))
    np.testing.assert_array_equal(value, tensors["classifier.dense.weight"].T)

    plain = {name: value for name, value in tensors.items() if not name.startswith("classifier")}
    plain["classifier.weight"] = np.ones((1, 20), np.float32)  # of choices
    about = {"model_type": "roberta", "architectures": ["RobertaForMultipleChoice"]}
    source = xlmr.write_folder(tmp_path / "choices", plain, about=about)
    convert(source, str(tmp_path / "out_choices"), log=lines.append)
    assert "left out: classifier.weight" in lines
    snapshot = Snapshot(str(tmp_path / "out_choices"))
    assert snapshot.config().model_type == "roberta"
    assert not [name for name in snapshot.sizes if name.startswith(("classification", "bert-pooler"))]


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"pad_token_id": 0}, "pad_token_id is 0; only 1 is supported"),
        ({"max_position_embeddings": 2}, "max_position_embeddings must be a whole number above 2"),
        ({"max_position_embeddings": "9"}, "max_position_embeddings must be a whole number above 2"),
        ({"classifier_dropout": 1.5}, "pooler_input_dropout_prob"),
        ({"model_type": "camembert"}, "model_type is 'camembert'"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'"),
        ({"tokenizer_class": "BartTokenizer"}, "tokenizer_class is 'BartTokenizer'"),
        ({"vocab_size": 50}, "word_embeddings.weight has shape [51, 20], but must have [50, 20]"),
    ],
)
def test_what_is_refused(tmp_path, about, words):
    source = xlmr.write_folder(tmp_path / "hf", xlmr.formula_tensors("classifier"), about=about)
    with pytest.raises(UserError) as caught:
        convert(source, str(tmp_path / "out"), log=silent)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tokenizers_that_do_not_fit(tmp_path):
    source = xlmr.write_folder(tmp_path / "hf", xlmr.formula_tensors("classifier"), tokenizer=GOLDEN["tokenizer"])
    with pytest.raises(UserError, match="has 98 tokens, the model has embeddings for 51"):
        convert(source, str(tmp_path / "out"), log=silent)
    (tmp_path / "hf" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"neither tokenizer\.json nor sentencepiece\.bpe\.model"):
        convert(source, str(tmp_path / "out"), log=silent)
    source = xlmr.write_folder(tmp_path / "second", xlmr.formula_tensors("classifier"))
    with pytest.raises(UserError, match="leave the flag out"):
        convert(source, str(tmp_path / "out"), do_lower_case=True, log=silent)
    convert(source, str(tmp_path / "out"), log=silent)
    snapshot = Snapshot(str(tmp_path / "out"))
    vocabulary = tiny.write_vocabulary(str(tmp_path / "vocab.txt"))
    with pytest.raises(UserError, match="another kind of model; this one is a xlm-roberta"):
        open_tokenizer(snapshot, snapshot.config(), vocabulary)
    with pytest.raises(UserError, match="xlm-roberta, and this format has BERTs only"):
        convert(str(tmp_path / "out"), str(tmp_path / "x.npz"), to="npz", log=silent)
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("pair", [False, True])
def test_onnx(tmp_path, pair):
    """ONNX Runtime with the tokenizer of the file's metadata gives the probabilities of the snapshot."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    sizes = {"vocab_size": len(GOLDEN["tokenizer"]["model"]["vocab"]), "max_position_embeddings": 42}
    tables = {"word": sizes["vocab_size"], "position": 42}
    shapes = {f"roberta.embeddings.{name}_embeddings.weight": (rows, GOLDEN["sizes"]["hidden_size"]) for name, rows in tables.items()}
    tensors = xlmr.formula_tensors("classifier", **shapes)
    source = xlmr.write_folder(tmp_path / "hf", tensors, tokenizer=GOLDEN["tokenizer"], **sizes)
    convert(source, str(tmp_path / "out"), pair=pair, log=silent)
    texts = list(zip(GOLDEN["texts"], GOLDEN["texts"][1:])) if pair else GOLDEN["texts"]
    (tmp_path / "dev.csv").write_text("".join("\t".join([*text, "d", "0\n"]) for text in [("good", "day")[: 1 + pair]]), encoding="utf-8")
    for name, more in (("x.onnx", {}), ("small.onnx", {"dev_file": str(tmp_path / "dev.csv")})):
        log = []
        convert(str(tmp_path / "out"), str(tmp_path / name), to="onnx", log=log.append, **more)
    assert any(line.startswith("int8 on 1 rows") for line in log), log
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    tokenizer = Tokenizer.from_str(about["tokenizer.json"])
    tokenizer.encode_special_tokens = True  # texts are not searched for special tokens; tokenizer.json does not have this setting
    assert json.loads(about["pair"]) is pair
    found = []
    for text in texts:
        encoding = tokenizer.encode(*text) if pair else tokenizer.encode(text)
        arrays = encoding.ids, encoding.attention_mask, encoding.type_ids
        inputs = zip(("input_ids", "attention_mask", "token_type_ids"), arrays)
        found.append(session.run(None, {name: np.array([values]) for name, values in inputs})[0][0])
    ours = np.log([list(prediction.probabilities.values()) for prediction in Predictor(str(tmp_path / "out"), "cpu")(texts)])
    theirs = np.array(found, np.float64)
    np.testing.assert_allclose(theirs - np.log(np.exp(theirs).sum(axis=1, keepdims=True)), ours, rtol=0, atol=1e-5)
    assert np.ptp(ours[:, 0]) > 0.01


@pytest.mark.slow
@pytest.mark.skipif(torch_python() is None, reason="BENCH_TORCH_PYTHON names no Python with torch and transformers")
@pytest.mark.parametrize("pair", [False, True])
def test_an_export_in_transformers(tmp_path, pair):
    """Ids and log-probabilities of all texts, from the raw text, by the Auto classes."""
    tensors, sizes = xlmr.random_encoder()
    source = xlmr.write_folder(tmp_path / "hf", None, tokenizer=GOLDEN["tokenizer"], **sizes)
    tensors = {"roberta." + name: value for name, value in tensors.items() if not name.startswith("pooler")}
    draw = np.random.RandomState(9)
    for name, shape in GOLDEN["classifier"]["shapes"].items():
        if name.startswith("classifier"):
            tensors[name] = draw.standard_normal(shape).astype(np.float32)
    save_file(tensors, os.path.join(source, "model.safetensors"))
    convert(source, str(tmp_path / "out"), pair=pair, log=silent)
    convert(str(tmp_path / "out"), str(tmp_path / "export"), to="hugging_face", log=silent)
    predictor, texts = Predictor(str(tmp_path / "out"), "cpu"), GOLDEN["texts"]
    pairs = [*texts[1:], texts[0]] if pair else None
    ours = np.array([list(p.probabilities.values()) for p in predictor(list(zip(texts, pairs)) if pair else texts)])
    theirs = ask_transformers(torch_python(), {"folder": str(tmp_path / "export"), "texts": texts, "pairs": pairs})
    encoded = predictor.preprocess(list(zip(texts, pairs)) if pair else texts)
    assert theirs["ids"] == [row[: mask.sum()].tolist() for row, mask in zip(encoded.input_ids, encoded.input_mask)]
    np.testing.assert_allclose(np.log(ours), theirs["log_probabilities"], rtol=0, atol=1e-5)
    assert np.ptp(np.log(ours)[:, 0]) > 0.5  # the texts differ by far more than the tolerance
