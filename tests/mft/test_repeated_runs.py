"""Step 2 once more: evaluated alone, padded, from its flags, with the same and with another seed."""

import dataclasses
import os
import time
from types import SimpleNamespace

import pytest
import tiny
from mft_steps import DEV_COUNT, META_STEPS, STEP_2

from modeling.bert.names import CLASSIFIER
from modeling.engine.global_function import GlobalFunction
from modeling.engine.runtime import oneflow_version

pytestmark = pytest.mark.slow

TIMING = ("seconds", "samples_per_second")


# --- evaluation alone, and padding


@pytest.fixture(scope="module")
def evaluations(project, step_2):
    """The meta learner evaluated alone, twice in the same second, with default folders: as it comes, and all padded."""
    line = STEP_2.replace("uncased_L-2_H-20_A-4_oneflow", step_2.snapshot).replace(" --resave_ofrecord", "")
    line += " --do_train false --do_eval"
    second = time.strptime("2021-06-15 08:54:42", "%Y-%m-%d %H:%M:%S")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling.cli.flags.time.localtime", lambda *_: second)
        project.call_well(line)
        project.call_well(line + " --pad_to_max_length")
    folders = sorted(name for name in os.listdir(project.path("output")) if name.startswith("model_save-2021"))
    return folders, [tiny.Run(project.path("output", name)) for name in folders]


def test_two_runs_in_a_second_have_two_folders(evaluations):
    folders, runs = evaluations
    assert folders == ["model_save-2021-06-15-08:54:42", "model_save-2021-06-15-08:54:42-1"]
    assert [len(run.metrics) for run in runs] == [1, 1]
    assert [run.flags["flags"]["pad_to_max_length"] for run in runs] == [False, True]


def test_evaluation_alone_repeats_the_run(step_2, evaluations):
    best = [row for row in step_2.rows("dev") if row["best"]][-1]
    (measured,) = evaluations[1][0].rows("dev")
    assert (measured["correct"], measured["total"]) == (best["correct"], DEV_COUNT)
    assert measured["cross_entropy"] == pytest.approx(best["cross_entropy"], rel=1e-6)
    assert measured["by_domain"].keys() == best["by_domain"].keys()
    assert not evaluations[1][0].snapshots()


def test_padding_does_not_matter(evaluations):
    (measured,), (padded,) = (run.rows("dev") for run in evaluations[1])
    assert measured["correct"] == padded["correct"]
    assert measured["cross_entropy"] == pytest.approx(padded["cross_entropy"], abs=1e-4, rel=1e-4)
    for name, part in measured["by_domain"].items():
        assert part["cross_entropy"] == pytest.approx(padded["by_domain"][name]["cross_entropy"], abs=1e-4, rel=1e-4)


def test_a_run_is_replayed_from_its_flags(project, evaluations):
    """Into a folder of its own, where the flags name one too; what stands behind the file overrides it."""
    flags = evaluations[1][0].path("run.flags")
    project.call_well(f"meta_finetuning.py @{flags} --model_save_dir output/replayed")
    project.call_well("meta_finetuning.py @output/replayed/run.flags --seed 43")
    runs = [tiny.Run(project.path("output", name)) for name in ("replayed", "replayed-1")]
    for run, seed in zip(runs, (42, 43)):
        assert untimed(run.metrics) == untimed(evaluations[1][0].metrics)
        assert run.flags["flags"]["seed"] == seed
        with open(run.path("run.flags"), encoding="utf-8") as file:
            assert f"--seed {seed}\n" in file.read()
    code, output, errors = project.call(f"finetuning.py @{flags}")
    assert code == 2
    assert output == ""
    assert errors.count("\n") == 1
    assert "line 1: the flags of meta_finetuning.py, this is finetuning.py" in errors


# --- seeds, and which snapshots are kept


@pytest.fixture(scope="module")
def again(project, step_2):
    """Step 2 again as it was, but for what is kept; and for an epoch with another seed."""
    line = STEP_2.replace(" --resave_ofrecord", "")
    keeping = " --keep_all_best --save_last_snapshot --model_save_every_n_iter 70 --model_save_dir output/again"
    processes = [
        project.start(line + keeping),
        project.start(line.replace("--seed 42", "--seed 43 --num_epochs 1") + " --model_save_dir output/other"),
    ]
    for process in processes:
        project.finish(process)
    return SimpleNamespace(same=tiny.Run(project.path("output", "again")), other=tiny.Run(project.path("output", "other")))


def untimed(rows):
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def test_same_seed_same_run(step_2, again):
    assert untimed(again.same.metrics) == untimed(step_2.metrics)
    assert tiny.tree(again.same.path(step_2.best())) == tiny.tree(step_2.snapshot)


@pytest.mark.skipif(oneflow_version() >= (0, 9, 0), reason="0.9.0 sums in the order of the program")
def test_gradients_are_summed_two_by_two(project, step_1, monkeypatch):
    """OneFlow 0.8.0 compiles a sum of gradients in an order that differs from process to process: with three summands
    or more the last bits of a run would follow no seed."""
    tiny.write_encoder(project.path("deep"), dataclasses.replace(tiny.CONFIG, num_hidden_layers=3))
    graphs = []
    make = GlobalFunction._new_graph

    def remember(function, lanes):
        graphs.append((function._trains, make(function, lanes)))
        return graphs[-1][1]

    monkeypatch.setattr(GlobalFunction, "_new_graph", remember)
    line = STEP_2.replace("uncased_L-2_H-20_A-4_oneflow", "deep").replace("--num_epochs 12", "--num_epochs 1")
    line = line.replace(" --resave_ofrecord", "").replace("_size_per_device 4", "_size_per_device 53")
    project.call_well(line + " --domain_layers 0,1,2 --model_save_dir output/sums")
    ((_, graph),) = [made for made in graphs if made[0]]
    sums = [op.user_conf for op in graph._compiled_graph_proto.net.op if op.user_conf.op_type_name == "add_n"]
    assert len(sums) > 20
    for conf in sums:
        assert len(conf.input["in"].s) <= 2, sorted(conf.input["in"].s)


def test_other_seed_other_run(step_2, again):
    first, other = step_2.rows("train")[0], again.other.rows("train")[0]
    assert first["step"] == other["step"] == 10
    for name in ("classification_loss", "domain_loss"):
        assert first[name] != other[name]


def test_snapshots_that_are_kept(step_2, again):
    best = {f"snapshot_best_mft_model_g1_dev_{row['accuracy']!r}" for row in again.same.rows("dev") if row["best"]}
    assert len(best) >= 2
    assert step_2.best() in best
    periodic = {f"snapshot_step_{step}" for step in range(70, META_STEPS, 70)}
    assert set(again.same.snapshots()) == best | periodic | {"snapshot_last"}
    name = CLASSIFIER[0]
    values = [tiny.read_variable(again.same.path(snapshot), name) for snapshot in again.same.snapshots()]
    last_is_best = again.same.rows("dev")[-1]["best"]
    assert len({value.tobytes() for value in values}) == len(values) - (1 if last_is_best else 0)
    for snapshot in again.same.snapshots():
        assert os.path.exists(again.same.path(snapshot, "snapshot_done"))
