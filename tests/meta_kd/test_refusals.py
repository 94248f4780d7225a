"""What the steps refuse, in one line with exit code 2: missing predecessors, foreign outputs, flags that do not fit."""

import json
import os
import shutil

import numpy as np
import pytest
import tiny
from meta_kd_steps import DATA, ENCODER, STEP_2, STEP_3A, STEP_3B, fails

from modeling.bert.names import CLASSIFIER
from modeling.checkpoints.snapshot import Snapshot

pytestmark = pytest.mark.slow


def test_predecessors_are_named(project, teacher, outputs):
    distill = STEP_3B.format(teacher=teacher.snapshot) + " --model_save_dir output/x"
    assert "run meta_teacher_eval.py first" in fails(project, distill + " --teacher_output_dir nowhere")
    assert "run meta_teacher.py" in fails(project, STEP_3B.format(teacher="output/none") + " --model_save_dir output/x")
    assert "run meta_teacher.py" in fails(project, STEP_3A.format(teacher="output/none"))
    assert "--model_load_dir is needed" in fails(project, STEP_3A.replace("--model_load_dir {teacher}", ""))
    assert "has no task.json, so it cannot be a teacher" in fails(project, STEP_3A.format(teacher=ENCODER))
    assert "has no task.json, so it cannot be a teacher" in fails(project, STEP_3B.format(teacher=ENCODER) + " --model_save_dir output/x")
    shutil.copytree(project.path(DATA), project.path("data/unscored"), ignore=shutil.ignore_patterns("ofrecord"))
    line = STEP_2.replace(DATA, "data/unscored").replace("output/teacher", "output/x")
    assert "run preprocess.py first" in fails(project, line)


def test_foreign_and_stale_outputs_name_both_digests(project, teacher, outputs):
    other = "output/other/snapshot"
    shutil.copytree(project.path(teacher.snapshot), project.path(other))
    bias = project.path(other, CLASSIFIER[1], "out")
    (np.fromfile(bias, "<f4") + 1).astype("<f4").tofile(bias)
    message = fails(project, STEP_3B.format(teacher=other) + " --model_save_dir output/x")
    for path in (teacher.snapshot, other):
        assert Snapshot(project.path(path)).digest()[:16] in message
    assert f"run meta_teacher_eval.py with --model_load_dir {other}" in message

    stale = project.path("data/stale")
    shutil.copytree(project.path(DATA), stale)
    with open(os.path.join(stale, "train.csv"), "a", encoding="utf-8") as file:
        file.write("a great plot\tbooks\tpositive\n")
    line = STEP_3B.format(teacher=teacher.snapshot).replace(DATA, "data/stale") + " --use_sample_weights false"
    message = fails(project, line + " --model_save_dir output/x")  # the scores, which are not used, need not fit
    with open(os.path.join(stale, "ofrecord", "train", "manifest.json")) as file:
        assert json.load(file)["text_digest"][:16] in message
    assert outputs.manifest["text_digest"][:16] in message
    assert "run meta_teacher_eval.py" in message


def test_flags_that_cannot_be_met(project, teacher, outputs):
    distill = STEP_3B.format(teacher=teacher.snapshot) + " --model_save_dir output/x "
    evaluate = STEP_3A.format(teacher=teacher.snapshot) + " "
    assert "has 4 encoder layers" in fails(project, distill + "--student_num_hidden_layers 5")
    message = fails(project, distill + "--student_num_hidden_layers 3")
    assert "contains the teacher's layers 1,3, but the student needs 0,2,3" in message
    assert "--teacher_layers 0,2,3" in message
    assert "--temperature: 0 is not 1e-06 or more" in fails(project, distill + "--temperature 0")
    assert "--data_portion 0 leaves no training samples" in fails(project, distill + "--data_portion 0")
    assert "the weights of all loss terms are 0, so there is no loss" in fails(
        project, distill + "--pred_distill --prediction_loss_weight 0"
    )
    for name in ("hidden_loss_weight", "attention_loss_weight", "label_loss_weight", "relation_loss_weight"):
        message = fails(project, distill + f"--pred_distill --{name} 2")
        assert f"--{name} 2: --pred_distill leaves this term out: give --{name} 0" in message
    assert "the teacher has layers 0 to 3" in fails(project, evaluate + "--teacher_layers 1,4")
    assert "and is not replaced" in fails(project, evaluate + f"--teacher_output_dir {DATA}")
    message = fails(project, evaluate + f"--teacher_output_dir {teacher.snapshot}/outputs")
    assert "a snapshot, whose files are not changed; give another --teacher_output_dir" in message
    assert "--teacher_model" in fails(project, STEP_3B.replace("--teacher_model {teacher}", ""))
    message = fails(project, distill + "--domains books,dvd,electronics,toys")
    assert "was trained for domains books,dvd,electronics,kitchen" in message
    assert "run meta_teacher.py on this data" in message


def test_one_vocabulary(project, teacher, outputs):
    tokens = list(tiny.TOKENS)
    tokens[-1], tokens[-2] = tokens[-2], tokens[-1]
    tiny.write_vocabulary(project.path("other-vocab.txt"), tokens)
    line = STEP_3B.format(teacher=teacher.snapshot).replace("vocab.txt", "other-vocab.txt") + " --model_save_dir output/x"
    assert "teacher and student need the same --vocab_file" in fails(project, line)
