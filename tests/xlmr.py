"""A tiny XLM-R for the tests: weights by the formula of tests/golden/make_xlmr.py, its toy tokenizer, and reviews in four languages."""

import json
import os
import random
import re

import numpy as np
import tiny
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram

with open(os.path.join(tiny.ROOT, "tests", "golden", "xlmr.json"), encoding="utf-8") as _file:
    GOLDEN = json.load(_file)

LANGUAGES, LABELS = ("de", "en", "fr", "zh"), ("bad", "good")
REVIEWS = {
    ("en", "bad"): ("The room was bad.", "A bad battery, and the screen is bad too.", "The staff were bad.", "Bad food, bad day."),
    ("en", "good"): ("The room was good.", "A good battery, and the screen is good too.", "The staff were good.", "Good food, good day."),
    ("de", "bad"): ("Das Zimmer war schlecht.", "Der Akku ist schlecht.", "Das Personal war schlecht.", "Ein schlecht gelaunter Tag."),
    ("de", "good"): ("Das Zimmer war gut.", "Der Akku ist gut.", "Das Personal war gut.", "Ein gut gelaunter Tag."),
    ("fr", "bad"): ("La chambre était mauvaise.", "Une mauvaise batterie.", "L'écran mauvais.", "Une mauvaise journée."),
    ("fr", "good"): ("La chambre était bonne.", "Une bonne batterie.", "L'écran bon.", "Une bonne journée."),
    ("zh", "bad"): ("房间很差。", "电池很差，屏幕也差。", "服务差。", "很差的一天。"),
    ("zh", "good"): ("房间很好。", "电池很好，屏幕也好。", "服务好。", "很好的一天。"),
}


def formula_tensors(kind, **shapes):
    """The weights of the golden "classifier" or "encoder", by name. `shapes` are those of variables that have others, by name."""
    tensors = {}
    for number, (name, shape) in enumerate({**GOLDEN[kind]["shapes"], **shapes}.items()):
        values = 0.3 * np.sin(0.37 * np.arange(np.prod(shape)) + 1.3 * number) + ("LayerNorm.weight" in name)
        tensors[name] = values.reshape(shape).astype(np.float32)
    return tensors


def write_folder(folder, tensors, kind="classifier", tokenizer=None, about=None, **sizes):
    """Writes a Hugging Face folder with config.json, model.safetensors and tokenizer.json. Without a tokenizer it has as many pieces of the
    toy tokenizer as the model has rows."""
    os.makedirs(str(folder))
    name = "XLMRobertaForSequenceClassification" if kind == "classifier" else "XLMRobertaModel"
    config = dict(GOLDEN["sizes"], model_type="xlm-roberta", architectures=[name], pad_token_id=1, bos_token_id=0, eos_token_id=2, **sizes)
    config.update(about or {})
    if tokenizer is None:
        tokenizer = json.loads(json.dumps(GOLDEN["tokenizer"]))
        tokenizer["model"]["vocab"] = tokenizer["model"]["vocab"][: config["vocab_size"]]
    for file, values in (("config.json", config), ("tokenizer.json", tokenizer)):
        with open(os.path.join(str(folder), file), "w", encoding="utf-8") as out:
            json.dump(values, out)
    if tensors is not None:
        save_file(tensors, os.path.join(str(folder), "model.safetensors"))
    return str(folder)


def review_tokenizer():
    """A tokenizer whose pieces are the words of REVIEWS, as dict of its tokenizer.json."""
    library = Tokenizer.from_str(json.dumps(GOLDEN["tokenizer"]))
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words, characters = {}, {}  # UnigramTrainer gives another vocabulary in each process
    for text in (text for texts in REVIEWS.values() for text in texts):
        for marked, _ in library.pre_tokenizer.pre_tokenize_str(library.normalizer.normalize_str(text)):
            words.update(dict.fromkeys(re.findall(r"\w+|\W\w*", marked), -3.0))
            characters.update(dict.fromkeys(marked, -9.0))
    pieces = {**dict.fromkeys(special, 0.0), **characters, **words}
    library.model = Unigram(list(pieces.items()), unk_id=special.index("<unk>"))
    return json.loads(library.to_str())


def random_encoder(tokenizer=GOLDEN["tokenizer"], seed=3, **sizes):
    """(tensors, sizes) of an XLMRobertaModel with random weights, for all pieces of a tokenizer."""
    draw = np.random.RandomState(seed)
    vocab, positions, hidden = len(tokenizer["model"]["vocab"]), 42, GOLDEN["sizes"]["hidden_size"]
    own_shapes = {"embeddings.word_embeddings.weight": (vocab, hidden), "embeddings.position_embeddings.weight": (positions, hidden)}
    tensors = {}
    for name, shape in GOLDEN["encoder"]["shapes"].items():
        shape = own_shapes.get(name, shape)
        values = draw.standard_normal(shape) * (0 if name.endswith("bias") else 0.15)
        tensors[name] = (values + ("LayerNorm.weight" in name) * 1.0).astype(np.float32)
    return tensors, dict(vocab_size=vocab, max_position_embeddings=positions, **sizes)


def write_reviews(folder, repeats=3):
    """Writes train.csv, dev.csv and test.csv: the domains are languages. Each review of train occurs `repeats` times, with other ends."""
    ends = ("", " !", " !!", " …")[:repeats]
    for split, rows in (("train", slice(0, 3)), ("dev", slice(3, 4)), ("test", slice(2, 4))):
        chosen = [
            (text + end, language, label)
            for (language, label), texts in REVIEWS.items()
            for text in texts[rows]
            for end in (ends if split == "train" else ("",))
        ]
        random.Random(split).shuffle(chosen)
        tiny.write_rows(folder, split, chosen)
