"""The memory of a corpus does not grow with it: writing its records, reading its batches. Long ones: benchmarks/bench_corpus.py."""

import random
import tracemalloc

import pytest
import tiny

from ofrecord_util.corpus import Corpus, write_corpus
from ofrecord_util.corpus_batches import iterate_corpus
from ofrecord_util.corpus_text import CorpusText
from ofrecord_util.masking import Masking
from ofrecord_util.tokenization import Tokenizer

LENGTH, WINDOW, SHORT = 31, 700, 2100  # SHORT: more lines than are tokenized at once, and several windows


def peak_of(work):
    """The most bytes that Python and NumPy held at once during `work()`, beside those from before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    """Peak bytes of writing and reading a corpus of SHORT lines, and one of four times as many."""
    folder, draw = tmp_path_factory.mktemp("memory"), random.Random(3)
    tokenizer, found = Tokenizer(tiny.write_vocabulary(str(folder / "vocab.txt"))), []
    lines = [" ".join(draw.choices((*tiny.COMMON, *tiny.GOOD, *tiny.BAD), k=draw.randint(5, 33))) for _ in range(SHORT)]
    for times in (1, 4):
        path, data = folder / f"{times}.txt", str(folder / f"data{times}")
        path.write_text("".join(line + "\n" for _ in range(times) for line in lines), encoding="utf-8")

        def write(path=path, data=data):
            write_corpus(data, 3, CorpusText([str(path)], None, {}), tokenizer, LENGTH, "line")

        def read(data=data, times=times):
            corpus = Corpus(data)
            assert len(corpus) == times * SHORT
            batches = iterate_corpus(corpus, Masking(tiny.TOKENS), 70, (LENGTH,), 1, 5, WINDOW)
            assert sum(1 for _ in batches) == times * SHORT // 70

        write()  # what is made once, as caches of the tokenizer, is no part of the peaks
        found.append((peak_of(write), peak_of(read)))
    return found


@pytest.mark.parametrize(("place", "what"), list(enumerate(["writing", "reading"])))
def test_the_peak_does_not_grow_with_the_corpus(peaks, place, what):
    short, long = (peak[place] for peak in peaks)
    assert long < 1.25 * short, what
