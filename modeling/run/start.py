"""Start of a training run: the files and log lines before its first step."""

import os

from modeling.cli.flags import run_folder_name
from modeling.engine import parallel
from modeling.run.flags_json import write_flags
from modeling.run.log import READY
from modeling.run.resources import FREE_SOME, announcement, check_memory, plan_memory
from modeling.run.resume import KEPT
from ofrecord_util.output_checks import check_space
from ofrecord_util.reading import size_text


def start_run(context, variables, schedule, batch_size, memory, **facts) -> None:
    """Writes the run's flags, writes an initial snapshot if no model was loaded, and logs a summary of the run.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        schedule: `Schedule`.
        batch_size: samples per step.
        memory: estimated bytes of memory, None if unknown.
        facts: values for flags.json, including those of `TrainingBatches.to_dict`.
    Raises:
        UserError: there is not enough disk space for the run's snapshots and states.
    """
    check_resources(context, variables, schedule)
    log, steps = context.log, {"total_steps": schedule.total_steps, "warmup_steps": schedule.warmup_steps}
    context.folder.create()
    write_flags(context, parameters=variables.count(), samples_per_step=batch_size, **steps, **facts)
    if parallel.is_main():
        in_memory = f" and {announcement(memory)}" if memory else ""
        log(f"the run needs up to {size_text(_disk_bytes(context, variables, schedule))} of disk space{in_memory}")
    if variables.count(frozen=True):
        log(f"{variables.count(frozen=False):,} parameters are trained, {variables.count(frozen=True):,} frozen")
    if context.snapshot is None:
        log("saved " + context.folder.write_snapshot("snapshot_initial_model", variables))
    parts = f" in {facts['parts_per_step']} parts" if facts["parts_per_step"] > 1 else ""
    rows = "texts" if facts["texts_per_row"] == 1 else f"rows of {facts['texts_per_row']} texts"
    lengths = "/".join(map(str, facts["lengths"]))
    steps = f"{schedule.total_steps} step{'s' * (schedule.total_steps != 1)}"
    log(f"{steps} of {batch_size} samples{parts}, {schedule.warmup_steps} of them warm-up, {rows} padded to {lengths} tokens; {READY}")


def announce_predictions(context, variables, others=(), per_row=None) -> None:
    """Logs the memory that a script without training needs. Call it before a graph is compiled, when `context.bucketing` knows all graphs.

    Args:
        context: `RunContext`.
        variables: the `Variables` that predict.
        others: further `Model`s.
        per_row: see `MemoryPlan`.
    Raises:
        UserError: the script may not use that much.
    """
    memory = plan_memory(context, variables, others, trains=False, per_row=per_row)
    if memory:
        needed = memory.needed(context.bucketing.graphs)
        check_memory(needed, memory.limit, FREE_SOME)
        context.log(f"the script needs {announcement(needed)}; {READY}")


def start_evaluation(context, variables, others=(), per_row=None) -> None:
    """Creates the folder of a run that only evaluates, and writes its flags. The arguments are those of `announce_predictions`."""
    announce_predictions(context, variables, others, per_row)
    context.folder.create()
    write_flags(context)


def check_resources(context, variables, schedule) -> None:
    """Checks the disk space that a run needs. Call it before the run writes anything.

    The arguments are those of `start_run`.

    Raises:
        UserError: the disk has less space free.
    """
    if parallel.is_main():
        folder = context.folder.path or run_folder_name(context.flags.model_save_dir)
        periodic = schedule.total_steps > context.flags.model_save_every_n_iter
        fewer = "give a higher --model_save_every_n_iter, " if periodic else ""
        check_space(
            os.path.join(folder, "snapshot"),
            _disk_bytes(context, variables, schedule),
            "the run's snapshots and states need up to",
            f"free some, {fewer}or give a --model_save_dir on another disk",
        )


def _disk_bytes(context, variables, schedule):
    """Bytes of all snapshots and states of a run that exist at the same time."""
    flags, steps = context.flags, schedule.total_steps
    trained = sum(parameter.numel() for parameter in variables.trained().values())
    kept = (context.snapshot is None) + flags.save_last_snapshot + (steps - 1) // flags.model_save_every_n_iter
    states = min(KEPT, (steps - 1) // flags.state_save_every_n_iter) + 1  # the last one before the oldest is removed
    # room for the current best snapshot, its replacement while it is written, and the best ones that saved states refer to
    return 4 * ((kept + 1 + states) * variables.count() + 3 * states * trained)
