"""ofrecord_util/tagging.py: pieces of words, the tags that they learn, and the weights of a batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from ofrecord_util.batches import iterate_training
from ofrecord_util.errors import UserError
from ofrecord_util.tagged_text import TaggedSplit
from ofrecord_util.tagging import NO_TAG, TagForm, TaggedRecords, inner_tags, split_words, with_tags, words_of
from ofrecord_util.tasks import Task
from ofrecord_util.tokenization import Tokenizer

LABELS = ("B-LOC", "B-PER", "I-PER", "O")
WORDS = [["actors", "run"], ["the", "boredom", "!?"]]  # pieces: act ##er ##s | run; the | bore ##dom | ! [UNK]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(tiny.write_vocabulary(str(tmp_path_factory.mktemp("tagging") / "vocab.txt")))


def text(words=WORDS, tags=((1, 3), (3, 0, 3))):
    count = len(words)
    return TaggedSplit(
        "f", [" ".join(own) for own in words], None, np.arange(count, dtype=np.int32) % 2, np.zeros(count, np.int32), "digest",
        words=list(words), tags=[list(own) for own in tags],
    )  # fmt: skip


def tagged_records(text, tokenizer, length, labels, everything=True):
    """The `TaggedRecords` of a text."""
    return TaggedRecords(TagForm(everything).encode(text, tokenizer, length, Task("t", ("a", "b"), labels))[0], text)


def test_inner_tags():
    assert inner_tags(LABELS).tolist() == [0, 2, 2, 3]  # no I-LOC
    assert inner_tags(("B", "I", "O", "S-x", "E-x", "b-y", "I-Y")).tolist() == [1, 1, 2, 4, 4, 6, 6]


def test_pieces_of_words(tokenizer):
    pieces = split_words(tokenizer, WORDS, 8)
    names = [[tokenizer.tokens[number] for number in row] for row in pieces.input_ids.tolist()]
    assert names[0][:2] == ["[CLS]", "act"] or names[0][1] == "[UNK]"
    lengths = pieces.input_mask.sum(axis=1).tolist()
    for row, words in enumerate(WORDS):
        flat = [number for own in tokenizer.whole_texts(words) for number in own]
        assert pieces.input_ids[row, 1 : lengths[row] - 1].tolist() == flat
        assert names[row][lengths[row] - 1] == "[SEP]"
        assert set(names[row][lengths[row] :]) <= {"[PAD]"}
    assert pieces.cut == 0
    rows, places = words_of(pieces.words)
    assert [(row, pieces.words[row, place]) for row, place in zip(rows, places)] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_tags_of_pieces(tokenizer):
    for everything in (True, False):
        found = tagged_records(text(), tokenizer, 9, LABELS, everything)
        for row, (words, tags) in enumerate(zip(WORDS, text().tags)):
            expected = [NO_TAG]
            for word, tag in zip(words, tags):
                later = len(tokenizer.whole_texts([word])[0]) - 1
                expected += [tag] + [{1: 2}.get(tag, tag) if everything else NO_TAG] * later
            assert found.tags[row, : len(expected)].tolist() == expected
            assert set(found.tags[row, len(expected) :].tolist()) == {NO_TAG}
    assert found.records.domain.tolist() == [0, 1]
    assert found.records.idxs.tolist() == [0, 1]


def test_long_sentences_are_cut(tokenizer):
    pieces = split_words(tokenizer, [["the"] * 7, ["the", "\u200b", "a"]], 5)
    assert pieces.input_mask.sum(axis=1).tolist() == [5, 4]
    assert pieces.words.tolist()[0] == [NO_TAG, 0, 1, 2, NO_TAG]
    assert pieces.words.tolist()[1] == [NO_TAG, 0, 2, NO_TAG, NO_TAG]  # a control character has no piece
    assert pieces.cut == 4 + 1
    with pytest.raises(UserError, match="--seq_length 2 is too short"):
        split_words(tokenizer, WORDS, 2)


def test_the_digest_depends_on_what_is_learnt(tokenizer):
    one, other = (tagged_records(text(), tokenizer, 9, LABELS, everything).digest for everything in (True, False))
    again = tagged_records(text(), tokenizer, 9, LABELS).digest
    more = tagged_records(text(tags=((1, 3), (3, 3, 3))), tokenizer, 9, LABELS).digest
    assert one == again
    assert len({one, other, more}) == 3


def test_records_without_their_text(tokenizer):
    """The tags of the words are those of their first pieces; a text with fewer words or sentences is another one."""
    text_of_both = text()
    found = tagged_records(text_of_both, tokenizer, 9, LABELS)
    assert TaggedRecords(found.records).tags_of_words == found.tags_of_words == [[1, 3], [3, 0, 3]]
    assert TaggedRecords(found.records).digest == found.digest
    for other in (text([["actors"], ["the", "boredom", "!?"]], [[1], [3, 0, 3]]), text_of_both.first(1)):
        with pytest.raises(UserError, match="the words of the records are not those of f; write the records again with --resave_ofrecord"):
            TaggedRecords(found.records, other)


def tagged_as(tags):
    """What `with_tags` reads of the `TaggedRecords` of a whole split with such tags [N, S]."""
    return SimpleNamespace(tags=tags, records=SimpleNamespace(places_of=lambda idxs: idxs))


def test_weights_of_a_batch():
    tags = np.array([[-1, 2, 0, -1, -1], [-1, 1, -1, -1, -1], [-1, 3, 3, 3, -1]], np.int32)
    batch = {"word_rows": np.zeros((4, 4)), "idxs": np.array([2, 0, 1, 2]), "loss_mask": np.array([1.25, 1.25, 1.25, 0], np.float32)}
    (found,) = with_tags([batch], tagged_as(tags))
    assert found["tag_ids"].tolist() == [[0, 3, 3, 3], [0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    counted = np.array([[0, 1, 1, 1], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    assert np.allclose(found["tag_weights"], counted * 4 / 6)
    values = np.random.RandomState(0).rand(4, 4)
    assert (found["tag_weights"] * values).sum(axis=1).mean() == pytest.approx(values[counted > 0].mean())


def test_a_batch_without_a_tag_has_weights_of_0():
    batch = {"word_rows": np.zeros((2, 3)), "idxs": np.array([0, 0]), "loss_mask": np.ones(2, np.float32)}
    (found,) = with_tags([batch], tagged_as(np.full((1, 3), NO_TAG, np.int32)))
    assert not found["tag_weights"].any()


def test_a_part_of_the_sentences_keeps_its_row_numbers(tokenizer):
    """A message about a step then names the rows of the file."""
    words = [["actors", "run"], ["the", "boredom"], ["run"], ["the", "actors"]]
    whole = tagged_records(text(words, [(1, 3), (3, 0), (2,), (3, 1)]), tokenizer, 8, LABELS)
    part = whole.select(np.array([1, 3]))
    assert part.records.idxs.tolist() == [1, 3]
    assert part.text.words == [words[1], words[3]]
    (found,) = with_tags(iterate_training(part.records.samples(), 2, (8,), 1, 4), part)
    assert sorted(found["idxs"].tolist()) == [1, 3]
    for row, tags in zip(found["idxs"], found["tag_ids"]):
        assert tags.tolist() == np.maximum(whole.tags[row], 0).tolist()
