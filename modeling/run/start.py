"""Start of a training run: the files and log lines before its first step."""

import os

from modeling.cli.flags import run_folder_name
from modeling.engine import parallel
from modeling.run.flags_json import write_flags
from modeling.run.resources import available_memory, memory_estimate, total_memory
from modeling.run.resume import KEPT
from ofrecord_util.errors import UserError
from ofrecord_util.files import check_space, size_text

_HOPELESS = 4  # the estimate of the memory is not off by this factor


def start_run(context, variables, schedule, batch_size, **facts) -> None:
    """Writes the run's flags, writes an initial snapshot if no model was loaded, and logs a summary of the run.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        schedule: `Schedule`.
        batch_size: samples per step.
        facts: values for flags.json, including texts_per_row and lengths.
    Raises:
        UserError: there is not enough disk space for the run's snapshots and states, or far too little memory.
    """
    check_resources(context, variables, schedule)
    log, steps = context.log, {"total_steps": schedule.total_steps, "warmup_steps": schedule.warmup_steps}
    context.folder.create()
    write_flags(context, parameters=variables.count(), samples_per_step=batch_size, **steps, **facts)
    if parallel.is_main():
        _log_resources(context, variables, schedule)
    if variables.count(frozen=True):
        log(f"{variables.count(frozen=False):,} parameters are trained, {variables.count(frozen=True):,} frozen")
    if context.snapshot is None:
        log("saved " + context.folder.write_snapshot("snapshot_initial_model", variables))
    rows = "texts" if facts["texts_per_row"] == 1 else f"rows of {facts['texts_per_row']} texts"
    lengths = "/".join(map(str, facts["lengths"]))
    log(
        f"{schedule.total_steps} steps of {batch_size} samples, {schedule.warmup_steps} of them warm-up, {rows} padded to {lengths} "
        "tokens; compiling the graphs"
    )


def start_evaluation(context) -> None:
    """Creates the folder of a run that only evaluates, and writes its flags."""
    context.folder.create()
    write_flags(context)


def check_resources(context, variables, schedule) -> None:
    """Checks the disk space and memory that a run needs. Call it before the run writes anything.

    The arguments are those of `start_run`.

    Raises:
        UserError: the disk has less space free, or the estimated memory is several times that of the machine.
    """
    if parallel.is_main():
        memory, total = _memory_bytes(context, variables), total_memory()
        if None not in (memory, total) and memory > _HOPELESS * total:
            raise UserError(
                f"the run needs about {size_text(memory)} of memory, but the machine has {size_text(total)}: give smaller batches, or more "
                "--gradient_accumulation_steps"
            )
        folder = context.folder.path or run_folder_name(context.flags.model_save_dir)
        check_space(
            os.path.join(folder, "snapshot"),
            _disk_bytes(context, variables, schedule),
            "the run's snapshots and states need up to",
            "free some, or give a --model_save_dir on another disk",
        )


def _disk_bytes(context, variables, schedule):
    flags, steps = context.flags, schedule.total_steps
    trained = sum(parameter.numel() for parameter in variables.trained().values())
    kept = (context.snapshot is None) + flags.save_last_snapshot + (steps - 1) // flags.model_save_every_n_iter
    states = min(KEPT, (steps - 1) // flags.state_save_every_n_iter) + 1  # the last one before the oldest is removed
    # room for the current best snapshot, its replacement while it is written, and the best ones that saved states refer to
    return 4 * ((kept + 1 + states) * variables.count() + 3 * states * trained)


def _memory_bytes(context, variables):
    """Estimated memory of a run on a CPU; None on a GPU."""
    if context.engine.device != "cpu":
        return None
    held = sum(parameter.numel() for parameter in variables.parameters())
    trained = sum(parameter.numel() for parameter in variables.trained().values())
    return memory_estimate(context.config, held, trained, context.bucketing.graphs, context.freezing.layers, context.engine.lanes.count)


def _log_resources(context, variables, schedule):
    """Logs the disk space and memory that the run needs, and compares the memory with the free amount."""
    line = f"the run needs up to {size_text(_disk_bytes(context, variables, schedule))} of disk space"
    memory, available = _memory_bytes(context, variables), available_memory()
    if memory is not None:
        line += f" and about {size_text(memory)} of memory"
        if available is not None and memory > available:
            line += (
                f", but only {size_text(available)} of memory are free: give smaller batches, or more --gradient_accumulation_steps for "
                "training"
            )
    context.log(line)
