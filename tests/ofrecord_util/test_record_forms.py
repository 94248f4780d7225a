"""Records with tags or answers: written from the text once, equal when they are read, and never stale without a word."""

import functools
import os

import numpy as np
import ofrecord_samples as samples
import pytest
import tiny

from ofrecord_util.answer_windows import WindowForm, windows_of, with_answers
from ofrecord_util.batches import iterate_training
from ofrecord_util.dataset import SCORES_KEPT, Dataset
from ofrecord_util.errors import UserError
from ofrecord_util.question_text import QuestionFolder
from ofrecord_util.reader import read_split
from ofrecord_util.tagged_text import TaggedFolder
from ofrecord_util.tagging import TagForm, TaggedRecords, with_tags
from ofrecord_util.tasks import Task, resolve_task
from ofrecord_util.text import TextFolder
from ofrecord_util.tokenization import Tokenizer
from ofrecord_util.tokenizer_settings import TokenizerSettings
from ofrecord_util.writer import write_split

COUNTS = (5, 3, 2)  # sentences, or texts with two questions each, of a domain


class Data:
    """A folder with the text of one of the forms, and the `Dataset` of a step."""

    length = 13

    def __init__(self, folder):
        self.folder, self.lines = str(folder), []
        self.write(self.folder, counts=COUNTS)
        self.tokenizer = Tokenizer(tiny.write_vocabulary(os.path.join(self.folder, "vocab.txt")))

    def task(self, **names):
        return resolve_task("t", self.folder, folder=self.kind(self.folder), **names)

    def prepare(self, split="train", resave=False, **changes):
        """`Records` of a split."""
        where = {name: changes.pop(name) for name in ("prefix", "part_num", "example_num") if name in changes}
        arguments = {"task": changes.pop("task", None) or self.task(), "tokenizer": self.tokenizer, "seq_length": self.length}
        arguments.update(form=self.form(), text=self.kind(self.folder), log=self.lines.append, use_scores=SCORES_KEPT)
        arguments.update(changes)
        self.lines.clear()
        return Dataset(self.folder, resave=resave, **arguments).records(split, **where)

    def text(self, split="train"):
        return self.kind(self.folder).read(split, self.task())

    def path(self, *names):
        return os.path.join(self.folder, *names)


class Tags(Data):
    kind, form, write, name = TaggedFolder, TagForm, staticmethod(tiny.write_tagged), "tags"
    change = "cats", "dogs"

    def batches(self, batches, records):
        return with_tags(batches, TaggedRecords(records, self.text()))


class Answers(Data):
    kind, write, name = QuestionFolder, staticmethod(tiny.write_questions), "answers"
    change = '"question": "good"', '"question": "film"'
    form = staticmethod(functools.partial(WindowForm, 3, 4))

    def batches(self, batches, records):
        return with_answers(batches, windows_of(records, self.text()))


@pytest.fixture(params=[Tags, Answers])
def data(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def tags(tmp_path):
    return Tags(tmp_path)


@pytest.fixture
def answers(tmp_path):
    return Answers(tmp_path)


def arrays(records):
    names = ("input_ids", "input_mask", "segment_ids", "domain", "label", "idxs", "sample_weights", "lengths")
    return {**{name: getattr(records, name) for name in names}, **records.targets}


def same(one, other):
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_records_are_what_the_text_says(data, split):
    """As they were encoded, in any number of parts, through both decoders; the second step reads them, and splits no text."""
    expected, _ = data.form().encode(data.text(split), data.tokenizer, data.length, data.task())
    written = data.prepare(split, part_num=2)
    assert any(f"{split}: " in line and "written as OFRecord" in line for line in data.lines)
    before = tiny.read_bytes(data.path("ofrecord", split, f"{split}.of_record-0"))
    data.tokenizer.encode = data.tokenizer.word_ids = data.tokenizer.whole_texts = data.tokenizer.ids_and_spans = None
    read = data.prepare(split, part_num=2)
    assert not any("written as OFRecord" in line for line in data.lines)
    assert same(arrays(expected), arrays(written))
    assert same(arrays(expected), arrays(read))
    assert same(arrays(expected), arrays(read_split(data.folder, split, part_num=2, fast=False)))
    assert read.manifest == written.manifest
    assert read.text_digest == data.text(split).digest
    assert tiny.read_bytes(data.path("ofrecord", split, f"{split}.of_record-0")) == before


def test_batches_are_equal(data):
    text, _ = data.form().encode(data.text(), data.tokenizer, data.length, data.task())
    data.prepare()
    found = [list(data.batches(iterate_training(records.samples(), 4, [data.length], 2, 7), records)) for records in (text, data.prepare())]
    assert len(found[0]) == len(found[1]) > 4
    assert all(same(one, other) for one, other in zip(*found))


def test_the_manifest(data):
    manifest = data.prepare(prefix="a-", part_num=3).manifest
    assert manifest["form"] == data.name
    assert {name: manifest[name] for name in data.form().settings} == data.form().settings
    assert manifest["task"] == data.task().to_dict()
    assert manifest["text_file"] == data.kind.training_file
    assert [part["name"] for part in manifest["parts"]] == ["a-0", "a-1", "a-2"]
    with pytest.raises(UserError, match=r"manifest.json: lists the parts a-0, a-1, a-2, but --train_data_prefix .* mean a-0, a-1; "):
        data.prepare(prefix="a-", part_num=2)


def test_truncated(tags, answers):
    assert tags.prepare(seq_length=4, resave=True).manifest["truncated"] > 0
    assert any(f"{2 * COUNTS[0]} sentences of " in line and "words without a token" in line for line in tags.lines)
    assert answers.prepare(form=WindowForm(3, 1), resave=True).manifest["truncated"] == 0  # each question has one token
    assert any(f"{4 * COUNTS[0]} questions of " in line and " windows, 0 cut" in line for line in answers.lines)


@pytest.mark.parametrize("resave", [False, True])
def test_example_num_counts_sentences_or_questions(data, resave):
    whole = data.prepare(resave=True)
    used = data.prepare(resave=resave, example_num=3)
    assert used.manifest["num_records"] == len(whole)  # the files hold the whole split
    count = len(whole) if isinstance(data, Tags) else len(data.text())
    assert any(f"--train_example_num 3: the first 3 of {count} rows are used" in line for line in data.lines)
    first = data.text().first(3)
    expected, _ = data.form().encode(first, data.tokenizer, data.length, data.task())
    assert same(arrays(expected), arrays(used))
    assert len(data.prepare(example_num=count + 1)) == len(whole)
    assert any(f"{count} rows, fewer than --train_example_num {count + 1}: all are used" in line for line in data.lines)


def test_training_needs_no_text(data):
    written = data.prepare()
    os.remove(data.path(data.kind.training_file))
    assert same(arrays(written), arrays(data.prepare(task=Task.from_dict(written.manifest["task"]))))
    assert data.task() == Task.from_dict(written.manifest["task"])
    with pytest.raises(UserError, match=rf"train text not found, looked for .*{data.kind.training_file}"):
        data.prepare(resave=True)


# ------------------------------------------------------------------------------------------------------------- stale


def stale(data, message, **changes):
    """The records that are there are refused, and named with the flag, which mends them."""
    with pytest.raises(UserError, match=f"ofrecord/train: the records are stale: .*{message}.*; write them again with --resave_ofrecord$"):
        data.prepare(**changes)
    data.prepare(resave=True, **changes)
    assert same(arrays(data.prepare(**changes)), arrays(data.prepare(resave=True, **changes)))


def test_another_text(data):
    data.prepare()
    path = data.path(data.kind.training_file)
    with open(path, encoding="utf-8") as file:
        content = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(content.replace(*data.change))
    stale(data, f"{data.kind.training_file} has changed since")


def test_another_length(data):
    data.prepare()
    stale(data, "their length is 13 and --seq_length is 12", seq_length=12)


def test_another_vocabulary_and_casing(data, tmp_path):
    data.prepare()
    words = [token for token in data.tokenizer.tokens if not token.startswith("[unused")]
    (tmp_path / "other.txt").write_text("\n".join([*words, "more"]) + "\n", encoding="utf-8")
    other = Tokenizer(str(tmp_path / "other.txt"), TokenizerSettings(False))
    stale(data, "their vocabulary was not .*other.txt.*; they were written with --do_lower_case true", tokenizer=other)


def test_other_labels_and_domains(tags):
    tags.prepare()
    labels = ",".join(reversed(tags.task().labels))
    stale(tags, f"their task is t with domains cr,mr and labels B-.*, not t with cr,mr and {labels}", task=tags.task(label_list=labels))
    tags.prepare(resave=True)
    stale(tags, "not t with mr,cr and", task=tags.task(domains="mr,cr"))


@pytest.mark.parametrize(
    ("kind", "form", "said"),
    [
        (Tags, TagForm(False), "they were written with --label_all_tokens true"),
        (Answers, WindowForm(2, 4), "they were written with --doc_stride 3"),
        (Answers, WindowForm(2, 5), "they were written with --doc_stride 3; they were written with --max_query_length 4"),
    ],
)
def test_other_settings(tmp_path, kind, form, said):
    data = kind(tmp_path)
    data.prepare()
    stale(data, said, form=form)


def test_records_of_another_form(tags, answers):
    """Those of labelled rows, of tags and of answers do not stand for each other, whether there is a manifest or not."""
    answers.prepare()
    stale(tags, "they are records of answers, not of tags")
    samples.text(tags.folder, [("good film", "d", "0"), ("bad film", "d", "1")])
    labelled = {"task": Task("t", ("d",), ("0", "1")), "form": None, "text": TextFolder(tags.folder)}
    with pytest.raises(UserError, match="they are records of tags, not of rows with a label"):
        tags.prepare(**labelled)
    labelled["text"] = TextFolder(tags.folder)
    tags.prepare(resave=True, **labelled)
    stale(tags, "they are records of rows with a label, not of tags")
    os.remove(tags.path("ofrecord", "train", "manifest.json"))
    with pytest.raises(UserError, match="they are records of rows with a label, not of tags; write them again"):
        tags.prepare()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(Tags, "tags", 6), (Tags, "words", -1), (Answers, "start", 13), (Answers, "end", -2), (Answers, "question", -1)],
)
def test_values_that_are_not_allowed(tmp_path, kind, name, value):
    """Damage under a manifest that fits: file, record and byte are named."""
    data = kind(tmp_path)
    records = data.prepare()
    changed = arrays(records)
    changed[name][1] = value
    write_split(data.folder, "train", None, 1, changed, records.manifest)
    with pytest.raises(UserError, match=rf"train.of_record-0: record 2 at byte [0-9]+: {name} is {value}, allowed are 0 to"):
        data.prepare()
