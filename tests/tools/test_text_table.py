"""tools/text_table.py: columns of one width, and names that a terminal must not obey."""

from tools.text_table import text_table


def test_columns_are_aligned():
    assert text_table(["name", "rows"], [["a", 5], ["longer", "12"]]) == ["name    rows", "a          5", "longer    12"]
    assert text_table(("a", "b", "c"), [("x", "yy", "1")], left=2) == ["a  b   c", "x  yy  1"]


def test_escape_sequences_are_shown():
    assert text_table(["name"], [["a\x1b[31m"]]) == ["name", "a\\x1b[31m"]
