"""Kills training runs at random moments and checks that they can be continued.

    python3 benchmarks/kills.py --output_dir kills --kills 200

Makes a project of tiny size (tests/tiny.py) and runs steps 1 to 3 of Meta Fine-tuning once. Then it starts steps 2 and 3 again and
again, and sends each run SIGKILL or SIGTERM at a random moment, often in the closing steps after the last training step. A run that left
a state is continued with --resume, and may be killed again. In the end its predictions, metrics and best snapshot must be those of the
run that was not killed, byte for byte, and nothing else may be left. A run that was killed before its first state must be refused by
--resume in one line.

The results are appended to kills.jsonl in the folder. The tool continues from there, so that it can be stopped at any time. It prints
counts by signal and by what the run left, and exits with 1 if a run lost its result.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

from benchmarks.progress import Progress
from modeling.cli import interruption
from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from modeling.cli.flag_kinds import non_negative_int, positive_int
from modeling.run.log import LOG_FILE
from modeling.run.resume import STATE_PREFIX
from ofrecord_util.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
RESULTS = "kills.jsonl"
COMMON = "--seed 42 --seq_length=24 --vocab_file vocab.txt --device cpu"
PREPARE = "preprocess.py --task_name g1 --model_load_dir encoder --data_dir data/g1 --resave_ofrecord " + COMMON
STEP_2 = "meta_finetuning.py --task_name g1 --model_load_dir encoder --data_dir data/g1 --num_epochs 2 --batch_size_per_device 4"
STEP_3 = "finetuning.py --task_name sst-2 --data_dir data/sst-2 --num_epochs 3 --batch_size_per_device 3 --resave_ofrecord"
TRAINING = f"{COMMON} --loss_print_every_n_iter 3 --dev_every_step_num 5 --learning_rate 5e-3 --state_save_every_n_iter 4"
_SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
_LIMIT_SECONDS = 600  # of one command; a longer one hangs


class Failed(UserError):
    """A killed run could not be continued, or its result differs."""


def make_project(folder):
    """Makes the project and its two unkilled runs, unless they exist.

    Returns:
        dict of script -> (command line, seconds of the unkilled run, seconds of its part after the last step).
    """
    from tests import tiny

    path = os.path.join(folder, "lines.json")
    if not os.path.exists(path):
        shutil.rmtree(os.path.join(folder, "project"), ignore_errors=True)
        project = tiny.Project(os.path.join(folder, "project"))
        tiny.write_encoder(project.path("encoder"))
        tiny.write_g1(project.path("data", "g1"))
        tiny.write_single(project.path("data", "sst-2"))
        _finish(project.folder, PREPARE)
        lines = {"meta_finetuning": f"{STEP_2} {TRAINING}"}
        times = {"meta_finetuning": _reference(project.folder, "meta_finetuning", lines["meta_finetuning"])}
        (best,) = [name for name in os.listdir(project.path("output", "meta_finetuning")) if name.startswith("snapshot_best")]
        lines["finetuning"] = f"{STEP_3} --model_load_dir output/meta_finetuning/{best} {TRAINING}"
        times["finetuning"] = _reference(project.folder, "finetuning", lines["finetuning"])
        with open(path, "w", encoding="utf-8") as file:
            json.dump({name: [lines[name], *times[name]] for name in lines}, file)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _start(folder, line):
    return subprocess.Popen(
        [sys.executable, *line.split()], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def _finish(folder, line):
    process = _start(folder, line)
    output, _ = process.communicate(timeout=_LIMIT_SECONDS)
    if process.returncode:
        raise Failed(f"exit code {process.returncode} of {line}: {output[-500:]}")
    return output


def _reference(folder, name, line):
    """Seconds of an unkilled run, and of its part after the last step."""
    started = time.monotonic()
    process = _start(folder, f"{line} --model_save_dir output/{name}")
    closing = None
    for text in process.stdout:
        if "best dev" in text:
            closing = time.monotonic()
    if process.wait(_LIMIT_SECONDS):
        raise UserError(f"{line}: exit code {process.returncode}")
    return time.monotonic() - started, time.monotonic() - closing


def _kill_once(folder, line, target, number, draw, seconds, closing):
    """Runs a line and sends it a signal at a random moment. Returns (exit code, output)."""
    late = draw.random() < 0.5
    process = _start(folder, line)
    log = os.path.join(folder, target, LOG_FILE)
    # The moment is counted from the start, or from the last training step
    marks, delay = 0, draw.uniform(0, seconds) if not late else draw.uniform(0, 1.2 * closing)
    if late:
        marks = _last_steps(log)
        while process.poll() is None and _last_steps(log) == marks:
            time.sleep(0.01)
    deadline = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
        interruption.check()
    if process.poll() is None:
        process.send_signal(number)
    try:
        output, _ = process.communicate(timeout=_LIMIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise Failed("hangs after the signal") from error
    return process.returncode, output


def _last_steps(log):
    """How often a log names a state of the last step, which is saved before the last evaluation."""
    try:
        with open(log, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return 0
    total = [line.split("/")[1].split(":")[0] for line in text.splitlines() if " step " in line and "/" in line.split(": ")[0][-12:]]
    return text.count(f"{STATE_PREFIX}{total[-1]}\n") if total else 0


def _files(folder):
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                found[os.path.relpath(os.path.join(place, name), folder)] = file.read()
    return found


def _rows(text):
    """Rows of metrics.jsonl without times, each kind in its order."""
    rows = [json.loads(line) for line in text.decode("utf-8").splitlines()]
    kinds = collections.defaultdict(list)
    for row in rows:
        kinds[row["kind"]].append({name: value for name, value in row.items() if name not in ("seconds", "samples_per_second")})
    return kinds


def compare(run_folder, reference):
    """Raises `Failed` if a finished run differs from the one that was not killed."""
    ours, theirs = _files(run_folder), _files(reference)
    names = sorted(set(ours) ^ set(theirs))
    if names:
        raise Failed(f"files differ: {', '.join(names[:5])}")
    if _rows(ours["metrics.jsonl"]) != _rows(theirs["metrics.jsonl"]):
        raise Failed("metrics.jsonl differs")
    for name in ours:
        if name.startswith(("snapshot", "predictions")) and ours[name] != theirs[name]:
            raise Failed(f"{name} differs")


def try_one(folder, lines, number, seed):
    """Kills one run, continues it, and compares its results. Returns a dict for kills.jsonl."""
    draw = random.Random(f"{seed} {number}")
    script = draw.choice(sorted(lines))
    line, seconds, closing = lines[script]
    target = f"output/kill-{number}"
    result = {"number": number, "seed": seed, "script": script, "signals": [], "left": [], "codes": []}
    path = os.path.join(folder, target)
    shutil.rmtree(path, ignore_errors=True)
    command = f"{line} --model_save_dir {target}"
    try:
        while True:
            name = draw.choice(sorted(_SIGNALS))
            code, output = _kill_once(folder, command, target, _SIGNALS[name], draw, seconds, closing)
            result["signals"].append(name)
            result["codes"].append(code)
            if code not in (0, -_SIGNALS[name], 128 + _SIGNALS[name]) or "Traceback" in output:
                raise Failed(f"exit code {code} after {name}: {output[-500:]}")
            states = [state for state in os.listdir(path) if state.startswith(STATE_PREFIX)] if os.path.isdir(path) else []
            finished = os.path.exists(os.path.join(path, "report.html")) and not states
            if code == 0 and states:
                raise Failed(f"exit code 0 after {name}, but a state is left")
            result["left"].append("state" if states else "result" if finished else "nothing")
            resume = f"{line} --model_save_dir {target} --resume {target}"
            if finished:
                break
            if not states:
                if code == 0:
                    raise Failed("exit code 0 without a result")
                if os.path.isdir(path) and f"{STATE_PREFIX}" in _files(path).get(LOG_FILE, b"").decode("utf-8"):
                    raise Failed("a state was saved, but there is neither a state nor a result")
                process = _start(folder, resume)
                output, _ = process.communicate(timeout=_LIMIT_SECONDS)
                if process.returncode != 2 or output.count("error: ") != 1 or "Traceback" in output:
                    raise Failed(f"--resume without a state: exit code {process.returncode}: {output[-500:]}")
                result["outcome"] = "refused"
                return result
            command = resume
            if len(result["signals"]) == 3 or draw.random() < 0.6:
                _finish(folder, command)
                break
        compare(path, os.path.join(folder, "output", script))
        result["outcome"] = "equal"
        shutil.rmtree(path)
    except Failed as error:
        result["outcome"] = f"failed: {error}"  # the folder stays
    else:
        shutil.rmtree(path, ignore_errors=True)
    return result


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("--output_dir", required=True, help="folder of the project and of kills.jsonl")
    parser.add_argument("--kills", type=positive_int, default=20, help="number of runs to kill, with those of earlier calls")
    parser.add_argument("--seed", type=non_negative_int, default=1, help="seed of the moments")
    args = parser.parse_args()
    os.makedirs(args.output_dir, exist_ok=True)
    progress = Progress(os.path.join(args.output_dir, RESULTS))
    results = progress.results
    lines = make_project(os.path.abspath(args.output_dir))
    done = {result["number"] for result in results if result["seed"] == args.seed}
    for number in range(args.kills):
        if number not in done:
            result = try_one(os.path.join(os.path.abspath(args.output_dir), "project"), lines, number, args.seed)
            progress.add(result)
            print(
                f"{number}: {result['script']} {' '.join(result['signals'])}: {', '.join(result['left'])}: {result['outcome']}", flush=True
            )
    counts = collections.Counter()
    for result in results:
        counts.update(f"{name} left {left}" for name, left in zip(result["signals"], result["left"]))
    for text, count in sorted(counts.items()):
        print(f"{count:5} {text}")
    failed = [result for result in results if result["outcome"].startswith("failed")]
    kinds = collections.Counter(result["outcome"].split(":")[0] for result in results)
    print(f"{len(results)} runs, {sum(counts.values())} signals: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
