"""End of a run: what is removed when its results are on disk, and the last line of the log."""

from modeling.cli import interruption
from modeling.engine import parallel
from modeling.run.resume import list_states
from ofrecord_util.escaping import for_shell
from ofrecord_util.files import remove_folder, sync_folder


def end_run(context, best) -> None:
    """Removes the states of a run that has trained all its steps, and logs the path of its best snapshot. It is the last call of a script,
    after predictions and report.

    Until then a killed run can be resumed from a state. Afterwards a signal no longer changes the exit code.

    Args:
        context: `RunContext`.
        best: `BestSnapshot`, or None if the run has not trained.
    Raises:
        Interrupted: a signal arrived before. Nothing is removed.
    """
    parallel.check_interruption()
    interruption.finish()
    folder = context.folder
    if best is None or not parallel.is_main():
        return
    if folder.trained:
        sync_folder(folder.path)
        for path in reversed(list_states(folder.path)):  # the newest last, since it needs none of the others
            best.prune()
            remove_folder(path)
        best.prune()
    # The last line. A pattern such as output/run/snapshot_best_* matches an older run if this one writes to output/run-1
    context.log(f"snapshot for the next step: {for_shell(best.path)}")
