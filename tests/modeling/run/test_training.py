"""modeling/run/training.py with real graphs, dropout on and batches of two lengths: what a run writes down, when it
evaluates and saves, and that the seed decides all of it, bit for bit."""

import dataclasses
import os
import re
import shutil
import signal
from unittest import mock

import numpy as np
import pytest
from tiny_model import NUM_LABELS
from tiny_training import DEV, FLAGS, ONE_LAYER, RECORDS, rows, run, snapshot_bytes

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli import interruption
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.log import Log
from modeling.run.optimizer import plan_schedule
from modeling.run.resume import list_states
from ofrecord_util.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [run(folder / name, seed=seed) for name, seed in (("first", 42), ("second", 42), ("other", 43))]


def test_what_a_run_writes_down(runs):
    context, losses, best = runs[0]
    assert len(losses) == 6
    schedule = plan_schedule(FLAGS, len(RECORDS), 4)
    written = rows(context, "train")
    assert [row["step"] for row in written] == [2, 4, 6]
    assert [row["epoch"] for row in written] == pytest.approx([8 / 7, 16 / 7, 3], abs=1e-4)
    assert [row["learning_rate"] for row in written] == [schedule.rate(step) for step in (1, 3, 5)]
    for position, row in enumerate(written):  # means over the samples of the steps since the row before; the last step has one sample
        counts = (4, 4) if position < 2 else (4, 1)
        assert row["loss"] == pytest.approx(np.average(losses[2 * position : 2 * position + 2], weights=counts), abs=1e-6)
        assert row["loss"] == pytest.approx(row["classification_loss"] + 0.1 * row["domain_loss"], abs=1e-5)
        assert row["samples_per_second"] > 0
    evaluations = rows(context, "dev")
    assert [row["step"] for row in evaluations] == [4, 6]  # at the period and at the end
    assert all(row["total"] == len(DEV) for row in evaluations)
    assert evaluations[0]["best"] is True
    assert sum(value["total"] for value in evaluations[0]["by_domain"].values()) == len(DEV)
    assert best.evaluation.accuracy == max(row["accuracy"] for row in evaluations)
    with open(os.path.join(context.path, "run.log"), encoding="utf-8") as file:
        text = file.read()
    assert "step 6/6: loss" in text
    assert text.count("warning: the run has only 6 steps") == 1
    assert "--auto_settings" in text


def test_a_run_with_chosen_settings_is_not_warned(tmp_path):
    context, _, _ = run(tmp_path / "run", auto_settings=True)
    with open(os.path.join(context.path, "run.log"), encoding="utf-8") as file:
        assert "warning: " not in file.read()


def test_snapshots_of_a_run(runs):
    context, _, best = runs[0]
    kept = sorted(name for name in os.listdir(context.path) if name.startswith("snapshot"))
    assert kept == sorted([os.path.basename(best.path), "snapshot_last", "snapshot_step_4"])
    assert os.path.basename(best.path) == f"snapshot_best_mft_model_t_dev_{best.evaluation.accuracy!r}"
    schedule = plan_schedule(FLAGS, len(RECORDS), 4)
    for name, step in (("snapshot_step_4", 4), ("snapshot_last", 6)):
        assert context.decays[name] == schedule.decay_factor(step, FLAGS.weight_decay_rate) < 1
    (saved,) = [row for row in rows(context, "dev") if row["accuracy"] == best.evaluation.accuracy and row["best"]][-1:]
    assert context.decays[os.path.basename(best.path)] == schedule.decay_factor(saved["step"], FLAGS.weight_decay_rate)
    last = Snapshot(os.path.join(context.path, "snapshot_last"))
    for name in best.variables.names:
        value = best.variables.get(name).numpy()
        np.testing.assert_array_equal(last.read(name, value.shape), value)
    assert last.digest() != Snapshot(os.path.join(context.path, "snapshot_step_4")).digest()


def test_same_seed_same_run(runs):
    (first, losses, best), (second, again, best_again), _ = runs
    assert losses == again  # bit for bit
    assert os.path.basename(best.path) == os.path.basename(best_again.path)
    for name in (os.path.basename(best.path), "snapshot_step_4", "snapshot_last"):
        one, other = (snapshot_bytes(os.path.join(context.path, name)) for context in (first, second))
        assert len(one) > 50
        assert one == other


def test_other_seed_other_run(runs):
    assert min(abs(one - other) for one, other in zip(runs[0][1], runs[2][1])) > 1e-4


def test_dropout_is_part_of_the_run(tmp_path, runs):
    """The same seed without dropout begins otherwise: the equality above covers the masks."""
    without = dataclasses.replace(ONE_LAYER, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    _, losses, _ = run(tmp_path / "without", without, max_steps=2)
    assert len(losses) == 2
    assert abs(losses[0] - runs[0][1][0]) > 1e-3


# ------------------------------------------------------------------------------- what stops a run, and what lets it go on


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    """Found when the window is looked at, named by its own step and samples; nothing of it reaches a snapshot or a state."""
    spoilt = {}

    def spoil(batches):
        for step, batch in enumerate(batches, start=1):
            spoilt[step] = sorted(set(batch["idxs"].tolist()))
            yield dict(batch, sample_weights=np.full_like(batch["sample_weights"], np.nan)) if step == 3 else batch

    expected = r"step 3: the loss is nan on the training samples {}: .*diverged.*--learning_rate"
    with pytest.raises(UserError) as error:
        run(tmp_path / "spoilt", change_batches=spoil, state_save_every_n_iter=1)
    assert re.search(expected.format(", ".join(map(str, spoilt[3]))), str(error.value))
    assert sorted(name for name in os.listdir(tmp_path / "spoilt") if name.startswith("s")) == ["state_step_1", "state_step_2"]


def test_max_steps_and_patience(tmp_path, runs):
    context, losses, _ = run(tmp_path / "dry", max_steps=3)
    assert losses == runs[0][1][:3]  # of the same schedule
    assert [row["step"] for row in rows(context, "dev")] == [3]
    assert [row["step"] for row in rows(context, "train")] == [2, 3]
    assert [os.path.basename(path) for path in list_states(context.path)] == ["state_step_3"]

    context, losses, best = run(tmp_path / "patient", num_epochs=9, dev_every_step_num=1, early_stop_patience=2)
    better = [row["best"] for row in rows(context, "dev")]
    assert len(losses) == len(better) < 16
    assert better[-2:] == [False, False]
    assert best.stale == 2
    assert not any(one is other is False for one, other in zip(better[:-2], better[1:-1]))  # not stopped too late
    assert list_states(context.path) == []


def test_accumulated_batches_equal_large_ones(tmp_path):
    """Two parts of 2 samples are one step of 4, the half full last batch included."""
    still = {"config": dataclasses.replace(ONE_LAYER, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)}
    _, whole, best = run(tmp_path / "whole", **still)
    context, parts, best_of_parts = run(tmp_path / "parts", batch_size_per_device=2, gradient_accumulation_steps=2, **still)
    np.testing.assert_allclose(parts, whole, rtol=2e-5)
    assert [row["step"] for row in rows(context, "train")] == [2, 4, 6]
    for name in best.variables.names:
        ours, theirs = best_of_parts.variables.get(name).numpy(), best.variables.get(name).numpy()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4)


def interrupt(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def interrupted(folder, step, **options):
    """A run that a signal reaches while step `step` is on its way."""

    def change(batches):
        for number, batch in enumerate(batches, start=1):
            if number == step:
                interrupt()
            yield batch

    with interruption.noted(), pytest.raises(interruption.Interrupted) as error:
        run(folder, change_batches=change, **options)
    assert error.value.exit_code == 143


def without_times(found):
    return [{name: value for name, value in row.items() if name not in ("seconds", "samples_per_second")} for row in found]


def check_equal_runs(first, second):
    """The same metrics and, byte for byte, the same snapshots."""
    for kind in ("train", "dev"):
        assert without_times(rows(first, kind)) == without_times(rows(second, kind))
    names = sorted(name for name in os.listdir(first.path) if name.startswith(("snapshot", "state")))
    assert names == sorted(name for name in os.listdir(second.path) if name.startswith(("snapshot", "state")))
    for name in names:
        assert snapshot_bytes(os.path.join(first.path, name)) == snapshot_bytes(os.path.join(second.path, name)), name


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_interrupted_and_resumed_equals_unbroken(tmp_path, runs, step):
    """With dropout on, two batch lengths, at a step with and without evaluation, and at the last one."""
    folder = tmp_path / "broken"
    interrupted(folder, step)
    assert [os.path.basename(path) for path in list_states(folder)] == [f"state_step_{step}"]
    context, losses, _ = run(folder, resume=str(folder))
    assert losses == runs[0][1][step:]
    check_equal_runs(context, runs[0][0])


def test_interrupted_in_an_evaluation(tmp_path, runs):
    folder = tmp_path / "broken"
    with interruption.noted(), pytest.raises(interruption.Interrupted):
        run(folder, on_evaluation=interrupt)  # the first one, after step 4
    context, losses, _ = run(folder, resume=str(folder))
    assert losses == runs[0][1][4:]
    check_equal_runs(context, runs[0][0])


@pytest.mark.parametrize("changes", [{}, {"num_epochs": 9, "dev_every_step_num": 1, "early_stop_patience": 2}], ids=["whole", "patient"])
def test_killed_after_the_last_step(tmp_path, changes):
    """Whatever ends the process before its results are written, a state of the last step is there and gives the same run."""
    whole, losses, _ = run(tmp_path / "whole", **changes)

    def die():
        raise MemoryError

    folder = tmp_path / "killed"
    with pytest.raises(MemoryError):
        run(folder, on_closing=die, **changes)
    with interruption.noted(), pytest.raises(interruption.Interrupted):
        run(folder, on_closing=interrupt, resume=str(folder), **changes)
    assert os.path.basename(list_states(folder)[0]) == f"state_step_{len(losses)}"
    context, rest, _ = run(folder, resume=str(folder), **changes)
    assert rest == []
    check_equal_runs(context, whole)
    assert list_states(folder) == []


@pytest.mark.parametrize("how", ["gone", "damaged", "outside"])
def test_resumed_without_its_best_snapshot(tmp_path, how):
    """Refused before anything is changed, since the state is all that is left."""
    folder = tmp_path / "run"
    interrupted(folder, 5)  # the best snapshot is that of step 4
    (best,) = [name for name in os.listdir(folder) if name.startswith("snapshot_best")]
    if how == "gone":
        shutil.rmtree(folder / best)
    elif how == "damaged":
        os.remove(folder / best / "snapshot_done")
    before = snapshot_bytes(folder)
    values = BestSnapshot.restore
    name = best if how != "outside" else "../" + best

    def restore(self, best, stale):
        return values(self, dict(best, name=name), stale)

    with mock.patch.object(BestSnapshot, "restore", restore), pytest.raises(UserError, match="best snapshot"):
        run(folder, resume=str(folder))
    after = snapshot_bytes(folder)
    assert {path: data for path, data in after.items() if path != "run.log"} == {p: d for p, d in before.items() if p != "run.log"}


def test_interrupted_twice_and_before_the_first_step(tmp_path, runs):
    folder = tmp_path / "broken"
    interrupted(folder, 2)
    interrupted(folder, 2, resume=str(folder))  # the second step of this part is step 4
    assert [os.path.basename(path) for path in list_states(folder)] == ["state_step_4", "state_step_2"]
    context, _, _ = run(folder, resume=str(folder))
    check_equal_runs(context, runs[0][0])


def test_killed_between_states(tmp_path, runs):
    """What came after the newest state is done again, not doubled."""

    def die(batches):
        for step, batch in enumerate(batches, start=1):
            if step == 6:
                raise MemoryError
            yield batch

    folder = tmp_path / "killed"
    with pytest.raises(MemoryError):
        run(folder, change_batches=die, state_save_every_n_iter=3)
    assert [os.path.basename(path) for path in list_states(folder)] == ["state_step_3"]
    context, losses, _ = run(folder, resume=str(folder))
    assert losses == runs[0][1][3:]
    check_equal_runs(context, runs[0][0])


def test_frozen_variables_and_a_cut(tmp_path):
    """The state holds what is trained and its moments, nothing else; the run goes on bit for bit all the same."""
    embeddings = ("bert-embeddings-",)
    whole, losses, best = run(tmp_path / "whole", frozen=embeddings)
    folder = tmp_path / "broken"
    interrupted(folder, 3, frozen=embeddings)
    (state,) = list_states(folder)
    names = {name for name in os.listdir(state) if os.path.isdir(os.path.join(state, name))}
    assert set(best.variables.trained()) < names
    assert not [name for name in names if "embeddings" in name]
    context, rest, _ = run(folder, resume=str(folder), frozen=embeddings)
    assert rest == losses[3:]
    check_equal_runs(context, whole)


def damage(path, how):
    variable = os.path.join(path, "classification-output_weights", "out")
    if how == "flipped":
        with open(variable, "r+b") as file:
            file.seek(5)
            byte = file.read(1)[0]
            file.seek(5)
            file.write(bytes([byte ^ 1]))
    elif how == "short":
        os.truncate(variable, 4)
    elif how == "json":
        with open(os.path.join(path, "state.json"), "r+", encoding="utf-8") as file:
            text = file.read().replace('"stale": 0', '"stale": 1')
            file.seek(0)
            file.write(text)
    else:
        shutil.rmtree(os.path.dirname(variable))


@pytest.mark.parametrize("how", ["flipped", "short", "json", "missing"])
def test_damaged_state(tmp_path, runs, how):
    """The state before the damaged one takes over, and the log says so; where none is left, one line does."""
    folder = tmp_path / "run"
    interrupted(folder, 3, state_save_every_n_iter=2)
    newest, before = list_states(folder)
    damage(newest, how)
    copy = shutil.copytree(folder, tmp_path / "copy")
    context, losses, _ = run(folder, resume=str(folder))
    assert len(context.lines) == 1
    assert "state_step_3" in context.lines[0]
    assert losses == runs[0][1][2:]
    check_equal_runs(context, runs[0][0])
    damage(os.path.join(copy, os.path.basename(before)), how)
    with pytest.raises(UserError, match=r"all states are damaged.*state_step_3.*state_step_2"):
        run(copy, resume=str(copy))


def test_resuming_something_else_is_refused(tmp_path):
    folder = tmp_path / "run"
    interrupted(folder, 2)
    before = snapshot_bytes(folder)
    with pytest.raises(UserError, match=r"--max_steps 1: the run .* has done 2 steps, .* give 2 or more"):
        run(folder, resume=str(folder), max_steps=1)
    with pytest.raises(UserError, match=r"--batch_size_per_device was 4, is 2; --learning_rate was 0.01, is 0.02"):
        run(folder, resume=str(folder), batch_size_per_device=2, learning_rate=0.02)
    changed = dataclasses.replace(RECORDS, label=(RECORDS.label + 1) % NUM_LABELS)
    with pytest.raises(UserError, match=r"training data's digest was [0-9a-f]{12}, is [0-9a-f]{12}"):
        run(folder, resume=str(folder), records=changed)
    holder = Log(os.path.join(folder, "run.log"), exclusive=True)
    with pytest.raises(UserError, match="another process"):
        run(folder, resume=str(folder))
    holder.close()
    after = snapshot_bytes(folder)
    assert {name: data for name, data in after.items() if name != "run.log"} == {n: d for n, d in before.items() if n != "run.log"}
