"""Python runs this at its start where the folder is on PYTHONPATH: a script then sends itself a signal at a step.

SIGNAL_AT is "RANK STEP NUMBER": the signal NUMBER goes to the process of that rank when it asks for the batch of that step.
"""

import os

if "SIGNAL_AT" in os.environ:
    from modeling.engine import parallel
    from modeling.run.training import Training

    rank, step, number = os.environ["SIGNAL_AT"].split()
    batches_of = Training.batches

    def batches(training):
        for position, batch in enumerate(batches_of(training), start=training.start_step + 1):
            if position == int(step) and parallel.rank() == int(rank):
                os.kill(os.getpid(), int(number))
            yield batch

    Training.batches = batches
