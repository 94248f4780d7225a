"""Which column is the text, the domain and the label: told from names, or chosen by the flags."""

import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.text_columns import ROLES, TextOptions, find_columns, looks_like_header
from ofrecord_util.text_kinds import CSV, JSONL, TSV, Row


def columns(cells, kind=CSV, roles=ROLES, **options):
    options.setdefault("only_domain", "d")
    cells = dict.fromkeys(cells.split(","), "x") if kind == JSONL else cells.split(",")
    found = find_columns(Row(1, 1, cells), kind, TextOptions(**options), "FILE", roles)
    return found and (found.header, found.places)


@pytest.mark.parametrize(
    ("header", "places"),
    [
        ("text,domain,label", {"text": 0, "domain": 1, "label": 2}),
        ("Label, Review ,Domain", {"text": 1, "domain": 2, "label": 0}),
        ("id,stars,review", {"text": 2, "label": 1}),
        ("Unnamed: 0,text,category", {"text": 1, "label": 2}),
        ("text,category,label", {"text": 0, "domain": 1, "label": 2}),
        ("text,genre,category", {"text": 0, "domain": 1, "label": 2}),
        ("title,text,label", {"text": 1, "label": 2}),
        ("text,label,label_text", {"text": 0, "label": 1}),
        ("premise,hypothesis,genre,gold_label", {"text": 0, "pair": 1, "domain": 2, "label": 3}),
        ("sentence2,label,sentence1", {"text": 2, "pair": 0, "label": 1}),
        ("asin,review_text,overall,helpful votes,rating", {"text": 1, "label": 4}),
    ],
)
def test_headers(header, places):
    assert columns(header) == (True, places)
    keys = header.split(",")
    assert columns(header, JSONL) == (False, {role: keys[place] for role, place in places.items()})


@pytest.mark.parametrize(
    ("header", "options", "places"),
    [
        ("a1,b1,c1", {"text": "b1", "label": "c1"}, {"text": 1, "label": 2}),
        ("a1,b1,c1", {"text": "B1 ", "label": "c1", "domain": "a1"}, {"text": 1, "domain": 0, "label": 2}),
        ("title,text,label", {"text": "title"}, {"text": 0, "label": 2}),
        ("text,domain,label,stars", {"label": "stars"}, {"text": 0, "domain": 1, "label": 3}),
        ("text,domain,label", {"label": "3", "domain": "2", "text": "1"}, {"text": 0, "domain": 1, "label": 2}),
        ("one,two,three", {"text": "one", "pair": "three", "label": "2"}, {"text": 0, "pair": 2, "label": 1}),
    ],
)
def test_flags_choose(header, options, places):
    assert columns(header, **options) == (True, places)


def test_numbers_need_no_header():
    assert columns("7,a good film,1", text="2", label="3") == (False, {"text": 1, "label": 2})
    assert columns("7,a good film,1") is None
    assert columns("7,a good film,1", TSV) is None


def test_keys_are_no_numbers():
    assert columns("1,2", JSONL, text="2", label="1") == (False, {"text": "2", "label": "1"})
    with pytest.raises(UserError, match=r"row 1 \(JSON lines\): no column '3': the columns are '1', '2'"):
        columns("1,2", JSONL, text="3", label="1")


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("title,sentence,label", {}, "several columns may be the text: 'title', 'sentence'; --text_column decides"),
        ("text,stars,target", {}, "several columns may be the label: 'stars', 'target'; --label_column decides"),
        ("text,genre,topic,label", {}, "several columns may be the domain: 'genre', 'topic'; --domain_column decides"),
        ("text,label", {"only_domain": None}, "no column is known as that of the domain: .*--domains NAME"),
        (
            "text,label",
            {"text": "body"},
            "no column 'body': the columns are 'text', 'label'; give --text_column one of them, or its number",
        ),
        ("text,text,label", {"text": "text"}, "2 times the column 'text'"),
        ("text,label", {"text": "3", "label": "label"}, "has 2 columns, but --text_column is 3"),
        ("text,label", {"text": "0"}, "--text_column is 0"),
        ("text,label", {"text": "text", "label": "text"}, "--label_column: column 'text' of FILE is the text already"),
        ("7,a film,1", {"text": "2", "label": "2"}, "--label_column: column 2 of FILE is the text already"),
        ("7,a film,1", {"text": "2"}, "no column is known as that of the label: the row has 3 columns; --label_column names it"),
    ],
)
def test_refusals(header, options, message):
    with pytest.raises(UserError, match=message) as error:
        columns(header, **options)
    assert "FILE" in str(error.value)


def test_roles_that_a_caller_needs():
    assert columns("text,genre,topic", roles=("text",)) == (True, {"text": 0})
    assert columns("label,text", roles=("text", "label")) == (True, {"text": 1, "label": 0})


def test_what_looks_like_a_header():
    assert looks_like_header(["asin", "review", "stars"], CSV)
    assert not looks_like_header(["asin", "review", "stars"], TSV)  # the documented form keeps its first row
    assert looks_like_header(["asin", "user", "when", "review", "stars"], TSV)
    assert not looks_like_header(["7", "review", "stars"], CSV)
    assert not looks_like_header(["a good film, mostly", "mr", "1"], CSV)
