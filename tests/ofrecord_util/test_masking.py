"""ofrecord_util/masking.py: shares within three standard deviations, whole words, and which tokens are never masked."""

import math

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer, models, pre_tokenizers

from ofrecord_util.errors import UserError
from ofrecord_util.masking import Masking
from ofrecord_util.seeds import fixed_mask_stream, mask_stream

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(20)), *(f"##{char}" for char in "abcdefg")]
IDS = {token: number for number, token in enumerate(TOKENS)}
PAD, CLS, SEP, MASK = (IDS[token] for token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]"))
PIECE = IDS["##a"]  # the first piece that continues a word


def rows(count, length, seed=1):
    """Rows of words of one to three pieces with a [SEP] in the middle: int32 [count, length], no padding."""
    draw = np.random.RandomState(seed)
    ids = np.where(
        draw.rand(count, length) < 0.3, draw.randint(PIECE, len(TOKENS), (count, length)), draw.randint(5, PIECE, (count, length))
    )
    ids[:, 0], ids[:, length // 2], ids[:, -1] = CLS, SEP, SEP
    ids[:, 1] = 5
    return ids.astype(np.int32)


def masked(masking, ids, epoch=0):
    """(original ids, new ids) of all masked tokens."""
    pairs = [(row[places], new) for number, row in enumerate(ids) for places, new in [masking.row(row, mask_stream(3, epoch, number))]]
    return tuple(np.concatenate(part) for part in zip(*pairs))


def close(share, wanted, count):
    return abs(share - wanted) <= 3 * math.sqrt(wanted * (1 - wanted) / count)


@pytest.mark.parametrize("whole_words", [True, False])
def test_shares(whole_words):
    """Of 97 tokens 15 are masked: 80 % become [MASK], 10 % another token, 10 % stay. Another token may by chance be the same one."""
    ids = rows(400, 100)
    old, new = masked(Masking(TOKENS, whole_words=whole_words), ids)
    if whole_words:
        assert 0.9 * 15 * 400 < len(old) <= 15 * 400  # the last word may be passed over
    else:
        assert len(old) == 15 * 400 == round(0.15 * 97) * 400
    ordinary = len(TOKENS) - 5
    assert close((new == MASK).mean(), 0.8, len(new))
    assert close((new == old).mean(), 0.1 + 0.1 / ordinary, len(new))
    others = new[(new != MASK) & (new != old)]
    assert others.min() >= 5
    assert np.bincount(others, minlength=len(TOKENS))[5:].min() > 0  # each ordinary token


@pytest.mark.parametrize(("length", "expected"), [(4, 1), (7, 1), (13, 2), (23, 3), (42, 6)])
def test_how_many(length, expected):
    """max(1, round(0.15 n)), at most P."""
    ids = np.array([CLS, *[7] * (length - 2), SEP])
    for most, count in ((80, expected), (2, min(2, expected))):
        assert len(Masking(TOKENS, most=most).row(ids, fixed_mask_stream(0))[0]) == count


def test_special_tokens_are_never_masked():
    ids = rows(50, 30)
    for number, row in enumerate(ids):
        places, _ = Masking(TOKENS, probability=0.5).row(row, mask_stream(3, 0, number))
        assert not set(row[places].tolist()) & {CLS, SEP, PAD}


def test_words_are_whole():
    ids = rows(60, 40)
    alone = 0
    for number, row in enumerate(ids):
        places = set(Masking(TOKENS).row(row, mask_stream(3, 0, number))[0].tolist())
        for place in range(1, 40):
            if row[place] >= PIECE and row[place - 1] not in (CLS, SEP):
                assert (place in places) == (place - 1 in places)
        places = set(Masking(TOKENS, whole_words=False).row(row, mask_stream(3, 0, number))[0].tolist())
        alone += sum(place in places and row[place] >= PIECE and place - 1 not in places for place in range(1, 40))
    assert alone > 0  # without whole words, pieces are masked alone


def test_words_are_those_of_the_library():
    """The groups equal `Encoding.word_ids` of a BERT tokenizer of the tokenizers library."""
    library = Tokenizer(models.WordPiece({token: number for number, token in enumerate(tiny.TOKENS)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    encoded = library.encode("the actor ' s act is lovely, boredom - actness! the actss", add_special_tokens=False)
    assert max(encoded.word_ids) + 1 < len(encoded.ids)  # some words have several pieces
    special = [tiny.TOKENS.index(token) for token in ("[CLS]", "[SEP]")]
    free, starts = Masking(tiny.TOKENS).words(np.array([special[0], *encoded.ids, special[1]]))
    sizes = np.diff(starts)
    assert np.array_equal(free, np.arange(1, len(encoded.ids) + 1))
    assert np.repeat(np.arange(len(sizes)), sizes).tolist() == encoded.word_ids


def test_a_piece_after_a_special_token_begins_a_word():
    """A record of packed texts may begin in the middle of a word."""
    ids = np.array([CLS, PIECE, PIECE + 1, SEP, PIECE + 2, 7, PIECE, SEP])
    free, starts = Masking(TOKENS).words(ids)
    assert free.tolist() == [1, 2, 4, 5, 6]
    assert starts.tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize(("pieces", "taken"), [(1, 1), (2, 2), (4, 4), (5, 0)])
def test_a_word_that_is_longer_than_the_number(pieces, taken):
    """One token is to be masked: a word of up to 4 pieces is taken as a whole, a longer one is not masked."""
    ids = np.array([CLS, 7, *[PIECE] * (pieces - 1), SEP])
    masking = Masking(TOKENS)
    assert len(masking.row(ids, fixed_mask_stream(0))[0]) == taken <= masking.places(len(ids))


def test_rows_without_tokens():
    assert [part.size for part in Masking(TOKENS).row(np.array([CLS, SEP]), fixed_mask_stream(0))] == [0, 0]


def test_masks_depend_on_seed_epoch_and_row():
    ids, masking = rows(1, 60)[0], Masking(TOKENS)
    streams = {(seed, epoch, row): mask_stream(seed, epoch, row) for seed in (1, 2) for epoch in (0, 1) for row in (0, 1)}
    found = {key: masking.row(ids, stream)[0].tolist() for key, stream in streams.items()}
    assert len({tuple(places) for places in found.values()}) == len(found)
    assert masking.row(ids, mask_stream(1, 0, 0))[0].tolist() == found[1, 0, 0]


def test_the_places_of_a_length_are_enough():
    for most in (1, 3, 80):
        for length in range(3, 200):
            masking = Masking(TOKENS, most=most)
            ids = np.array([CLS, *[7, PIECE] * length][:length])  # a full record without a [SEP] at its end
            assert len(masking.row(ids, mask_stream(1, 0, length))[0]) <= masking.places(length) <= most


def test_a_batch():
    ids = rows(5, 24)
    lengths = np.array([24, 9, 2, 17, 3])
    for row, length in enumerate(lengths):
        ids[row, length:] = PAD
    ids[2, 1] = SEP
    batch = Masking(TOKENS, whole_words=False).batch(ids, lengths, [mask_stream(1, 0, row) for row in range(5)])
    assert {name: (value.dtype, value.shape) for name, value in batch.items()} == {
        "word_rows": (np.int32, (5, 24)),
        "masked_places": (np.float32, (5, 4, 24)),
        "masked_ids": (np.int32, (5, 4)),
        "masked_weights": (np.float32, (5, 4)),
    }
    assert batch["masked_weights"].sum(axis=1).tolist() == [3, 1, 0, 2, 1]
    where = batch["masked_places"]
    assert np.array_equal(where.sum(axis=2), batch["masked_weights"])
    assert np.array_equal((where * ids[:, None]).sum(axis=2), batch["masked_ids"] * batch["masked_weights"])
    changed = batch["word_rows"] != ids
    assert changed.any()
    assert not (changed & (where.sum(axis=1) == 0)).any()


def test_a_vocabulary_without_mask():
    with pytest.raises(UserError, match=r"^v\.txt: has no \[MASK\]"):
        Masking(TOKENS[:4], source="v.txt")
