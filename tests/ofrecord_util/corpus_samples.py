"""Texts of a corpus, and their records."""

import random

import tiny

from ofrecord_util.corpus import Corpus, write_corpus
from ofrecord_util.corpus_text import CorpusText

LENGTH = 11  # tokens of a record
WORDS = [*tiny.COMMON, *tiny.GOOD, *tiny.BAD, "acts", "boredom"]


def lines(count, seed=1):
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 12))) for _ in range(count)]


def write_lines(path, texts):
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return str(path)


def write(tmp_path, tokenizer, texts, part_num=1, packing="line", name="data"):
    text = CorpusText([write_lines(tmp_path / "c.txt", texts)], None, {})
    write_corpus(str(tmp_path / name), part_num, text, tokenizer, LENGTH, packing)
    return Corpus(str(tmp_path / name))
