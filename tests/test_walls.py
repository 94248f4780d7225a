"""Imports between packages: from a later package to an earlier one only, and only the engine imports OneFlow."""

import os

import pytest
import tiny

from tools.list_imports import faults, sources


@pytest.mark.parametrize("path", sorted(sources(tiny.ROOT)))
def test_no_import_runs_backwards(path):
    with open(os.path.join(tiny.ROOT, path), encoding="utf-8") as file:
        assert faults(path, file.read()) == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("modeling/bert/x.py", "from modeling.run.training import Training", 2),
        ("modeling/cli/x.py", "def f():\n    from modeling.bert import config", 2),
        ("ofrecord_util/x.py", "import modeling.cli.errors", 1),
        ("modeling/run/x.py", "from oneflow.core.record import record_pb2", 2),
        ("tools/x.py", "import oneflow as flow", 1),
        ("modeling/engine/lanes/x.py", "from oneflow.core import job", 0),
        ("modeling/report/x.py", "from modeling.run import metrics\nfrom ofrecord_util import files", 0),
    ],
)
def test_a_breach_is_seen(path, source, expected):
    assert len(faults(path, source)) == expected
