"""Writes wordpiece.json: token ids from Hugging Face's pure-Python BERT tokenizer, compared while it is written with
Google's published ``tokenization.py`` (from the package bert-tensorflow) and with Hugging Face's Rust tokenizer.

The tests run where only numpy is installed, so the references are computed once, here.

To run it (Python 3.11; no GPU, no downloads besides the packages, a few seconds)::

    python -m venv /tmp/golden && . /tmp/golden/bin/activate
    pip install transformers==5.23.0 six absl-py && pip install --no-deps bert-tensorflow==1.0.4
    python tests/golden/make_wordpiece.py

A second run with the same versions gives the same bytes.
"""

import json
import sys
import tempfile
import types
from pathlib import Path

import transformers
from golden_versions import versions
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy
from wordpiece_cases import CASES, DIFFERING_CASES, LOWER_CASES, SPECIAL_CASES, VOCABULARY

FOLDER = Path(__file__).resolve().parent


def import_google_tokenization():
    """Returns Google's published module `tokenization`.

    It imports TensorFlow, but only to open files, which is not done here: empty modules stand in for it.
    """
    for name in ("tensorflow", "tensorflow.compat", "tensorflow.compat.v1"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from absl import flags
    from bert import tokenization

    flags.FLAGS.mark_as_parsed()
    return tokenization


class GoogleEncoder:
    """Google's `FullTokenizer` on a vocabulary in memory, followed by run_classifier.py's way to join and truncate."""

    def __init__(self, tokenization, do_lower_case):
        self.ids = {piece: i for i, piece in enumerate(VOCABULARY)}
        self.basic = tokenization.BasicTokenizer(do_lower_case=do_lower_case)
        self.wordpiece = tokenization.WordpieceTokenizer(vocab=self.ids)

    def tokenize(self, text):
        """Returns the ids of `text`."""
        pieces = [piece for word in self.basic.tokenize(text) for piece in self.wordpiece.tokenize(word)]
        return [self.ids[piece] for piece in pieces]

    def encode(self, text_a, text_b, max_length):
        """Returns the pair (input_ids, token_type_ids), unpadded."""
        first = self.tokenize(text_a)
        second = self.tokenize(text_b) if text_b else []
        if max_length is not None:
            room = max_length - 3 if second else max_length - 2
            while len(first) + len(second) > room:
                (first if len(first) > len(second) else second).pop()
        cls, sep = self.ids["[CLS]"], self.ids["[SEP]"]
        left = [cls, *first, sep]
        right = [*second, sep] if second else []
        return left + right, [0] * len(left) + [1] * len(right)


class HuggingFaceEncoder:
    """A Hugging Face tokenizer with `GoogleEncoder`'s `encode`."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def encode(self, text_a, text_b, max_length):
        """Returns the pair (input_ids, token_type_ids), unpadded; pairs are cut longest first."""
        truncation = "do_not_truncate" if max_length is None else "longest_first"
        encoding = self.tokenizer(text_a, text_b, max_length=max_length, truncation=truncation, return_token_type_ids=True)
        return encoding["input_ids"], encoding["token_type_ids"]


def make_encoders(do_lower_case):
    """Returns the three encoders by name: "slow" (the reference), "fast" (Rust) and "google"."""
    with tempfile.TemporaryDirectory() as folder:
        vocab_file = Path(folder) / "vocab.txt"
        vocab_file.write_text("".join(piece + "\n" for piece in VOCABULARY), encoding="utf-8")
        slow = BertTokenizerLegacy(str(vocab_file), do_lower_case=do_lower_case)
    ids = {piece: i for i, piece in enumerate(VOCABULARY)}
    fast = transformers.BertTokenizer(vocab=ids, do_lower_case=do_lower_case)
    return {
        "slow": HuggingFaceEncoder(slow),
        "fast": HuggingFaceEncoder(fast),
        "google": GoogleEncoder(import_google_tokenization(), do_lower_case),
    }


def encode_case(encoders, name, text_a, text_b, max_length, do_lower_case):
    """Encodes one case with all encoders.

    Returns:
        (the case as stored, with the slow tokenizer's ids; google's (input_ids, token_type_ids); the fast one's).
    """
    encoded = {key: encoder.encode(text_a, text_b, max_length) for key, encoder in encoders[do_lower_case].items()}
    input_ids, token_type_ids = encoded["slow"]
    case = {
        "name": name,
        "text_a": text_a,
        "text_b": text_b,
        "max_length": max_length,
        "do_lower_case": do_lower_case,
        "input_ids": input_ids,
        "token_type_ids": token_type_ids,
    }
    return case, encoded["google"], encoded["fast"]


def require(condition, case, message):
    """Raises AssertionError about `case` unless `condition` holds."""
    if not condition:
        raise AssertionError(f"case {case['name']!r}, do_lower_case {case['do_lower_case']}: {message}")


def wordpiece_golden():
    """Returns the content of wordpiece.json; fails where the slow tokenizer and Google's code disagree unannounced."""
    if len(set(VOCABULARY)) != len(VOCABULARY):
        raise AssertionError("the vocabulary holds a piece twice")
    encoders = {do_lower_case: make_encoders(do_lower_case) for do_lower_case in (True, False)}
    everywhere = [(*case, do_lower_case) for case in CASES for do_lower_case in (True, False)]
    lists = {"cases": [], "special_in_text": [], "differs_from_google": []}
    fast_differs = []

    for arguments in everywhere + [(*case, True) for case in LOWER_CASES]:
        case, google, fast = encode_case(encoders, *arguments)
        plain = (case["input_ids"], case["token_type_ids"])
        require(plain == google, case, f"Hugging Face gives {plain}, Google {google}")
        lists["cases"].append(case)
        if plain != fast:
            fast_differs.append({"name": case["name"], "do_lower_case": case["do_lower_case"], "input_ids": fast[0]})

    for arguments in [(*case, do_lower_case) for case in SPECIAL_CASES for do_lower_case in (True, False)]:
        case, google, _ = encode_case(encoders, *arguments)
        lists["special_in_text"].append({**case, "google_input_ids": google[0], "google_token_type_ids": google[1]})

    for *arguments, reason in DIFFERING_CASES:
        case, google, _ = encode_case(encoders, *arguments)
        require((case["input_ids"], case["token_type_ids"]) != google, case, "no difference from Google's code")
        lists["differs_from_google"].append({**case, "google_input_ids": google[0], "google_token_type_ids": google[1], "reason": reason})

    notes = {
        "reference": "input_ids and token_type_ids: transformers' pure-Python BertTokenizerLegacy; google_*: "
        "tokenization.py of bert-tensorflow, with the truncation and joining of its run_classifier.py",
        "cases": "Hugging Face and Google agree on every one; pairs are truncated longest first, a tie cuts text_b",
        "special_in_text": "Hugging Face keeps a special token written in the text as that token (exact spelling "
        "only, even inside a word); Google's code splits it like any other text",
        "differs_from_google": "cases outside what the two agree on, with the reason",
        "fast_differs": "cases on which transformers' Rust tokenizer gives other input_ids than the reference",
    }
    return {
        "versions": versions("transformers", "tokenizers", "bert-tensorflow"),
        "notes": notes,
        "vocab": VOCABULARY,
        **lists,
        "fast_differs": fast_differs,
    }


def write_wordpiece():
    """Writes wordpiece.json in ASCII (control characters stay visible), one case a line (changes stay readable)."""
    transformers.logging.set_verbosity_error()
    fields = []
    for key, value in wordpiece_golden().items():
        if key == "vocab" or not isinstance(value, list):
            text = json.dumps(value)
        else:
            text = "[\n" + ",\n".join("  " + json.dumps(case) for case in value) + "\n]"
        fields.append(f"{json.dumps(key)}: {text}")
    content = "{\n" + ",\n".join(fields) + "\n}\n"
    (FOLDER / "wordpiece.json").write_text(content, encoding="ascii")


def main():
    """Writes the file and says how big it is."""
    write_wordpiece()
    print(f"wordpiece.json: {(FOLDER / 'wordpiece.json').stat().st_size} bytes")


if __name__ == "__main__":
    main()
