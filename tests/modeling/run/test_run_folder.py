"""modeling/run/run_folder.py: where a run may create its folder."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from modeling.cli.flags import FINETUNING, parse_flags
from modeling.run import run_folder
from modeling.run.resume import facts_without_records, run_identity, write_state
from modeling.run.run_folder import RunFolder, check_can_be_created
from ofrecord_util.errors import UserError
from ofrecord_util.output_checks import SNAPSHOT_DONE
from ofrecord_util.tasks import Task


@pytest.mark.parametrize("name", ["run", "deep/run"])
def test_no_run_in_a_snapshot(name, tmp_path):
    """A further folder in a snapshot would make it unreadable, so such a run could not be resumed."""
    (tmp_path / SNAPSHOT_DONE).write_text("")
    path = str(tmp_path / name)
    with pytest.raises(
        UserError, match=f"{path}: is in {tmp_path}, a snapshot, whose files are not changed; give another --model_save_dir"
    ):
        check_can_be_created(path)
    assert os.listdir(str(tmp_path)) == [SNAPSHOT_DONE]


def test_a_run_beside_a_snapshot(tmp_path):
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / SNAPSHOT_DONE).write_text("")
    check_can_be_created(str(tmp_path / "run"))
    check_can_be_created(str(tmp_path / "snapshot"))  # the run gets the name snapshot-1


def context_of(folder, more="", labels=("x", "y"), digest="d" * 64):
    """What a `RunFolder` needs of a `RunContext` that continues a run, or begins one."""
    line = f"--task_name t --data_dir data --seq_length 24 --learning_rate 0.01 --resume {folder} {more}"
    flags, snapshot = parse_flags(FINETUNING, argv=line.split()), SimpleNamespace(digest=lambda: digest)
    return SimpleNamespace(flags=flags, task=Task("t", ("a", "b"), labels), snapshot=snapshot)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"more": "--resave_ofrecord --max_steps 3"}, None),
        ({"more": "--seq_length 20 --learning_rate 0.02"}, "--learning_rate was 0.01, is 0.02; --seq_length was 24, is 20: give the run's"),
        ({"labels": ("x", "z")}, "task was .*'y'.*, is .*'z'.*: give the run's values"),
        ({"digest": "f" * 64}, "run: start snapshot's digest was dddddddddddd, is ffffffffffff: give the run's values"),
        ({"more": "--max_steps 2"}, r"--max_steps 2: the run .* has done 3 steps, .* give 3 or more"),
    ],
)
def test_flags_are_compared_before_records_are_read(tmp_path, monkeypatch, changed, said):
    """The folder of a run is made before its `Splits`. Digests of records, which only the state has, are compared later."""
    monkeypatch.setattr(run_folder, "on_failure", lambda _: None)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.log").write_text("began\n")
    (folder / "flags.json").write_text(json.dumps({"script": FINETUNING}))
    first = context_of(folder)
    identity = run_identity(first.flags, **facts_without_records(first), **{"training data's digest": "e" * 64})
    values = {"step": 3, "identity": identity, "layout": [1, [8], 1], "counters": {}, "window": [], "best": None, "stale": 0}
    write_state(str(folder), {"a": np.arange(3, dtype=np.float32)}, values)
    if said is None:
        assert RunFolder(context_of(folder, **changed)).state.step == 3
        return
    with pytest.raises(UserError, match=said):
        RunFolder(context_of(folder, **changed))
