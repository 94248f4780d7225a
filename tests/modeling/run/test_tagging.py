"""modeling/run/tagging.py: what the log says of a split."""

from types import SimpleNamespace

import pytest
import tiny

from modeling.run import tagging
from modeling.run.tagging import load_tagged
from ofrecord_util.dataset import Dataset
from ofrecord_util.tagged_text import TaggedFolder
from ofrecord_util.tagging import TagForm
from ofrecord_util.tasks import Task
from ofrecord_util.tokenization import Tokenizer

LABELS = ("B-PER", "I-PER", "O")


def log_of(tmp_path, monkeypatch, split, rows, domains=("mr", "cr")):
    """The lines of the log about a split with these rows."""
    (tmp_path / f"{split}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    tokenizer, task = Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt"))), Task("names", domains, LABELS)
    folder, lines = TaggedFolder(str(tmp_path)), []
    records = Dataset(str(tmp_path), task, tokenizer, 13, text=folder, form=TagForm(), log=lambda _line: None).records(split)
    monkeypatch.setattr(tagging, "read_split", lambda *_: (records, folder.read(split, task)))
    splits = SimpleNamespace(facts={split: {"text_file": "f", "text_digest": "d"}}, digests={}, held_out=[])
    load_tagged(SimpleNamespace(task=task, tokenizer=tokenizer, log=lines.append, splits=splits, flags=None), split)
    return lines


@pytest.mark.parametrize(
    ("split", "rows", "said"),
    [
        (
            "train",
            [("film", "mr", "O"), ("good", "mr", "O"), (), ("bad", "cr", "O")],
            ["all 3 words have the tag O (none B-PER, I-PER): the model cannot learn to tell tags apart"],
        ),
        ("dev", [("film", "mr", "O"), (), ("bad", "cr", "O")], ["all 2 words have the tag O (none B-PER, I-PER): a constant prediction"]),
        (
            "train",
            [("film", "mr", "B-PER"), ("good", "mr", "O")],
            ["no word has the tag I-PER: it is not trained", "no sentence has the domain cr: it is not trained"],
        ),
        ("train", [("film", "mr", "B-PER"), ("a", "mr", "I-PER"), (), ("good", "cr", "O")], []),
    ],
)
def test_tags_and_domains_that_are_missing(tmp_path, monkeypatch, split, rows, said):
    """With --label_list or --domains, as for the labels of a classifier."""
    _, *warnings = log_of(tmp_path, monkeypatch, split, rows)
    assert len(warnings) == len(said)
    for warning, part in zip(warnings, said):
        assert warning.startswith(f"warning: {tmp_path}/{split}.tsv: {part}")


def test_words_that_the_vocabulary_lacks(tmp_path, monkeypatch):
    rows = [("zebra", "mr", "B-PER"), ("a", "mr", "I-PER"), (), ("good", "cr", "O")]
    assert not log_of(tmp_path, monkeypatch, "train", rows)[0].startswith("warning")
    (line,) = log_of(tmp_path, monkeypatch, "dev", [*rows, ()] * 8)
    assert line.startswith("warning: dev: 16 sentences of ")
    assert "8 of 24 tokens are [UNK] (33.3 %): check --vocab_file" in line
