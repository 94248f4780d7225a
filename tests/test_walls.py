"""The walls between the rooms: an import goes from a later room to an earlier one, and only the engine imports OneFlow."""

import ast
import os

import pytest
import tiny

ROOMS = (
    "ofrecord_util",
    "modeling.cli",
    "modeling.engine",
    "modeling.bert",
    "modeling.objectives",
    "modeling.checkpoints",
    "modeling.run",
    "modeling.report",
    "modeling.predictor",
)
SKIPPED = {"tests", "models", "output", "data", "docs"}


def sources():
    """Paths of the project's Python files, tests left out."""
    for folder, folders, names in os.walk(tiny.ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED]
        for name in names:
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(folder, name), tiny.ROOT)


def imports_of(source):
    """Dotted names of the modules that a source text imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    """Position in ROOMS, or None for what is no room."""
    return next((place for place, room in enumerate(ROOMS) if module == room or module.startswith(room + ".")), None)


def faults(path, source):
    """What an import of the file breaks: list of the modules."""
    own, found = room_of(path[: -len(".py")].replace(os.sep, ".")), set()
    for module in imports_of(source):
        other = room_of(module)
        if own is not None and other is not None and other > own:
            found.add(module)
        if module.split(".")[0] == "oneflow" and not path.startswith(os.path.join("modeling", "engine", "")):
            found.add(module)
    return sorted(found)


@pytest.mark.parametrize("path", sorted(sources()))
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
