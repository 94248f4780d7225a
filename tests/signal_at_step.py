"""Runs a script that sends itself a signal when the batch of a step is asked for: signal_at_step.py STEP SIGNAL SCRIPT FLAGS…"""

import os
import runpy
import sys

step, number = int(sys.argv[1]), int(sys.argv[2])
sys.argv = sys.argv[3:]
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from modeling.training import Training  # noqa: E402

batches_of = Training.batches


def batches(training):
    for position, batch in enumerate(batches_of(training), start=training.start_step + 1):
        if position == step:
            os.kill(os.getpid(), number)
        yield batch


Training.batches = batches
runpy.run_path(sys.argv[0], run_name="__main__")
