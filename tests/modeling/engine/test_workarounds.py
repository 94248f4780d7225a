"""modeling/engine/workarounds.py: each fault names a test that exists; the remedies that have no test elsewhere."""

import os

import numpy as np
import pytest
from tiny_model import ROOT

from modeling.bert.variables import Variables
from modeling.engine import workarounds
from modeling.engine.global_function import GlobalFunction
from modeling.engine.runtime import flow
from modeling.engine.workarounds import FAULTS, fan_out, forget_graphs


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.symptom[:30])
def test_the_test_of_a_fault_exists(fault):
    path, _, name = fault.test.partition("::")
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        assert not name or f"def {name}(" in file.read()
    assert fault.versions in ("0.8.0", "0.9.0", "0.8.0, 0.9.0")


@pytest.mark.parametrize("version", [(0, 8, 0), (0, 9, 0)])
def test_fan_out(monkeypatch, version):
    """Every use has the value, and the gradient is the sum over the uses."""
    monkeypatch.setattr(workarounds, "oneflow_version", lambda: version)
    x = flow.tensor(np.array([1.0, -2.0], np.float32), requires_grad=True)
    uses = fan_out(x, 3)
    assert [use.numpy().tolist() for use in uses] == [[1.0, -2.0]] * 3
    sum(use * factor for use, factor in zip(uses, (1.0, 10.0, 100.0))).sum().backward()
    assert x.grad.numpy().tolist() == [111.0, 111.0]


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_freed_graph_keeps_its_memory():
    """If this test fails, OneFlow gives back the memory of a graph: graphs should then be freed when their phase is over."""

    def run():
        def job(variables, x):
            return sum(x * factor for factor in range(1, 11))

        GlobalFunction(job, "predict", Variables({"w": np.ones(1, np.float32)}))({"x": np.ones((1000, 1000), np.float32)}).numpy()
        forget_graphs()

    run()
    before = resident_bytes()
    for _ in range(3):
        run()
    assert resident_bytes() - before > 3 * 10 * 4e6  # ten arrays of 4 MB per graph
