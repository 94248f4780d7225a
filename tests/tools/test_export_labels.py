"""The export to Hugging Face gives each text the tokens and the label of its snapshot, whatever its length.

The files' own tokenizer is asked with the tokenizers library. Where BENCH_TORCH_PYTHON names a Python with torch and transformers, they are
asked too.
"""

import dataclasses
import json
import random

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer as LibraryTokenizer

from benchmarks.hugging_face_parity import ask_transformers
from benchmarks.side_by_side import torch_python
from modeling.bert.variables import classifier_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, write_variables
from modeling.checkpoints.snapshot_tokenizer import TOKENIZER_FILE
from modeling.predictor import Predictor
from tools.convert_checkpoint import HUGGING_FACE, convert

LENGTH = 37
CONFIG = dataclasses.replace(tiny.CONFIG, max_position_embeddings=53)
WORDS = [word for word in tiny.TOKENS if word[0] not in "[#"] + ["goodness", "unknown", "Great", "FILMS", "caf\u00e9", "[SEP]", "[MASK]"]

LONG_WORDS = (5, 99, 100, 101, 150, 199, 200, 201, 250)  # characters; the limit of BertTokenizer is 100, that of Google's BERT 200


def text_of(number):
    """A text of about this number of words; some begin with a long one."""
    draw = random.Random(number)
    words = [draw.choice(WORDS) for _ in range(number)]
    if number % 7 == 3:
        words[0] = "plot" + "s" * (LONG_WORDS[number // 7 % len(LONG_WORDS)] - 4)
    return " ".join(words)


TEXTS = [text_of(number) for number in range(1, 601)]


def export(folder, max_word_chars=200, pair=False):
    """(snapshot, its export) with random weights."""
    shapes = {**encoder_shapes(CONFIG), **classifier_shapes(CONFIG, 3)}
    values = {name: initial_value(name, shape, 3, 0.4) for name, shape in shapes.items()}
    task = {"name": "t", "domains": ["d"], "labels": ["no", "perhaps", "yes"], "pair": pair, "seq_length": LENGTH, "do_lower_case": True}
    files = {CONFIG_FILE: CONFIG.to_json(), VOCAB_FILE: "".join(token + "\n" for token in tiny.TOKENS), TASK_FILE: json.dumps(task)}
    files[TOKENIZER_FILE] = json.dumps({"do_lower_case": True, "max_word_chars": max_word_chars})
    write_variables(str(folder / "snapshot"), values, files)
    convert(str(folder / "snapshot"), str(folder / "export"), to=HUGGING_FACE, log=lambda line: None)
    return str(folder / "snapshot"), str(folder / "export")


def ids_of(predictor, texts, pairs=None):
    encoded = predictor._tokenizer.encode(texts, pairs, LENGTH)
    return [row[: mask.sum()].tolist() for row, mask in zip(encoded.input_ids, encoded.input_mask)]


@pytest.mark.parametrize("max_word_chars", [100, 200])
def test_tokens_of_the_files(tmp_path, max_word_chars):
    snapshot, folder = export(tmp_path, max_word_chars)
    library = LibraryTokenizer.from_file(f"{folder}/tokenizer.json")
    library.encode_special_tokens = True  # split_special_tokens of tokenizer_config.json
    ours = ids_of(Predictor(snapshot, "cpu"), TEXTS)
    assert [encoding.ids for encoding in library.encode_batch(TEXTS)] == ours
    assert max(map(len, ours)) == LENGTH
    plot, words = tiny.TOKENS.index("plot"), [text.split()[0] for text in TEXTS]
    known = {len(word): row[1] == plot for row, word in zip(ours, words) if word.startswith("plots")}
    assert known == {length: length <= max_word_chars for length in LONG_WORDS}
    with open(f"{folder}/tokenizer_config.json", encoding="utf-8") as file:
        config = json.load(file)
    assert (config["model_max_length"], config["split_special_tokens"]) == (LENGTH, True)
    assert config["tokenizer_class"] == ("BertTokenizer" if max_word_chars == 100 else "PreTrainedTokenizerFast")


def test_pairs_that_are_too_long(tmp_path):
    """The longer text loses tokens first. With an odd room for both texts the last one may be kept of the other text."""
    snapshot, folder = export(tmp_path, pair=True)
    library = LibraryTokenizer.from_file(f"{folder}/tokenizer.json")
    lengths = [(a, b) for a in (1, 16, 17, 18, 40) for b in (1, 16, 17, 18, 40)]
    texts, pairs = ([" ".join(["good"] * pair[place]) for pair in lengths] for place in (0, 1))
    theirs = [encoding.ids for encoding in library.encode_batch(list(zip(texts, pairs)))]
    assert theirs == ids_of(Predictor(snapshot, "cpu"), texts, pairs)  # 34 = 37 - 3 tokens: an even room


@pytest.mark.slow
@pytest.mark.skipif(torch_python() is None, reason="BENCH_TORCH_PYTHON names no Python with torch and transformers")
@pytest.mark.parametrize("max_word_chars", [100, 200])
def test_labels_of_transformers(tmp_path, max_word_chars):
    snapshot, folder = export(tmp_path, max_word_chars)
    predictor = Predictor(snapshot, "cpu")
    ours = np.array([list(prediction.probabilities.values()) for prediction in predictor(TEXTS)])
    theirs = ask_transformers(torch_python(), {"folder": folder, "texts": TEXTS, "pairs": None})
    assert theirs["ids"] == ids_of(predictor, TEXTS)
    np.testing.assert_allclose(np.log(ours), theirs["log_probabilities"], rtol=0, atol=1e-5)
    assert ours.argmax(axis=1).tolist() == np.argmax(theirs["log_probabilities"], axis=1).tolist()
    assert len(set(ours.argmax(axis=1).tolist())) == 3
