"""A folder of teacher outputs; other test files have their own `folder`."""

import pytest
from tiny_teacher import write


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "teacher")
    return str(tmp_path / "teacher")
