"""modeling/report/{facts,page,results,…}.py: the page of a run holds what its files say, says what is missing, and needs nothing from
outside; damaged files are refused in one line."""

import glob
import json
import os
import re
import shutil
from html.parser import HTMLParser

import pytest
from run_folder import EVIL, TASK, write_run, write_text

from modeling.report.card import write_cards
from modeling.report.facts import read_run
from modeling.report.page import page, status, write_page
from modeling.report.results import kept_text, wilson_interval
from modeling.run.measures import SCALARS, calibration_error
from ofrecord_util.errors import UserError

_VOID = ("meta", "img", "br")


class _Reader(HTMLParser):
    """Checks that every element is closed where it should be, and notes tags, addresses and words."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.words = [], set(), [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("href", "src", "action", "data", "poster", "xlink:href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    base = tmp_path_factory.mktemp("report")
    return write_run(str(base / "run"), str(base / "data"))


@pytest.fixture
def folder(written, tmp_path):
    """A copy that a test may spoil; the data stay where they are."""
    return shutil.copytree(written, str(tmp_path / "run"))


def test_everything_is_on_the_page(written):
    run = read_run(written)
    text = page(run)
    reader = _Reader(text)
    assert not run.missing
    assert "Not on this page" not in text
    assert "Training finished." in text
    assert not reader.tags & {"script", "img", "link", "iframe", "i"}
    assert all(address.startswith("#") for address in reader.addresses)
    assert not re.search(r"https?:|url\(|@import", text)
    ids = set(re.findall(r' id="(\w+)"', text))
    assert (
        {address[1:] for address in reader.addresses} == ids == {"results", "measures", "curves", "confusion", "hardest", "training", "run"}
    )
    words = "".join(reader.words)
    for expected in (*TASK.domains, EVIL, "meta_distill.py", "b" * 64, "c" * 64, "student, dev", "teacher, test", "Hidden loss"):
        assert expected in words, expected
    dev, teacher = run.result("dev"), run.result("teacher_dev")
    assert dev["step"] == 20
    assert kept_text(dev["accuracy"], teacher["accuracy"]) in words
    assert next(iter(run.snapshots.values())) in words
    assert "--keep_all_best" in words
    assert words.index("row 0") < words.index("row 2")  # the two that are far off come first
    assert "prototype of R&B <i>, yes" in words


def test_further_measures(written):
    run = read_run(written)
    words = "".join(_Reader(page(run)).words)
    for split in ("dev", "test"):
        result = run.result(split)
        low, high = result["intervals"]["macro_f1"]
        assert f"macro F1{result['macro_f1']:.4f}{low:.3f} to {high:.3f}" in words
        assert f"calibration error{result['calibration_error']:.4f}" in words
        for label, values in result["by_class"].items():
            assert f"{label}{values['precision']:.4f}{values['recall']:.4f}{values['f1']:.4f}{values['support']}" in words
        assert calibration_error(run.predictions[split].reliability) == pytest.approx(result["calibration_error"], abs=1e-5)
        assert f"Reliability, {split}" in words


def test_a_run_of_an_earlier_version_has_a_diagram_only(folder):
    path = os.path.join(folder, "metrics.jsonl")
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        for name in (*SCALARS, "by_class", "intervals"):
            row.pop(name, None)
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    words = "".join(_Reader(page(read_run(folder))).words)
    assert "macro F1" not in words
    assert "Reliability, dev" in words


def test_flags_that_differ_come_first(written):
    text = page(read_run(written))
    changed, others = text[text.index("Flags that differ") :].split("at their defaults", 1)
    for flag in ("task_name", "data_dir", "num_epochs", "teacher_model", "keep_all_best"):
        assert f"--{flag}<" in changed, flag
        assert f"--{flag}<" not in others.split("<h3")[0], flag
    for flag in ("seed", "learning_rate", "domains"):
        assert f"--{flag}<" in others, flag
        assert f"--{flag}<" not in changed, flag


def test_the_page_is_written_whole(written):
    path = write_page(read_run(written))
    assert path == os.path.join(written, "report.html")
    assert not glob.glob(path + ".tmp*")
    with open(path, encoding="utf-8") as file:
        assert file.read() == page(read_run(written))
    with pytest.raises(UserError, match="cannot be written"):
        write_page(read_run(written), os.path.join(written, "none", "page.html"))


MISSING = {
    "flags.json": ("no flags.json", "scores"),
    "metrics.jsonl": ("no metrics.jsonl", "curves"),
    "predictions_dev.tsv": ("no confusion matrix and no list of the hardest samples", "hardest"),
    "predictions_test.tsv": ("predictions_test.tsv", "student, test"),
}


@pytest.mark.parametrize("name", sorted(MISSING))
def test_a_missing_file_is_named(folder, name):
    os.remove(os.path.join(folder, name))
    run = read_run(folder)
    text = page(run)
    _Reader(text)
    assert any(MISSING[name][0] in line for line in run.missing)
    assert "Not on this page" in text


def test_only_the_metrics(folder):
    for path in glob.glob(os.path.join(folder, "*")):
        if not path.endswith("metrics.jsonl"):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    run = read_run(folder)
    words = "".join(_Reader(page(run)).words)
    assert run.domains == sorted(TASK.domains)
    assert all(name in words for name in TASK.domains)
    assert write_cards(run) == []


def test_only_the_flags(folder):
    for path in glob.glob(os.path.join(folder, "*")):
        if not path.endswith("flags.json"):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    text = page(read_run(folder))
    assert "The run has no results yet." in text
    assert "No split has been evaluated yet." in text


def test_no_run(tmp_path):
    for path, message in ((str(tmp_path / "none"), "no such folder"), (str(tmp_path), "not the folder of a run")):
        with pytest.raises(UserError, match=message):
            read_run(path)


def test_cut_off(folder):
    with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
        lines = [line for line in file if '"kind": "train"' in line][:7]
    with open(os.path.join(folder, "metrics.jsonl"), "w", encoding="utf-8") as file:
        file.write("".join(lines) + '{"kind": "train", "st')  # killed while it wrote
    assert status(read_run(folder)) == "Stopped after step 7 of 40."
    os.mkdir(os.path.join(folder, "state_step_7"))
    run = read_run(folder)
    assert len(run.kind("train")) == 7
    assert status(run) == "Stopped after step 7: --resume continues the run."
    _Reader(page(run))


def change_record(folder, change):
    path = os.path.join(folder, "flags.json")
    with open(path, encoding="utf-8") as file:
        record = json.load(file)
    change(record)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file)


def test_data_of_another_text(folder, tmp_path):
    change_record(folder, lambda record: record["data"]["train"].update(text_digest="0" * 64))
    run = read_run(folder)
    assert run.samples is None
    assert any("another training text" in line for line in run.missing)
    change_record(folder, lambda record: record["flags"].update(data_dir=str(tmp_path / "gone")))
    assert any("--data_dir names their folder" in line for line in read_run(folder).missing)
    change_record(folder, lambda record: record.update(script="finetuning"))
    assert not any("scores" in line for line in read_run(folder).missing)  # which does without


def test_scores_without_a_map(tmp_path):
    """Of an earlier version: the domains come from the text, if that is still there."""
    run = write_run(str(tmp_path / "run"), str(tmp_path / "data"), with_map=False)
    facts = read_run(run)
    assert facts.samples.map is None
    assert facts.samples.domain.tolist() == [row % 3 for row in range(19)]
    text = page(facts)
    assert "Prototypical scores" in text
    assert "Map of the training" not in text
    assert "preprocess.py of this version writes it" in text
    os.remove(str(tmp_path / "data" / "train.csv"))
    facts = read_run(run)
    assert facts.samples is None
    assert any("the domains of the scored samples are not known" in line for line in facts.missing)


def test_moved_data(folder, tmp_path, written):
    data = os.path.join(os.path.dirname(written), "data")
    change_record(folder, lambda record: record["flags"].update(data_dir="gone"))
    assert read_run(folder).samples is None
    moved = read_run(folder, data)
    assert len(moved.samples.scores) == 19
    assert not moved.missing
    write_text(str(tmp_path / "other"), "train")
    assert read_run(folder, str(tmp_path / "other")).samples is None


@pytest.mark.slow
@pytest.mark.parametrize("odd", [None, 3, "x", {"x": "y"}, [None]])
def test_flags_of_other_types(folder, odd):
    """Whatever flags.json holds: a page, or one line that says what is wrong."""
    with open(os.path.join(folder, "flags.json"), encoding="utf-8") as file:
        before = json.load(file)
    places = [(before, name) for name in before]
    for part in ("flags", "task", "data", "versions", "config"):
        places += [(before[part], name) for name in before[part]]
    places += [(before["data"]["dev"], name) for name in before["data"]["dev"]]
    refused = 0
    for holder, name in places:
        value, holder[name] = holder[name], odd
        with open(os.path.join(folder, "flags.json"), "w", encoding="utf-8") as file:
            json.dump(before, file)
        holder[name] = value
        try:
            run = read_run(folder)
            write_cards(run)
            page(run)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017  some of the files are accepted
            assert "flags.json" in str(error)  # noqa: PT017
    assert refused >= (0 if odd is None else 5)


@pytest.mark.slow
@pytest.mark.parametrize("odd", [None, "x", {}, -1])
def test_metrics_of_other_types(folder, odd):
    path = os.path.join(folder, "metrics.jsonl")
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    refused = 0
    for place in (0, 5, -2, -1):
        for name in list(rows[place]):
            value, rows[place][name] = rows[place][name], odd
            with open(path, "w", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
            rows[place][name] = value
            try:
                page(read_run(folder))
            except UserError as error:
                refused += 1
                assert re.search(r"metrics.jsonl: line \d+: ", str(error))  # noqa: PT017  some of the rows are accepted
    assert refused >= (4 if odd == -1 else 15)


def test_numbers_that_are_not_finite(folder):
    path = os.path.join(folder, "metrics.jsonl")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(re.sub(r'"loss": [\d.]+', '"loss": NaN', text).replace('"cross_entropy": 9.0', '"cross_entropy": Infinity'))
    _Reader(page(read_run(folder)))


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(0, 10, 0, 0.2775), (10, 10, 0.7225, 1), (5, 10, 0.2366, 0.7634), (709, 800, 0.8623, 0.9064)],
)
def test_wilson_interval(correct, total, low, high):
    """Against values of the formula's usual tables."""
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=2e-4)


def test_kept():
    assert kept_text(0.75, 0.5) == "150.0 %"
    assert kept_text(0.5, 0) == "no share"
