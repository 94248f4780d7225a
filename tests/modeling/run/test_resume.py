"""modeling/run/resume.py: states of a run's folder that were edited or damaged, and what killed processes leave."""

import copy
import fcntl
import hashlib
import json
import os
import types

import numpy as np
import pytest

from modeling.cli.flags import NEWEST_RUN
from modeling.run.resume import State, best_names, find_run, list_states, newest_state, remove_state, write_state
from ofrecord_util.errors import UserError

MEASURES = {"macro_f1": 0.3, "balanced_accuracy": 0.5, "matthews": 0.0, "calibration_error": 0.2}
BEST = {"name": "snapshot_best_ft_model_t_dev_0.5", "correct": 1, "total": 2, "cross_entropy": 0.7, "by_domain": {}, "accuracy": 0.5}
VALUES = {
    "step": 3,
    "identity": {"--seed": 1},
    "layout": [1, [8, 16], 1],
    "counters": {"step": {"dtype": "int64", "values": [3]}},
    "window": [[3, [0, 1], [0.5, 0.25]]],
    "best": {**BEST, **MEASURES},
    "stale": 0,
}


def write(folder, step=3, **changes):
    values = dict(copy.deepcopy(VALUES), step=step)
    values.update(changes)
    return write_state(str(folder), {"a": np.arange(4, dtype=np.float32)}, values)


def edit(path, change):
    """Edits state.json, and writes the digest that fits."""
    name = os.path.join(path, "state.json")
    with open(name, encoding="utf-8") as file:
        record = json.load(file)
    change(record)
    text = json.dumps([record["values"], record["digests"]], sort_keys=True)
    record["digest"] = hashlib.sha256(text.encode("utf-8")).hexdigest()
    with open(name, "w", encoding="utf-8") as file:
        json.dump(record, file)


def test_a_state_is_read_again(tmp_path):
    state = State(write(tmp_path))
    assert (state.step, state.values) == (3, VALUES)
    assert state.arrays["a"].tolist() == [0, 1, 2, 3]
    assert best_names(str(tmp_path)) == {VALUES["best"]["name"]}


def test_a_best_evaluation_that_is_a_mean_over_tasks(tmp_path):
    best = dict(VALUES["best"], correct=4 / 3, total=2, tasks=3)
    assert State(write(tmp_path, best=best)).values["best"] == best


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best", dict(VALUES["best"], correct=4 / 3)),
        ("best", dict(VALUES["best"], correct=4 / 3, tasks="3")),
        ("best", dict(VALUES["best"], correct=None, tasks=3)),
        ("best", dict(VALUES["best"], name="../../victim")),
        ("best", dict(VALUES["best"], name="/victim")),
        ("best", dict(VALUES["best"], name="snapshot_best_a/../../victim")),
        ("best", dict(VALUES["best"], name="other")),
        ("best", dict(VALUES["best"], name=["snapshot_best_x"])),
        ("best", dict(VALUES["best"], total=0)),
        ("best", dict(VALUES["best"], macro_f1="high")),
        ("best", BEST),
        ("best", {}),
        ("best", "snapshot_best_x"),
        ("step", "3"),
        ("step", -1),
        ("step", True),
        ("stale", None),
        ("identity", []),
        ("counters", {"step": {"dtype": "object", "values": [3]}}),
        ("counters", {"step": 3}),
        ("window", [[3, [0], ["x"]]]),
        ("window", [[3, [0]]]),
        ("layout", [0, [8], 1]),
        ("layout", [1, [], 1]),
        ("layout", [1, [10**9], 1]),
        ("layout", {}),
        ("layout", [1, [8]]),
        ("layout", [1, [8], 0]),
    ],
)
def test_values_that_no_run_writes(tmp_path, name, value):
    """The digest fits: whoever edits the file can write one."""
    path = write(tmp_path)
    edit(path, lambda record: record["values"].update({name: value}))
    with pytest.raises(UserError, match=f"state.json: no run writes this {name}; remove this state"):
        State(path)
    if name == "best":
        assert best_names(str(tmp_path)) == set()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"values": []}', '{"values": {}, "digests": {}, "digest": 3}', "[" * 2000])
def test_a_damaged_state_is_skipped(tmp_path, text):
    write(tmp_path, step=2)
    with open(os.path.join(write(tmp_path), "state.json"), "w", encoding="utf-8") as file:
        file.write(text)
    lines = []
    assert newest_state(str(tmp_path), lines.append).step == 2
    assert len(lines) == 1
    assert lines[0].startswith("skipped a damaged state")
    best_names(str(tmp_path))


def test_what_a_killed_removal_leaves_is_removed(tmp_path):
    left = tmp_path / f".state_step_1.writing-{os.getppid()}"  # the id belongs to another process by now
    for action in (lambda: write(tmp_path), lambda: newest_state(str(tmp_path), print), lambda: remove_state(str(tmp_path), 7)):
        left.mkdir()
        (left / "part").write_text("")
        action()
        assert not left.exists()


def run_folder(parent, name, flags='{"script": "finetuning"}'):
    folder = parent / name
    folder.mkdir()
    (folder / "run.log").write_text("")
    (folder / "flags.json").write_text(flags)
    return folder


def flags(resume, parent):
    return types.SimpleNamespace(resume=resume, script="finetuning", model_save_dir=str(parent / "run"), task_name="t")


@pytest.mark.parametrize("damaged", ["", "[" * 5000, "[]", '{"script": ["finetuning"]}', '{"script": {}}', "\udc80"])
def test_a_bad_neighbour_does_not_hide_a_run(tmp_path, damaged):
    write(run_folder(tmp_path, "good"))
    bad = run_folder(tmp_path, "bad", "")
    (bad / "flags.json").write_bytes(damaged.encode("utf-8", "surrogateescape"))
    write(bad)
    os.mkfifo(str(tmp_path / "fifo"))
    planted = run_folder(tmp_path, "planted")  # would be opened for its lock
    (planted / ".state_step_9.writing-1").mkdir()
    os.remove(str(planted / "run.log"))
    os.mkfifo(str(planted / "run.log"))
    assert find_run(flags(NEWEST_RUN, tmp_path)) == str(tmp_path / "good")


def test_the_last_removal_of_a_run_that_was_killed_in_it(tmp_path):
    folder = run_folder(tmp_path, "run")
    left = folder / ".state_step_9.writing-1"
    left.mkdir()
    with open(str(folder / "run.log"), "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="contains no state_step"):
            find_run(flags(str(folder), tmp_path))
        assert left.exists()  # the run is still writing
    with pytest.raises(UserError, match="contains no state_step"):
        find_run(flags(str(folder), tmp_path))
    assert not left.exists()
    assert list_states(str(folder)) == []
