"""Child-Tuning in whole runs: what it leaves alone, how it resumes, and that parts and processes do not matter."""

import math
import os
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
    still = variables_of(run_of(project, "still", "--child_tuning D --reserve_p 0.3 --learning_rate 0")[0])
    assert all(np.array_equal(still[name], value) for name, value in before.items())
    outside = ("bert-embeddings-position_embeddings", "bert-embeddings-word_embeddings", "bert-pooler-dense-weight")
    for name in (*outside, "classification-output_weights", "classification-output_bias"):
        assert (still[name] != after[name]).mean() > 0.3, name
    plain = variables_of(runs["plain"][0])
    assert sum(int((before[name] != plain[name]).sum()) for name in layers) > 2 * kept


def test_frozen_layers_are_not_ranked(project, runs):
    """The share is one of the elements of the other layers."""
    run, output = run_of(project, "frozen", "--child_tuning D --reserve_p 0.3 --freeze_layers 1")
    kept, total = (int(number.replace(",", "")) for number in re.search(r"Child-Tuning: ([\d,]+) of ([\d,]+) elements", output).group(1, 2))
    before, after = variables_of(None, project.path("encoder")), variables_of(run)
    layers = [name for name in before if layer_of(name)]
    assert sum(before[name].size for name in layers) == total
    assert kept == total - math.ceil((total - 1) * 0.7)
    assert 0.9 * kept < sum(int((before[name] != after[name]).sum()) for name in layers) <= kept
    assert all(np.array_equal(before[name], after[name]) for name in before if layer_of(name) == 0)


def test_batches_of_the_fisher_information(project, runs):
    """Single samples choose other elements than training batches; the run goes on with them."""
    more = "--child_tuning D --reserve_p 0.3 --fisher_batch_size 1"
    run, output = run_of(project, "single", more)
    samples = run.flags["data"]["train"]["rows"]
    assert f"chosen by Fisher information over {samples} batches" in output
    before, (one, other) = variables_of(None, project.path("encoder")), (variables_of(each) for each in (run, runs["D"][0]))
    layers = [name for name in before if layer_of(name) is not None]
    chosen, others = (np.concatenate([(before[name] != after[name]).reshape(-1) for name in layers]) for after in (one, other))
    assert 0.3 < (chosen & others).sum() / others.sum() < 0.999
    project.run(f"{LINE} {more} --max_steps 5 --model_save_dir output/cut-single")
    resumed = project.run(f"{LINE} {more} --resume output/cut-single")
    assert "chosen by Fisher" not in resumed
    assert tiny.tree(project.path("output", "cut-single", "snapshot_last")) == tiny.tree(run.path("snapshot_last"))
    for words, said in (
        ("--fisher_batch_size 5", "--fisher_batch_size 5: a training batch has 4 samples: give at most 4"),
        ("--fisher_batch_size 2 --texts_per_row 2", "--fisher_batch_size: not possible with --texts_per_row 2"),
    ):
        code, _, errors = project.call(f"{LINE} --child_tuning D {words} --model_save_dir output/refused")
        assert code == 2
        assert said in errors


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


SHORT = (
    "--model_load_dir encoder --vocab_file vocab.txt --num_epochs 1 --max_steps 4 --seed 3 --learning_rate 1e-3 --device cpu "
    "--weight_decay_rate 0 --save_last_snapshot --child_tuning D --reserve_p 0.3"
)
OF_G1 = "--task_name g1 --data_dir data --seq_length 24 --batch_size_per_device 4"
OTHERS = {
    "finetuning.py": "--task_name sst-2 --data_dir single --seq_length 24 --batch_size_per_device 4 --dev_every_step_num 9",
    "meta_teacher.py": f"{OF_G1} --eval_every_step_num 9 --use_sample_weights false",
    "recipes/domain_mixing.py": f"{OF_G1} --dev_every_step_num 9",
    "recipes/span_answering.py": "--task_name places --data_dir questions --seq_length 19 --doc_stride 5 --batch_size_per_device 8",
    "recipes/pretrain_discriminator.py": f"{OF_G1} --use_task_text --evaluation_text leave_out --generator_size 0.3",
}


@pytest.mark.parametrize("script", OTHERS)
def test_other_scripts(project, script):
    """At most the elements that the log counts change in the encoder layers, the others keep their values bit for bit."""
    if not os.path.exists(project.path("questions")):
        tiny.write_questions(project.path("questions"), counts=(9, 4, 3))
        tiny.write_single(project.path("single"))
    name = os.path.basename(script)[: -len(".py")]
    output = project.run(f"{os.path.join(tiny.ROOT, script)} {SHORT} {OTHERS[script]} --model_save_dir output/{name}")
    found = re.search(r"Child-Tuning: ([\d,]+) of ([\d,]+) elements", output)
    kept, total = (int(number.replace(",", "")) for number in found.group(1, 2))
    assert kept == total - math.ceil((total - 1) * 0.7)
    before, after = variables_of(None, project.path("encoder")), variables_of(tiny.Run(project.path("output", name)))
    changed = np.concatenate([(before[each] != after[each]).reshape(-1) for each in before if layer_of(each) is not None])
    assert 0.1 * kept < changed.sum() <= kept  # the discriminator shares its elements with the generator's layers
    assert changed.size <= total
    assert changed.mean() < 0.6


def test_what_is_refused(project):
    code, _, errors = project.call(f"{LINE} --child_tuning D --freeze_encoder --model_save_dir output/refused")
    assert code == 2
    assert "all encoder layers are frozen" in errors
    code, _, errors = project.call(f"{LINE} --child_tuning F --reserve_p 0 --model_save_dir output/refused")
    assert code == 2
    assert "0 is not between 0.001 and 1" in errors
