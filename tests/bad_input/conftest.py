"""A project in which the steps of Meta Fine-tuning would run, and a copy of it for each test."""

import shutil

import pytest
import tiny
from bad_input_steps import STEP_1


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project in which all three steps would run: text, records and scores of three splits, an encoder."""
    project = tiny.Project(tmp_path_factory.mktemp("prepared") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=3, dev=2)
    shutil.copy(project.path("data", "dev.csv"), project.path("data", "test.csv"))
    project.call_well(STEP_1 + " --resave_ofrecord")
    return project


@pytest.fixture
def project(prepared, tmp_path):
    """A copy of it that a test may spoil."""
    shutil.copytree(prepared.folder, str(tmp_path / "project"), symlinks=True)
    copy = object.__new__(tiny.Project)
    copy.folder = str(tmp_path / "project")
    return copy
