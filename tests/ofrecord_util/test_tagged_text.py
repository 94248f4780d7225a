"""ofrecord_util/tagged_text.py: sentences of a file, domains and tags of a task, and what is refused."""

import numpy as np
import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.tagged_text import TaggedFolder, check_tags, read_sentences
from ofrecord_util.tasks import Task, resolve_task
from ofrecord_util.text_columns import TextOptions

ROWS = "Ann\tB-PER\nsleeps\tO\n\n\nOslo\tB-LOC\n"
WITH_DOMAINS = "Ann\tnews\tB-PER\r\nsleeps\tnews\tO\r\n\r\nOslo\tsea\tI-LOC\r\n"


def folder(tmp_path, only=None, **files):
    for name, content in files.items():
        (tmp_path / f"{name}.tsv").write_text(content, encoding="utf-8", newline="")
    return TaggedFolder(str(tmp_path), TextOptions(only_domain=only))


def test_sentences():
    first, second = read_sentences(ROWS.split("\n"), "f")
    assert first == (1, ["Ann", "sleeps"], ["B-PER", "O"], None)
    assert second == (5, ["Oslo"], ["B-LOC"], None)
    (plain,) = read_sentences(["Ann\tx\ty", "sleeps"], "f", tagged=False)
    assert plain.words == ["Ann", "sleeps"]
    assert plain.tags == []
    lines = []
    list(read_sentences(["Ann", "", "sleeps\tx\ty", "well\tz"], "f", tagged=False, warn=lines.append))
    assert lines == ["warning: f: row 3 has 3 columns: the first one is the word, the others are not read, in any row"]
    list(read_sentences(["Ann", "sleeps"], "f", tagged=False, warn=lines.append))
    assert len(lines) == 1
    list(read_sentences(["Ann", "lives in Oslo", "Oslo NNP"], "f", tagged=False, warn=lines.append))
    assert lines[1:] == ["warning: f: row 2 is read as one word ('lives in Oslo'): a row has one word, and blanks do not separate columns"]


def test_a_task_is_read_from_the_text(tmp_path):
    text = folder(tmp_path, train=WITH_DOMAINS)
    task = resolve_task("names", str(tmp_path), folder=text)
    assert task == Task("names", ("news", "sea"), ("B-PER", "I-LOC", "O"))
    split = text.read("train", task)
    assert split.words == [["Ann", "sleeps"], ["Oslo"]]
    assert split.tags == [[0, 2], [1]]
    assert split.domain.tolist() == [0, 1]
    assert split.text_a == ["Ann sleeps", "Oslo"]
    assert len(split.first(1)) == 1
    assert split.first(1).tags == [[0, 2]]
    assert len(split.first(None)) == 2


def test_text_without_domains_has_the_one_of_the_task(tmp_path):
    text = folder(tmp_path, "names", train=ROWS)
    task = resolve_task("names", str(tmp_path), folder=text)
    assert task.domains == ("names",)
    assert np.array_equal(text.read("train", task).domain, [0, 0])
    with pytest.raises(UserError, match="no column of domains, and the task has several"):
        folder(tmp_path).names("train")


def test_the_digest_names_words_tags_domains_and_sentences(tmp_path):
    task = Task("names", ("news", "sea"), ("B-PER", "I-LOC", "O"))
    contents = [WITH_DOMAINS, WITH_DOMAINS.replace("\r", ""), WITH_DOMAINS.replace("Ann", "Ben"), WITH_DOMAINS.replace("\r\n\r\n", "\r\n")]
    contents[3] = contents[3].replace("sea", "news")
    contents += [WITH_DOMAINS.replace("sea", "news"), WITH_DOMAINS.replace("tO", "tI-LOC")]
    contents += [WITH_DOMAINS.replace("\tnews\tO", "\tnews\tB-PER")]
    digests = []
    for number, content in enumerate(contents):
        place = tmp_path / str(number)
        place.mkdir()
        digests.append(folder(place, train=content).read("train", task).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5  # the replacement of "tO" changes nothing


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "train.tsv: has no sentence"),
        ("Ann B-PER\n", "row 1: 1 column (tab-separated) where 2 or 3 are expected"),
        ("Ann\tB-PER\nsleeps\tnews\tO\n", "row 2: 3 columns (tab-separated) where 2 as in the first row are expected"),
        ("Ann\tNNP\tx\tB-PER\n", "row 1: 4 columns"),
        ("Ann\tB-PER\n \tO\n", "row 2: the word is empty"),
        ("Ann\t \tO\n", "row 1: the domain is empty"),
        ("word\ttag\n", "row 1: the tag 'tag' is none"),
        ("Ann\tnews\tO\nsleeps\tsea\tO\n", "row 2: the domain is 'sea', but 'news' in row 1, where the sentence begins"),
        ("Ann\tB-X\n", "row 1: label 'B-X' is not one of task"),
        ("sleeps\tO\nAnn\tB-X\n", "row 2: label 'B-X' is not one of task"),
        ("Ann\tland\tO\n", "row 1: domain 'land' is not one of task"),
    ],
)
def test_bad_rows(tmp_path, content, said):
    text = folder(tmp_path, "news", train=content)
    with pytest.raises(UserError) as error:
        text.read("train", Task("names", ("news", "sea"), ("B-PER", "I-LOC", "O")))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [("PER", "LOC"), ("B-PER", "O", "loc"), ("b-PER", "O")])
def test_labels_that_are_no_tags(labels):
    """The flag is named, not a row of the text."""
    wrong = next(label for label in labels if label not in ("B-PER", "O"))
    with pytest.raises(UserError, match=f"^--label_list: the label '{wrong}' of task 'names' is no tag: a tag is O, or B, I, E or S"):
        check_tags(Task("names", ("news", "sea"), labels))
    with pytest.raises(UserError, match=f"^manifest: the label '{wrong}' of task 'names' is no tag"):
        check_tags(Task("names", ("news", "sea"), labels, origins={"label": "manifest"}))
    check_tags(Task("names", ("news",), ("O", "B-PER", "I-a-b", "E", "S-x")))


def test_a_single_tag(tmp_path):
    text = folder(tmp_path, only="news", train="Ann\tO\n")
    with pytest.raises(
        UserError, match=r"/train\.tsv: task 'names' has 1 label \(O\), needs at least 2: give rows with others, or --label_list"
    ):
        resolve_task("names", str(tmp_path), folder=text)


def test_a_missing_split(tmp_path):
    with pytest.raises(UserError, match=r"train text not found, looked for .*train\.tsv.*train\.conll"):
        folder(tmp_path, "news").read("train", Task("names", ("news",), ("B-PER", "O")))
