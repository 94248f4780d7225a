"""A project with tiny text and a tiny encoder, and the three steps that were run in it. A process of tests runs each step once, for all
files of this folder."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from mft_steps import DATA, SINGLE, STEP_1, STEP_2, STEP_3


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("mft") / "project")
    tiny.write_encoder(project.path("uncased_L-2_H-20_A-4_oneflow"))
    tiny.write_g1(project.path(*DATA.split("/")))
    tiny.write_single(project.path(*SINGLE.split("/")))
    return project


@pytest.fixture(scope="session")
def step_1(project):
    output = project.run(STEP_1)
    folder = project.path(DATA, "ofrecord", "train")
    return SimpleNamespace(output=output, files=tiny.tree(folder), scores=np.load(os.path.join(folder, "weight.npy")))


@pytest.fixture(scope="session")
def step_2(project, step_1):
    output = project.run(STEP_2)
    run = project.run_of(output)
    run.output, run.records = output, tiny.tree(project.path(DATA, "ofrecord"))
    run.snapshot = run.path(run.best())
    return run


@pytest.fixture(scope="session")
def step_3(project, step_2):
    output = project.run(STEP_3.format(snapshot=os.path.relpath(step_2.snapshot, project.folder)))
    run = project.run_of(output)
    run.output = output
    return run
