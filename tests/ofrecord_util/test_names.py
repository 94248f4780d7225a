"""ofrecord_util/names.py: names that look the same."""

import pytest

from ofrecord_util import names
from ofrecord_util.text import read_names
from ofrecord_util.text_files import TextRows


@pytest.mark.parametrize(
    ("name", "others", "expected"),
    [
        ("good", ["bad", "gооd"], "gооd"),  # two Cyrillic letters
        ("new  york", ["new york"], "new york"),
        ("né", ["ne\u0301"], "ne\u0301"),
        ("a\u200bb", ["ab", "c"], "ab"),
        ("Good", ["good"], None),
        ("good", ["good"], None),
        ("good", ["bad", "food"], None),
        ("good", [], None),
    ],
)
def test_a_lookalike(name, others, expected):
    assert names.Confusables(others).find(name) == expected
    assert names.split_by_look([name, *others]) == (None if expected is None else tuple(sorted((name, expected))))


def test_the_look_of_each_name_is_computed_once_or_twice(monkeypatch):
    """A column of texts that is read as labels has as many names as rows."""
    calls, look = [], names.look
    monkeypatch.setattr(names, "look", lambda name: calls.append(name) or look(name))
    assert names.split_by_look([f"a{number}" for number in range(300)]) is None
    assert len(calls) <= 600
    del calls[:]
    rows = [(f"row {number}", [f"text {number}", f"d{number % 2}", f"label {number % 150}"]) for number in range(300)]
    read_names(TextRows("f.csv", "tab-separated", None, False, rows))
    assert len(calls) <= 2 * 152
