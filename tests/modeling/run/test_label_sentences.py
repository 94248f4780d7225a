"""modeling/run/label_sentences.py: what is refused before records are written."""

from types import SimpleNamespace

import pytest

from modeling.run.label_sentences import find_label_sentences
from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task


@pytest.mark.parametrize(
    ("pair", "tokenizer", "message"),
    [
        (True, object(), "--label_sentences: a row of this task is a pair of texts, a sentence is one: leave the flag out"),
        (False, None, "--label_sentences needs --vocab_file, or a snapshot with its vocabulary"),
    ],
)
def test_what_is_refused(pair, tokenizer, message):
    flags, task = SimpleNamespace(label_sentences="absent.tsv"), Task("t", ("a",), ("0", "1"), pair)
    with pytest.raises(UserError) as error:
        find_label_sentences(SimpleNamespace(flags=flags, task=task, tokenizer=tokenizer))
    assert str(error.value) == message


def test_no_flag():
    assert find_label_sentences(SimpleNamespace(flags=SimpleNamespace(label_sentences=None), task=None)) is None
