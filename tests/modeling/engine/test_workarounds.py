"""modeling/engine/workarounds.py: each fault names a test that exists; the remedies that have no test elsewhere."""

import os

import numpy as np
import pytest
from tiny_model import ROOT

from modeling.bert.variables import Variables
from modeling.engine import parallel, workarounds
from modeling.engine.global_function import GlobalFunction
from modeling.engine.runtime import flow
from modeling.engine.workarounds import FAULTS, fan_out, forget_graphs, gradient_of


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


def test_a_gradient_inside_a_graph():
    """The gradient of an inner function is a constant of the outer one, whose own gradient is what it is without the inner pass. If
    `flow.autograd.grad` works here, it can replace `gradient_of`."""
    draw = np.random.RandomState(2)
    x, w = draw.randn(3, 5).astype(np.float32), draw.randn(5, 4).astype(np.float32)

    def job(variables, x):
        weights, place = variables.get("w"), x.detach()
        place.requires_grad = True
        value = flow.tanh(flow.matmul(place, weights.detach())).sum()
        with pytest.raises(RuntimeError):
            flow.autograd.grad(value, place, parallel.constant((), 1.0, "cpu"), retain_graph=True)
        gradient = gradient_of(value, place)
        return (flow.matmul(x + gradient, weights) ** 2).sum(), gradient

    variables = Variables({"w": w})
    optimizer = flow.optim.SGD(list(variables.trained().values()), lr=1.0)
    loss, gradient = GlobalFunction(job, "train", variables, optimizer)({"x": x})
    expected = (1 - np.tanh(x @ w) ** 2) @ w.T
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=0, atol=1e-5)
    moved = x + expected
    assert loss.numpy() == pytest.approx(np.square(moved @ w).sum(), rel=1e-5)
    np.testing.assert_allclose(w - variables.get("w").numpy(), 2 * moved.T @ (moved @ w), rtol=1e-4, atol=1e-4)


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
