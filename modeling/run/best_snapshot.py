"""The best snapshot of a run, by dev accuracy: named by it, one at a time, and carried over by --resume."""

import os

from modeling.checkpoints.snapshot import Snapshot
from modeling.engine import parallel
from modeling.run.evaluation import Evaluation
from modeling.run.resume import best_names
from ofrecord_util.files import remove_folder


class BestSnapshot:
    """Keeps the best snapshot of a run: `snapshot_best_{kind}_model_{task}_dev_{accuracy}`.

    Args:
        context: `RunContext`.
        kind: "mft", "ft" or "distill".
        variables: what is saved.
        config: of the saved model where it is not the run's (a student's).
    Attributes:
        path, evaluation: of the best so far; None before the first.
        stale: evaluations since then.
    """

    def __init__(self, context, kind, variables, config=None):
        self._context, self.variables, self.config = context, variables, config
        self._prefix = f"snapshot_best_{kind}_model_{context.task.name}_dev_"
        self.path = self.evaluation = None
        self.stale = 0

    def to_dict(self):
        """For a state: {"best": name and evaluation, or None, "stale"}."""
        best = self.evaluation and dict(self.evaluation.to_dict(), name=os.path.basename(self.path))
        return {"best": best, "stale": self.stale}

    def restore(self, best, stale):
        """Continues from what `to_dict` gave."""
        self.stale = stale
        if best is not None:
            self.path = os.path.join(self._context.folder.path, best["name"])
            self.evaluation = Evaluation.from_dict(best)

    def offer(self, evaluation, decay):
        """Saves where dev accuracy strictly improves, or is equal with a lower dev cross-entropy; returns whether it did."""
        best = self.evaluation
        if best is not None and (evaluation.accuracy, -evaluation.cross_entropy) <= (
            best.accuracy,
            -best.cross_entropy,
        ):
            self.stale += 1
            return False
        name = f"{self._prefix}{evaluation.accuracy!r}"
        self.evaluation, self.stale = evaluation, 0
        self.path = self._context.folder.write_snapshot(name, self.variables, self.config, decay)
        self.prune()
        return True

    def load(self):
        """Gives the variables the values of the best snapshot."""
        self.variables.load(Snapshot(self.path))

    def prune(self):
        """Removes the best snapshots before the best one, but for those that a state of the run still refers to."""
        if self._context.flags.keep_all_best or self.path is None or not parallel.is_main():
            return
        folder = self._context.folder.path
        needed = {os.path.basename(self.path), *best_names(folder)}
        for name in os.listdir(folder):
            if name.startswith(self._prefix) and name not in needed:
                remove_folder(os.path.join(folder, name))
