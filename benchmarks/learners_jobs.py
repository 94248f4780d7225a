"""Runs the stages of the arms of benchmarks/learners.py, each once, and chooses the rate of each stage."""

import collections
import contextlib
import glob
import json
import os
import shutil
import threading
from typing import NamedTuple

from benchmarks.learners_arms import PREPROCESS, WORKER, sample_passes
from benchmarks.learners_data import SPLITS
from benchmarks.runs import DONE, best_snapshot, last_of, rows_of, run_script, seconds_of
from ofrecord_util.files import write_json

PYTHON_VARIABLE = "BENCH_SETFIT_PYTHON"
COMMON = ("--task_name", "learners", "--label_list", "0,1")
RATES_FILE = "rates.json"


class Cell(NamedTuple):
    """What the arms have in common when they are compared."""

    draw: str
    seed: int


class Result(NamedTuple):
    """A finished arm of a cell."""

    accuracy: dict  # domain -> accuracy on test, in per cent
    passes: int
    seconds: float


def chain_name(chain):
    """Name of some stages after each other: "contrastive+scores+mft"."""
    return "+".join(stage.name for stage in chain)


def is_finished(folder):
    """Whether a run has written all of its files."""
    return os.path.exists(os.path.join(folder, DONE))


def drop_snapshots(folder):
    """Removes the snapshots of a run, which no later run needs."""
    for path in glob.glob(os.path.join(folder, "snapshot_*")):
        shutil.rmtree(path)


def best_dev(rows):
    """(accuracy, -cross_entropy) of the best evaluation on dev: the highest accuracy, then the lowest cross-entropy."""
    return max((row["accuracy"], -row["cross_entropy"]) for row in rows if row["kind"] == "dev")


def best_rate(grid, scores):
    """The value of the grid with the highest score (accuracy, -cross_entropy); the first one of equals."""
    return max(zip(scores, [-place for place in range(len(grid))], grid))[2]


class Runner:
    """Runs stages.

    Args:
        args: of the command line: model_dir, output_dir, seq_length, keep_snapshots.
        arms: dict of name -> tuple of `Stage`, all that there are: a snapshot that one of them needs is kept.
        draws: `Draws`.
        choice: the `Cell` on whose dev split the rates are chosen.
    """

    def __init__(self, args, arms, draws, choice):
        self.output, self.model = os.path.abspath(args.output_dir), os.path.abspath(args.model_dir)
        self.arms, self.draws, self.choice, self._keep, self._length = arms, draws, choice, args.keep_snapshots, str(args.seq_length)
        self._locks, self._rates_path = collections.defaultdict(threading.RLock), os.path.join(self.output, RATES_FILE)
        self.rates = {}
        if os.path.exists(self._rates_path):
            with open(self._rates_path, encoding="utf-8") as file:
                self.rates = json.load(file)

    def folders(self, cell, chain, tried=None):
        """The folders of the last stage of a chain, by domain (None: all domains).

        Args:
            tried: a rate that is tried; None for the run with the chosen rate.
        """
        name = chain_name(chain)
        parts = ("runs", cell.draw, str(cell.seed), name) if tried is None else ("choice", name, tried)
        folder = os.path.join(self.output, *parts)
        return {domain: os.path.join(folder, domain) for domain in self.draws.domains} if chain[-1].per_domain else {None: folder}

    def run(self, cell, chain, tried=None):
        """Runs the last stage of a chain, and the stages before it, unless they are finished. Returns its folders by domain."""
        stage, folders = chain[-1], self.folders(cell, chain, tried)
        if all(map(is_finished, folders.values())):
            return folders
        rate = (tried or self.rate(chain)) if stage.grid else None
        snapshot, data_dir = self._before(cell, chain)
        for domain, folder in folders.items():
            data = self.draws.domain_folder(cell.draw, domain) if domain else data_dir
            with self._locks[folder], self._writing(data):
                self.run_stage(stage, snapshot, data, cell.seed, rate, folder, tests=tried is None)
                if not self.continues(chain, tried):
                    self.drop(folder)
        return folders

    def run_stage(self, stage, snapshot, data, seed, rate, folder, tests=True):
        """Runs one script, unless it is finished. `tests`: whether it measures test."""
        if stage.script == WORKER:
            words = ["--model_dir", self.exported(), "--data_dir", data, "--seed", str(seed), "--seq_length", self._length]
            words += map(str, stage.flags)
            run_script([stage.script, *words], folder, flag="--output_dir", python=os.environ[PYTHON_VARIABLE])
            return
        words = [*COMMON, "--seq_length", self._length, "--model_load_dir", snapshot, "--data_dir", data, "--seed", str(seed)]
        words += map(str, stage.flags)
        if rate is not None:
            words += [stage.rate, rate]
        if stage.script == PREPROCESS:
            for split in SPLITS:
                if os.path.exists(os.path.join(data, split + ".csv")):
                    os.makedirs(folder + "-data", exist_ok=True)
                    shutil.copy(os.path.join(data, split + ".csv"), folder + "-data")
            words[words.index("--data_dir") + 1] = folder + "-data"
            run_script([stage.script, *words], folder, flag="--log_dir")
            return
        run_script([stage.script, *words, *([] if tests else ["--do_train", "--do_eval", "false"])], folder)

    def drop(self, folder):
        """Removes the snapshots of a run unless they are all kept."""
        if not self._keep:
            drop_snapshots(folder)

    def exported(self):
        """The encoder as a Hugging Face folder, for SetFit."""
        folder = os.path.join(self.output, "hugging_face")
        with self._locks[folder]:
            words = ["--model_dir", self.model, "--to", "hugging_face", "--do_lower_case", "true"]  # as the scripts read the texts
            run_script(["tools/convert_checkpoint.py", *words], folder, flag="--output_dir")
        return folder

    def _before(self, cell, chain):
        """(snapshot, data folder) with which the last stage of a chain starts."""
        if len(chain) == 1:
            return self.model, self.draws.folder(cell.draw)
        snapshot, data_dir = self._before(cell, chain[:-1])
        (folder,) = self.run(cell, chain[:-1]).values()
        return (snapshot, folder + "-data") if chain[-2].script == PREPROCESS else (best_snapshot(folder), data_dir)

    def continues(self, chain, tried=None):
        """Whether an arm has further stages after a chain with its chosen rate."""
        return tried is None and any(len(stages) > len(chain) and stages[: len(chain)] == chain for stages in self.arms.values())

    @contextlib.contextmanager
    def _writing(self, data):
        """Two processes must not write the records of a folder at the same time. Later ones only read them."""
        splits = [split for split in SPLITS if os.path.exists(os.path.join(data, split + ".csv"))]
        if splits and all(os.path.exists(os.path.join(data, "ofrecord", split, "manifest.json")) for split in splits):
            yield
        else:
            with self._locks[data]:
                yield

    def rate(self, chain):
        """The chosen rate of the last stage of a chain. The stages before it have their chosen rates."""
        stage, name = chain[-1], chain_name(chain)
        with self._locks[name]:
            if name not in self.rates:
                scores = [self.score(chain, value) for value in stage.grid]
                tried = [{"value": value, "accuracy": a, "cross_entropy": -c} for value, (a, c) in zip(stage.grid, scores)]
                self.rates[name] = {"flag": stage.rate, "value": best_rate(stage.grid, scores), "tried": tried}
                with self._locks[RATES_FILE]:
                    write_json(self._rates_path, self.rates)
        return self.rates[name]["value"]

    def score(self, chain, value):
        """(accuracy, -cross_entropy) of a rate on dev, over all domains."""
        found = [best_dev(rows_of(folder)) for folder in self.run(self.choice, chain, value).values()]
        return tuple(sum(column) / len(found) for column in zip(*found))

    def result(self, cell, chain):
        """The `Result` of an arm of a cell, None if it is not finished."""
        folders = list(self.folders(cell, chain).values())
        if not all(map(is_finished, folders)):
            return None
        accuracy = {}
        for folder in folders:
            accuracy.update((name, 100 * values["accuracy"]) for name, values in last_of(rows_of(folder), "test")["by_domain"].items())
        earlier = [folder for place in range(1, len(chain)) for folder in self.folders(cell, chain[:place]).values()]
        return Result(accuracy, sum(map(passes_of, folders + earlier)), sum(map(seconds_of, folders + earlier)))


def passes_of(folder):
    """`sample_passes` of a finished run."""
    with open(os.path.join(folder, DONE), encoding="utf-8") as file:
        return sample_passes(json.load(file)["command"].split(), rows_of(folder))
