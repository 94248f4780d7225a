"""ofrecord_util/text_warnings.py: what is said of text that is read, but from which a model cannot learn well."""

import numpy as np
import pytest
from text_samples import PAIRS, TASK, read, read_unlabelled

from ofrecord_util.tasks import Task
from ofrecord_util.text_warnings import missing_names, text_warnings


def test_rows_that_say_enough_bring_no_warning(tmp_path):
    train = read(tmp_path, b"a\tbooks\tpositive\nb\tdvd\tnegative\n")
    dev = read(tmp_path, b"c\tbooks\tpositive\nd\tdvd\tnegative\n", name="dev.csv")
    assert text_warnings(train, TASK) == text_warnings(dev, TASK, train) == []


@pytest.mark.parametrize(
    ("data", "of_train", "of_dev"),
    [
        (
            b"a\tbooks\tpositive\nb\tdvd\tpositive\n",
            ["all 2 rows have the label positive (none negative): the classifier cannot learn to separate labels"],
            ["all 2 rows have the label positive (none negative): a constant prediction would"],
        ),
        (
            b"a\tdvd\tpositive\nb\tdvd\tnegative\nc\tdvd\tnegative\n",
            ["all 3 rows have the domain dvd (none books): prototypical scores compare with the prototypes of this domain only, and a"],
            ["all 3 rows have the domain dvd (none books): the accuracy"],
        ),
        (
            b"a\tdvd\tpositive\n",
            ["the only row has the label positive", "the only row has the domain dvd"],
            ["the only row has the label positive", "the only row has the domain dvd"],
        ),
        (
            b"a\tbooks\tpositive\nb\tdvd\tnegative\na\tdvd\tpositive\na\tbooks\tnegative\na\tbooks\tpositive\n",
            ["3 of 5 rows repeat the text of an earlier one, 1 of them under another label"],
            ["3 of 5 rows repeat the text of an earlier one, 1 of them under another label"],
        ),
    ],
)
def test_warnings(tmp_path, data, of_train, of_dev):
    train = read(tmp_path, b"t\tbooks\tpositive\nu\tdvd\tnegative\n")
    split = read(tmp_path, data, name="split.csv")
    for found, expected in ((text_warnings(split, TASK), of_train), (text_warnings(split, TASK, train), of_dev)):
        assert len(found) == len(expected)
        assert all(line.startswith(f"{tmp_path}/split.csv: {part}") for line, part in zip(found, expected)), found


def test_quotes_around_most_texts(tmp_path):
    rows = b'a\tbooks\tpositive\n"b"\tdvd\tnegative\n"c d"\tdvd\tpositive\n'
    (line,) = text_warnings(read(tmp_path, rows), TASK)
    assert line.startswith(f"{tmp_path}/train.csv: 2 of 3 texts, the first in sample 2, are in double quotes")
    assert text_warnings(read(tmp_path, rows.replace(b'"b"', b'"b" or c')), TASK) == []
    some = b"".join(b"%s\tbooks\tpositive\na%d\tdvd\tnegative\n" % (b'"x%d"' % row if row < 4 else b"x%d" % row, row) for row in range(5))
    (line,) = text_warnings(read(tmp_path, some), TASK)
    assert "4 of 10 texts, the first in sample 1, are in double quotes" in line
    doubled = rows.replace(b'"b"', b'"say ""b"""').replace(b'"c d"', b"c d")
    (line,) = text_warnings(read(tmp_path, doubled), TASK)
    assert "1 of 3 texts, the first in sample 2, are in double quotes" in line


def test_one_of_three_domains_is_missing(tmp_path):
    task = Task("t", ("books", "dvd", "kitchen"), ("positive", "negative"))
    split = read(tmp_path, b"a\tbooks\tpositive\nb\tdvd\tnegative\n", task)
    assert text_warnings(split, task) == [f"{tmp_path}/train.csv: no row has the domain kitchen: it is not trained"]
    assert text_warnings(split, task, read(tmp_path, b"z\tdvd\tpositive\n")) == [
        f"{tmp_path}/train.csv: no row has the domain kitchen: it is not measured"
    ]


def test_many_names_are_missing(tmp_path):
    """Several are named as such, the first ones of many."""
    names = tuple(f"d{number}" for number in range(23))
    for count, said in (
        (3, "no row has the domains d1, d2: they are not trained"),
        (23, f"no row has the domains {', '.join(names[1:21])} and 2 others: they are not trained"),
        (22, f"no row has the domains {', '.join(names[1:21])} and 1 other: they are not trained"),
    ):
        counts = np.array([5, *[0] * (count - 1)])
        assert missing_names("FILE", "domain", names[:count], counts, True) == f"FILE: {said}"
    assert (
        missing_names("FILE", "tag", names[:3], np.array([0, 0, 1]), True, "ONE", "word")
        == "FILE: the only word has the tag d2 (none d0, d1): ONE"
    )


def test_rows_that_were_learned_are_counted(tmp_path):
    """The same text is the same whatever its label and domain; of a pair, both texts."""
    train = read(tmp_path, b"a\tbooks\tpositive\nb\tdvd\tnegative\n")
    dev = read(tmp_path, b"b\tbooks\tpositive\nc\tdvd\tnegative\na\tdvd\tpositive\n", name="dev.csv")
    (line,) = text_warnings(dev, TASK, train)
    assert line.startswith(f"{tmp_path}/dev.csv: 2 of 3 rows have a text that is also in {tmp_path}/train.csv: ")
    train = read(tmp_path, b"a\tb\td\t1\nc\td\td\t0\n", PAIRS)
    (line,) = text_warnings(read(tmp_path, b"a\td\td\t1\nb\ta\td\t1\nc\td\td\t0\n", PAIRS, "dev.csv"), PAIRS, train)
    assert "1 of 3 rows have a text that is also in" in line


def test_warnings_do_not_speak_of_labels(tmp_path):
    split = read_unlabelled(tmp_path, b"a\tbooks\na\tdvd\n")
    assert text_warnings(split, TASK) == [f"{tmp_path}/unlabelled.csv: 1 of 2 rows repeat the text of an earlier one"]
    (line,) = text_warnings(read_unlabelled(tmp_path, b"a\tbooks\nb\tbooks\n"), TASK)
    assert line.endswith("all 2 rows have the domain books (none dvd): the student learns from this domain only")


def test_a_split_without_its_training_text_is_measured(tmp_path):
    dev = read(tmp_path, b"a\tbooks\tpositive\nb\tbooks\tnegative\n", name="dev.csv")
    assert text_warnings(dev, TASK, learns=False)[0].endswith(": the accuracy is that of this domain only")
