"""Tasks: the table, the flags that override it, and what an unknown name reads from the text."""

import json

import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.tasks import KNOWN_TASKS, Task, numbers_for_words, resolve_task


@pytest.mark.parametrize(
    ("name", "domains", "labels", "pair"),
    [
        ("g1", ("SST-2", "mr", "cr"), ("0", "1"), False),
        ("G1", ("SST-2", "mr", "cr"), ("0", "1"), False),
        ("g2", ("mnli", "snli"), ("entailment", "neutral", "contradiction"), True),
        ("g3", ("mrpc", "qqp"), ("0", "1"), True),
        ("SST-2", ("SST-2",), ("0", "1"), False),
        ("mr", ("mr",), ("0", "1"), False),
        ("CR", ("cr",), ("0", "1"), False),
        ("senti", ("books", "dvd", "electronics", "kitchen"), ("positive", "negative"), False),
        (
            "MNLI",
            ("fiction", "government", "slate", "telephone", "travel"),
            ("entailment", "neutral", "contradiction"),
            True,
        ),
    ],
)
def test_known_tasks(name, domains, labels, pair):
    task = resolve_task(name, "no/such/folder")
    assert (task.domains, task.labels, task.pair) == (domains, labels, pair)
    assert (task.num_domains, task.num_labels) == (len(domains), len(labels))
    assert [task.domain_id(domain.upper()) for domain in domains] == list(range(len(domains)))
    assert [task.label_id(label.upper()) for label in labels] == list(range(len(labels)))


def test_all_known_tasks_survive_the_dict():
    for name in KNOWN_TASKS:
        task = resolve_task(name, "")
        assert Task.from_dict(task.to_dict()) == task


@pytest.mark.parametrize("task", [7, {}, {"name": "t", "domains": ["d"], "labels": ["a"], "pair": False}])
def test_damaged_tasks_are_named(tmp_path, task):
    (tmp_path / "ofrecord" / "train").mkdir(parents=True)
    (tmp_path / "ofrecord" / "train" / "manifest.json").write_text(json.dumps({"task": task}))
    with pytest.raises(UserError, match=r"ofrecord/train/manifest\.json: .*; write the records again with --resave_ofrecord$"):
        resolve_task("t", str(tmp_path))


def test_numbers_are_ids_where_labels_are_words():
    senti = resolve_task("senti", "")
    assert [senti.label_id(word) for word in ("positive", "Negative", "0", "1", " 1 ")] == [0, 1, 0, 1, 1]
    for word in ("2", "-1", "neutral", "", "0.0", "½"):
        with pytest.raises(UserError, match="positive, negative"):
            senti.label_id(word)
    # labels that are numbers themselves are matched, never taken as positions
    shifted = Task("t", ("a",), ("1", "2", "-1"))
    assert [shifted.label_id(word) for word in ("1", "2", "-1")] == [0, 1, 2]
    with pytest.raises(UserError):
        shifted.label_id("0")


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
@pytest.mark.parametrize("first", ["", "\ufeff", "review\tdomain\tsentiment\n", "\ufeffReview\tDomain\tSentiment\r\n", "\n"])
def test_numbers_keep_their_names(tmp_path, name, first):
    """Whether `1` is good or bad, a file of numbers does not say, so no word stands for it."""
    (tmp_path / name).write_text(first + "fine\tbooks\t1\npoor\tdvd\t0\n", encoding="utf-8")
    task = resolve_task("senti", str(tmp_path))
    assert task.labels == ("0", "1")
    assert numbers_for_words(task)
    with pytest.raises(UserError, match="positive"):
        task.label_id("positive")
    named = resolve_task("senti", str(tmp_path), label_list="negative,positive")
    assert named.label_id("1") == 1 == named.label_id("positive")
    assert not numbers_for_words(named)
    (tmp_path / name).write_text(first + "fine\tbooks\tpositive\n", encoding="utf-8")
    assert resolve_task("senti", str(tmp_path)).labels == ("positive", "negative")


def test_numbers_of_existing_records(tmp_path):
    """Records whose text is gone are read with the names that they were written with."""
    folder = tmp_path / "ofrecord" / "train"
    folder.mkdir(parents=True)
    for labels in (("0", "1", "2"), ("entailment", "neutral", "contradiction")):
        stored = Task("mnli", KNOWN_TASKS["mnli"][0], labels, True)
        (folder / "manifest.json").write_text(json.dumps({"task": stored.to_dict()}))
        assert resolve_task("mnli", str(tmp_path)) == stored


def test_flags_override_the_table():
    task = resolve_task("senti", "", domains="a, b", label_list=["negative", "positive"])
    assert task.domains == ("a", "b")
    assert task.label_id("negative") == 0
    assert task.pair is False


def test_unknown_name_reads_the_text(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"x\tKitchen\t10\ny\tbooks\t9\nz\tkitchen\t9\n")
    task = resolve_task("Mine", str(tmp_path))
    assert task == Task("mine", ("books", "Kitchen"), ("9", "10"), False)
    assert resolve_task("mine", str(tmp_path), domains="kitchen,books").domains == ("kitchen", "books")
    assert resolve_task("mine", str(tmp_path), label_list="10,9").labels == ("10", "9")


def test_unknown_name_sees_pairs(tmp_path):
    (tmp_path / "ofrecord").mkdir()
    (tmp_path / "ofrecord" / "train.csv").write_bytes(b"x\ty\td\tno\nx\tz\td\tyes\n")
    assert resolve_task("mine", str(tmp_path)) == Task("mine", ("d",), ("no", "yes"), True)


def test_unknown_name_without_text(tmp_path):
    with pytest.raises(UserError, match="--domains and --label_list"):
        resolve_task("mine", str(tmp_path))
    with pytest.raises(UserError, match="--domains and --label_list"):
        resolve_task("mine", str(tmp_path), domains="a")
    assert resolve_task("mine", str(tmp_path), domains="a,b", label_list="x,y") == Task("mine", ("a", "b"), ("x", "y"))


def test_unknown_name_reads_the_manifest(tmp_path):
    folder = tmp_path / "ofrecord" / "train"
    folder.mkdir(parents=True)
    stored = Task("mine", ("d", "c"), ("no", "yes"), True)
    import json

    (folder / "manifest.json").write_text(json.dumps({"task": stored.to_dict()}))
    assert resolve_task("mine", str(tmp_path)) == stored
    (folder / "manifest.json").write_text(json.dumps({"task": {"name": "mine"}}))
    with pytest.raises(UserError, match="domains"):
        resolve_task("mine", str(tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (b"a\tb\n", "row 1: 2 columns"),
        (b"a\td\t0\na\tb\td\t0\n", "row 2: 4 columns"),
        (b"a\t\t0\n", "row 1: the domain is empty"),
        (b"a\td\t\n", "row 1: the label is empty"),
        (b"a\td\t0\n", "--label_list"),
    ],
)
def test_unknown_name_with_bad_text(tmp_path, rows, message):
    (tmp_path / "train.csv").write_bytes(rows)
    with pytest.raises(UserError, match=message):
        resolve_task("mine", str(tmp_path))


@pytest.mark.parametrize(
    ("domains", "labels"),
    [((), ("0", "1")), (("a",), ("0",)), (("a", "A"), ("0", "1")), (("a",), ("x", "X")), (("a", ""), ("0", "1"))],
)
def test_bad_names(domains, labels):
    with pytest.raises(UserError, match=r"--domains|--label_list"):
        Task("t", domains, labels)


@pytest.mark.parametrize(
    ("domains", "labels", "said"),
    [
        ("d", "O,O", "--label_list: label 'O' is listed twice"),
        ("d", "B-PER,O,b-PER", "--label_list: label 'b-PER' is listed twice (also as 'B-PER': upper and lower case are the same)"),
        ("SST-2,mr,SST-2", "0,1", "--domains: domain 'SST-2' is listed twice"),
        ("Mr,d,MR", "0,1", "--domains: domain 'MR' is listed twice (also as 'Mr': upper and lower case are the same)"),
    ],
)
def test_names_that_are_listed_twice(domains, labels, said):
    """The message has the names as the flag has them."""
    with pytest.raises(UserError) as error:
        resolve_task("g1", "no/such/folder", domains=domains, label_list=labels)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("O",), "task 't' has 1 label (O), needs at least 2: give "),
        (("a", "A", "b"), "label 'A' is listed twice"),
        (("pos", "p\u00ados"), "the labels"),
        (("x\x1b", "y"), "label 'x\\x1b' contains the character"),
        (("", "y"), "label '' is empty"),
    ],
)
def test_names_of_a_file(labels, said):
    """A message names the file that has the names, and the flag if a flag gave them."""
    with pytest.raises(UserError) as error:
        Task("t", ("d",), labels, origins={"label": "data/train.csv"})
    assert str(error.value).startswith(f"data/train.csv: {said}")
    with pytest.raises(UserError) as error:
        Task("t", ("d",), labels, origins={"domain": "data/train.csv"})
    assert "train.csv" not in str(error.value)
    assert "--label_list" in str(error.value)


@pytest.mark.parametrize("values", [None, {}, {"name": "t", "domains": "ab", "labels": ["0", "1"], "pair": False}, []])
def test_bad_dict(values):
    with pytest.raises(UserError):
        Task.from_dict(values)


def test_empty_name():
    with pytest.raises(UserError, match="--task_name"):
        resolve_task(" ", "")


@pytest.mark.parametrize(
    ("name", "domains", "labels", "said"),
    [
        ("t", ("a",), ("x\ny", "z"), r"--label_list: label 'x\\ny' contains the character U\+000A"),
        ("t", ("a",), ("x\ty", "z"), r"U\+0009"),
        ("t", ("a\x1b[31m",), ("x", "y"), r"--domains: domain 'a\\x1b\[31m' contains the character U\+001B"),
        ("t\x9b", ("a",), ("x", "y"), r"--task_name: .*U\+009B"),
        ("t", ("\ud800",), ("x", "y"), r"U\+D800"),
        ("t", ("a\u2028b",), ("x", "y"), r"U\+2028"),
        ("t" * 225, ("a",), ("x", "y"), "has 225 bytes, at most 150 are allowed"),
        ("t", ("a" * 1000,), ("x", "y"), "has 1000 bytes"),
    ],
)
def test_names_that_no_folder_file_or_terminal_can_take(name, domains, labels, said):
    with pytest.raises(UserError, match=said) as error:
        Task(name, domains, labels)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200


def test_many_names():
    """A message lists the first of them; each has its number, in any case."""
    task = Task("t", ("d",), tuple(f"B-T{number}" for number in range(3000)))
    assert [task.label_id(name) for name in ("B-T0", "b-t1742", " B-T2999 ")] == [0, 1742, 2999]
    with pytest.raises(UserError) as error:
        task.label_id("B-X")
    assert "(B-T0, B-T1, " in str(error.value)
    assert "B-T19 and 2980 others)" in str(error.value)
    assert len(str(error.value)) < 400
