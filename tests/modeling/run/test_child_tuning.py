"""Child-Tuning in whole runs: what it leaves alone, how it resumes, and that parts and processes do not matter."""

import math
import re

import numpy as np
import pytest
import tiny

from modeling.bert.names import layer_of
from modeling.checkpoints.snapshot import Snapshot

pytestmark = pytest.mark.slow

LINE = (
    "meta_finetuning.py --task_name g1 --data_dir data --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --num_epochs 2 "
    "--seed 3 --batch_size_per_device 4 --dev_batch_size_per_device 3 --dev_every_step_num 50 --learning_rate 1e-3 --device cpu "
    "--use_sample_weights false --save_last_snapshot --weight_decay_rate 0"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("child") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=4, dev=2)
    return project


def run_of(project, name, more=""):
    output = project.call_well(f"{LINE} {more} --model_save_dir output/{name}")
    return tiny.Run(project.path("output", name)), output


@pytest.fixture(scope="module")
def runs(project):
    return {
        "plain": run_of(project, "plain"),
        "F": run_of(project, "F", "--child_tuning F --reserve_p 0.4"),
        "D": run_of(project, "D", "--child_tuning D --reserve_p 0.3"),
    }


def variables_of(run, name="snapshot_last"):
    snapshot = Snapshot(run.path(name) if run else name)
    return {variable: snapshot.read(variable, snapshot.shapes[variable]) for variable in snapshot.sizes if variable in snapshot.shapes}


def test_all_gradients_is_ordinary_training(project, runs):
    """With a share of 1 the run is the one without the flag, bit for bit."""
    for mode in ("F", "D"):
        run, output = run_of(project, f"all-{mode}", f"--child_tuning {mode} --reserve_p 1")
        assert "--reserve_p 1 keeps all gradients" in output
        assert (
            tiny.tree(run.path("snapshot_last")).items()
            >= {name: data for name, data in tiny.tree(runs["plain"][0].path("snapshot_last")).items() if name.endswith("out")}.items()
        )


def test_the_child_network_of_d(project, runs):
    """Outside of it the encoder layers keep their values, bit for bit; everything else is trained."""
    run, output = runs["D"]
    found = re.search(r"Child-Tuning: ([\d,]+) of ([\d,]+) elements .* \(([\d.]+) %\), chosen by Fisher information over 6 batches", output)
    kept, total = (int(number.replace(",", "")) for number in found.group(1, 2))
    assert kept == total - math.ceil((total - 1) * 0.7)
    before, after = variables_of(None, project.path("encoder")), variables_of(run)
    layers = [name for name in before if layer_of(name) is not None]
    assert sum(before[name].size for name in layers) == total
    changed = sum(int((before[name] != after[name]).sum()) for name in layers)
    assert 0.9 * kept < changed <= kept
    for name in ("bert-embeddings-position_embeddings", "bert-pooler-dense-weight"):
        assert (before[name] != after[name]).mean() > 0.3, name
    plain = variables_of(runs["plain"][0])
    assert sum(int((before[name] != plain[name]).sum()) for name in layers) > 2 * kept


def test_f_trains_everything_in_other_steps(runs):
    plain, drawn = (variables_of(runs[mode][0]) for mode in ("plain", "F"))
    for name in ("bert-encoder-layer_1-output-dense-weight", "classification-output_weights"):
        assert (plain[name] != drawn[name]).mean() > 0.9
    losses = [[row["loss"] for row in runs[mode][0].rows("train")] for mode in ("plain", "F", "D")]
    assert losses[0][-1] != losses[1][-1] != losses[2][-1]


@pytest.mark.parametrize("mode", ["F", "D"])
def test_a_run_goes_on_where_it_stopped(project, runs, mode):
    share = {"F": 0.4, "D": 0.3}[mode]
    more = f"--child_tuning {mode} --reserve_p {share}"
    project.run(f"{LINE} {more} --max_steps 5 --model_save_dir output/cut-{mode}")  # a process, which lets go of the folder
    output = project.run(f"{LINE} {more} --resume output/cut-{mode}")
    assert "chosen by Fisher" not in output  # the masks are those of the state
    resumed = tiny.Run(project.path("output", f"cut-{mode}"))
    assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(runs[mode][0].path("snapshot_last"))


@pytest.mark.parametrize("mode", ["F", "D"])
def test_a_step_in_parts(project, runs, mode):
    """The sum of the parts is clipped and masked: a step is that of the whole batch."""
    share = {"F": 0.4, "D": 0.3}[mode]
    more = f"--child_tuning {mode} --reserve_p {share} --batch_size_per_device 2 --gradient_accumulation_steps 2 --texts_per_row 1"
    whole, _ = run_of(project, f"whole-{mode}", f"--child_tuning {mode} --reserve_p {share} --texts_per_row 1")
    parts, _ = run_of(project, f"parts-{mode}", more)
    for one, other in zip(whole.rows("train"), parts.rows("train")):
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-4)
    one, other = variables_of(whole), variables_of(parts)
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=0, atol=3e-4, err_msg=name)


@pytest.mark.parametrize("mode", ["F", "D"])
def test_two_processes(project, mode):
    """The masks are the same on each rank, and so are the losses of one process with the whole batch."""
    dry = f"{LINE} --child_tuning {mode} --reserve_p 0.3 --texts_per_row 1 --hidden_dropout_prob 0 --attention_probs_dropout_prob 0"
    one = project.run_of(project.run(f"{dry} --model_save_dir output/one-{mode}"))
    ranks = dry.replace("--batch_size_per_device 4", "--batch_size_per_device 2") + " --gpu_num_per_node 2 --cpu_lanes 1"
    two = project.run_of(project.run(f"{ranks} --model_save_dir output/two-{mode}"))
    for first, second in zip(one.rows("train"), two.rows("train")):
        assert first["loss"] == pytest.approx(second["loss"], abs=2e-4)
    theirs, ours = variables_of(one), variables_of(two)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=5e-4, err_msg=name)


def test_what_is_refused(project):
    code, _, errors = project.call(f"{LINE} --child_tuning D --freeze_encoder --model_save_dir output/refused")
    assert code == 2
    assert "all encoder layers are frozen" in errors
    code, _, errors = project.call(f"{LINE} --child_tuning F --reserve_p 0 --model_save_dir output/refused")
    assert code == 2
    assert "0 is not between 0.001 and 1" in errors
