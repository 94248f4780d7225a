"""A project with tiny text of four domains and tiny encoders, and the four steps that were run in it. A process of tests runs each step
once, for all files of this folder."""

import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from meta_kd_steps import DATA, ENCODER, STEP_1, STEP_2, STEP_3A, distil, write_senti


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("meta_kd") / "project")
    for script in ("meta_teacher.py", "meta_teacher_eval.py", "meta_distill.py"):
        if not os.path.lexists(project.path(script)):
            os.symlink(os.path.join(tiny.ROOT, script), project.path(script))
    config = dataclasses.replace(tiny.CONFIG, hidden_size=20, num_attention_heads=4, num_hidden_layers=4)
    tiny.write_encoder(project.path(ENCODER), config)
    narrow = dataclasses.replace(config, hidden_size=12, num_attention_heads=3, num_hidden_layers=3, intermediate_size=17)
    tiny.write_encoder(project.path("narrow"), narrow)
    write_senti(project.path(DATA))
    return project


@pytest.fixture(scope="session")
def scores(project):
    project.call_well(STEP_1)
    return np.load(project.path(DATA, "ofrecord", "train", "weight.npy"))


@pytest.fixture(scope="session")
def teacher(project, scores):
    """The run of meta_teacher.py; `snapshot` is the path that the next steps are given."""
    output = project.call_well(STEP_2)
    run = tiny.Run(project.path("output", "teacher"))
    run.output, run.snapshot = output, os.path.join("output", "teacher", run.best())
    return run


@pytest.fixture(scope="session")
def outputs(project, teacher):
    """The run of meta_teacher_eval.py."""
    output = project.call_well(STEP_3A.format(teacher=teacher.snapshot))
    folder = project.path(DATA, "ofrecord", "teacher")
    with open(os.path.join(folder, "manifest.json")) as file:
        return SimpleNamespace(output=output, folder=folder, manifest=json.load(file))


@pytest.fixture(scope="session")
def student(project, teacher, outputs):
    return distil(project, teacher, "student")
