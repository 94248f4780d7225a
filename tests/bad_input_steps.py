"""The steps of Meta Fine-tuning, and what a step with bad input must do: one line that names the fault and its remedy, exit
code 2, nothing half done."""

import os
import re

import pytest
import tiny

STEP_1 = "preprocess.py --task_name g1 --model_load_dir encoder --data_dir data --seq_length 24 --log_dir logs"
STEP_2 = (
    "meta_finetuning.py --task_name g1 --model_load_dir encoder --data_dir data --seq_length 24 --num_epochs 1 --model_save_dir output/run"
)
STEP_3 = "finetuning.py --task_name g1 --model_load_dir encoder --data_dir data --seq_length 24 --num_epochs 1 --model_save_dir output/run"
SIZES = f"--num_hidden_layers 1 --num_attention_heads 2 --vocab_size {len(tiny.TOKENS)} --vocab_file vocab.txt"
STEPS = (STEP_1, STEP_2, STEP_3)
ALL = pytest.mark.parametrize("line", STEPS, ids=("preprocess", "meta_finetuning", "finetuning"))
TRAINING = pytest.mark.parametrize("line", STEPS[1:], ids=("meta_finetuning", "finetuning"))


def spared(project):
    """Files that a step which fails must leave as they are: all but what tells of the run."""
    told = ("run.log", "metrics.jsonl", "flags.json", "run.flags")
    return {path: data for path, data in tiny.tree(project.folder).items() if os.path.basename(path) not in told}


def check_error(code, output, errors, *parts):
    assert code == 2, output + errors
    assert errors.startswith("error: "), errors
    assert errors.endswith("\n"), errors
    assert errors.count("\n") == 1, errors
    assert "Traceback" not in output
    assert all(part in errors for part in parts), errors
    assert not re.search(r"\{\w*\}", errors), errors  # a field of the message that was not filled in


def fails(project, line, *parts):
    """Runs a line that must fail with one error that holds all the parts, and must change nothing."""
    before = spared(project)
    check_error(*project.call(line), *parts)
    assert spared(project) == before


def rewrite(project, name, change):
    """Changes the bytes of a file of the project."""
    path = project.path(*name.split("/"))
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(change(data))
