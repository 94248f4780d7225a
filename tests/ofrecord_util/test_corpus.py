"""ofrecord_util/corpus.py, corpus_text.py and corpus_batches.py: rows, files, index, windows, and text of dev and test in a corpus."""

import json
import os
import random

import numpy as np
import pytest
import tiny

from modeling.cli import advice
from ofrecord_util.corpus import CORPUS, Corpus, is_written, write_corpus
from ofrecord_util.corpus_batches import batch_weights, iterate_corpus, longest_rows, window_order
from ofrecord_util.corpus_text import CorpusText, find_files
from ofrecord_util.errors import UserError
from ofrecord_util.masking import Masking
from ofrecord_util.reader import read_split
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextFolder
from ofrecord_util.tokenization import Tokenizer

LENGTH = 11
WORDS = [*tiny.COMMON, *tiny.GOOD, *tiny.BAD, "acts", "boredom"]
TASK = Task("t", ("mr",), ("0", "1"))


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt")))


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


def test_lines_are_rows_as_the_samples_of_a_task(tmp_path, tokenizer):
    texts = lines(23)
    corpus = write(tmp_path, tokenizer, [*texts[:9], "", "  ", "\u0007", *texts[9:]])
    encoded = tokenizer.encode(texts, None, LENGTH)
    rows = corpus.read(0, len(corpus))
    assert np.array_equal(rows.input_ids, encoded.input_ids)
    assert np.array_equal(rows.lengths, encoded.input_mask.sum(axis=1))
    assert corpus.manifest["texts"] == 24  # blank lines are none; a text without tokens has no record
    assert corpus.manifest["longest"] == LENGTH
    assert corpus.manifest["tokens"] == encoded.input_mask.sum()


def test_packed_rows_have_all_tokens(tmp_path, tokenizer):
    texts = lines(23)
    corpus = write(tmp_path, tokenizer, texts, packing="packed")
    rows, cls, sep = corpus.read(0, len(corpus)), *tokenizer.special_ids[1:]
    assert (rows.input_ids[:, 0] == cls).all()
    assert (rows.lengths[:-1] == LENGTH).all()
    found = [token for row, length in zip(rows.input_ids, rows.lengths) for token in row[1:length].tolist()]
    assert found == [token for ids in tokenizer.whole_texts(texts) for token in (*ids, sep)]
    assert not rows.segment_ids.any()


@pytest.mark.parametrize("part_num", [1, 3, 7])
def test_any_rows_are_read_as_all_of_them(tmp_path, tokenizer, part_num):
    """In memory, and out of it: the whole split by `read_split`, and ranges by the index."""
    corpus = write(tmp_path, tokenizer, lines(23), part_num)
    records = read_split(str(tmp_path / "data"), CORPUS, None, part_num)
    order = np.argsort(records.idxs)
    assert np.array_equal(records.idxs[order], np.arange(23))
    for start, stop in ((0, 23), (0, 1), (5, 6), (4, 19), (22, 23)):
        rows = corpus.read(start, stop)
        assert np.array_equal(rows.input_ids, records.input_ids[order][start:stop])
        assert np.array_equal(rows.segment_ids, records.segment_ids[order][start:stop])
        assert np.array_equal(rows.lengths, records.lengths[order][start:stop])
    index = np.load(os.path.join(corpus.path, "corpus.of_record-0.index.npy"), allow_pickle=False)
    assert index.dtype == np.int64
    assert index[-1] == os.path.getsize(os.path.join(corpus.path, "corpus.of_record-0"))


def test_parts_of_an_earlier_corpus_are_removed(tmp_path, tokenizer):
    write(tmp_path, tokenizer, lines(9), 3)
    corpus = write(tmp_path, tokenizer, lines(9), 2)
    names = [f"corpus.of_record-{part}{end}" for part in range(2) for end in ("", ".index.npy")]
    assert sorted(os.listdir(corpus.path)) == sorted([*names, "manifest.json"])


def test_pairs_of_a_task(tmp_path, tokenizer):
    """Records of pairs have both texts, as the samples of the task; packed ones have the texts one after the other."""
    pairs = tiny.pairs("mnli", 7, 1, ("0", "1"))
    tiny.write_rows(str(tmp_path / "data"), "train", pairs)
    rows = TextFolder(str(tmp_path / "data")).read("train", Task("t", ("mnli",), ("0", "1"), True))
    text = CorpusText([], rows, {})
    write_corpus(str(tmp_path / "data"), 1, text, tokenizer, LENGTH, "line")
    encoded = tokenizer.encode(rows.text_a, rows.text_b, LENGTH)
    found = Corpus(str(tmp_path / "data")).read(0, 7)
    assert np.array_equal(found.input_ids, encoded.input_ids)
    assert np.array_equal(found.segment_ids, encoded.segment_ids)
    assert found.segment_ids.any()
    write_corpus(str(tmp_path / "data"), 1, text, tokenizer, LENGTH, "packed")
    packed = Corpus(str(tmp_path / "data"))
    assert packed.manifest["tokens"] == sum(len(ids) + 1 for pair in pairs for ids in tokenizer.whole_texts(list(pair[:2]))) + len(packed)


# ----------------------------------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize(("packing", "cut"), [("line", 1), ("packed", None), ("sentences", None)])
def test_what_is_counted(tmp_path, tokenizer, packing, cut):
    """Of all records, whatever they hold; the tokens of a text that is cut away are not counted."""
    texts = ["the film. it was good", "zzz film", "a film", "zzz " * 20]
    found = write(tmp_path, tokenizer, texts, packing=packing)
    rows = found.read(0, len(found))
    lengths = np.sort(rows.lengths)
    inside = np.arange(LENGTH) < rows.lengths[:, None]
    facts = found.facts
    assert (facts.shortest, facts.longest) == (lengths[0], lengths[-1]) == (lengths[0], found.manifest["longest"])
    assert (facts.median, facts.most_have) == (lengths[(len(lengths) + 1) // 2 - 1], lengths[-1])
    assert (facts.texts, facts.cut) == (4, cut)
    assert (facts.unknown, facts.total) == tokenizer.count_unknown(rows.input_ids, inside.astype(np.int32))
    assert facts.unknown == (10 if packing == "line" else 21)
    assert found.manifest["tokens"] == inside.sum()


@pytest.mark.parametrize("packing", ["line", "packed", "sentences", "sentences between blank lines"])
def test_texts_of_each_file(tmp_path, tokenizer, dev, packing):
    """A blank file, and one whose texts are left out, have none. The counts are those of the latest writing."""
    tiny.write_rows(str(tmp_path / "train"), "train", [("a plot", "mr", "1"), ("a story", "mr", "0")])
    rows = TextFolder(str(tmp_path / "train")).read("train", TASK)
    several = ["the plot. it was good", "", "the story. it was good", "the cats"]
    contents = {"some": several, "blank": ["", " "], "none": [], "dev": ["a good film", "it was bad"]}
    paths = [write_lines(tmp_path / f"{name}.txt", texts) for name, texts in contents.items()]
    text = CorpusText(paths, rows, dev, "leave_out")
    for _ in range(2):
        manifest = write_corpus(str(tmp_path / "data"), 1, text, tokenizer, LENGTH, packing)
        assert manifest["text_files"] == ["train.csv", "some.txt", "blank.txt", "none.txt", "dev.txt"]
        assert manifest["texts_by_file"] == [2, 3, 0, 0, 0]


def test_records_that_were_not_counted(tmp_path, tokenizer):
    """Those of an older version can still be trained on; counts that are damaged are refused."""
    corpus = write(tmp_path, tokenizer, lines(9))
    manifest = os.path.join(corpus.path, "manifest.json")
    values = json.loads(tiny.read_bytes(manifest))
    added = ("texts_by_file", "shortest", "median", "percentile_95", "truncated", "unknown", "text_tokens")
    for damage in ({"texts_by_file": [1, 2]}, {"texts_by_file": ["9"]}, {"median": None}, {"unknown": -1}, {"texts": "9"}):
        with open(manifest, "w", encoding="utf-8") as file:
            json.dump({**values, **damage}, file)
        with pytest.raises(UserError, match="is not the manifest of a corpus"):
            Corpus(str(tmp_path / "data"))
    with open(manifest, "w", encoding="utf-8") as file:
        json.dump({name: value for name, value in values.items() if name not in added}, file)
    older = Corpus(str(tmp_path / "data"))
    assert older.facts is None
    assert older.digest == corpus.digest


# --------------------------------------------------------------------------------------------------------------- batches


def drawn(corpus, batch, epochs, window, start=0, seed=4):
    return [
        (row, float(counts))
        for found in iterate_corpus(corpus, Masking(tiny.TOKENS), batch, (LENGTH,), epochs, seed, window, start)
        for row, counts in zip(found["idxs"].tolist(), found["loss_mask"])
    ]


@pytest.mark.parametrize("window", [4, 23, 100])
def test_an_epoch_has_each_row_once(tmp_path, tokenizer, window):
    corpus = write(tmp_path, tokenizer, lines(23), 2)
    found = drawn(corpus, 5, 2, window)
    rows = [row for row, counts in found if counts]
    assert len(found) == 50
    assert len(rows) == 46
    assert sorted(rows[:23]) == sorted(rows[23:]) == list(range(23))
    assert rows[:23] != rows[23:]
    for number in range(0, 23, window):  # in order, a window at a time
        assert sorted(rows[number : number + window][: 23 - number]) == list(range(number, min(23, number + window)))


def test_the_parts_do_not_change_the_batches(tmp_path, tokenizer):
    batches = []
    for part_num in (1, 4):
        corpus = write(tmp_path, tokenizer, lines(23), part_num, name=f"data{part_num}")
        batches.append(list(iterate_corpus(corpus, Masking(tiny.TOKENS), 5, (8, LENGTH), 2, 4, 6)))
    for one, other in zip(*batches):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_training_can_start_at_any_step(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(23))
    whole = list(iterate_corpus(corpus, Masking(tiny.TOKENS), 5, (8, LENGTH), 3, 4, 6))
    for start in (1, 4, 9, len(whole) - 1):
        for one, other in zip(iterate_corpus(corpus, Masking(tiny.TOKENS), 5, (8, LENGTH), 3, 4, 6, start), whole[start:]):
            assert all(np.array_equal(one[name], other[name]) for name in other)


def test_masks_are_new_in_each_epoch(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(8))
    epochs = list(iterate_corpus(corpus, Masking(tiny.TOKENS), 8, (LENGTH,), 2, 4, 8))
    places = [batch["masked_places"][np.argsort(batch["idxs"])].sum(axis=1) for batch in epochs]
    assert (places[0] != places[1]).any(axis=1).sum() >= 4


def test_weights_make_the_mean_over_rows_that_over_masked_tokens():
    weights = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], np.float32)
    values = np.arange(12.0).reshape(4, 3)
    scaled = batch_weights(weights)
    assert scaled.dtype == np.float32
    assert (scaled * values).sum(axis=1).mean() == pytest.approx(values[weights > 0].mean())
    halves = [(scaled[part] * values[part]).sum(axis=1).mean() for part in (slice(0, 2), slice(2, 4))]
    assert np.mean(halves) == pytest.approx(values[weights > 0].mean())  # parts of a batch
    assert not batch_weights(np.zeros((4, 3), np.float32)).any()


def test_rows_that_only_fill_up_the_last_batch_have_no_weight(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(7))
    (batch,) = iterate_corpus(corpus, Masking(tiny.TOKENS), 12, (LENGTH,), 1, 4, 100)
    assert (batch["loss_mask"] > 0).tolist() == [True] * 7 + [False] * 5
    assert not batch["masked_weights"][7:].any()
    assert batch["masked_weights"].sum() == pytest.approx(12)


def test_longest_rows(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(23))
    batches = list(iterate_corpus(corpus, Masking(tiny.TOKENS), 2, (LENGTH,), 1, 4, 9))
    assert longest_rows(corpus, 2, 4, 9, 7).tolist() == [batch["input_mask"].sum(axis=1).max() for batch in batches[:7]]
    assert sorted(window_order(9, 1, 4, 0).tolist()) == list(range(9))


# ------------------------------------------------------------------------------------------------------- files and faults


def test_files_of_a_folder(tmp_path):
    for name in ("b.txt", "a.txt", "notes.md"):
        write_lines(tmp_path / name, ["x"])
    names = [os.path.basename(path) for path in find_files([str(tmp_path)])]
    assert names == ["a.txt", "b.txt"]
    (tmp_path / "none").mkdir()
    for values, said in (
        ([str(tmp_path / "absent")], "no such file or folder"),
        ([str(tmp_path / "none")], r"no file that ends in \.txt"),
        ([str(tmp_path), str(tmp_path / "a.txt")], "listed twice"),
    ):
        with pytest.raises(UserError, match=f"^--corpus_file.*{said}"):
            find_files(values)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a\n\xff\n", "line 2: byte 0 of the line is not UTF-8"),
        (b"a\nb\0\n", "line 2: has a NUL"),
        (b"a\nb\rc\r", "line 2: has a carriage return at character 2"),
        (b"good film\tmr\t1\nbad film\tmr\t0\n", r"line 1 \('good film.tmr.t1'\) is a table"),
        (b"text,label\ngood,1\n", "line 1 .* is a table"),
        (b'{"text": "good film"}\n', "line 1 .* is JSON"),
        (b'[{"text": "good film"}]\n', "is JSON"),
    ],
)
def test_a_line_that_is_no_text(tmp_path, tokenizer, data, said):
    (tmp_path / "c.txt").write_bytes(data)
    with pytest.raises(UserError, match=said):
        write_corpus(str(tmp_path / "data"), 1, CorpusText([str(tmp_path / "c.txt")], None, {}), tokenizer, LENGTH, "line")
    assert not is_written(str(tmp_path / "data"))


def test_tabs_in_some_lines_are_text(tmp_path, tokenizer):
    assert len(write(tmp_path, tokenizer, ["good\tfilm", "bad film", "a b\r"])) == 3


def test_too_few_records(tmp_path, tokenizer):
    with pytest.raises(UserError, match="--corpus_data_part_num 9: more parts than the 8 records"):
        write(tmp_path, tokenizer, lines(8), 9)
    with pytest.raises(UserError, match="the corpus has no text with a token"):
        write(tmp_path, tokenizer, [" "])
    with pytest.raises(UserError, match="line 150: has a NUL"):
        write(tmp_path, tokenizer, [*lines(149), "a\0b"])
    with pytest.raises(UserError, match="needs documents of several sentences"):
        write(tmp_path, tokenizer, ["good"], packing="sentences")
    assert sorted(os.listdir(tmp_path)) == ["c.txt", "vocab.txt"]  # no folder of records


def test_writing_that_is_interrupted_leaves_the_earlier_records(tmp_path, tokenizer):
    before = tiny.tree(write(tmp_path, tokenizer, lines(9), 2).path)
    text = CorpusText([write_lines(tmp_path / "c.txt", lines(30))], None, {})

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_corpus(str(tmp_path / "data"), 2, text, tokenizer, LENGTH, "line", stop)
    assert tiny.tree(str(tmp_path / "data" / "ofrecord" / CORPUS)) == before


def damage(path, name, change):
    with open(os.path.join(path, name), "rb") as file:
        data = bytearray(file.read())
    change(data)
    with open(os.path.join(path, name), "wb") as file:
        file.write(data)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("corpus.of_record-1", "its bytes have changed"),
        ("corpus.of_record-1.index.npy", "is not the index of the records"),
    ],
)
def test_damaged_files(tmp_path, tokenizer, name, said):
    path = write(tmp_path, tokenizer, lines(23), 2).path
    damage(path, name, lambda data: data.__setitem__(-1, data[-1] ^ 1))
    with pytest.raises(UserError, match=said):
        Corpus(str(tmp_path / "data"))
    os.remove(os.path.join(path, name))
    with pytest.raises(UserError, match="No such file"):
        Corpus(str(tmp_path / "data"))


def test_a_part_that_changes_while_it_is_read(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(23), 2)
    with open(os.path.join(corpus.path, "corpus.of_record-1"), "r+b") as file:
        file.truncate(100)
    with pytest.raises(UserError, match="was cut before byte"):
        corpus.read(0, 23)


def test_what_makes_records_stale(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(9))
    text = CorpusText([write_lines(tmp_path / "other.txt", lines(9, 2))], None, {})
    assert corpus.differences({"seq_length": LENGTH, "packing": "line"}) == []
    found = corpus.differences({**text.digests(), "packing": "packed"})
    held = "they hold one text per record (recipes/pretrain_mlm.py --packing line)"
    assert [part.split(",")[0] for part in found] == ["the text has changed since", held]
    manifest = os.path.join(corpus.path, "manifest.json")
    values = json.loads(tiny.read_bytes(manifest))
    with open(manifest, "w", encoding="utf-8") as file:
        json.dump({**values, "longest": "x"}, file)
    with pytest.raises(UserError, match="is not the manifest of a corpus"):
        Corpus(str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("stored", "needed", "flags"),
    [
        ("sentences", "line", ("--structural --document_end line", "--packing line")),
        ("line", "sentences", ("--packing line", "--structural --document_end line")),
        ("packed", "line", ("--packing packed", "--packing line")),
        ("sentences", "sentences between blank lines", ("--structural --document_end line", "--structural --document_end blank_line")),
    ],
)
def test_records_of_another_form(tmp_path, tokenizer, stored, needed, flags):
    """The message keeps its cause in a script that has none of these flags, such as recipes/pretrain_discriminator.py."""
    corpus = write(tmp_path, tokenizer, [f"{line}. it was good." for line in lines(9)], packing=stored)
    (found,) = corpus.differences({"packing": needed})
    assert found.startswith("they hold ")
    places = [found.index(f"recipes/pretrain_mlm.py {flag})") for flag in flags]
    assert places == sorted(places)
    line = f"FILE: the records are stale; {found}; write them again with --resave_ofrecord"
    advice.add_flags({"--resave_ofrecord"})
    try:
        assert advice.fitting(line) == line
    finally:
        advice.forget_flags()


# ---------------------------------------------------------------------------------------------------- text of dev and test


@pytest.fixture
def dev(tmp_path):
    tiny.write_rows(str(tmp_path / "task"), "dev", [("A good  film", "mr", "1"), ("it was bad", "mr", "0")])
    return {"dev": TextFolder(str(tmp_path / "task")).read("dev", TASK)}


def test_text_of_dev_is_refused(tmp_path, dev):
    path = write_lines(tmp_path / "c.txt", ["the plot", "a good film", "a good film.", "It Was Bad"])
    with pytest.raises(UserError, match=r"c\.txt: line 2: is a text of dev, and 2 texts of the corpus are.*--evaluation_text leave_out"):
        CorpusText([path], None, dev).check()
    CorpusText([path], None, dev, "keep").check()
    CorpusText([path], None, {}).check()


@pytest.mark.parametrize(("use", "count", "found"), [("leave_out", 2, 2), ("keep", 4, 2)])
def test_text_of_dev_is_left_out_or_kept(tmp_path, tokenizer, dev, use, count, found):
    path = write_lines(tmp_path / "c.txt", ["the plot", "a good film", "a good film.", "It Was Bad"])
    text = CorpusText([path], None, dev, use)
    manifest = write_corpus(str(tmp_path / "data"), 1, text, tokenizer, LENGTH, "line")
    assert (manifest["texts"], manifest["num_records"], manifest["evaluation_texts"]) == (count, count, found)


def test_a_row_of_the_training_split_in_dev(tmp_path, dev):
    tiny.write_rows(str(tmp_path / "train"), "train", [("a plot", "mr", "1"), ("a good film", "mr", "1")])
    rows = TextFolder(str(tmp_path / "train")).read("train", TASK)
    with pytest.raises(UserError, match=r"train\.csv: sample 2: is a text of dev"):
        CorpusText([], rows, dev).check()


def test_digests_follow_the_text_and_the_rule(tmp_path, dev):
    path = write_lines(tmp_path / "c.txt", ["the plot"])
    first = CorpusText([path], None, dev).digests()
    assert CorpusText([path], None, dev).digests() == first
    assert CorpusText([path], None, dev, "leave_out").digests()["evaluation_digest"] != first["evaluation_digest"]
    assert CorpusText([path], None, {}).digests()["evaluation_digest"] != first["evaluation_digest"]
    write_lines(tmp_path / "c.txt", ["the story"])
    assert CorpusText([path], None, dev).digests()["text_digest"] != first["text_digest"]
