"""Damages every file that the project reads, and checks that each reader gives a result or one line of error.

    python3 benchmarks/fuzz.py --count 100000
    python3 benchmarks/fuzz.py --first 100000 --count 50000
    python3 benchmarks/fuzz.py --count 500 --commands

An input is a copy of one small file with random bytes, a cut, or an edited value, or a FIFO, a folder or a link in its place. Its number
determines it, so that a run can go on with --first where another one stopped, and one input can be tried again with --count 1. By
default all readers run in this process. With --commands each input is given to a whole command, which takes some seconds.

Anything but a result or one line is a failure: another exception, a traceback, the end by a signal, memory of more than 2 GB, more than
--seconds. Failures are printed, and their files are kept in --work_dir. The exit code is 1 if there are any. A hundred thousand inputs
take about an hour on one core.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile

from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run

_MEMORY = 2 << 30
_NUMBERS = ("0", "-1", "1", "2", "1e400", "NaN", "1" + "0" * 400, "9223372036854775808", "2147483648", "1e308", "0.5", "1099511627776")
_STRINGS = (
    *("", "abc", "../../victim", "/etc/passwd", "a\\nb", "a\\tb", "\\u001b[31m", "\\u0000", "\\ud800", "\\u202e", "x" * 225),
    *("-", "snapshot_best_"),
)
_VALUES = (
    *_NUMBERS,
    *(f'"{text}"' for text in _STRINGS),
    *("null", "true", "false", "[]", "{}", "[1]", '{"a": 1}', "[[]]"),
    *("[" * 80 + "]" * 80, "[" * 3000 + "]" * 3000, "[" + "0," * 500 + "0]"),
)
_BYTES = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b"\x1b[31m", b"\xe2\x80\xa8", b"\xed\xa0\x80"),
    *(b'"', b"{", b"[", b"PK", b"=", b"--", b"@"),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null')


def damage(data, draw, others):
    """A damaged copy of a file's bytes.

    Args:
        data: bytes.
        draw: `random.Random`.
        others: list of the bytes of other files.
    """
    kind = draw.choice(("cut", "flip", "bytes", "slice", "value", "value", "value", "number", "other", "random"))
    if kind == "cut":
        return data[: draw.randrange(len(data) + 1)]
    if kind == "random":
        return bytes(draw.getrandbits(8) for _ in range(draw.choice((0, 1, 7, 100, 3000))))
    if kind == "other":
        return draw.choice(others)
    changed = bytearray(data)
    if kind == "flip" and changed:
        for _ in range(draw.choice((1, 1, 2, 8, 50))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    elif kind == "bytes":
        for _ in range(draw.choice((1, 1, 3))):
            place = draw.randrange(len(changed) + 1)
            changed[place : place + draw.randrange(3)] = draw.choice(_BYTES)
    elif kind == "slice":
        start, end, place = sorted(draw.randrange(len(changed) + 1) for _ in range(3))
        part = bytes(changed[start:end])
        if draw.random() < 0.5:
            del changed[start:end]
        changed[place:place] = part * draw.choice((0, 1, 2, 20))
    elif kind == "value":
        tokens = list(_TOKEN.finditer(data))
        for _ in range(draw.choice((1, 1, 2)) if tokens else 0):
            found = draw.choice(tokens)
            return data[: found.start()] + draw.choice(_VALUES).encode("utf-8") + data[found.end() :]
    elif kind == "number" and len(changed) >= 8:
        place, size = draw.randrange(len(changed) - 7), draw.choice((1, 2, 4, 8))
        changed[place : place + size] = draw.choice((0, 1, 127, 255, 2**31, 2**40, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little")[:size]
    return bytes(changed)


def damage_archive(data, draw, others):
    """A copy of an .npz file with one damaged member, which is packed again so that its checksum fits."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w", draw.choice((0, 8))) as new:
        chosen = draw.choice(archive.namelist())
        for name in archive.namelist():
            content = archive.read(name)
            new.writestr(name, damage(content, draw, others) if name == chosen else content)
    return out.getvalue()


def replace(path, draw, data, others):
    """Puts something damaged in the place of a file."""
    os.remove(path)
    kind = draw.choice(("file",) * 40 + ("fifo", "folder", "loop", "gone", "device", "sparse"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "loop":
        os.symlink(os.path.basename(path), path)
    elif kind == "device":
        os.symlink("/dev/zero", path)
    elif kind != "gone":
        with open(path, "wb") as file:
            if kind == "sparse":
                file.truncate(12 * 10**9)
            elif data[:2] == b"PK" and draw.random() < 0.5:
                file.write(damage_archive(data, draw, others))
            else:
                file.write(damage(data, draw, others))
    return kind


class Originals:
    """The whole files of a folder, and their restoration.

    Attributes:
        paths: sorted list of relative paths.
        data: dict of path -> bytes.
    """

    def __init__(self, folder):
        self._folder = folder
        found = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
        self.paths = sorted(os.path.relpath(path, folder) for path in found)
        self.data = {}
        for path in self.paths:
            with open(os.path.join(folder, path), "rb") as file:
                self.data[path] = file.read()

    def restore(self):
        """Makes the folder what it was. Files that a reader has written go."""
        for place, folders, names in os.walk(self._folder, topdown=False):
            for name in names + [name for name in folders if os.path.islink(os.path.join(place, name))]:
                path = os.path.join(place, name)
                if os.path.relpath(path, self._folder) not in self.data or not os.path.isfile(path) or os.path.islink(path):
                    os.remove(path)
        for path, data in self.data.items():
            path = os.path.join(self._folder, path)
            if os.path.isdir(path):
                shutil.rmtree(path)
            if not os.path.exists(path) or os.path.getsize(path) != len(data) or _read(path) != data:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(data)


def _read(path):
    with open(path, "rb") as file:
        return file.read()


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
        "inputs": [f"tools/predict.py --model_load_dir {snapshot} --input {place}/lines.txt"],
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
        outcome, text = outcome_of_command(draw.choice(commands_of(work, target)), args.seconds)
        shutil.rmtree(os.path.join(work, "new"), ignore_errors=True)
    else:
        outcome, text = outcome_of(target.read, folder, args.seconds)
    if outcome not in ("result", "one line"):
        kept = os.path.join(args.work_dir or work, "failures", str(number))
        with contextlib.suppress(OSError):
            shutil.copytree(folder, kept, symlinks=True, ignore=_ignore_large)
    for place in originals.values() if args.commands else (files,):
        place.restore()
    return target.folder, path, kind, outcome, text


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
        "--work_dir", metavar="FOLDER", help="folder for the failures (default: a temporary one, which stays if there are any)"
    )
    args = parser.parse_args()
    from benchmarks.fuzz_targets import TARGETS, Target, sign_state, write_all  # imports OneFlow

    args.seconds = args.seconds or (300 if args.commands else 20)
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
    counts, failures, started = collections.Counter(), collections.Counter(), time.time()
    for number in range(args.first, args.first + args.count):
        name, path, kind, outcome, text = one_input(number, targets, originals, work, args)
        counts[name, outcome] += 1
        if outcome not in ("result", "one line"):
            where = text.strip().split("\n")
            failures[name, outcome, where[-1][:60]] += 1
            if failures[name, outcome, where[-1][:60]] <= 3:  # one fault is found by many inputs
                print(f"FAILURE {number}: {name}/{path}, {kind}: {outcome}\n{text}", flush=True)
        if (number + 1 - args.first) % (20 if args.commands else 2000) == 0:
            print(f"{number + 1 - args.first} inputs, {sum(failures.values())} failures, {time.time() - started:.0f} s", flush=True)
    for name in sorted({name for name, _ in counts}):
        print(f"{name:14}" + ", ".join(f"{outcome} {count}" for (of, outcome), count in sorted(counts.items()) if of == name))
    total = sum(failures.values())
    print(f"{args.count} inputs from {args.first}, {'commands' if args.commands else 'readers'}: {total} failures")
    print(json.dumps({"first": args.first, "count": args.count, "failures": total, "seconds": round(time.time() - started)}))
    if not total or args.work_dir:
        shutil.rmtree(work)
    return 1 if total else 0


if __name__ == "__main__":
    run(main)
