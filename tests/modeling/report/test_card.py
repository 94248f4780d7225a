"""modeling/report/card.py: a snapshot's card says what the run's files say, and nothing that a continued run may change."""

import json
import os

import pytest
from run_folder import TASK, write_run

from modeling.checkpoints.snapshot import Snapshot
from modeling.report.card import CARD_FILE, write_cards
from modeling.report.facts import read_run
from modeling.report.page import page
from ofrecord_util.errors import UserError
from tools.checkpoint_snapshot import is_snapshot


@pytest.fixture
def folder(tmp_path):
    return write_run(str(tmp_path / "run"), str(tmp_path / "data"))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_card(folder):
    (snapshot,) = read_run(folder).snapshots
    digest = Snapshot(snapshot).digest()
    (path,) = write_cards(read_run(folder))
    assert path == os.path.join(snapshot, CARD_FILE)
    assert Snapshot(snapshot).digest() == digest
    assert set(Snapshot(snapshot).sizes) == {"a"}
    assert is_snapshot(snapshot)
    text, run = read(path), read_run(folder)
    assert text.startswith(f"# {os.path.basename(snapshot)}\n")
    assert "A student of Meta-KD" in text
    for part in (digest, "b" * 64, "c" * 64, "`small`", "`snapshot_best_mft_model_t_dev_0.5`", "no, yes", "24 tokens", "dev, step 20:"):
        assert part in text, part
    for name in TASK.domains:
        assert name.replace("<", "\\<") in text
    for about in run.record["data"].values():
        assert about["text_digest"] in text
    for split in ("dev", "test"):
        result = run.result(split)
        assert f"| {result['total']} | {result['correct']} | {result['accuracy']:.4f} |" in text
    assert "--num_epochs 2" in text
    assert "tools/predict.py --model_load_dir" in text
    assert "Predictor(" in text
    assert all(len(set(map(len, block))) for block in [text.split("\n")])


@pytest.mark.parametrize("has_intervals", [True, False])
def test_a_card_speaks_of_intervals_that_it_has(folder, has_intervals):
    """A measure of which all rows are right has none."""
    path = os.path.join(folder, "metrics.jsonl")
    rows = [json.loads(line) for line in read(path).splitlines()]
    for row in rows:
        row.pop("intervals", None)
        if row["kind"] == "test" and has_intervals:
            row["intervals"] = {"accuracy": [0.25, 0.75]}
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    (card,) = write_cards(read_run(folder))
    assert ("; the 95 % intervals show the uncertainty." in read(card)) == has_intervals


def test_means_over_tasks(folder):
    """Card and page give the number of distinct rows and that of the tasks."""
    path = os.path.join(folder, "metrics.jsonl")
    rows = [json.loads(line) for line in read(path).splitlines() if "teacher" not in line]
    for row in rows:
        if row["kind"] in ("dev", "test"):
            row.update(tasks=3, correct=row["correct"] + 1 / 3)
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(folder)
    (card,) = write_cards(run)
    text, result = read(card), run.result("test")
    assert "dev, step 20, mean of 3 tasks per domain:" in text
    assert "test, mean of 3 tasks per domain:" in text
    assert f"| all | 11 | {result['correct']:.1f} | {result['accuracy']:.4f} |" in text
    assert "Measured on 13 rows of dev after 3 tasks per domain and 11 rows of test after 3 tasks per domain; the 95 %" in text
    shown = page(run)
    assert "11 rows, mean of 3 tasks per domain" in shown
    assert "test, the best snapshot, mean of 3 tasks per domain" in shown
    rows[-1]["tasks"] = "three"
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"metrics.jsonl: line \d+: an evaluation has invalid tasks"):
        read_run(folder)


def test_what_a_continued_run_may_change_is_not_in_it(folder):
    (path,) = write_cards(read_run(folder))
    before = read(path)
    assert folder not in before
    assert "data_dir" not in before
    assert "keep_all_best" not in before
    assert "models/" not in before
    flags = os.path.join(folder, "flags.json")
    record = json.loads(read(flags))
    record["flags"].update(data_dir="../elsewhere", student_model="/far/away/small/", keep_all_best=False, max_steps=7, resume=folder)
    record["command"] = ["meta_distill.py", "--resume"]
    with open(flags, "w", encoding="utf-8") as file:
        json.dump(record, file)
    write_cards(read_run(folder))
    assert read(path) == before


def test_a_card_that_is_there_can_stay(folder):
    (snapshot,) = read_run(folder).snapshots
    path = os.path.join(snapshot, CARD_FILE)
    with open(path, "w", encoding="utf-8") as file:
        file.write("mine")
    assert write_cards(read_run(folder), replace=False) == []
    assert read(path) == "mine"
    assert write_cards(read_run(folder)) == [path]
    assert read(path) != "mine"


def test_an_earlier_best_snapshot(folder):
    """Of --keep_all_best: its own evaluation on dev, and no test, which speaks of the last one."""
    (snapshot,) = read_run(folder).snapshots
    with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    place = next(place for place, row in enumerate(rows) if row["kind"] == "dev")
    rows.insert(place, dict(rows[place], step=10, accuracy=0.125, correct=1))
    with open(os.path.join(folder, "metrics.jsonl"), "w", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    earlier = snapshot[: snapshot.rindex("_") + 1] + "0.125"
    os.rename(snapshot, earlier)
    (path,) = write_cards(read_run(folder))
    assert "dev, step 10:" in read(path)
    assert "0.1250" in read(path)
    assert "test:" not in read(path)


def test_no_card_without_a_task_or_a_whole_snapshot(folder):
    (snapshot,) = read_run(folder).snapshots
    os.remove(os.path.join(snapshot, "task.json"))
    assert write_cards(read_run(folder)) == []
    os.remove(os.path.join(snapshot, "snapshot_done"))
    run = read_run(folder)
    assert write_cards(run) == []
    assert any("cannot be read" in line for line in run.missing)


def test_a_bad_task_is_refused(folder):
    (snapshot,) = read_run(folder).snapshots
    with open(os.path.join(snapshot, "task.json"), "w", encoding="utf-8") as file:
        file.write("[]")
    with pytest.raises(UserError, match=r"task\.json"):
        write_cards(read_run(folder))


def test_names_in_a_card_do_nothing(folder):
    """Markup and code from the names of a task, a snapshot and a flag is shown as text."""
    (snapshot,) = read_run(folder).snapshots
    image, shell = "<img src=x onerror=alert(1)>", "a'; touch x; '`b`"
    path = os.path.join(snapshot, "task.json")
    task = json.loads(read(path))
    with open(path, "w", encoding="utf-8") as file:
        json.dump(dict(task, name=image), file)
    flags = os.path.join(folder, "flags.json")
    record = json.loads(read(flags))
    record["flags"]["learning_rate"] = "`" + image
    record["versions"]["oneflow"] = image
    with open(flags, "w", encoding="utf-8") as file:
        json.dump(record, file)
    renamed = os.path.join(folder, f"snapshot_best_{image}{shell}_dev_0.5".replace("/", ""))
    os.rename(snapshot, renamed)
    (card,) = write_cards(read_run(folder))
    outside, text = [], read(card)
    for line in text.split("\n"):
        code = line.startswith(("python3 ", "predictor = "))
        outside += [] if code else [line]
        assert "predict.py" not in line or "'\"'\"'; touch x" in line  # the quote of the shell is closed and opened
    assert f"`{image}`" in text
    plain = "".join(part for line in outside for part in line.replace("\\`", "").split("`")[::2])
    assert "<img" not in plain.replace("\\<img", "")
