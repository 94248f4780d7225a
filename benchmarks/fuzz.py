"""Damages every file that the project reads, and checks that each reader gives a result or one line of error.

    python3 benchmarks/fuzz.py --count 100000 --work_dir fuzz
    python3 benchmarks/fuzz.py --count 500 --commands --work_dir fuzz
    python3 benchmarks/fuzz.py --first 4711 --count 1

An input is a copy of one small file with random bytes, a cut, or an edited value, or a FIFO, a folder or a link in its place. Its number
determines it, so that one input can be tried again with --first and --count 1. By default all readers run in this process. With
--commands each input is given to a whole command, which takes some seconds.

Anything but a result or one line is a failure: another exception, a traceback, the end by a signal, memory of more than 2 GB, more than
--seconds. Failures are printed. --work_dir keeps their files, and the counts so far in readers.jsonl or commands.jsonl: the tool can be
stopped at any time, and the same command continues. The exit code is 1 if there are failures.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import contextlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings

from benchmarks.fuzz_damage import Originals, replace
from benchmarks.progress import Progress
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.interruption import Interrupted

_MEMORY = 2 << 30


class _TimeoutError(BaseException):
    """A reader took too long. Not an Exception, so that no reader catches it."""


def _time_out(*_):
    raise _TimeoutError


def outcome_of(read, folder, seconds):
    """What a reader makes of a folder: ("result", "") or ("one line", the line); any other word is a failure, with its text."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    errors = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("error")
            read(folder)
        return "result", ""
    except UserError as error:
        line = str(error)
        return ("one line" if line.strip() and "\n" not in line else "several lines"), line
    except SystemExit as end:
        lines = errors.getvalue().strip().split("\n")
        return ("one line" if end.code == 2 and len(lines) == 1 else "exit"), lines[-1]
    except _TimeoutError:
        return "hang", traceback.format_exc(limit=-4)
    except Interrupted:  # the user stops the tool
        raise
    except BaseException as error:
        return type(error).__name__, traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def outcome_of_command(command, seconds):
    """As `outcome_of` for a command. A result is exit code 0; one line is exit code 2 and one line that begins with "error:"."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        ended = subprocess.run([sys.executable, *command], cwd=root, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "hang", " ".join(command)
    errors = ended.stderr.decode("utf-8", "replace")
    lines = [line for line in errors.split("\n") if line.startswith("error:")]
    if "Traceback" in errors or ended.returncode not in (0, 2) or (ended.returncode == 2 and len(lines) != 1):
        return f"exit code {ended.returncode}", " ".join(command) + "\n" + errors[-3000:]
    return ("one line", lines[0]) if lines else ("result", "")


_TRAINING = (
    "finetuning.py --task_name t --data_dir {work}/data --seq_length 12 --device cpu --num_epochs 1 --batch_size_per_device 4 "
    "--model_load_dir {work}/snapshot"
)


def start_of(work):
    """The command line of the run that is interrupted, and continued by inputs of the target `interrupted`."""
    return f"{_TRAINING.format(work=work)} --model_save_dir {work}/interrupted/run"


def commands_of(work, target):
    """Command lines that read a target, as lists of words. A target without one has an empty list."""
    place, new = os.path.join(work, target.folder), os.path.join(work, "new")
    snapshot, data = os.path.join(work, "snapshot"), os.path.join(work, "data")
    vocab = os.path.join(work, "vocabulary", "vocab.txt")
    training = f"{_TRAINING.format(work=work)} --max_steps 2"
    steps = f"preprocess.py --task_name t --data_dir {data} --seq_length 12 --model_load_dir {snapshot} --log_dir {new}"
    lines = {
        "vocabulary": [f"{steps} --vocab_file {vocab}"],
        "data": [
            f"{steps} --resave_ofrecord",
            f"{training} --model_save_dir {new}/run",
            f"tools/inspect.py {data}/ofrecord/train --records 2",
        ],
        "snapshot": [
            f"tools/predict.py --model_load_dir {snapshot} text",
            f"tools/inspect.py {snapshot}",
            f"tools/convert_checkpoint.py --model_dir {snapshot} --output_dir {new} --to hugging_face",
            f"{training} --model_save_dir {new}/run",
        ],
        "states": [],  # `interrupted` has those of a real run
        "teacher": [],
        "interrupted": [f"{start_of(work)} --max_steps 2 --resume {place}/run"],
        "run": [f"tools/report.py {place}"],
        "hugging_face": [f"tools/convert_checkpoint.py --model_dir {place} --output_dir {new}"],
        "mead": [
            f"tools/convert_checkpoint.py --model_dir {place}/model.npz --vocab_file {vocab} --output_dir {new} --num_attention_heads 4"
        ],
        "corpora": [
            f"tools/make_kshot.py kshot --group x --source d=tsv-header:{place}/text.tsv --output_dir {new}/k --k 2 --seeds 1 --test_cap 4"
        ],
        "flags": [f"{training} @{place}/run.flags --data_dir {data} --model_save_dir {new}/run"],
        "inputs": [
            f"tools/predict.py --model_load_dir {snapshot} --input {place}/{name}" for name in ("lines.txt", "table.csv", "rows.jsonl")
        ],
        "tables": [
            f"preprocess.py --task_name t --data_dir {place} --seq_length 12 --model_load_dir {snapshot} --log_dir {new} --resave_ofrecord"
        ],
    }
    return [line.split() for line in lines[target.folder]]


def one_input(number, targets, originals, work, args):
    """Damages one file, reads it and restores it.

    Returns:
        (name of the target, path of the file, kind of damage, outcome, text).
    """
    draw = random.Random(number)
    target = draw.choice(targets)
    folder = os.path.join(work, target.folder)
    files = originals[target.folder]
    path = draw.choice(files.paths)
    kind = replace(
        os.path.join(folder, path), draw, files.data[path], [draw.choice(list(any_.data.values())) for any_ in originals.values()]
    )
    if target.sign and draw.random() < 0.6 and os.path.isfile(os.path.join(folder, path)) and kind == "file":
        target.sign(folder, os.path.join(folder, path))
        kind = "signed file"
    if args.commands:
        if kind == "fifo":  # predict.py waits for what is written to it, as it should
            threading.Thread(target=_feed, args=(os.path.join(folder, path), files.data[path]), daemon=True).start()
        outcome, text = outcome_of_command(draw.choice(commands_of(work, target)), args.seconds)
        shutil.rmtree(os.path.join(work, "new"), ignore_errors=True)
    else:
        outcome, text = outcome_of(target.read, folder, args.seconds)
    if outcome not in ("result", "one line") and args.work_dir:
        with contextlib.suppress(OSError):
            kept = os.path.join(args.work_dir, "failures", str(number))
            shutil.copytree(folder, kept, symlinks=True, ignore=_ignore_large)
    for place in originals.values() if args.commands else (files,):
        place.restore()
    return target.folder, path, kind, outcome, text


def _feed(path, data):
    """Writes to a FIFO, once a program reads it."""
    with contextlib.suppress(OSError), open(path, "wb") as file:
        file.write(data)


def _check_whole(found, name):
    if found[0] != "result":
        raise UserError(f"the whole files of {name} are not read: {found[1]}")


def _ignore_large(folder, names):
    return [name for name in names if not os.path.isdir(os.path.join(folder, name)) and not _is_small(os.path.join(folder, name))]


def _is_small(path):
    return os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < 10**8


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first input")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="number of inputs")
    parser.add_argument("--commands", action="store_true", help="give each input to a whole command")
    parser.add_argument("--only", metavar="NAME", help="one kind of files (default: all)")
    parser.add_argument("--seconds", type=float, help="longest time per input (default: 20, or 300 for a command)")
    parser.add_argument(
        "--work_dir", metavar="FOLDER", help="folder for the counts so far and the files of failures (default: none are kept)"
    )
    args = parser.parse_args()
    from benchmarks.fuzz_files import write_all
    from benchmarks.fuzz_targets import TARGETS, Target, sign_state  # imports OneFlow

    args.seconds = args.seconds or (300 if args.commands else 20)
    if args.work_dir:
        os.makedirs(args.work_dir, exist_ok=True)
    work = tempfile.mkdtemp(prefix="fuzz-")
    write_all(work)
    every = (*TARGETS, Target("interrupted", None, sign_state)) if args.commands else TARGETS
    targets = [target for target in every if args.only in (None, target.folder) and (not args.commands or commands_of(work, target))]
    if not targets:
        raise UserError(f"--only {args.only}: there are {', '.join(target.folder for target in every)}")
    if args.commands:
        _check_whole(outcome_of_command([*start_of(work).split(), "--max_steps", "1"], args.seconds), "interrupted")
    originals = {target.folder: Originals(os.path.join(work, target.folder)) for target in every}
    for target in targets:
        folder = os.path.join(work, target.folder)
        for command in commands_of(work, target) if args.commands else [None]:
            _check_whole(
                outcome_of_command(command, args.seconds) if command else outcome_of(target.read, folder, args.seconds), target.folder
            )
            for place in originals.values():
                place.restore()
            shutil.rmtree(os.path.join(work, "new"), ignore_errors=True)
    if not args.commands:
        with open("/proc/self/statm", encoding="ascii") as file:
            resource.setrlimit(resource.RLIMIT_AS, (int(file.read().split()[0]) * resource.getpagesize() + _MEMORY,) * 2)
    signal.signal(signal.SIGALRM, _time_out)
    mode = "commands" if args.commands else "readers"
    progress = Progress(args.work_dir and os.path.join(args.work_dir, mode + ".jsonl"))
    mine = {"mode": mode, "only": args.only}
    end = args.first + args.count
    try:
        number = _next_number(progress.results, mine, args.first)
        if number > args.first:
            print(f"continuing with input {number}", flush=True)
        while number < end:
            block = _run_block(range(number, min(number + _BLOCK[mode], end)), targets, originals, work, args)
            progress.add({**mine, **block})
            number += block["count"]
            print(f"{number - args.first} inputs, {block['seconds']:.0f} s for the last {block['count']}", flush=True)
    finally:
        shutil.rmtree(work)
    total = _summary([result for result in progress.results if _is_in(result, mine, args.first, end)], mode)
    return 1 if total else 0


_BLOCK = {"readers": 1000, "commands": 10}  # inputs between two lines of the file of results


def _is_in(result, mine, first, end):
    return all(result[name] == value for name, value in mine.items()) and first <= result["first"] < end


def _next_number(results, mine, first):
    """The number after the inputs, from `first` on without a gap, that have been tried before."""
    for result in sorted(results, key=lambda result: result["first"]):
        if _is_in(result, mine, first, first + 1):
            first += result["count"]
    return first


def _run_block(numbers, targets, originals, work, args):
    """Tries the inputs of a range of numbers. Returns a dict for the file of results, and prints each kind of failure."""
    outcomes, failures, started = collections.Counter(), collections.Counter(), time.time()
    for number in numbers:
        name, path, kind, outcome, text = one_input(number, targets, originals, work, args)
        outcomes[f"{name}: {outcome}"] += 1
        if outcome not in ("result", "one line"):
            what = f"{name}: {outcome}: " + text.strip().split("\n")[-1][:60]
            failures[what] += 1
            if failures[what] <= 3:  # one fault is found by many inputs
                print(f"FAILURE {number}: {name}/{path}, {kind}: {outcome}\n{text}", flush=True)
    return {
        "first": numbers[0],
        "count": len(numbers),
        "outcomes": outcomes,
        "failures": failures,
        "seconds": round(time.time() - started, 1),
    }


def _summary(results, mode):
    """Prints the counts of all blocks. Returns the number of failures."""
    outcomes, failures = collections.Counter(), collections.Counter()
    for result in results:
        outcomes.update(result["outcomes"])
        failures.update(result["failures"])
    for name in sorted({key.split(": ")[0] for key in outcomes}):
        counts = (f"{key.split(': ')[1]} {count}" for key, count in sorted(outcomes.items()) if key.startswith(name + ":"))
        print(f"{name:14}" + ", ".join(counts))
    for what, count in failures.most_common():
        print(f"{count:6} x {what}")
    total, count = sum(failures.values()), sum(result["count"] for result in results)
    print(f"{count} inputs, {mode}: {total} failures, {sum(result['seconds'] for result in results):.0f} s")
    return total


if __name__ == "__main__":
    run(main)
