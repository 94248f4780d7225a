"""The best snapshot of a run, by a measure on dev (--metric_for_best). Its name contains a number of dev: the accuracy, the mean squared
error of a regression, the perplexity of language modelling, or the F1 of entities or answers. A run keeps one at a time, and --resume
restores it."""

import os

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.choices import LATEST
from modeling.engine import parallel
from modeling.run.evaluation import read_evaluation
from modeling.run.resume import best_names
from ofrecord_util.errors import UserError
from ofrecord_util.files import remove_folder


class BestSnapshot:
    """Keeps the best snapshot of a run: `snapshot_best_{kind}_model_{task}_dev_{score}`, see `Evaluation.score`.

    Args:
        context: `RunContext`.
        kind: "mft", "ft", "mlm" and so on.
        variables: the `Variables` to save.
        config: `BertConfig` of the saved model if it differs from the run's (for a student).
    Attributes:
        path, evaluation: path and `Evaluation` of the best snapshot so far; None before the first.
        stale: number of evaluations since the best one.
    """

    def __init__(self, context, kind, variables, config=None):
        self._context, self.variables, self.config = context, variables, config
        self._prefix = f"snapshot_best_{kind}_model_{context.task.name}_dev_"
        self.path = self.evaluation = None
        self.stale = 0

    def to_dict(self):
        """The values for a state: {"best": name and evaluation, or None; "stale"}."""
        best = self.evaluation and dict(self.evaluation.to_dict(), name=os.path.basename(self.path))
        return {"best": best, "stale": self.stale}

    def restore(self, best, stale):
        """Continues from the values of `to_dict`.

        Raises:
            UserError: the snapshot is missing or damaged, or its name is not that of a best snapshot. Nothing is changed.
        """
        self.stale = stale
        if best is not None:
            folder = self._context.folder.path
            if os.path.basename(best["name"]) != best["name"] or not best["name"].startswith(self._prefix):
                raise UserError(f"--resume {folder}: the state names {best['name']!r} as best snapshot, which is none of this run")
            self.path = os.path.join(folder, best["name"])
            try:
                Snapshot(self.path)
            except UserError as error:
                raise UserError(
                    f"{error}; it is the run's best snapshot so far: put it back, or remove the states that name it to continue from an "
                    "earlier one"
                ) from error
            self.evaluation = read_evaluation(best)

    def offer(self, evaluation, decay):
        """Saves a snapshot if --metric_for_best improves on dev, or if it is equal and the dev loss is lower; each time if it is `latest`.
        Returns whether it saved one."""
        metric, best = self._context.flags.metric_for_best, self.evaluation
        if best is not None and metric != LATEST and evaluation.rank(metric) <= best.rank(metric):
            self.stale += 1
            return False
        name = f"{self._prefix}{evaluation.score!r}"
        self.evaluation, self.stale = evaluation, 0
        self.path = self._context.folder.write_snapshot(name, self.variables, self.config, decay)
        self.prune()
        return True

    def load(self):
        """Loads the best snapshot into the variables."""
        self.variables.load(Snapshot(self.path))

    def prune(self):
        """Removes earlier best snapshots, except those that a state of the run refers to."""
        if self._context.flags.keep_all_best or self.path is None or not parallel.is_main():
            return
        folder = self._context.folder.path
        needed = {os.path.basename(self.path), *best_names(folder)}
        for name in os.listdir(folder):
            if name.startswith(self._prefix) and name not in needed:
                remove_folder(os.path.join(folder, name))
