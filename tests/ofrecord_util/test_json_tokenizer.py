"""ofrecord_util/json_tokenizer.py: ids of Unigram and byte-level BPE as transformers has them, pairs, and files that are refused."""

import json
import os

import numpy as np
import pytest
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import pre_tokenizers
from tokenizers.models import BPE, WordPiece
from tokenizers.trainers import BpeTrainer

from ofrecord_util.errors import UserError
from ofrecord_util.json_tokenizer import JsonTokenizer, load_tokenizer, vocabulary_tokens
from ofrecord_util.tokenization import Tokenizer
from ofrecord_util.tokenizer_settings import TokenizerSettings

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden", "xlmr.json")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture(scope="module")
def golden():
    with open(GOLDEN, encoding="utf-8") as file:
        return json.load(file)


def write(folder, content):
    path = folder / "tokenizer.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def path(tmp_path, golden):
    return write(tmp_path, golden["tokenizer"])


def real_ids(encoded):
    return [row[: mask.sum()].tolist() for row, mask in zip(encoded.input_ids, encoded.input_mask)]


def test_ids_of_transformers(path, golden):
    """Single texts and pairs, whole and cut; two separators between the texts of a pair."""
    tokenizer, texts = load_tokenizer(path), golden["texts"]
    assert real_ids(tokenizer.encode(texts, None, golden["length"])) == golden["tokens"]["single"]
    encoded = tokenizer.encode(texts[:-1], texts[1:], golden["length"])
    assert real_ids(encoded) == golden["tokens"]["pair"]
    assert encoded.truncated == sum(len(ids) == golden["length"] for ids in golden["tokens"]["pair"])
    assert not encoded.segment_ids.any()
    padded = tokenizer.encode(texts[:3], None, 60)
    assert np.array_equal(padded.input_mask, np.arange(60) < padded.input_mask.sum(axis=1, keepdims=True))
    assert set(padded.input_ids[padded.input_mask == 0].tolist()) == {1}


def test_attributes(path, golden):
    tokenizer = load_tokenizer(path, TokenizerSettings(False))
    pieces = [piece for piece, _ in golden["tokenizer"]["model"]["vocab"]]
    assert tokenizer.tokens == vocabulary_tokens(path) == pieces
    assert (tokenizer.vocab_size, tokenizer.unknown_id, tokenizer.special_ids) == (len(pieces), 3, [1, 0, 2])
    assert (tokenizer.do_lower_case, tokenizer.check_casing(), tokenizer.file_name) == (False, None, "tokenizer.json")
    assert "".join(tokenizer.tokenize("The room was clean")) == "▁The▁room▁was▁clean"
    encoded = tokenizer.encode(["the \u0416 day"], None, 24)
    assert tokenizer.count_unknown(encoded.input_ids, encoded.input_mask)[0] == 1


def test_truncation_and_padding_of_the_file_do_not_count(tmp_path, golden):
    library = LibraryTokenizer.from_str(json.dumps(golden["tokenizer"]))
    plain = load_tokenizer(write(tmp_path, library.to_str())).whole_texts(golden["texts"])
    library.enable_truncation(4)
    library.enable_padding(length=9)
    assert load_tokenizer(write(tmp_path, library.to_str())).whole_texts(golden["texts"]) == plain
    assert max(map(len, plain)) > 9


def test_byte_level_bpe(tmp_path):
    """RoBERTa's: no unknown characters, and the names of special tokens inside a text are text."""
    library = LibraryTokenizer(BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(["the room was good"] * 5, trainer)
    tokenizer = load_tokenizer(write(tmp_path, library.to_str()))
    text = "the room </s> was 好 <s>"
    (ids,) = tokenizer.whole_texts([text])
    assert not {0, 1, 2, 3} & set(ids)
    assert library.decode(ids).replace("Ġ", " ").replace(" ", "")[:7] == "theroom"
    assert ids == library.encode(text.split(" </s>")[0]).ids + ids[len(library.encode("the room").ids) :]
    encoded = tokenizer.encode(["the room"], ["was good"], 13)
    assert real_ids(encoded) == [[0, *library.encode("the room").ids, 2, 2, *library.encode("was good").ids, 2]]


def test_tokens_have_their_place_in_the_text(path, golden):
    tokenizer = load_tokenizer(path)
    for text in (*golden["texts"], "", "  "):
        ids, spans = tokenizer.ids_and_spans(text)
        assert ids == tokenizer.whole_texts([text])[0]
        assert spans.shape == (len(ids), 2)
        assert (spans[:, 0] <= spans[:, 1]).all()
        assert (np.diff(spans[:, 0]) >= 0).all()
    text = "The room  was clean."
    ids, spans = tokenizer.ids_and_spans(text)
    said = "".join(text[start:end] for start, end in spans.tolist())
    assert said.replace(" ", "") == text.replace(" ", "")


def test_words_of_a_sentence(path, tmp_path):
    """Each begins a word: Unigram marks it by itself, byte-level BPE by the blank before it."""
    tokenizer = load_tokenizer(path)
    words = ["The", "room", "was", "clean"]
    assert [tokenizer.tokens[own[0]][0] for own in tokenizer.word_ids(words)] == ["▁"] * 4
    library = LibraryTokenizer(BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    library.train_from_iterator(["the room was good"] * 5, trainer)
    tokenizer = load_tokenizer(write(tmp_path, library.to_str()))
    assert [tokenizer.tokens[own[0]][0] for own in tokenizer.word_ids(words)] == ["Ġ"] * 4
    text = " the room was"
    assert [number for own in tokenizer.word_ids(text.split()) for number in own] == tokenizer.whole_texts([text])[0]


def test_the_shortest_length_of_pairs(path):
    tokenizer = load_tokenizer(path)
    assert tokenizer.encode(["good day"], ["the room"], 6).input_ids.shape == (1, 6)
    with pytest.raises(UserError, match="4 special tokens and a token of each text need 6"):
        tokenizer.encode(["good day"], ["the room"], 5)


def test_files_that_are_refused(tmp_path, golden):
    def message(content, settings=True):
        with pytest.raises(UserError) as caught:
            load_tokenizer(write(tmp_path, content), settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "can read" in message("{")
    assert "can read" in message({"model": {"type": "Neural"}})
    word_piece = LibraryTokenizer(WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    assert "its model is WordPiece, only Unigram and BPE" in message(word_piece.to_str())
    odd = json.loads(json.dumps(golden["tokenizer"]))
    odd["model"]["vocab"][2][0], odd["added_tokens"] = "</t>", []
    assert "has no </s>" in message(odd)
    without = json.loads(json.dumps(golden["tokenizer"]))
    without["model"]["unk_id"] = None
    assert "cannot split every text" in message(without)
    assert "leave the flag out" in message(golden["tokenizer"], TokenizerSettings(True))
    with pytest.raises(UserError, match=r"missing\.json"):
        JsonTokenizer(str(tmp_path / "missing.json"))


def test_other_files_are_vocabularies_of_wordpiece(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", encoding="utf-8")
    tokenizer = load_tokenizer(str(path), False)
    assert type(tokenizer) is Tokenizer
    assert tokenizer.encode(["a"], ["a"], 7).input_ids.tolist() == [[2, 4, 3, 4, 3, 0, 0]]
    assert vocabulary_tokens(str(path)) == tokenizer.tokens
