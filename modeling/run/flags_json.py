"""`flags.json`: the flags, data and versions of a run. The report and `--resume` read it. To repeat a run, use run.flags
(modeling/cli/flags_file.py)."""

import os
import platform
import sys

from modeling.cli.flags_file import write_flags_file
from modeling.cli.scripts import script_path
from ofrecord_util.errors import UserError
from ofrecord_util.files import write_json

FLAGS_FILE = "flags.json"


def write_flags(context, **facts) -> None:
    """Writes flags.json and run.flags into the run's folder.

    Args:
        context: `RunContext`.
        facts: values of a run that trains: "parameters", "samples_per_step", "total_steps", "warmup_steps", "texts_per_row", "lengths",
            "parts_per_step" (modeling/run/start.py). docs/formats.md describes all keys.
    """
    if not context.engine.is_main:
        return
    flags, snapshot = context.flags, context.snapshot
    record = {
        "script": flags.script,
        "command": [script_path(flags.script), *sys.argv[1:]],
        "flags": {name: value for name, value in sorted(vars(flags).items()) if name not in ("given", "script")},
        **facts,
        "device": context.engine.device,
        "task": context.task.to_dict(),
        "config": context.config.as_dict(),
        "data": context.splits.facts,
        "vocab_digest": context.tokenizer.digest,
        "snapshot_digest": snapshot.digest() if snapshot else None,
        "versions": {"oneflow": context.engine.version, "python": platform.python_version(), "blas": context.engine.blas},
    }
    write_flags_file(context.folder.path, flags)
    path = os.path.join(context.folder.path, FLAGS_FILE)
    try:
        write_json(path, record)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
