"""Trains with a few values of a few flags and with several seeds, and compares the runs.

    python3 tools/sweep.py --vary learning_rate=2e-5,5e-5 --seeds 1,2 --output_dir output/sweep -- \\
        finetuning.py --task_name sst-2 --data_dir data/SST-2 --model_load_dir SNAPSHOT

The command after -- is that of a training script. Each combination of the values is one run, in a folder of its own below --output_dir.
--jobs 2 trains two runs at the same time, each with half of the CPU threads. Started again, also with further values and seeds, the
sweep leaves finished runs as they are and continues interrupted ones with --resume. It ends with the tables of tools/compare.py. The
output of each run is in NAME.out next to its folder.
"""

if not __package__:
    import _root  # noqa: F401

import itertools
import os
import re
import shlex
import subprocess
import sys
import time
from typing import NamedTuple

from modeling.cli import interruption
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import at_least
from modeling.cli.flags import parse_flags
from modeling.cli.scripts import SCRIPTS, TRAINING, script_path
from modeling.engine.cpu_threads import cpu_threads
from modeling.report.comparison import read_comparison
from modeling.report.comparison_page import comparison_page
from modeling.report.page import check_page, write_document
from modeling.run.log import LOG_FILE, READY, Log
from modeling.run.resume import list_states
from ofrecord_util.escaping import say
from ofrecord_util.files import make_folder, open_to_append, remove_folder, write_json
from ofrecord_util.json_reading import read_json
from ofrecord_util.output_checks import check_output_folder
from ofrecord_util.reading import TEXT_LIMIT, read_text
from tools.compare import print_comparison

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLAN_FILE, SWEEP_LOG = "sweep.json", "sweep.log"
_OWN = ("model_save_dir", "resume")  # flags that the sweep sets itself
_LONGEST = 150  # characters of the name of a run
_SECONDS = 0.2  # between two looks at the running processes
_RUN, _RESUME, _DONE = "run", "resume", "done"
_SAID = {_RUN: "starts", _RESUME: "continues", _DONE: "is finished"}


class Run(NamedTuple):
    """One run of a sweep."""

    name: str  # of its folder
    argv: tuple  # flags of the script, without --model_save_dir


def parse_variations(values):
    """The flags and values of --vary.

    Args:
        values: list of "FLAG=VALUE,VALUE,…". A part in brackets is one value: domain_layers=[1,2],[3,5].
    Returns:
        dict of flag -> list of str.
    Raises:
        UserError: a value has no =, no or repeated values, a bracket without the other, or a flag is given twice.
    """
    found = {}
    for value in values:
        name, equals, listed = value.partition("=")
        name = name.lstrip("-")
        found_parts = re.findall(r"\[[^\]]*\](?=,|$)|[^,\[][^,]*", listed)
        parts = [part[1:-1] if part.startswith("[") else part for part in found_parts]
        odd = [part for part in parts if not part or part.count("[") != part.count("]")]
        if not equals or not name or not parts or ",".join(found_parts) != listed or odd:
            brackets = "; each [ needs a ] after its value, which a comma or the end follows" if "[" in listed else ""
            raise UserError(f"--vary {value}: give FLAG=VALUE,VALUE{brackets}")
        if name in found or len(set(parts)) < len(parts):
            raise UserError(f"--vary {value}: {'the flag' if name in found else 'a value'} is given twice")
        found[name] = parts
    return found


def plan(script, argv, variations, seeds):
    """The runs of a sweep, in order: the seeds of a combination of values follow each other.

    Args:
        script: a training script, key of `SCRIPTS`.
        argv: list of its flags.
        variations: from `parse_variations`.
        seeds: list of int; empty to leave the seed to `argv`.
    Returns:
        list of `Run`.
    Raises:
        UserError: a flag belongs to the sweep, or two runs would have the same name.
        SystemExit: the script would refuse a command line. The line is printed.
    """
    variations = {**variations, **({"seed": list(map(str, seeds))} if seeds else {})}
    runs, settings = [], []
    for values in itertools.product(*variations.values()):
        chosen = dict(zip(variations, values))
        name = ",".join(f"{flag}={value}" for flag, value in chosen.items()) or script
        runs.append(Run(re.sub(r"[^\w=,.+-]", "_", name)[:_LONGEST], (*argv, *(f"--{flag}={value}" for flag, value in chosen.items()))))
        flags = parse_flags(script, argv=list(runs[-1].argv))
        set_here = [flag for flag in _OWN if flag in flags.given]
        if set_here:
            raise UserError(f"--{set_here[0]}: the sweep sets this flag itself, so the command must not")
        settings.append({flag: value for flag, value in vars(flags).items() if flag != "given"})
        if settings[-1] in settings[:-1]:
            same = runs[settings.index(settings[-1])].name
            raise UserError(f"--vary: {same} and {name} are the same settings, and would be one run twice: leave out one of the values")
    names = [one.name for one in runs]
    if len(set(names)) < len(names):
        raise UserError("--vary: the values differ only in characters that are not used in names of folders; give them shorter names")
    return runs


def replaced(script, argv, variations, seeds):
    """Lines that say which flags of the command the sweep sets to other values. Arguments as in `plan`."""
    given = parse_flags(script, argv=list(argv)).given
    values = {flag: ("--vary", ",".join(parts)) for flag, parts in variations.items()}
    if seeds:
        values["seed"] = "--seeds", ",".join(map(str, seeds))
    return [f"--{flag} of the command is not used: {own} has {listed}" for flag, (own, listed) in values.items() if flag in given]


def inputs(script, runs):
    """The files and folders that exist and that a flag of a run names, such as the data.

    Args:
        script: as in `plan`.
        runs: list of `Run`.
    """
    values = [value for one in runs for value in vars(parse_flags(script, argv=list(one.argv))).values()]
    paths = [path for value in values for path in (value if isinstance(value, list) else [value]) if isinstance(path, str)]
    return [path for path in paths if os.path.exists(path)]


class Sweep:
    """The runs of a sweep and what has become of them.

    Args:
        folder: --output_dir.
        script: key of `SCRIPTS`.
        runs: list of `Run`.
        log: `Log`.
    Raises:
        UserError: the folder belongs to a sweep of another script or with other flags.
    """

    def __init__(self, folder, script, runs, log):
        self.folder, self.script, self.runs, self._log = folder, script, runs, log
        self._path = os.path.join(folder, PLAN_FILE)
        self._record = {"script": script, "runs": {one.name: list(one.argv) for one in runs}, "started": [], "finished": []}
        if os.path.isfile(self._path):
            before = read_json(self._path, "give another --output_dir")
            known = before.get("runs") if isinstance(before.get("runs"), dict) else {}
            other = [name for name, argv in self._record["runs"].items() if known.get(name, argv) != argv]
            if before.get("script") != script or other:
                raise UserError(f"{self._path}: is of a sweep of another script, or with other flags: give another --output_dir")
            self._record["runs"] = {**known, **self._record["runs"]}  # a sweep may get further values and seeds
            for key in ("started", "finished"):
                names = before.get(key)
                self._record[key] = [name for name in self._record["runs"] if isinstance(names, list) and name in names]

    def path(self, one):
        """Folder of a `Run`."""
        return os.path.join(self.folder, one.name)

    def state(self, one):
        """What to do for a `Run`: _DONE, _RESUME or _RUN. Removes what an interrupted run without a state has left.

        Raises:
            UserError: another process still writes the run, or its folder is not one of this sweep.
        """
        path = self.path(one)
        if not os.path.isdir(path):
            return _RUN
        if one.name in self._record["finished"]:
            return _DONE
        if one.name not in self._record["started"]:
            raise UserError(f"{path}: exists, but this sweep has not started it: remove it, or give another --output_dir")
        Log(os.path.join(path, LOG_FILE), exclusive=True, silent=True).close()  # refused while a process writes the run
        if list_states(path):
            return _RESUME
        self._log(f"{one.name}: interrupted before its first state, starts again")
        remove_folder(path)
        return _RUN

    def note(self, one, key):
        """Records that a `Run` has "started" or "finished"."""
        if one.name not in self._record[key]:
            self._record[key].append(one.name)
            write_json(self._path, self._record)

    def start(self, one, resume, threads):
        """Starts a `Run`. Returns its process, whose output goes to NAME.out."""
        folder = ["--resume", self.path(one)] if resume else ["--model_save_dir", self.path(one)]
        command = [sys.executable, os.path.join(ROOT, script_path(self.script)), *one.argv, *folder]
        environment = dict(os.environ) if threads is None else dict(os.environ, OMP_NUM_THREADS=str(threads))
        self.note(one, "started")
        with open_to_append(self.output(one)) as output:
            output.truncate(0)
            # a session of its own: Ctrl-C reaches this process only, which passes each signal on once
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def output(self, one):
        """Path of the file with the output of a `Run`."""
        return self.path(one) + ".out"

    def said(self, one):
        """The lines of the output of a `Run`."""
        return read_text(self.output(one), "remove it", TEXT_LIMIT).splitlines()


def run_all(sweep, jobs, log):
    """Runs what is not finished.

    The next run starts only when the one before has read its data. Two runs therefore never write records at the same time.

    Args:
        sweep: `Sweep`.
        jobs: number of runs at the same time.
        log: `Log`.
    Returns:
        list of (`Run`, last line of its output) of the runs that failed.
    Raises:
        Interrupted: a signal arrived. All processes have ended, with their states saved.
    """
    states = {one: sweep.state(one) for one in sweep.runs}  # what is refused is refused before the first run starts
    threads = None if jobs == 1 or os.environ.get("OMP_NUM_THREADS") else max(1, cpu_threads() // jobs)
    waiting, running, failed, told = list(enumerate(sweep.runs, 1)), {}, [], False
    with interruption.deferred():
        try:
            while waiting or running:
                if interruption.received() and not told:
                    told, waiting = True, []
                    log("interrupted: the same command continues the sweep")
                    for process, _ in running.values():
                        process.send_signal(interruption.received())
                while waiting and len(running) < jobs and all(_is_ready(sweep, one) for one in running):
                    number, one = waiting.pop(0)
                    log(f"[{number}/{len(sweep.runs)}] {one.name}: {_SAID[states[one]]}")
                    if states[one] != _DONE:
                        running[one] = sweep.start(one, states[one] == _RESUME, threads), time.monotonic()
                for one, (process, started) in list(running.items()):
                    if process.poll() is not None:
                        del running[one]
                        failed += _end(sweep, one, process.returncode, time.monotonic() - started, log)
                time.sleep(_SECONDS if running else 0)
        finally:  # of an error here; otherwise none is left
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.wait()
    return failed


def _end(sweep, one, code, seconds, log):
    """Logs and records the end of a `Run`. Returns [(run, last line of its output)] if it failed, else []."""
    if not code:
        sweep.note(one, "finished")
        log(f"{one.name}: finished after {seconds:.0f} s")
        return []
    last = next((line for line in reversed(sweep.said(one)) if line.strip()), "no output")
    log(f"{one.name}: ended with exit code {code} after {seconds:.0f} s: {last}")
    return [(one, last)]


def _is_ready(sweep, one):
    """Whether a running `Run` has read its data."""
    return any(line.endswith(READY) for line in sweep.said(one))


def seed_list(value):
    """Parses --seeds."""
    number = at_least(int, 0)
    return [number(part) for part in value.split(",")]


def main():
    parser = Parser(description=__doc__, usage="%(prog)s [--vary FLAG=VALUE,VALUE ...] [--seeds 1,2,3] --output_dir DIR -- SCRIPT --FLAG …")
    parser.add_argument("command", nargs="+", metavar="SCRIPT", help="after --: a training script and its flags")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="FLAG=VALUE,VALUE",
        help="flag and its values; may be repeated, for all combinations. A value with commas is in brackets: domain_layers=[1,2],[3,5]",
    )
    parser.add_argument("--seeds", type=seed_list, default=[], metavar="1,2,3", help="seeds (default: that of the command)")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--jobs", type=at_least(int, 1, 64), default=1, help="number of runs at the same time")
    parser.add_argument("--html", metavar="FILE", help="file for a page with the comparison")
    args = parser.parse_args()
    script, argv = os.path.splitext(os.path.basename(args.command[0]))[0], args.command[1:]
    if script not in SCRIPTS or script not in TRAINING:
        raise UserError(f"{args.command[0]}: is not a training script: {', '.join(map(script_path, TRAINING))}")
    if len(set(args.seeds)) < len(args.seeds):
        raise UserError(f"--seeds {','.join(map(str, args.seeds))}: a seed is given twice")
    variations = parse_variations(args.vary)
    if "seed" in variations:
        raise UserError("--vary seed: give --seeds")
    runs = plan(script, argv, variations, args.seeds)
    check_output_folder(args.output_dir, "--output_dir", whole=False)
    if args.html is not None:
        used = [args.output_dir, args.command[0], *inputs(script, runs)]
        is_inside = os.path.dirname(os.path.realpath(args.html)) == os.path.realpath(args.output_dir)
        check_page(args.html, "--html", used, makes_folder=is_inside)
    make_folder(args.output_dir)
    log = Log(os.path.join(args.output_dir, SWEEP_LOG), exclusive=True)
    sweep = Sweep(args.output_dir, script, runs, log)
    log(f"{len(runs)} runs of {script_path(script)} {' '.join(map(shlex.quote, argv))}".rstrip())
    for line in replaced(script, argv, variations, args.seeds):
        log(line)
    failed = run_all(sweep, args.jobs, log)
    measured = [sweep.path(one) for one in runs if one not in [other for other, _ in failed]]
    if measured:
        say("")
        comparison = read_comparison(measured)
        print_comparison(comparison)
        if args.html is not None:
            log(f"page {write_document(args.html, comparison_page(comparison))}")
    if failed:
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(f'{one.name}: {last}' for one, last in failed)}")


if __name__ == "__main__":
    run(main)
