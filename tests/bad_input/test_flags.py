"""Bad input to the Meta Fine-tuning scripts: flags, the machine, and the scripts as processes."""

import os
import shutil
import subprocess
import sys

import pytest
from bad_input_steps import ALL, STEP_1, STEP_2, STEP_3, TRAINING, check_error, fails, spared

pytestmark = pytest.mark.slow

# --- flags and the machine


@ALL
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="needs a machine without a card")
def test_no_card(project, line):
    fails(project, line + " --device cuda", "--device cuda", "--device cpu")


@ALL
@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ("--use_fp16 --device cpu", ("--use_fp16", "CUDA")),
        ("--batch_size_per_devise 2", ("unknown flag --batch_size_per_devise",)),
        ("--sede 1", ("unknown flag --sede", "did you mean --seed?")),
        ("--seq_length 2", ("--seq_length", "2 is not 3 or more")),
        ("--seed x", ("--seed", "'x' is not an integer")),
        ("--learning_rate -1", ("--learning_rate", "-1")),
        ("--warmup_proportion 1.5", ("--warmup_proportion", "1.5")),
        ("--num_epochs 0", ("--num_epochs", "0 is not 1 or more")),
        ("--do_lower_case maybe", ("--do_lower_case", "'maybe' is neither true nor false")),
        ("--device gpu", ("--device", "'gpu'", "cuda")),
        ("--train_data_part_num 2", ("train.of_record-1: no such file", "--resave_ofrecord")),
        ("--task_name a/b", ("--task_name a/b",)),
        ("--task_name ..", ("--task_name ..",)),
        ("--train_data_prefix a/b", ("--train_data_prefix",)),
        ("--hidden_dropout_prob 1", ("hidden_dropout_prob",)),
    ],
)
def test_bad_flag(project, line, flags, parts):
    fails(project, f"{line} {flags}", *parts)


@TRAINING
@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ("--batch_size_per_device 0", ("--batch_size_per_device", "0 is not 1 or more")),
        ("--dev_batch_size_per_device 0", ("--dev_batch_size_per_device", "0 is not 1 or more")),
        ("--batch_size_per_devise 2", ("did you mean --batch_size_per_device?",)),
        ("--dev_every_step_num 0", ("--dev_every_step_num",)),
        ("--num_nodes 3", ("--num_nodes 3", "--node_ips names 0 machines")),
        ("--num_nodes 2 --node_ips 203.0.113.1,203.0.113.2", ("--node_ips 203.0.113.1,203.0.113.2", "none is an address of this machine")),
        ("--do_train false --do_eval false", ("--do_train false", "--do_eval false", "nothing to do")),
    ],
)
def test_bad_flag_of_a_training_step(project, line, flags, parts):
    fails(project, f"{line} {flags}", *parts)


@pytest.mark.parametrize("layers", ["2", "-1", "0,0", "x"])
def test_domain_layers(project, layers):
    fails(project, f"{STEP_2} --domain_layers={layers}", "--domain_layers", layers)


@ALL
def test_required_flags(project, line):
    script = line.split()[0]
    fails(project, script, "--task_name", "--data_dir")
    fails(project, f"{script} --data_dir data", "--task_name")


# --- as processes


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (STEP_1.replace("--data_dir data", "--data_dir nowhere"), ("nowhere",)),
        (STEP_2 + " --sede 1", ("unknown flag --sede",)),
        (STEP_3 + " --seq_length 25", ("stale",)),
    ],
)
def test_as_a_user_sees_it(project, line, parts):
    """Within a shell: no chatter of libraries around the one line."""
    before = spared(project)
    process = project.start(line)
    output, errors = process.communicate(timeout=300)
    check_error(process.returncode, output, errors, *parts)
    assert spared(project) == before


@ALL
def test_oneflow_is_a_placeholder(project, line):
    """PyPI's `oneflow` of a Python without wheels is an empty package."""
    os.mkdir(project.path("packages"))
    os.mkdir(project.path("packages", "oneflow"))
    with open(project.path("packages", "oneflow", "__init__.py"), "w", encoding="utf-8") as file:
        file.write("__version__ = '0.0.1'\n")
    process = subprocess.Popen(
        [sys.executable, *line.split()],
        cwd=project.folder,
        env=dict(os.environ, PYTHONPATH=project.path("packages"), PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    output, errors = process.communicate(timeout=300)
    check_error(process.returncode, output, errors, "oneflow 0.0.1 is an empty placeholder")
