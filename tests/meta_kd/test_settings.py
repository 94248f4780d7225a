"""Other settings of distillation: teachers online, other sizes, other terms, parts of the variables and of the data."""

import os

import numpy as np
import pytest
import tiny
from meta_kd_steps import BATCH, ENCODER, SHORT, STEP_2, STEP_3A, STEP_3B, TERMS, TEST_COUNT, TRAIN_COUNT, config_of, distil

from modeling.checkpoints.snapshot import Snapshot
from modeling.run.student import LayerSelection

pytestmark = pytest.mark.slow


def test_online_and_disk_teach_the_same(student, teacher, project):
    run = distil(project, teacher, "online", "--teacher_outputs online --teacher_output_dir nowhere")
    first, other = student.rows("train")[0], run.rows("train")[0]
    for name in (*TERMS, "loss", "sample_weight"):
        assert other[name] == pytest.approx(first[name], rel=2e-3, abs=1e-5), name
    assert run.rows("dev")[-1]["accuracy"] == pytest.approx(student.rows("dev")[-1]["accuracy"], abs=0.1)


@pytest.mark.parametrize("kind", ["disk", "online"])
def test_two_processes_learn_what_one_learns(outputs, teacher, project, kind):
    """The same global batch in two halves, each with what its teacher says of it; the last batch is half full."""
    common = f"--teacher_outputs {kind} {SHORT} --loss_print_every_n_iter 1 --device cpu"
    one = distil(project, teacher, f"one-{kind}", f"{common} --batch_size_per_device 10")
    line = f"{STEP_3B.format(teacher=teacher.snapshot)} {common} --batch_size_per_device 5".replace("--resave_ofrecord", "")
    project.run(f"{line} --gpu_num_per_node 2 --model_save_dir output/two-{kind}")
    two = tiny.Run(project.path("output", f"two-{kind}"))
    for ours, theirs in zip(two.rows("train"), one.rows("train")):
        for name in (*TERMS, "loss", "sample_weight"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
    assert len(two.rows("train")) == len(one.rows("train")) == 6
    assert [row["total"] for row in two.rows("test")] == [TEST_COUNT]


def test_a_narrow_student_of_other_heads(outputs, teacher, project):
    run = distil(project, teacher, "narrow", f"--student_model narrow --teacher_outputs disk {SHORT} --num_epochs 3")
    assert "3 student heads, 4 teacher heads: attention scores are averaged over heads" in run.output
    assert "the nearest ones: 2 does not divide 3" in run.output
    assert run.flags["start_layers"] == [1, 2]
    rows = run.rows("train")
    assert all(rows[-1][name] < rows[0][name] for name in TERMS)
    config = config_of(run)
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]) == (12, 2, 3)
    assert not [name for name in Snapshot(project.path(run.snapshot)).sizes if name.startswith("distillation-")]


def test_child_tuning_of_the_student(outputs, teacher, project):
    """The Fisher information is that of the distillation, whether the teacher's outputs are on disk or online: the same child network."""
    more = f"{SHORT} --max_steps 1 --child_tuning D --reserve_p 0.3"
    said = []
    for source in ("disk", "online"):
        run = distil(project, teacher, f"child-{source}", f"{more} --teacher_outputs {source}")
        said += [line.split("Child-Tuning: ")[1] for line in run.log.splitlines() if "Child-Tuning: " in line]
    assert len(said) == 2
    assert said[0] == said[1]
    assert "chosen by Fisher information over" in said[0]


def test_frozen_layers_of_the_student(outputs, teacher, project):
    """Terms run over the layers that are trained, whose teacher's layers alone are needed; where none is, they are left out."""
    run = distil(project, teacher, "frozen", f"--student_model narrow --freeze_layers 1 {SHORT}")
    assert "student layers below 1 are frozen: the terms of hidden states and attention scores cover only the other layers" in run.log
    assert set(TERMS) <= set(run.rows("train")[0])
    start = LayerSelection(Snapshot(project.path("narrow")), (1, 2))
    best = Snapshot(project.path(run.snapshot))
    for name, shape in best.shapes.items():
        same = name in start.sizes and np.array_equal(best.read(name, shape), start.read(name, shape))
        assert same == name.startswith(("bert-embeddings-", "bert-encoder-layer_0-")), name

    run = distil(project, teacher, "heads", f"--freeze_encoder {SHORT}")
    assert "all layers of the student are frozen: the terms of hidden states and attention scores are left out" in run.log
    assert [name for name in TERMS if name in run.rows("train")[0]] == ["prediction_loss", "label_loss", "knowledge_loss"]
    line = f"{STEP_3B.format(teacher=teacher.snapshot)} --freeze_encoder --prediction_loss_weight 0 --label_loss_weight 0"
    code, _, errors = project.call(line + " --use_domain_loss false --model_save_dir output/nothing")
    assert code == 2
    assert "no other loss term has a weight" in errors
    assert errors.count("\n") == 1
    code, _, errors = project.call(f"{STEP_3B.format(teacher=teacher.snapshot)} --freeze_layers 3 --model_save_dir output/nothing")
    assert code == 2
    assert "--freeze_layers 3: the encoder has 2 layers, give 0 to 2" in errors


def test_prediction_loss_only(teacher, project):
    small = "--teacher_output_dir output/predictions --pred_distill"
    project.call_well(f"{STEP_3A.format(teacher=teacher.snapshot)} {small} --eval_batch_size_per_device 16")
    assert sorted(os.listdir(project.path("output", "predictions"))) == [
        *("checksums.npy", "idxs.npy", "logits.npy", "manifest.json", "token_offsets.npy")
    ]
    run = distil(project, teacher, "predictions-student", f"{small} --temperature 2 --student_num_hidden_layers 3 {SHORT}")
    row = run.rows("train")[0]
    assert [name for name in row if name.endswith("_loss")] == ["prediction_loss"]
    assert row["loss"] == row["prediction_loss"]
    assert config_of(run)["num_hidden_layers"] == 3  # no layer of the teacher is needed
    code, _, errors = project.call(
        f"{STEP_3B.format(teacher=teacher.snapshot)} --teacher_output_dir output/predictions --model_save_dir output/x"
    )
    assert code == 2
    assert "hidden is missing, but the loss needs it" in errors


def test_a_term_of_weight_zero(student, teacher, project):
    """Without the meta parts and without attention: the other terms of the first steps are the same numbers."""
    more = "--attention_loss_weight 0 --use_sample_weights false --use_domain_loss false --learning_rate 0 --num_epochs 1"
    less = distil(project, teacher, "less", more)
    whole = distil(project, teacher, "whole", "--use_sample_weights false --learning_rate 0 --num_epochs 1")
    row, other = less.rows("train")[0], whole.rows("train")[0]
    assert [name for name in row if name.endswith("_loss")] == ["hidden_loss", "prediction_loss", "label_loss"]
    assert "sample_weight" not in row
    assert "all sample weights are 1" in less.output
    for name in ("hidden_loss", "prediction_loss", "label_loss"):
        assert row[name] == other[name]
    assert row["loss"] == pytest.approx(other["loss"] - other["attention_loss"] - 0.2 * other["knowledge_loss"], rel=1e-5)


def test_only_evaluation(student, teacher, project):
    line = STEP_3B.format(teacher=teacher.snapshot).replace("--do_train ", "--do_train false ").replace(ENCODER, student.snapshot)
    project.call_well(line + " --model_save_dir output/only --teacher_output_dir nowhere")
    run = tiny.Run(project.path("output", "only"))
    assert run.rows("dev")[0]["accuracy"] == float(student.best().rsplit("_", 1)[1])
    assert run.rows("test")[0]["correct"] == student.rows("test")[0]["correct"]
    assert not run.snapshots()


def test_portion_of_the_training_split(scores, teacher, outputs, project):
    """The same part in each step; scores stay with their samples."""
    more = "--data_portion 0.3 --model_save_dir output/portion --num_epochs 2 --loss_print_every_n_iter 1"
    output = project.call_well(f"{STEP_2} {more}")
    count = int(np.ceil(0.3 * TRAIN_COUNT))
    assert f"--data_portion 0.3: {count} of {TRAIN_COUNT} samples are used" in output
    steps = -(-2 * count // BATCH)
    assert len(tiny.Run(project.path("output", "portion")).rows("train")) == steps
    folder = "--teacher_output_dir output/part"
    project.call_well(f"{STEP_3A.format(teacher=teacher.snapshot)} --data_portion 0.3 {folder} --eval_batch_size_per_device 17")
    idxs = np.load(project.path("output", "part", "idxs.npy"))
    assert len(set(idxs.tolist())) == count
    assert (np.diff(idxs) > 0).all()
    distil(project, teacher, "part-student", f"--data_portion 0.3 {folder} {SHORT}")
    code, _, errors = project.call(f"{STEP_3B.format(teacher=teacher.snapshot)} {folder} --model_save_dir output/x")
    assert code == 2
    assert f"contains {count} samples, but not all {TRAIN_COUNT}" in errors
