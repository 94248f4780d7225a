"""modeling/engine/workarounds.py: each fault names a test that exists; the remedies that have no test elsewhere."""

import os

import numpy as np
import pytest
from tiny_model import ROOT

from modeling.engine import workarounds
from modeling.engine.runtime import flow
from modeling.engine.workarounds import FAULTS, fan_out


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
