"""The settings of a report: the table of the data."""

from types import SimpleNamespace

from modeling.report.settings import data_table


def test_rows_without_labels_have_no_counts_of_labels():
    of_dev = {"books": {"positive": 2, "negative": 1}, "dvd": {"positive": 0, "negative": 3}}
    data = {
        "unlabelled": {"rows": 7, "by_domain": {"books": {"unlabelled": 5}, "dvd": {"unlabelled": 2}}, "text_file": "unlabelled.csv"},
        "dev": {"rows": 6, "by_domain": of_dev, "text_file": "dev.csv", "text_digest": "d"},
    }
    run = SimpleNamespace(record={"data": data, "task": {"labels": ["positive", "negative"]}}, domains=["books", "dvd"])
    header, rows = data_table(run)
    assert header == ["split", "domain", "positive", "negative", "rows", "file", "digest of the text"]
    assert [row[:5] for row in rows] == [
        ["unlabelled", "all", "", "", 7],
        ["unlabelled", "books", "", "", 5],
        ["unlabelled", "dvd", "", "", 2],
        ["dev", "all", 2, 4, 6],
        ["dev", "books", 2, 1, 3],
        ["dev", "dvd", 0, 3, 3],
    ]
