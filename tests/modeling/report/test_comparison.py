"""modeling/report/comparison.py and its page: groups, mean and spread over seeds, McNemar's test on the same rows."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from run_folder import EVIL, TASK, predictions_of, write_run

from modeling.report.comparison import group_name, group_rows, mean_text, paired_rows, read_comparison, run_rows
from modeling.report.comparison_page import comparison_page
from modeling.run.evaluation import measure
from modeling.run.measures import mcnemar_test
from modeling.run.predictions import predictions_path, write_predictions
from ofrecord_util.errors import UserError
from ofrecord_util.text import read_text


def write(base, name, draw, **flags):
    """A run of finetuning.py whose test predictions depend on `draw`. Returns its folder and the hits."""
    data = str(base / "data")
    folder = write_run(str(base / name), data, script="finetuning")
    path = os.path.join(folder, "flags.json")
    with open(path, encoding="utf-8") as file:
        record = json.load(file)
    record["flags"].update(flags, model_save_dir=name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file)
    texts = read_text(os.path.join(data, "test.csv"), TASK)
    found = predictions_of(texts, draw)
    write_predictions(predictions_path(folder, "test"), TASK, found, texts)
    path = os.path.join(folder, "metrics.jsonl")
    with open(path, encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["kind"] not in ("test", "teacher_dev", "teacher_test")]
    rows.append({"kind": "test", **measure(found.logits, found.label, found.domain, TASK, 42).to_dict()})
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    return folder, found.logits.argmax(axis=1) == found.label


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of one setting and the first seed of another one."""
    base = tmp_path_factory.mktemp("comparison")
    return [write(base, *about, **flags) for about, flags in (
        (("a-1", 11), {"seed": 1}), (("a-2", 12), {"seed": 2}), (("b-2", 13), {"seed": 2, "learning_rate": 5e-5, "label_smoothing": 0.1}),
    )]  # fmt: skip


def test_groups_and_tests(runs):
    (first, hits), (second, hits_2), (third, hits_3) = runs
    comparison = read_comparison([first, second + "/", third])
    assert comparison.differing == ["label_smoothing", "learning_rate"]  # a flag that the older runs do not have is at its default
    assert [[run.folder for run in group.runs] for group in comparison.groups] == [[first, second], [third]]
    assert group_name(comparison, comparison.groups[1]) == "label_smoothing 0.1, learning_rate 5e-05"
    header, rows = group_rows(comparison)
    accuracies = [hits.mean(), hits_2.mean()]
    row = dict(zip(header, rows[0]))
    assert row["runs"] == 2
    assert row["test accuracy"] == f"{np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f}"
    assert row["test, lowest to highest"] == f"{min(accuracies):.4f} to {max(accuracies):.4f}"
    assert dict(zip(header, rows[1]))["test accuracy"] == f"{hits_3.mean():.4f}"
    # the second seed of the first group against the first run; the other group's run against that of its seed
    for test, own, other, others in zip(comparison.tests, (hits_2, hits_3), (hits, hits_2), (first, second)):
        assert (test.other.folder, test.split, test.rows) == (others, "test", len(hits))
        assert (test.run_only, test.other_only) == (np.sum(own & ~other), np.sum(other & ~own))
        assert test.p == mcnemar_test(test.run_only, test.other_only)
    header, rows = run_rows(comparison)
    assert [row[0] for row in rows] == ["a-1", "a-2", "b-2"]
    assert [row[header.index("seed")] for row in rows] == ["1", "2", "2"]
    assert paired_rows(read_comparison([first])) is None


def test_other_rows_are_not_compared(runs, tmp_path):
    folder, _ = write(tmp_path, "c", 14, seed=1)
    for split in ("dev", "test"):
        path = predictions_path(folder, split)
        with open(path, encoding="utf-8") as file:
            lines = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(lines.replace("text 3 of", "another 3 of"))
    comparison = read_comparison([runs[0][0], folder])
    assert comparison.tests[0].split is None
    assert "no predictions of the same rows" in paired_rows(comparison)[1][0]
    os.remove(predictions_path(folder, "test"))
    with open(predictions_path(runs[0][0], "dev"), encoding="utf-8") as file:
        lines = file.read()
    with open(predictions_path(folder, "dev"), "w", encoding="utf-8") as file:
        file.write(lines)
    test = read_comparison([runs[0][0], folder]).tests[0]
    assert (test.split, test.rows, test.run_only, test.p) == ("dev", lines.count("\n") - 1, 0, 1.0)


def test_the_page(runs):
    comparison = read_comparison([folder for folder, _ in runs])
    text = comparison_page(comparison)
    assert not re.search(r"https?:|url\(|@import|<script", text)
    body = ElementTree.fromstring(text[text.index("<body>") : text.index("</html>")])
    assert [node.text for node in body.iter("h1")] == ["Comparison of 3 runs"]
    words = "".join(body.itertext())
    for expected in ("--label_smoothing, --learning_rate", "McNemar", "a-2", *group_rows(comparison)[1][0][-4:]):
        assert expected in words, expected
    assert len(list(body.iter("circle"))) == 6  # three runs, test and dev
    assert EVIL not in text


def test_values():
    assert mean_text([]) == "–"
    assert mean_text([0.5]) == "0.5000"
    assert mean_text([0.5, 0.6, 0.7]) == "0.6000 ± 0.1000"


def test_refusals(runs, tmp_path):
    with pytest.raises(UserError, match="given twice"):
        read_comparison([runs[0][0], runs[0][0] + "/"])
    with pytest.raises(UserError, match="not the folder of a run"):
        read_comparison([str(tmp_path)])


def test_held_out_domains_have_columns(tmp_path):
    """Only if a run has measured them; a run that has not shows a dash."""
    folders = [write(tmp_path, f"h-{seed}", 20 + seed, seed=seed)[0] for seed in (1, 2, 3)]
    accuracies = []
    for folder in folders[:2]:
        with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
            row = [row for row in map(json.loads, file) if row["kind"] == "test"][-1]
        correct = row["total"] // (3 + len(accuracies))
        accuracies.append(correct / row["total"])
        row.update(kind="test_held_out", correct=correct, accuracy=accuracies[-1])
        with open(os.path.join(folder, "metrics.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    header, rows = group_rows(read_comparison(folders))
    assert header[-1] == "test, held-out domains, accuracy"
    assert rows[0][-1] == mean_text(accuracies)
    header, rows = run_rows(read_comparison(folders))
    assert header[-1] == "test, held-out domains, accuracy"
    assert [row[-1] for row in rows] == [f"{accuracies[0]:.4f}", f"{accuracies[1]:.4f}", "–"]
    assert "held-out" not in " ".join(group_rows(read_comparison(folders[2:]))[0])
