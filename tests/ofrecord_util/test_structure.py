"""ofrecord_util/sentences.py and structure.py: documents and sentences of a corpus, sentence pairs, shuffled trigrams."""

import itertools
import math

import numpy as np
import pytest
import tiny

from ofrecord_util.corpus import CORPUS, DOCUMENTS, Corpus, write_corpus
from ofrecord_util.corpus_batches import Windows
from ofrecord_util.corpus_kinds import BLANK_LINE, LINE_END, SENTENCES
from ofrecord_util.corpus_text import CorpusText
from ofrecord_util.errors import UserError
from ofrecord_util.masking import Masking
from ofrecord_util.seeds import sentence_stream, trigram_stream
from ofrecord_util.sentences import split_sentences
from ofrecord_util.structure import NEXT, OTHER, PREVIOUS, SentencePairs, StructuralSteps, most_shuffled, shuffled_trigrams
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextFolder
from ofrecord_util.tokenization import Tokenizer

LENGTH = 17
TASK = Task("t", ("mr",), ("0", "1"))
CLS, SEP, STOP = (tiny.TOKENS.index(token) for token in ("[CLS]", "[SEP]", "."))


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt")))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It was good. It was bad!  Was it? yes", ["It was good.", "It was bad!", "Was it?", "yes"]),
        ('He said "no." And ran (fast.) Then 3.5 of it...', ['He said "no."', "And ran (fast.)", "Then 3.5 of it..."]),
        ("it is good . . . it is bad ?!", ["it is good . . .", "it is bad ?!"]),
        ("很好。不好！是吗？”好", ["很好。", "不好！", "是吗？”", "好"]),
        ("no end", ["no end"]),
        (" . ", ["."]),
        ("", []),
    ],
)
def test_sentences_of_a_text(text, sentences):
    assert split_sentences(text) == sentences


def write(tmp_path, tokenizer, text, end=LINE_END, rows=None, part_num=1, name="data"):
    (tmp_path / "c.txt").write_text(text, encoding="utf-8")
    corpus = CorpusText([str(tmp_path / "c.txt")], rows, {})
    write_corpus(str(tmp_path / name), part_num, corpus, tokenizer, LENGTH, SENTENCES[end])
    return Corpus(str(tmp_path / name))


def sentences_of(rows, place):
    """The sentences of a record as words."""
    end = rows.lengths[place] - 1
    tokens, parity = rows.input_ids[place, 1:end].tolist(), rows.segment_ids[place, 1:end].tolist()
    return [" ".join(tiny.TOKENS[token] for token, _ in group) for _, group in itertools.groupby(zip(tokens, parity), lambda pair: pair[1])]


LINES = "the plot was good. a bad script! the ending of it\n\nno\nvery " + "good " * 20 + "\n"
BLOCKS = "the plot was good\na bad script. it was\n\n\n  \nno\nyes\n"


def test_documents_that_are_lines(tmp_path, tokenizer):
    """Long sentences are cut into pieces of half of a record. A record has as many sentences as fit, of one document."""
    corpus = write(tmp_path, tokenizer, LINES)
    rows = corpus.read(0, len(corpus))
    piece = (LENGTH - 3) // 2
    assert [sentences_of(rows, row) for row in range(len(corpus))] == [
        ["the plot was good .", "a bad script !", "the ending of it"],
        ["no"],
        ["very" + " good" * (piece - 1), "good" + " good" * (piece - 1)],
        ["good" + " good" * (piece - 1)],
    ]
    assert corpus.documents.tolist() == [0, 1, 2, 4]
    assert corpus.manifest["documents"] == 3
    assert corpus.manifest["texts"] == 3
    assert (rows.lengths <= LENGTH - 1).all()


def test_documents_between_blank_lines(tmp_path, tokenizer):
    tiny.write_rows(str(tmp_path / "task"), "train", [("It was good. Very good.", "mr", "1"), ("it was bad", "mr", "0")])
    train = TextFolder(str(tmp_path / "task")).read("train", TASK)
    corpus = write(tmp_path, tokenizer, BLOCKS, BLANK_LINE, train)
    rows = corpus.read(0, len(corpus))
    assert [sentences_of(rows, row) for row in range(len(corpus))] == [
        ["it was good .", "very good ."],
        ["it was bad"],
        ["the plot was good", "a bad script . it was"],
        ["no", "yes"],
    ]
    assert corpus.documents.tolist() == [0, 1, 2, 3, 4]
    assert corpus.manifest["texts"] == 6


@pytest.mark.parametrize(
    ("text", "end", "said"),
    [
        ("the plot\nthe end\n", LINE_END, "no document of the corpus has two: .* --document_end blank_line"),
        ("the plot. the end\n", LINE_END, "the corpus is one document: separate documents by blank lines"),
        ("the plot\nthe end\n", BLANK_LINE, "the corpus is one document: .* --document_end line"),
    ],
)
def test_text_without_pairs(tmp_path, tokenizer, text, end, said):
    with pytest.raises(UserError, match=r"c\.txt: --structural .*" + said):
        write(tmp_path, tokenizer, text, end)
    assert not (tmp_path / "data" / "ofrecord" / CORPUS / "manifest.json").exists()


def test_stale_and_damaged_documents(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, LINES)
    assert corpus.differences({"packing": SENTENCES[LINE_END]}) == []
    held = "they hold the sentences of a text (recipes/pretrain_mlm.py --structural --document_end line), and this run needs"
    for other, needed in (("line", "one text per record"), (SENTENCES[BLANK_LINE], "the sentences of a text")):
        (difference,) = corpus.differences({"packing": other})
        assert difference.startswith(f"{held} {needed} (recipes/pretrain_mlm.py --")
    digest = corpus.digest
    path = tmp_path / "data" / "ofrecord" / CORPUS / DOCUMENTS
    np.save(str(path), np.array([0, 1, 3, 4]))
    with pytest.raises(UserError, match=r"corpus\.documents\.npy: is not the index of the records"):
        Corpus(str(tmp_path / "data"))
    write_corpus(str(tmp_path / "data"), 1, CorpusText([str(tmp_path / "c.txt")], None, {}), tokenizer, LENGTH, "line")
    assert not path.exists()
    assert Corpus(str(tmp_path / "data")).documents is None
    assert write(tmp_path, tokenizer, LINES.replace("\n\nno", " no"), part_num=2).digest != digest


# ------------------------------------------------------------------------------------------------------ sentence structure


def many_documents(count=40, seed=1):
    draw = np.random.RandomState(seed)
    words = list(tiny.COMMON + tiny.GOOD + tiny.BAD)
    return "".join(
        " ".join(" ".join(draw.choice(words, draw.randint(2, 6))) + "." for _ in range(draw.randint(1, 7))) + "\n" for _ in range(count)
    )


def test_pairs(tmp_path, tokenizer):
    """Both parts together are the record in the classes `next` and `previous`; in `other` the second one is a part of another document."""
    corpus = write(tmp_path, tokenizer, many_documents())
    count = len(corpus)
    rows, numbers, pairs = corpus.read(0, count), np.arange(count), SentencePairs(corpus)
    document = np.searchsorted(corpus.documents, numbers, side="right") - 1
    texts = [row[1 : length - 1].tolist() for row, length in zip(rows.input_ids, rows.lengths)]
    classes = []
    for epoch in range(30):
        found, kinds, paired = pairs.pairs(rows, numbers, [sentence_stream(3, epoch, row) for row in numbers])
        again = pairs.pairs(rows, numbers, [sentence_stream(3, epoch, row) for row in numbers])
        assert all(np.array_equal(one, other) for one, other in zip((*found, kinds, paired), (*again[0], *again[1:])))
        for row in range(count):
            ids, length = found.input_ids[row].tolist(), found.lengths[row]
            assert ids[0] == CLS
            assert ids[length - 1] == SEP
            assert not any(ids[length:])
            if not paired[row]:
                assert len(set(rows.segment_ids[row])) == 1
                assert ids[1 : length - 1] == texts[row]
                assert not found.segment_ids[row].any()
                continue
            middle = ids.index(SEP)
            first, second = ids[1:middle], ids[middle + 1 : length - 1]
            assert found.segment_ids[row].tolist() == [0] * (middle + 1) + [1] * (length - middle - 1) + [0] * (LENGTH - length)
            assert length <= rows.lengths[row] + 1
            whole = {NEXT: first + second, PREVIOUS: second + first}
            if kinds[row] == OTHER:
                assert texts[row][: len(first)] == first
                others = [text for text, number in zip(texts, document) if number != document[row]]
                assert any(second == text[start : start + len(second)] for text in others for start in range(len(text)))
            else:
                assert whole[kinds[row]] == texts[row]
                assert texts[row][len(first) - 1 if kinds[row] == NEXT else len(second) - 1] == STOP  # cut between sentences
        classes += kinds[paired > 0].tolist()
    share = np.bincount(classes, minlength=3) / len(classes)
    assert np.abs(share - 1 / 3).max() < 3 * math.sqrt(2 / 9 / len(classes))


def test_the_other_document_is_any_row_of_another_one(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, "a. b.\n".replace("a", "good").replace("b", "bad") * 2 + "the. of.\n")
    pairs, found = SentencePairs(corpus), set()
    for epoch in range(60):
        rows, kinds, _ = pairs.pairs(corpus.read(1, 2), np.array([1]), [sentence_stream(1, epoch, 1)])
        if kinds[0] == OTHER:
            ids = rows.input_ids[0, : rows.lengths[0]].tolist()
            found.add(tiny.TOKENS[ids[ids.index(SEP) + 1]])
    assert found == {"bad", "of"}


# ---------------------------------------------------------------------------------------------------------- word structure


def test_shuffled_trigrams():
    """Multisets are kept, no masked or special token moves, trigrams do not overlap, and each order has a sixth of the cases."""
    draw, orders = np.random.RandomState(2), []
    for row in range(300):
        free = np.ones(90, bool)
        free[[0, 40, 89]] = False
        masked = (draw.rand(90) < 0.15) & free
        places, sources = shuffled_trigrams(free, masked, trigram_stream(1, 0, row))
        assert len(places) == 3 * round(0.05 * 84)  # 38 trigrams before the separator, 46 after it
        assert len(set(places)) == len(places)
        assert (free & ~masked)[places].all()
        for trigram, source in zip(places.reshape(-1, 3), sources.reshape(-1, 3)):
            assert trigram.tolist() == [trigram[0], trigram[0] + 1, trigram[0] + 2]
            assert sorted(source) == trigram.tolist()
            orders.append(tuple((source - trigram[0]).tolist()))
    share = np.array([orders.count(order) for order in itertools.permutations(range(3))]) / len(orders)
    assert np.abs(share - 1 / 6).max() < 3 * math.sqrt(5 / 36 / len(orders))


@pytest.mark.parametrize(("length", "count"), [(3, 0), (4, 0), (5, 1), (13, 1), (33, 1), (34, 2), (54, 2)])
def test_how_many_trigrams(length, count):
    free = np.ones(length, bool)
    free[[0, -1]] = False
    places, _ = shuffled_trigrams(free, np.zeros(length, bool), trigram_stream(1, 0, 0))
    assert len(places) == 3 * count <= most_shuffled(length)
    assert not len(shuffled_trigrams(free, free, trigram_stream(1, 0, 0))[0])


# ----------------------------------------------------------------------------------------------------------------- batches


def rows_before(corpus, number):
    """The pairs of a step of 7 rows, window 11, seed 4, before tokens are masked or shuffled."""
    drawn = Windows(corpus, 4, 11).samples(7 * number, 7)
    return SentencePairs(corpus).pairs(drawn.rows, drawn.numbers, drawn.streams(sentence_stream, 4))[0]


def test_a_batch(tmp_path, tokenizer):
    """Also: at each place to predict, the label is the token that was there; all other tokens are as they were."""
    corpus, masking = write(tmp_path, tokenizer, many_documents(), part_num=3), Masking(tiny.TOKENS)
    steps = StructuralSteps(corpus, masking, 7, 2, 4, 11)
    last = steps.batch(steps.steps - 1, (LENGTH,))
    assert (last["loss_mask"] == 0).any()
    paired = moved = 0
    for step in range(steps.steps):
        batch = steps.batch(step, (9, LENGTH))
        length = batch["word_rows"].shape[1]
        places = masking.places(length) + most_shuffled(length)
        assert {name: (value.dtype, value.shape) for name, value in batch.items()} == {
            **dict.fromkeys(("word_rows", "input_mask", "segment_ids"), (np.int32, (7, length))),
            "masked_places": (np.float32, (7, places, length)),
            "masked_ids": (np.int32, (7, places)),
            **dict.fromkeys(("masked_weights", "shuffled_weights"), (np.float32, (7, places))),
            **dict.fromkeys(("sentence", "idxs"), (np.int32, (7,))),
            **dict.fromkeys(("sentence_weights", "loss_mask"), (np.float32, (7,))),
        }
        for name in ("masked_weights", "shuffled_weights", "sentence_weights"):
            assert batch[name].sum() == pytest.approx(7)
            assert not batch[name][batch["loss_mask"] == 0].any()
        assert not (batch["masked_weights"] * batch["shuffled_weights"]).any()
        assert batch["masked_places"].sum(axis=1).max() == 1  # no token is masked and shuffled
        paired += (batch["sentence_weights"] > 0).sum()
        before = rows_before(corpus, step).input_ids[:, :length]
        for row in range(7):
            found = batch["word_rows"][row]
            for kind in ("masked", "shuffled"):
                used = batch[f"{kind}_weights"][row] > 0
                where = batch["masked_places"][row][used].argmax(axis=1)  # of each label, in order
                assert batch["masked_ids"][row][used].tolist() == before[row][where].tolist()
            for trigram in where.reshape(-1, 3):
                assert sorted(found[trigram]) == sorted(before[row][trigram])
                moved += (found[trigram] != before[row][trigram]).any()
            others = batch["masked_places"][row].sum(axis=0) == 0
            assert found[others].tolist() == before[row][others].tolist()
    assert paired > 7
    assert moved > 7
    again = StructuralSteps(corpus, masking, 7, 2, 4, 11).batch(3, (LENGTH,))
    whole = steps.batch(3, (LENGTH,))
    assert all(np.array_equal(again[name], whole[name]) for name in whole)
