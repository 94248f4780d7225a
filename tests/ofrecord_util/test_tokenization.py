"""WordPiece against golden ids from independent implementations, truncation against BERT's own loop, and vocabulary faults."""

import json
import os
import random
import string
import subprocess
import sys

import numpy as np
import pytest

from ofrecord_util.encoding import pair_lengths
from ofrecord_util.errors import UserError
from ofrecord_util.tokenization import Tokenizer, TokenizerSettings

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIALS, "un", "##aff", "##able", "good", "bad", ",", "[", "]", "sep", "a", "##b", "e", "你", "好"]


def write_vocabulary(path, words, end="\n"):
    path.write_bytes((end.join(words) + end).encode("utf-8"))
    return str(path)


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(write_vocabulary(tmp_path / "vocab.txt", WORDS))


def golden():
    path = os.path.join(ROOT, "tests", "golden", "wordpiece.json")
    if not os.path.isfile(path):
        pytest.skip("tests/golden/wordpiece.json is not there")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def test_golden_ids(tmp_path):
    """All cases of the golden file; where Hugging Face and Google differ, Google's ids."""
    told = golden()
    vocab_file = write_vocabulary(tmp_path / "golden.txt", told["vocab"])
    tokenizers = {lower: Tokenizer(vocab_file, lower) for lower in (True, False)}
    count = 0
    for case in told["cases"] + told["special_in_text"] + told["differs_from_google"]:
        pair = case["text_b"] is not None
        expected = case.get("google_input_ids", case["input_ids"])
        segments = case.get("google_token_type_ids", case["token_type_ids"])
        length = case["max_length"] or len(expected) + 3
        if length < (5 if pair else 3):
            continue  # refused here: no room for a token of each text
        encoded = tokenizers[case["do_lower_case"]].encode([case["text_a"]], [case["text_b"]] if pair else None, length)
        padding = length - len(expected)
        name = (case["name"], case["do_lower_case"])
        assert encoded.input_ids[0].tolist() == expected + [0] * padding, name
        assert encoded.segment_ids[0].tolist() == segments + [0] * padding, name
        assert encoded.input_mask[0].tolist() == [1] * len(expected) + [0] * padding, name
        count += 1
    assert count > 100


def test_arrays(tokenizer):
    encoded = tokenizer.encode(["Good, unaffable", "bad"], None, 7)
    assert encoded.input_ids.tolist() == [[2, 7, 9, 4, 5, 6, 3], [2, 8, 3, 0, 0, 0, 0]]
    assert encoded.input_mask.tolist() == [[1] * 7, [1, 1, 1, 0, 0, 0, 0]]
    assert not encoded.segment_ids.any()
    assert encoded.truncated == 0
    assert {array.dtype for array in (encoded.input_ids, encoded.input_mask, encoded.segment_ids)} == {np.dtype(np.int32)}
    encoded = tokenizer.encode(["good", "a a a a"], ["bad bad", "good bad"], 7)
    assert encoded.input_ids.tolist() == [[2, 7, 3, 8, 8, 3, 0], [2, 13, 13, 3, 7, 8, 3]]
    assert encoded.segment_ids.tolist() == [[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1]]
    assert encoded.truncated == 1


def test_special_tokens_in_text_are_text(tokenizer):
    assert tokenizer.tokenize("[SEP] a[SEP]") == ["[", "sep", "]", "a", "[", "sep", "]"]


def test_details(tokenizer):
    assert tokenizer.tokenize("Unaffable\x00 go\u00adod É 你好") == ["un", "##aff", "##able", "good", "e", "你", "好"]
    assert tokenizer.tokenize("ab" + "b" * 198) == ["a"] + ["##b"] * 199
    assert tokenizer.tokenize("ab" + "b" * 199) == ["[UNK]"]
    assert tokenizer.words("a\u2028b\u3000c\x85d") == ["a", "b", "cd"]


@pytest.mark.parametrize("count", [5, 6, 7, 8, 50, 3000])
def test_truncation_is_counted(tokenizer, count):
    encoded = tokenizer.encode(["a " * count], None, 8)
    assert encoded.truncated == (count > 6)
    assert encoded.input_mask.sum() == min(count, 6) + 2


def test_long_texts_equal_short_ones_where_they_are_cut(tokenizer):
    """Only the first words of a text are looked at: the result is that of the whole."""
    draw = random.Random(3)
    texts = [" ".join(draw.choice(["good", "unaffable", "a,b", "你a", "É"]) for _ in range(40)) for _ in range(20)]
    for text in texts:
        whole = tokenizer.encode([text], None, 400).input_ids[0]
        part = tokenizer.encode([text], None, 13).input_ids[0]
        assert part[:12].tolist() == whole[:12].tolist()
        assert part[12] == 3


@pytest.mark.parametrize("lower", [True, False])
def test_printable_ascii_has_the_words_of_every_other_text(tmp_path, lower):
    """The short way for such texts against the general one, with every printable character beside every kind."""
    tokenizer = Tokenizer(write_vocabulary(tmp_path / "vocab.txt", WORDS), lower)
    draw = random.Random(5)
    printable = string.digits + string.ascii_letters + string.punctuation + " "
    texts = ["".join(draw.choices(printable, k=draw.randrange(60))) for _ in range(300)]
    texts += [left + mark + right for mark in printable for left in "aZ0. " for right in "aZ0. "]
    for text in texts:
        assert tokenizer._first_words(text, 100).split() == tokenizer.words(text), text
    assert tokenizer._first_words("a.b c d", 2).split()[:2] == ["a", "."]
    assert tokenizer._first_words("a b c d", 2).split() == ["a", "b"]


def test_pair_lengths_as_in_bert():
    for room in range(2, 9):
        for length_a in range(12):
            for length_b in range(12):
                a, b = length_a, length_b
                while a + b > room:  # BERT's own loop
                    if a > b:
                        a -= 1
                    else:
                        b -= 1
                assert pair_lengths(length_a, length_b, room) == (a, b)


def test_batches_do_not_matter(tokenizer, monkeypatch):
    texts = ["good " * n for n in range(1, 12)]
    whole = tokenizer.encode(texts, texts[::-1], 9)
    monkeypatch.setattr("ofrecord_util.encoding._BATCH", 3)
    parts = tokenizer.encode(texts, texts[::-1], 9)
    assert whole.truncated == parts.truncated
    np.testing.assert_array_equal(whole.input_ids, parts.input_ids)
    np.testing.assert_array_equal(whole.segment_ids, parts.segment_ids)


def test_too_short(tokenizer):
    tokenizer.encode(["a"], None, 3)
    tokenizer.encode(["a"], ["a"], 5)
    for text_b, length in ((None, 2), (None, 0), (["a"], 4)):
        with pytest.raises(UserError, match="--seq_length"):
            tokenizer.encode(["a"], text_b, length)


def test_vocabulary(tmp_path):
    plain = Tokenizer(write_vocabulary(tmp_path / "a.txt", WORDS))
    assert plain.vocab_size == len(WORDS)
    for name, words, end in (("crlf", WORDS, "\r\n"), ("bom", ["\ufeff[PAD]", *WORDS[1:]], "\n"), ("blank", [*WORDS, "", ""], "\n")):
        other = Tokenizer(write_vocabulary(tmp_path / name, words, end))
        assert (other.vocab_size, other.digest) == (plain.vocab_size, plain.digest)
    assert Tokenizer(write_vocabulary(tmp_path / "b.txt", [*WORDS, "more"])).digest != plain.digest
    # a blank line in the middle keeps its id, as in Google's
    assert Tokenizer(write_vocabulary(tmp_path / "c.txt", [*WORDS[:4], "", *WORDS[4:]])).encode(["good"], None, 3).input_ids[0, 1] == 8


@pytest.mark.parametrize("missing", SPECIALS)
def test_vocabulary_without_a_special_token(tmp_path, missing):
    path = write_vocabulary(tmp_path / "vocab.txt", [word for word in WORDS if word != missing])
    with pytest.raises(UserError, match=rf"vocab.txt.*\[{missing[1:-1]}\].*--vocab_file"):
        Tokenizer(path)


def test_vocabulary_faults(tmp_path):
    with pytest.raises(UserError, match="--vocab_file"):
        Tokenizer(str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(UserError, match="0 tokens"):
        Tokenizer(str(tmp_path / "empty.txt"))
    (tmp_path / "latin.txt").write_bytes(b"[PAD]\n\xe9\n")
    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        Tokenizer(str(tmp_path / "latin.txt"))


def test_casing(tmp_path):
    cased = write_vocabulary(tmp_path / "cased.txt", [*WORDS, "Good", "Bad", "Paris"])
    with pytest.raises(UserError, match=r"Good.*--do_lower_case false"):
        Tokenizer(cased, True).check_casing()
    assert Tokenizer(cased, False).check_casing() is None
    rarely = write_vocabulary(tmp_path / "rarely.txt", WORDS + [f"word{number}" for number in range(1000)] + ["##sT"])
    with pytest.raises(UserError, match=r"rarely.txt: 1 of its words have upper-case letters .##sT, .*--do_lower_case false"):
        Tokenizer(rarely, True).check_casing()
    greek = write_vocabulary(tmp_path / "greek.txt", [*WORDS, "Αθήνα", "Σπάρτη"])
    with pytest.raises(UserError, match="2 of its words have upper-case letters"):
        Tokenizer(greek, True).check_casing()
    uncased = write_vocabulary(tmp_path / "uncased.txt", [*WORDS, "[unused1]", "[MASK]", "[E1]"])
    assert Tokenizer(uncased, True).check_casing() is None
    many = [f"word{number}" for number in range(100)]
    uncased = write_vocabulary(tmp_path / "uncased.txt", WORDS + many + ["\u2161"])  # a Roman numeral, as in Chinese vocabularies
    assert Tokenizer(uncased, True).check_casing() is None
    uncased = write_vocabulary(tmp_path / "uncased.txt", WORDS)
    assert "--do_lower_case true" in Tokenizer(uncased, False).check_casing()


def test_neither_oneflow_nor_the_model_is_imported():
    folder = os.path.join(ROOT, "ofrecord_util")
    modules = ", ".join(sorted(name[: -len(".py")] for name in os.listdir(folder) if name.endswith(".py") and name != "__init__.py"))
    code = f"import sys; from ofrecord_util import {modules}; schema.record_class(); print({{'oneflow', 'modeling'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout == b"set()\n"


def settings_of(**values):
    return TokenizerSettings.from_dict(values, "FILE")


def tokens_of(path, text, **values):
    return Tokenizer(path, settings_of(**values)).tokenize(text)


def test_settings(tmp_path):
    path = write_vocabulary(tmp_path / "vocab.txt", [*SPECIALS, "café", "cafe", "Café", "Cafe", "你", "好", "你好", "x" * 150])
    assert tokens_of(path, "Café 你好") == ["cafe", "你", "好"]
    assert tokens_of(path, "Café", strip_accents=False) == ["café"]
    assert tokens_of(path, "Café", do_lower_case=False) == ["Café"]
    assert tokens_of(path, "Café", do_lower_case=False, strip_accents=True) == ["Cafe"]
    assert tokens_of(path, "你好", tokenize_chinese_chars=False) == ["你好"]
    assert tokens_of(path, "x" * 150) == ["x" * 150]
    assert tokens_of(path, "x" * 150, max_word_chars=100) == ["[UNK]"]
    assert settings_of(**settings_of(strip_accents=False, added_tokens=[{"content": "[E1]"}]).to_dict()) == settings_of(
        strip_accents=False, added_tokens=[{"content": "[E1]"}]
    )


def test_settings_are_part_of_the_digest_where_they_are_not_googles(tmp_path):
    path = write_vocabulary(tmp_path / "vocab.txt", [*WORDS, "[E1]"])
    plain = Tokenizer(path, True).digest
    assert {Tokenizer(path, settings_of(**values)).digest for values in ({}, {"do_lower_case": False}, {"strip_accents": True})} == {plain}
    others = ({"strip_accents": False}, {"tokenize_chinese_chars": False}, {"max_word_chars": 100}, {"added_tokens": [{"content": "[E1]"}]})
    assert len({plain} | {Tokenizer(path, settings_of(**values)).digest for values in others}) == 5


def test_added_tokens(tmp_path):
    path = write_vocabulary(tmp_path / "vocab.txt", [*SPECIALS, "good", "[", "]", "e", "##1", "[E1]", "COVID", "<br>", "sep"])

    def cut(text, **token):
        return Tokenizer(path, settings_of(added_tokens=[token])).tokenize(text)

    assert cut("good[E1]good", content="[E1]") == ["good", "[E1]", "good"]
    assert cut("[e1]", content="[E1]") == ["[", "e", "##1", "]"]
    assert cut("[e1] Covid", content="COVID", normalized=True) == ["[", "e", "##1", "]", "COVID"]
    assert cut("COVID goodCOVID", content="COVID", single_word=True) == ["COVID", "[UNK]"]
    assert cut("[SEP]<br>", content="<br>") == ["[", "sep", "]", "<br>"]  # special tokens in a text stay text
    with pytest.raises(UserError, match=r"has no \[E2\], which the model has as added tokens"):
        Tokenizer(path, settings_of(added_tokens=[{"content": "[E2]"}]))


@pytest.mark.parametrize(
    "values",
    [
        {"do_lower_case": "yes"},
        {"strip_accents": 1},
        {"tokenize_chinese_chars": None},
        {"max_word_chars": 0},
        {"max_word_chars": True},
        {"added_tokens": "x"},
        {"added_tokens": [{"content": "a b"}]},
        {"added_tokens": [{"content": ""}]},
        {"added_tokens": [{"content": "a", "normalized": 1}]},
        {"added_tokens": ["a"]},
    ],
)
def test_settings_that_a_tokenizer_cannot_have(values):
    with pytest.raises(UserError, match=r"FILE: .* which a tokenizer cannot have"):
        settings_of(**values)


@pytest.mark.parametrize(("pieces", "kind"), [("▁good ▁film ing", "SentencePiece"), ("Ġgood Ġfilm", "byte-level BPE"), ("a</w>", "BPE")])
def test_vocabularies_of_another_kind(tmp_path, pieces, kind):
    path = write_vocabulary(tmp_path / "vocab.txt", [*SPECIALS, *pieces.split()])
    with pytest.raises(UserError, match=f"vocab.txt: its pieces are those of a {kind} vocabulary"):
        Tokenizer(path)


def test_a_chosen_casing_is_not_refused(tmp_path):
    """The vocabulary of KR-BERT looks cased and is not; a script without capitals looks uncased."""
    cased = write_vocabulary(tmp_path / "cased.txt", [*WORDS, "Good"])
    chosen = Tokenizer(cased, settings_of(do_lower_case=True))
    assert "1 of its words have upper-case letters (Good, …), which no text has" in chosen.check_casing()
    assert Tokenizer(cased, settings_of(do_lower_case=True), trusted=True).check_casing() is None
    hindi = write_vocabulary(tmp_path / "hindi.txt", [*SPECIALS, "बुरी", "फिल्म", "अच्छी", "है", "क"])
    assert Tokenizer(hindi, False).check_casing() is None
    with pytest.raises(UserError, match=r"4 of its words have accents or vowel signs .*--do_lower_case false"):
        Tokenizer(hindi, settings_of()).check_casing()
    uncased = write_vocabulary(tmp_path / "uncased.txt", WORDS)
    assert "--do_lower_case true" in Tokenizer(uncased, settings_of(do_lower_case=False)).check_casing()
    assert Tokenizer(uncased, settings_of(do_lower_case=False), trusted=True).check_casing() is None


def test_unknown_tokens_are_counted(tmp_path):
    tokenizer = Tokenizer(write_vocabulary(tmp_path / "vocab.txt", WORDS))
    encoded = tokenizer.encode(["good zzz zzz", "good"], None, 7)
    assert tokenizer.count_unknown(encoded.input_ids, encoded.input_mask) == (2, 4)


def test_a_vocabulary_of_millions_of_lines(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\n" * 2_000_001)
    with pytest.raises(UserError, match=r"vocab.txt: has 2,000,001 lines, at most 2,000,000 are read; check --vocab_file"):
        Tokenizer(str(tmp_path / "vocab.txt"))
