"""Python runs this at its start where the folder is on PYTHONPATH: a script then sends itself a signal at a step.

SIGNAL_AT is "RANK STEP NUMBER": the signal NUMBER goes to the process of that rank when it asks for the batch of that step.
"""

import os

if "SIGNAL_AT" in os.environ:
    from modeling.engine import parallel, peers
    from modeling.run.meta_training import MetaTraining
    from modeling.run.training import Training

    rank, step, number = os.environ["SIGNAL_AT"].split()

    def signalling(batches_of):
        def batches(training):
            for position, batch in enumerate(batches_of(training), start=training.start_step + 1):
                if position == int(step) and max(parallel.rank(), peers.rank()) == int(rank):
                    os.kill(os.getpid(), int(number))
                yield batch

        return batches

    for kind in (Training, MetaTraining):
        kind.batches = signalling(kind.batches)
