"""modeling/engine/runtime.py: which card this OneFlow can use, and that only this module imports it."""

import os
import re
import resource
import subprocess
import sys

import pytest
from tiny_model import ROOT

from modeling.engine import runtime
from ofrecord_util.errors import UserError

V8, V9 = (0, 8, 0), (0, 9, 0)


@pytest.mark.parametrize(
    ("card", "version", "has_cuda", "problem"),
    [
        (None, V9, False, "no NVIDIA GPU"),
        (((8, 6), "RTX A6000"), V9, True, None),
        (((8, 9), "L4"), V9, True, None),
        (((6, 0), "P100"), V8, True, None),
        (((9, 0), "H200"), V9, True, "H200 has compute capability 9.0, but OneFlow 0.9.0 contains code for 6.0 to 8.9 only"),
        (((12, 0), "new"), V9, True, "requirements-0.8.0.txt"),
        (((9, 0), "H200"), V8, True, None),
        (((5, 2), "Titan X"), V8, True, "contain code for 6.0 and later only"),
        (((7, 5), "T4"), V9, False, "reports no CUDA for T4"),
    ],
)
def test_cards(card, version, has_cuda, problem):
    said = runtime.cuda_problem(card, version, has_cuda)
    assert (said is None) == (problem is None)
    assert problem is None or (problem in said and "\n" not in said)


def test_a_card_that_cannot_be_used(monkeypatch):
    monkeypatch.setattr(runtime, "_card", lambda: ((5, 0), "an old card"))
    lines = []
    assert runtime.select_device("auto", lines.append) == "cpu"
    assert len(lines) == 1
    assert "an old card" in lines[0]
    assert runtime.select_device("cpu", lines.append) == "cpu"
    assert len(lines) == 1
    with pytest.raises(UserError, match=r"--device cuda: an old card.*--device cpu"):
        runtime.select_device("cuda")


def test_without_a_card_auto_is_the_cpu_in_silence(monkeypatch):
    monkeypatch.setattr(runtime, "_card", lambda: None)
    lines = []
    assert runtime.select_device("auto", lines.append) == "cpu"
    assert lines == []
    with pytest.raises(UserError, match="no NVIDIA GPU"):
        runtime.select_device("cuda")


def test_version():
    assert runtime.oneflow_version() in (V8, V9)


def test_importing_is_silent_and_leaves_no_folder(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); from modeling.engine.runtime import flow; print(flow.ones(2).sum().item())"
    result = subprocess.run([sys.executable, "-c", code, ROOT], cwd=str(tmp_path), capture_output=True)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, b"2.0", b"")
    assert os.listdir(str(tmp_path)) == []


def test_nothing_else_imports_oneflow_first():
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in ("tests", "models", "output", "data")]
        for name in files:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    if re.search(r"^\s*import oneflow|^\s*from oneflow import", f.read(), re.MULTILINE):
                        found.append(os.path.relpath(os.path.join(folder, name), ROOT))
    assert found == [os.path.join("modeling", "engine", "runtime.py")]


_BUSY = """
import os
import sys
import numpy as np
from modeling.engine.engine import Engine
from modeling.engine.global_function import global_function
from modeling.engine.lanes.plan import Lanes
from modeling.engine.runtime import flow
from modeling.bert.variables import Variables

lanes, least = map(int, sys.argv[1:])

engine = Engine("cpu", Lanes(lanes, least))

@global_function(type="predict", variables=Variables({"w": np.full((400, 400), 1e-3, np.float32)}), engine=engine)
def job(variables, x):
    for _ in range(60):
        x = flow.matmul(x, variables.get("w"))
    return x

x = np.ones((400 * lanes, 400), np.float32)
for _ in range(40):
    job({"x": x}).numpy()
print(*sorted(os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")))
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("lanes", "least", "calm"), [(2, 0, True), (1, 400 * 400, True), (1, 400 * 400 + 1, False), (1, 0, False)])
def test_the_scheduler_alone_gives_way_to_long_graphs(lanes, least, calm):
    """The threads that OneFlow sums with are asked in the middle of a step: they must not. A graph may be too short for it."""
    environment = dict(os.environ, PYTHONPATH=ROOT)
    command = [sys.executable, "-c", _BUSY, str(lanes), str(least)]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    own = os.getpriority(os.PRIO_PROCESS, 0)
    *others, scheduler = map(int, output.split())
    assert scheduler == (max(10, own) if calm else own)
    assert set(others) == {own}
    assert len(others) > 3


@pytest.mark.parametrize("limits", [(12, 12, None), (12, 4096, 64), (64, 64, 64), (1024, 4096, 1024), (30, resource.RLIM_INFINITY, 64)])
def test_few_open_files(monkeypatch, limits):
    """OneFlow would abort without a message. A limit that the process may raise is raised."""
    soft, hard, expected = limits
    found = [soft]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, values: found.append(values[0]))
    if expected is None:
        with pytest.raises(UserError, match=r"may open only 12 files at a time \(ulimit -n\), .*: allow 64 or more"):
            runtime.check_open_files()
    else:
        runtime.check_open_files()
        assert found[-1] == expected


def test_a_script_with_few_open_files():
    command = ["sh", "-c", 'ulimit -n 12; "$@"', "sh", sys.executable, "meta_finetuning.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(r"error: the process may open only 12 files .*\n", done.stderr)


_SHUTDOWN_THAT_HANGS = """
import sys, time
sys.path.insert(0, sys.argv[1])
from modeling.cli.errors import run
from modeling.engine.runtime import flow

def hang():
    time.sleep(600)

flow.framework.session_context.TryCloseDefaultSession = hang

def main():
    print("done")
    return 3

run(main)
"""


def test_a_shutdown_that_hangs_does_not_keep_a_script(tmp_path):
    """OneFlow's own shutdown joins its threads; a script has written its files before."""
    command = [sys.executable, "-c", _SHUTDOWN_THAT_HANGS, ROOT]
    done = subprocess.run(command, cwd=str(tmp_path), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (3, "done\n")
