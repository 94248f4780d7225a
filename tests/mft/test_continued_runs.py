"""Runs that a signal cut off: continued, they are those that were not cut off."""

import signal

import pytest
from mft_steps import STEP_2, STEP_3

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("step", "number"), [(39, signal.SIGINT), (101, signal.SIGKILL)])
def test_step_2_goes_on_where_it_was_cut_off(project, step_2, step, number):
    project.check_resumed(STEP_2, step_2, step, number)


@pytest.mark.parametrize(("step", "number"), [(10, signal.SIGTERM), (16, signal.SIGINT)])
def test_step_3_goes_on_where_it_was_cut_off(project, step_2, step_3, step, number):
    project.check_resumed(STEP_3.format(snapshot=step_2.snapshot), step_3, step, number)
