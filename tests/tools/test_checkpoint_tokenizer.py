"""tools/checkpoint_tokenizer.py and the labels of a classifier: what a Hugging Face folder says of its tokenizer is kept or refused."""

import json
import os

import numpy as np
import pytest
import tiny
from hugging_face_folder import CONFIG, LABELS, TOKENS, H, hugging_face_tensors, write_folder
from safetensors.numpy import load_file, save_file

from modeling.bert.config import BertConfig
from modeling.checkpoints.snapshot import Snapshot
from modeling.checkpoints.snapshot_tokenizer import TOKENIZER_FILE, open_tokenizer, stored_settings
from modeling.predictor import Predictor
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import convert


def folder_with(tmp_path, tokenizer_config=None, **files):
    """A Hugging Face folder with these files of a tokenizer (a dot in a name is written as two underscores)."""
    folder = write_folder(tmp_path / "hf", hugging_face_tensors())
    if tokenizer_config is not None:
        files["tokenizer_config__json"] = tokenizer_config
    for name, value in files.items():
        (tmp_path / "hf" / name.replace("__", ".")).write_text(json.dumps(value), encoding="utf-8")
    return folder


def converted(tmp_path, folder, name="out", **flags):
    """(snapshot, lines of the log)"""
    lines = []
    convert(folder, str(tmp_path / name), log=lines.append, **flags)
    return Snapshot(str(tmp_path / name)), lines


def refused(tmp_path, folder, **flags):
    with pytest.raises(UserError) as caught:
        convert(folder, str(tmp_path / "out"), log=lambda line: None, **flags)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_settings_travel_with_the_snapshot(tmp_path):
    folder = folder_with(tmp_path, {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False})
    snapshot, lines = converted(tmp_path, folder)
    settings = stored_settings(snapshot)
    assert (settings.do_lower_case, settings.strip_accents, settings.tokenize_chinese_chars) == (True, False, False)
    assert settings.max_word_chars == 100  # of transformers
    assert "tokenizer: strip_accents false" in lines
    assert open_tokenizer(snapshot, snapshot.config()).tokenize("Ç a") == ["ç", "a"]


def test_tokenizer_json(tmp_path):
    ids = {token: number for number, token in enumerate(TOKENS)}
    parsed = {
        "model": {"type": "WordPiece", "vocab": ids, "max_input_chars_per_word": 77},
        "normalizer": {"type": "BertNormalizer", "lowercase": False, "strip_accents": None, "handle_chinese_chars": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
    }
    settings = stored_settings(converted(tmp_path, folder_with(tmp_path, tokenizer__json=parsed))[0])
    assert (settings.do_lower_case, settings.max_word_chars) == (False, 77)
    _, lines = converted(tmp_path, folder_with(tmp_path, {"do_lower_case": True}, tokenizer__json=parsed), "second")
    assert any("do_lower_case true, not false as in tokenizer.json" in line for line in lines)
    other = dict(parsed, model=dict(parsed["model"], vocab=dict(ids, x=11, y=10)))
    with pytest.raises(UserError, match="are different vocabularies: 2 tokens"):
        converted(tmp_path, folder_with(tmp_path, tokenizer__json=other), "third")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config__json": {"tokenizer_class": "BertJapaneseTokenizer"}}, "tokenizer_class is 'BertJapaneseTokenizer'; only Bert"),
        ({"tokenizer_config__json": {"tokenizer_class": "PreTrainedTokenizerFast"}}, "tokenizer_class is 'PreTrainedTokenizerFast'"),
        ({"tokenizer_config__json": {"auto_map": {"AutoTokenizer": ["x.X", None]}}}, "auto_map"),
        ({"tokenizer_config__json": {"do_basic_tokenize": False}}, "do_basic_tokenize is False"),
        ({"tokenizer_config__json": {"never_split": ["COVID"]}}, "never_split"),
        ({"tokenizer_config__json": {"unk_token": "<unk>"}}, "unk_token is '<unk>'"),
        ({"tokenizer_config__json": {"cls_token": {"content": "<s>"}}}, "cls_token is '<s>'"),
        ({"tokenizer_config__json": {"strip_accents": "no"}}, "strip_accents is 'no'"),
        ({"special_tokens_map__json": {"sep_token": "</s>"}}, "sep_token is '</s>'"),
        ({"tokenizer__json": {"normalizer": {"type": "NFKC"}}}, "normalizer is 'NFKC'"),
        ({"tokenizer__json": {"normalizer": None}}, "normalizer is None"),
        ({"tokenizer__json": {"pre_tokenizer": {"type": "Metaspace"}}}, "pre_tokenizer is 'Metaspace'"),
        ({"tokenizer__json": {"model": {"continuing_subword_prefix": "@@"}}}, "continuing_subword_prefix of the model is '@@'"),
        ({"tokenizer__json": {"normalizer": {"type": "BertNormalizer", "clean_text": False}}}, "clean_text"),
        ({"added_tokens__json": {"[E1]": 20}}, "added token '[E1]' has the id 20"),
        ({"added_tokens__json": {"[E1]": 5}}, "has the id 5, which is 'a'"),
        ({"added_tokens__json": {"[E1]": "x"}}, "has the id 'x'"),
        ({"added_tokens__json": {"[E1]": 13}}, "14 tokens"),  # beyond the embeddings
        ({"added_tokens__json": {"two words": 13}}, "added_tokens"),
        ({"tokenizer_config__json": {"additional_special_tokens": ["[E1]"]}}, "added token '[E1]' has the id None"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path, files, message):
    found = refused(tmp_path, folder_with(tmp_path, **files))
    assert message in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config__json": {"additional_special_tokens": 5}}, "tokenizer_config.json: additional_special_tokens is 5"),
        ({"tokenizer_config__json": {"additional_special_tokens": "<x>"}}, "additional_special_tokens is '<x>'"),  # not "<", "x", ">"
        ({"tokenizer_config__json": {"extra_special_tokens": [None]}}, "extra_special_tokens is [None]"),  # not the token "None"
        ({"special_tokens_map__json": {"additional_special_tokens": True}}, "special_tokens_map.json: additional_special_tokens is True"),
        ({"tokenizer_config__json": {"added_tokens_decoder": {"²": {"content": "z"}}}}, "not whole numbers (['²'])"),
        ({"tokenizer_config__json": {"added_tokens_decoder": {"3": []}}}, "added_tokens_decoder is {'3': []}"),
        ({"tokenizer_config__json": {"added_tokens_decoder": ["z"]}}, "not whole numbers (['z'])"),
        ({"tokenizer__json": {"added_tokens": 1.5}}, "tokenizer.json: added_tokens is 1.5"),
        ({"tokenizer__json": {"added_tokens": [{"id": 3}]}}, "tokenizer.json: added_tokens is [{'id': 3}]"),
    ],
)
def test_what_is_no_list_of_tokens(tmp_path, files, message):
    assert message in refused(tmp_path, folder_with(tmp_path, **files))


def test_added_tokens(tmp_path):
    tokens = [*TOKENS[:-2]]
    folder = folder_with(
        tmp_path,
        {"do_lower_case": True, "additional_special_tokens": ["[E1]", "x"]},
        added_tokens__json={"[E1]": 11, "Covid": 12},
        special_tokens_map__json={"additional_special_tokens": ["[E1]"], "cls_token": "[CLS]"},
    )
    (tmp_path / "hf" / "vocab.txt").write_text("".join(token + "\n" for token in tokens), encoding="utf-8")
    snapshot, lines = converted(tmp_path, folder)
    assert any("3 added tokens" in line and "[E1]" in line for line in lines)
    tokenizer = open_tokenizer(snapshot, snapshot.config())
    assert tokenizer.tokens == [*tokens, "[E1]", "Covid"]
    assert tokenizer.tokenize("a[E1]COVID!") == ["a", "[E1]", "Covid", "!"]
    convert(snapshot.path, str(tmp_path / "back"), to="hugging_face", log=lambda line: None)
    config = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["added_tokens_decoder"]["12"] == {
        "content": "Covid", "normalized": True, "single_word": False, "lstrip": False, "rstrip": False, "special": False,
    }  # fmt: skip
    again, _ = converted(tmp_path, str(tmp_path / "back"), "again")
    assert stored_settings(again).added_tokens == stored_settings(snapshot).added_tokens


def test_the_casing_can_be_overridden(tmp_path):
    folder = folder_with(tmp_path, {"do_lower_case": False})
    snapshot, lines = converted(tmp_path, folder, do_lower_case=True)
    assert stored_settings(snapshot).do_lower_case is True
    assert any("--do_lower_case true is used" in line for line in lines)


def test_a_byte_order_mark_does_not_belong_to_the_first_token(tmp_path):
    folder = folder_with(tmp_path)
    data = (tmp_path / "hf" / "vocab.txt").read_bytes()
    (tmp_path / "hf" / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + data)
    snapshot, _ = converted(tmp_path, folder)
    assert tiny.read_bytes(snapshot.vocab_file()) == data


def test_other_kinds_of_vocabularies(tmp_path):
    folder = folder_with(tmp_path)
    (tmp_path / "hf" / "vocab.txt").write_text("".join(f"{token}\n" for token in [*TOKENS[:5], "▁a", "▁good", "▁is"]), encoding="utf-8")
    assert "SentencePiece" in refused(tmp_path, folder)


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json", "tokenizer.json"])
def test_pointers_of_git_lfs_are_named(tmp_path, name):
    folder = folder_with(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (tmp_path / "hf" / name).write_text(pointer)
    message = refused(tmp_path, folder)
    assert f"{name} is a pointer of Git LFS" in message
    assert "git lfs pull" in message


@pytest.mark.parametrize("prefix", ["module.", "module.bert.", "model.encoder.bert.", "0.auto_model."])
def test_a_prefix_of_all_names_is_removed(tmp_path, prefix):
    snapshot, lines = converted(tmp_path, write_folder(tmp_path / "hf", hugging_face_tensors(prefix)))
    plain, _ = converted(tmp_path, write_folder(tmp_path / "plain", hugging_face_tensors()), "plain_out")
    assert snapshot.digest() == plain.digest()
    shown = prefix[: -len("bert.")] if prefix.endswith("bert.") else prefix
    assert f"the names of the tensors begin with {shown!r}, which is removed" in lines


def test_a_prefix_of_some_names_is_named(tmp_path):
    tensors = dict(hugging_face_tensors("text."), head=np.zeros(3, np.float32))
    message = refused(tmp_path, write_folder(tmp_path / "hf", tensors))
    assert "begin with 'text.', but 1 others do not (head)" in message
    message = refused(tmp_path, write_folder(tmp_path / "hf", dict(hugging_face_tensors("query."), **hugging_face_tensors("document."))))
    assert "2 encoders ('document.', 'query.')" in message
    assert len(message) < 400


def classifier(tmp_path, labels=LABELS, **config):
    """A folder with a classifier; the values of its config.json are `config`."""
    tensors = hugging_face_tensors("bert.")
    tensors["classifier.weight"] = np.arange(labels * H, dtype=np.float32).reshape(labels, H)
    tensors["classifier.bias"] = np.arange(labels, dtype=np.float32)
    values = dict(CONFIG, architectures=["BertForSequenceClassification"], **config)
    return write_folder(tmp_path / "hf", tensors, values)


NAMES = {"0": "neutral", "1": "positive", "2": "négative"}


def test_names_of_labels_are_kept_and_exported(tmp_path):
    folder = classifier(tmp_path, 3, id2label=NAMES)
    (tmp_path / "hf" / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 6}')
    snapshot, lines = converted(tmp_path, folder)
    task = snapshot.task()
    assert (task["labels"], task["pair"], task["seq_length"]) == (list(NAMES.values()), False, 6)
    assert any("classifier of 3 labels (neutral, positive, négative) kept" in line for line in lines)
    predictor = Predictor(snapshot.path, "cpu", 2)
    assert predictor.seq_length == 6
    assert list(next(iter(predictor(["a x"]))).probabilities) == list(NAMES.values())
    convert(snapshot.path, str(tmp_path / "back"), to="hugging_face", log=lambda line: None)
    assert json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))["id2label"] == NAMES
    exported = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (exported["model_max_length"], exported["tokenizer_class"]) == (6, "BertTokenizer")
    tensors = load_file(str(tmp_path / "back" / "model.safetensors"))
    assert tensors["classifier.bias"].tolist() == [0, 1, 2]


def test_labels_without_names_have_those_of_transformers(tmp_path):
    assert converted(tmp_path, classifier(tmp_path))[0].task()["labels"] == [f"LABEL_{number}" for number in range(LABELS)]


def test_pairs(tmp_path):
    snapshot, _ = converted(tmp_path, classifier(tmp_path, 3, id2label=NAMES), pair=True)
    assert snapshot.task()["pair"] is True
    assert "--pair" in refused_pair(tmp_path)


def refused_pair(tmp_path):
    with pytest.raises(UserError) as caught:
        convert(write_folder(tmp_path / "encoder", hugging_face_tensors()), str(tmp_path / "no"), log=lambda line: None, pair=True)
    return str(caught.value)


@pytest.mark.parametrize(
    ("labels", "config", "note"),
    [
        (3, {"id2label": {"0": "a", "1": "b"}}, "config.json has 2 in id2label, the classifier has 3 labels"),
        (3, {"id2label": {"0": "a", "1": "b", "2": "A"}}, "listed twice"),
        (3, {"id2label": 5}, "config.json has 5 in id2label, the classifier has 3 labels"),
        (3, {"id2label": {"0": "né", "1": "ne\u0301", "2": "b"}}, "look the same"),
        (3, {"id2label": NAMES, "problem_type": "ordinal"}, "the classifier has 3 outputs for the problem_type 'ordinal'"),
        (3, {"id2label": NAMES, "problem_type": "regression"}, "the classifier has 3 outputs for the problem_type 'regression'"),
        (1, {"problem_type": "single_label_classification"}, "the classifier has 1 outputs for the problem_type"),
        (2, {"id2label": {"0": "a,b", "1": "c"}, "problem_type": "multi_label_classification"}, "'a,b' has a sign that separates"),
    ],
)
def test_classifiers_that_cannot_predict_one_label(tmp_path, labels, config, note):
    snapshot, lines = converted(tmp_path, classifier(tmp_path, labels, **config))
    assert snapshot.task() is None
    assert any(note in line for line in lines)
    with pytest.raises(UserError, match=r"no task.json"):
        Predictor(snapshot.path, "cpu")


def test_more_rows_than_tokens(tmp_path):
    tensors = hugging_face_tensors()
    folder = write_folder(tmp_path / "hf", tensors, tokens=TOKENS[:-2])
    snapshot, lines = converted(tmp_path, folder)
    assert "2 of 13 word embeddings have no token; they stay, and no text uses them" in lines
    assert open_tokenizer(snapshot, snapshot.config()).vocab_size == 11
    (tmp_path / "longer.txt").write_text("".join(token + "\n" for token in TOKENS))
    with pytest.raises(UserError, match=r"13 pieces, but the model has 13 word embeddings, and its own vocab.txt has 11 pieces"):
        open_tokenizer(snapshot, snapshot.config(), str(tmp_path / "longer.txt"))


def test_settings_of_a_damaged_snapshot(tmp_path):
    snapshot, _ = converted(tmp_path, folder_with(tmp_path, {"do_lower_case": False}))
    path = os.path.join(snapshot.path, TOKENIZER_FILE)
    for text, message in (("{", "is not JSON"), ('{"do_lower_case": 3}', "do_lower_case is 3"), ("[]", "not a JSON object")):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        with pytest.raises(UserError, match=message):
            stored_settings(snapshot)


def test_the_flag_of_the_user_against_the_snapshot(tmp_path):
    snapshot, _ = converted(tmp_path, folder_with(tmp_path, {"do_lower_case": False}))
    config, lines = snapshot.config(), []
    assert isinstance(config, BertConfig)
    assert open_tokenizer(snapshot, config, log=lines.append).do_lower_case is False
    assert open_tokenizer(snapshot, config, do_lower_case=False, log=lines.append).check_casing() is None
    assert lines == []
    assert open_tokenizer(snapshot, config, do_lower_case=True, log=lines.append).do_lower_case is True
    assert lines == [f"warning: --do_lower_case true contradicts {snapshot.path}, which has false"]


def test_weights_in_a_folder_without_a_tokenizer(tmp_path):
    """Nothing says whether the model is cased."""
    save_file(hugging_face_tensors(), write_folder(tmp_path / "hf", None, save=False) + "/model.safetensors")
    snapshot, _ = converted(tmp_path, str(tmp_path / "hf"))
    assert stored_settings(snapshot).do_lower_case is None
