"""Several processes, data parallel, on the CPU: the same numbers as one process, one voice, and an end together."""

import os
import re
import signal
import socket
import subprocess
import time

import pytest
import tiny

pytestmark = pytest.mark.slow

DATA = "data/k-shot-cross/g1/16-42"
STEP = (
    f"meta_finetuning.py --task_name g1 --model_load_dir encoder --data_dir {DATA} --num_epochs 2 --seed 42 --seq_length=24 "
    "--dev_every_step_num 10 --loss_print_every_n_iter 3 --vocab_file vocab.txt --learning_rate 5e-3 --device cpu --texts_per_row 2"
)
ONE = STEP + " --batch_size_per_device 4 --dev_batch_size_per_device 6 --model_save_dir output/one"
TWO = STEP + " --batch_size_per_device 2 --dev_batch_size_per_device 3 --gpu_num_per_node 2 --model_save_dir output/"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("parallel") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path(*DATA.split("/")))
    project.run(f"preprocess.py --task_name g1 --model_load_dir encoder --data_dir {DATA} --seq_length 24 --resave_ofrecord")
    return project


@pytest.fixture(scope="module")
def two(project):
    output = project.run(TWO + "two --resave_ofrecord")
    run = tiny.Run(project.path("output", "two"))
    run.output = output
    return run


def test_two_processes_equal_one(project, two):
    """The same global batch, dropout on, the last batch half full: the same losses and the same counts."""
    project.run(ONE)
    one = tiny.Run(project.path("output", "one"))
    for kind in ("train", "dev"):
        assert len(one.rows(kind)) == len(two.rows(kind)) > 2
        for ours, theirs in zip(tiny.without_times(two.rows(kind)), tiny.without_times(one.rows(kind))):
            by_domain = [{name: value["correct"] for name, value in row.pop("by_domain", {}).items()} for row in (ours, theirs)]
            assert by_domain[0] == by_domain[1]
            assert ours == {name: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value for name, value in theirs.items()}
    assert len(re.findall("^step 3/", two.output, re.MULTILINE)) == 1  # one process speaks
    assert one.snapshots() == two.snapshots()


def test_two_processes_are_interrupted_and_go_on(project, two):
    code, output, errors = project.cut_off(TWO + "cut-off/run", 14, signal.SIGINT)
    assert code == 130, output + errors
    assert [name for name in os.listdir(project.path("output/cut-off/run")) if "state" in name] == ["state_step_14"]
    output = project.run(TWO + "cut-off/run --resume")
    assert "after step 14 of" in output
    resumed = tiny.Run(project.path("output/cut-off/run"))
    for kind in ("train", "dev"):
        assert tiny.without_times(resumed.rows(kind)) == tiny.without_times(two.rows(kind))
    for name in two.snapshots():
        assert tiny.tree(resumed.path(name)) == tiny.tree(two.path(name))


def test_a_rank_that_dies_ends_the_others(project, two):
    code, output, errors = project.cut_off(TWO + "killed", 5, signal.SIGKILL, rank=1)
    assert code == 128 + signal.SIGKILL
    assert errors.strip().splitlines()[-1] == "error: rank 1 ended with signal SIGKILL, the others were stopped"
    assert "step 3/" in output
    assert "step 6/" not in output


def wait_for(path, text):
    """Waits until a file holds a text."""
    for _ in range(3000):
        if os.path.exists(path) and text in tiny.read_bytes(path).decode("utf-8"):
            return
        time.sleep(0.1)
    raise AssertionError(f"{path}: no {text}")


def ranks_of(process):
    """Process ids of the ranks by number."""
    ranks = {}
    for child in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout.split():
        environment = tiny.read_bytes(f"/proc/{child}/environ").split(b"\0")
        ranks.update({int(entry[5:]): int(child) for entry in environment if entry.startswith(b"RANK=")})
    return ranks


def start_and_stop_rank(project, name, more=""):
    """Starts a long run of two processes and stops rank 1 after some steps. Returns the process and the folder of the run."""
    process = project.start((TWO + name + more).replace("--num_epochs 2", "--num_epochs 400"))
    folder = project.path("output", name)
    wait_for(os.path.join(folder, "run.log"), "step 6/")
    os.kill(ranks_of(process)[1], signal.SIGSTOP)
    return process, folder


def test_a_second_signal_ends_ranks_that_hang(project, two):
    process, folder = start_and_stop_rank(project, "hangs")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(1)
    _output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    line = "error: all ranks were ended by a second signal (SIGINT)"
    assert errors.strip().splitlines()[-1] == line
    assert tiny.read_bytes(os.path.join(folder, "run.log")).decode("utf-8").endswith(f"{line}\n")


def test_a_silent_rank_is_named(project, two):
    process, folder = start_and_stop_rank(project, "silent", " --rank_timeout 20")
    _output, errors = process.communicate(timeout=200)
    assert process.returncode == 1, errors
    last = errors.strip().splitlines()[-1]
    assert re.match(r"error: rank 1 was silent for \d+ s, its process is stopped \(SIGSTOP\): all ranks were ended", last)
    assert "--rank_timeout 20" in last
    assert tiny.read_bytes(os.path.join(folder, "run.log")).decode("utf-8").endswith(last + "\n")


def test_a_port_that_is_taken(project, two):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = project.start(TWO + f"port --ctrl_port {port}")
        _output, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert errors == f"error: --ctrl_port {port}: cannot be used on 127.0.0.1 (Address already in use): give another port\n"
    assert not os.path.exists(project.path("output", "port"))


def test_bad_input_is_said_once(project, two):
    process = project.start(TWO + "bad --domain_layers 7")
    _output, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert [line for line in errors.splitlines() if "error" in line or "rank" in line] == [errors.strip().splitlines()[-1]]
    assert "--domain_layers" in errors
    process = project.start(STEP + " --gpu_num_per_node 2 --num_nodes 2 --model_save_dir output/bad")
    _output, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "--num_nodes 2: --node_ips names 0 machines" in errors
