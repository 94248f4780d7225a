"""Training states, from which `--resume` continues a run bit for bit.

A state is a folder `state_step_N` in the run's folder. It contains the trained variables and the optimizer's moments in the form of a
snapshot, and `state.json`. The state is that after training step N, before anything that follows a step (a line of metrics, an
evaluation, a snapshot). The frozen weights, the records and the order of the samples come from the flags, which must be the same as
before. `state.json` contains digests to check this.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re

import numpy as np

from modeling.bert.config import LARGEST
from modeling.checkpoints.snapshot import Snapshot, write_variables
from modeling.cli.flags import NEWEST_RUN, run_folder_name
from modeling.cli.scripts import SCRIPTS, script_path
from modeling.run.flags_json import FLAGS_FILE
from modeling.run.log import LOG_FILE
from modeling.run.measures import MSE, TASKS, further_needed, values_needed
from ofrecord_util.errors import UserError
from ofrecord_util.files import clear_leftovers, open_to_append, remove_folder
from ofrecord_util.json_reading import read_json
from ofrecord_util.on_demand import OnDemand

STATE_PREFIX, STATE_FILE = "state_step_", "state.json"
KEPT = 2
_REMEDY = "remove this state; --resume then takes the one before it"

# Flags that may differ when a run continues: paths (digests check the content), what is printed and kept, when to stop, and how the ranks
# are supervised. Those of decoding (--length_penalty, …) are not among them: they train nothing, but flags.json keeps the values with which
# the run began, and generations_*.tsv, their scores and the best snapshot of bleu_4 belong to these. tools/generate.py takes any others
FREE_FLAGS = frozenset(
    [
        "resume",
        "model_save_dir",
        "log_dir",
        "data_dir",
        "vocab_file",
        "model_load_dir",
        "student_model",
        "teacher_model",
        "teacher_output_dir",
        "corpus_file",
        "label_sentences",
        "data_url",
        "resave_ofrecord",
        "model_save_every_n_iter",
        "state_save_every_n_iter",
        "save_last_snapshot",
        "keep_all_best",
        "loss_print_every_n_iter",
        "max_steps",
        "early_stop_patience",
        "memory_limit",
        "ctrl_port",
        "rank_timeout",
    ]
)


class State:
    """A state read from disk and verified.

    Attributes:
        path, step.
        values: dict, the values of state.json: "identity", "best", "stale", "window", "counters" and others.
        arrays: `OnDemand` of name -> float32 array: variables and moments. An access reads the array, and checks it again.
    Raises:
        UserError: the state is damaged, or holds a value that no run writes. The message names the file or variable.
    """

    def __init__(self, path):
        snapshot = Snapshot(path)
        record = read_json(os.path.join(path, STATE_FILE), _REMEDY)
        self.values, digests = record.get("values"), record.get("digests")
        if record.get("digest") != _digest(json.dumps([self.values, digests], sort_keys=True).encode("utf-8")):
            raise UserError(f"{path}: the digest in {STATE_FILE} does not match its content")
        # the digest shows a fault of the disk, but whoever edits the file can write a digest, too
        problem = _problem(self.values, digests)
        if problem:
            raise UserError(f"{path}: {STATE_FILE}: {problem}; {_REMEDY}")
        self.path, self.step = path, self.values["step"]
        if set(digests) != set(snapshot.sizes):
            odd = ", ".join(sorted(set(digests) ^ set(snapshot.sizes)))
            raise UserError(f"{path}: the variables differ from those in {STATE_FILE}: {odd}")

        def array(name):
            if name not in snapshot.shapes:
                raise UserError(f"{path}: {name} has no shape")
            value = snapshot.read(name, snapshot.shapes[name])
            if _digest(value) != digests[name]:
                raise UserError(f"{path}: {name} does not match its digest in {STATE_FILE}")
            return value

        self.arrays = OnDemand(digests, array)
        for name in self.arrays:
            array(name)


def _is_count(value):
    return type(value) is int and value >= 0


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_best(best):
    """Whether `best` is what `BestSnapshot.to_dict` writes. Its name leads to a folder that is read and kept: one in the run's folder."""
    name = best.get("name")
    counts = [best.get("total" if MSE in best else "correct"), best.get("total")]
    means = TASKS in best and _is_count(best[TASKS]) and _is_number(counts[0])  # over tasks: the number of correct rows is no integer
    return (
        isinstance(name, str)
        and re.match(r"snapshot_best_[^/\0]+\Z", name) is not None
        and _is_count(counts[1])
        and (means or _is_count(counts[0]))
        and 0 <= counts[0] <= counts[1] != 0
        and all(_is_number(best.get(key)) for key in (*values_needed(best), *further_needed(best)))
        and isinstance(best.get("by_domain"), dict)
    )


def _problem(values, digests):
    """What a run could not use in the values of a state, or None."""
    if not isinstance(values, dict) or not isinstance(digests, dict):
        return "values and digests must be objects"
    best, counters, window, layout = (values.get(name) for name in ("best", "counters", "window", "layout"))
    checks = {
        "step": _is_count(values.get("step")),
        "stale": _is_count(values.get("stale")),
        "identity": isinstance(values.get("identity"), dict),
        "best": best is None or (isinstance(best, dict) and _is_best(best)),
        "counters": isinstance(counters, dict) and all(map(_is_counter, counters.values())),
        "window": isinstance(window, list) and all(map(_is_window_step, window)),
        "layout": _is_layout(layout),
    }
    wrong = [name for name, fits in checks.items() if not fits]
    return f"no run writes this {', '.join(wrong)}" if wrong else None


def _is_counter(value):
    """Whether a value is a scalar of the optimizer, as `Training.save_state` writes it."""
    return (
        isinstance(value, dict)
        and value.get("dtype") in ("int32", "int64", "float32", "float64")
        and (_is_number(value.get("values")) or (isinstance(value.get("values"), list) and all(map(_is_number, value["values"]))))
    )


def _is_layout(value):
    """Whether a value is a `TrainingBatches` as a list."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and _is_count(value[0])
        and isinstance(value[1], list)
        and value[0] > 0 < len(value[1])
        and _is_count(value[2])
        and value[2] > 0
        and all(_is_count(length) and 0 < length <= LARGEST["max_position_embeddings"] for length in value[1])
    )


def _is_window_step(value):
    """Whether a value is [step, row numbers, metrics]."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and _is_count(value[0])
        and all(isinstance(part, list) and all(map(_is_number, part)) for part in value[1:])
    )


def write_state(folder, arrays, values):
    """Writes the state of step `values["step"]` into a run's folder and removes all but the newest two.

    Args:
        folder: the run's folder.
        arrays: dict of name -> float32 array. Each array is taken from it twice: for its digest, and to write it.
        values: dict for state.json (see `State`).
    Returns:
        the path of the state.
    """
    path = os.path.join(folder, f"{STATE_PREFIX}{values['step']}")
    digests = {name: _digest(np.ascontiguousarray(value)) for name, value in arrays.items()}
    record = {"values": values, "digests": digests, "digest": _digest(json.dumps([values, digests], sort_keys=True).encode("utf-8"))}
    write_variables(path, arrays, {STATE_FILE: json.dumps(record) + "\n"})
    for old in list_states(folder)[KEPT:]:
        remove_folder(old)
    clear_leftovers(folder)
    return path


def _digest(data):
    return hashlib.sha256(data).hexdigest()


def list_states(folder):
    """Paths of the states in a run's folder, newest first."""
    found = glob.glob(os.path.join(glob.escape(folder), STATE_PREFIX + "*"))
    numbered = [(int(match.group(1)), path) for path in found for match in [re.search(r"_(\d+)$", path)] if match]
    return [path for _, path in sorted(numbered, reverse=True)]


def remove_state(folder, step):
    """Removes the state of a step whose weights turn out to be useless, if there is one."""
    path = os.path.join(folder, f"{STATE_PREFIX}{step}")
    if os.path.isdir(path):
        remove_folder(path)
    clear_leftovers(folder)


def best_names(folder):
    """Names of the best snapshots to which the states of a run refer. They must exist as long as the states."""
    names = set()
    for path in list_states(folder):
        with contextlib.suppress(UserError):  # no run can continue from a damaged state
            record = read_json(os.path.join(path, STATE_FILE), _REMEDY)
            best = record["values"].get("best") if isinstance(record.get("values"), dict) else None
            if isinstance(best, dict) and _is_best(best):
                names.add(best["name"])
    return names


def find_run(flags):
    """The run folder that --resume selects.

    Raises:
        UserError: the folder does not exist, belongs to another script, or has no state.
    """
    folder = flags.resume
    if folder == NEWEST_RUN:
        parent = os.path.dirname(os.path.abspath(run_folder_name(flags.model_save_dir)))
        paths = glob.glob(os.path.join(glob.escape(parent), "*"))
        for path in paths:
            _clear_ended(path)
        runs = [path for path in paths if list_states(path) and _script_of(path) == flags.script]
        if not runs:
            raise UserError(f"--resume: {parent} has no interrupted run of {script_path(flags.script)} with a saved state")
        return max(runs, key=lambda path: os.stat(list_states(path)[0]).st_mtime_ns)
    folder = folder.rstrip("/") or "/"
    if not os.path.isdir(folder):
        raise UserError(f"--resume {folder}: no such folder")
    _clear_ended(folder)
    script = _script_of(folder)
    if script != flags.script:
        raise UserError(f"--resume {folder}: {f'is a run of {script_path(script)}' if script else f'not a run folder: no {FLAGS_FILE}'}")
    if not list_states(folder):
        raise UserError(f"--resume {folder}: contains no {STATE_PREFIX}*: the run has ended or stopped before its first state")
    return folder


def _clear_ended(folder):
    """Removes what is left of the states of a run that was killed when it removed the last of them. No other run would do it."""
    if list_states(folder) or not glob.glob(os.path.join(glob.escape(folder), f".{STATE_PREFIX}*")):
        return
    path = os.path.join(folder, LOG_FILE)
    if not os.path.lexists(path):
        return
    with contextlib.suppress(OSError, UserError), open_to_append(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # otherwise the run still writes
        clear_leftovers(folder)


def _script_of(folder):
    """The script of a run; None for a folder without a readable flags.json, which must not hide the other runs."""
    try:
        script = read_json(os.path.join(folder, FLAGS_FILE), "").get("script")
    except UserError:
        return None
    return script if isinstance(script, str) and script in SCRIPTS else None


def newest_state(folder, log):
    """The newest undamaged state of a run. Logs the newer states that are damaged.

    Raises:
        UserError: all states are damaged.
    """
    problems = []
    clear_leftovers(folder)  # of a process that was killed when it removed a state
    for path in list_states(folder):
        try:
            state = State(path)
        except UserError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            log(f"skipped a damaged state: {problem}")
        return state
    raise UserError(f"--resume {folder}: all states are damaged: " + "; ".join(problems))


_DIGESTED = ("input_ids", "input_mask", "segment_ids", "domain", "label", "sample_weights")  # of `Records`


def records_digest(records):
    """sha256 (hex) of the arrays of a split's `Records` that a run reads. Unlike `Samples`, it does not depend on the other splits."""
    digest = hashlib.sha256()
    for name in _DIGESTED:
        value = np.ascontiguousarray(getattr(records, name))
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(value)
    return digest.hexdigest()


def run_identity(flags, **facts):
    """The flags and digests that must be the same when a run continues, dict of name -> value.

    Args:
        facts: digests and other values, by the name that a message shows.
    """
    given = {f"--{name}": value for name, value in vars(flags).items() if name not in FREE_FLAGS and name != "given"}
    return json.loads(json.dumps({**given, **facts}))


def facts_without_records(context):
    """The facts of `run_identity` that are known before records are read.

    Args:
        context: `RunContext`.
    """
    return {"task": context.task.to_dict(), "start snapshot's digest": context.snapshot.digest() if context.snapshot else None}


def check_start(state, context):
    """Compares what is known before records are read, so that a run that is refused for its flags has written none.

    Args:
        state: `State` from which --resume continues.
        context: `RunContext`, whose flags have their final values.
    Raises:
        UserError: the run had other flags, another task or another model, or has done more steps than --max_steps.
    """
    check_identity(state, run_identity(context.flags, **facts_without_records(context)), complete=False)
    check_max_steps(state, context.flags.max_steps)


def check_max_steps(state, most):
    """Raises a UserError if a run has done more steps than --max_steps, or None, allows."""
    if most is not None and most < state.step:
        raise UserError(
            f"--max_steps {most}: the run {os.path.dirname(state.path)} has done {state.step} steps, so its results would not be those of "
            f"step {most}: give {state.step} or more"
        )


def check_identity(state, identity, complete=True):
    """Compares the run's identity with the state's.

    Args:
        state: `State`.
        identity: from `run_identity`.
        complete: whether it has the facts of all records. Otherwise only its own values, and all flags, are compared.
    Raises:
        UserError: they differ. The message names all differences.
    """
    before = state.values["identity"]
    names = {*before, *identity} if complete else {*identity, *(name for name in before if name.startswith("--"))}
    changed = [name for name in sorted(names) if before.get(name) != identity.get(name)]
    if changed:
        parts = "; ".join(f"{name} was {_short(before.get(name))}, is {_short(identity.get(name))}" for name in changed)
        raise UserError(f"--resume {os.path.dirname(state.path)}: {parts}: give the run's values, or start a new run without --resume")


def _short(value):
    return value[:12] if isinstance(value, str) and len(value) == 64 else value
