"""What a run writes down: `metrics.jsonl` (one JSON object a line), `run.log`, `flags.json` and `curves.png`."""

import fcntl
import json
import math
import os
import sys
import time

import numpy as np

from modeling.cli.errors import UserError
from ofrecord_util.files import replacing

METRICS_FILE, LOG_FILE, FLAGS_FILE, CURVES_FILE = "metrics.jsonl", "run.log", "flags.json", "curves.png"


class Log:
    """Lines for the terminal (standard output) and, with the time before them, for a file.

    Args:
        path: the log file, appended to; None for the terminal alone.
        exclusive: the file's folder belongs to one process as long as it lives.
        silent: nothing is said anywhere, as for all ranks but the first.
    Raises:
        UserError: another process has the folder.
    """

    def __init__(self, path=None, exclusive=False, silent=False):
        self._silent = silent
        self._file = open(path, "a", encoding="utf-8", buffering=1) if path else None  # noqa: SIM115
        if exclusive:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{os.path.dirname(path)}: another process is writing this run") from error
        self.progress = None  # a tqdm bar that must be lifted for a line

    def __call__(self, line):
        if self._silent:
            return
        if self.progress is not None:
            self.progress.clear()
        print(line, flush=True)
        if self.progress is not None:
            self.progress.refresh()
        if self._file:
            self._file.write(time.strftime("%Y-%m-%d %H:%M:%S ") + line + "\n")

    def close(self):
        """Closes the file and with it lets its folder go."""
        if self._file:
            self._file.close()


class Metrics:
    """Appends one JSON object a line to `metrics.jsonl` and keeps them for the curves; without `writes` it only keeps them."""

    def __init__(self, folder, writes=True):
        self.folder, self.rows = folder, []
        self._path = os.path.join(folder, METRICS_FILE)
        self._file = open(self._path, "a", encoding="utf-8", buffering=1) if writes else None  # noqa: SIM115

    def continue_from(self, step):
        """Keeps of an earlier part of the run the rows of the steps before `step`, which is reported anew; and this part's."""
        if self._file is None:
            return
        with open(self._path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file if line.endswith("\n")]
        self.rows = [row for row in lines if row.get("step", step) < step] + self.rows
        with replacing(self._path) as file:
            file.write("".join(json.dumps(row) + "\n" for row in self.rows).encode("utf-8"))
        self._file.close()
        self._file = open(self._path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def add(self, kind, **values):
        """Records one object; `kind` says what it is ("train", "dev", "test", …)."""
        row = dict(kind=kind, **values)
        self.rows.append(row)
        if self._file:
            self._file.write(json.dumps(row) + "\n")


def write_flags(folder, flags, facts):
    """Writes `flags.json`: the flags of the run, the command, versions and what was loaded (`facts`)."""
    values = {name: value for name, value in sorted(vars(flags).items()) if name not in ("given", "script")}
    record = {"script": flags.script, "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]], "flags": values}
    record.update(facts)
    with open(os.path.join(folder, FLAGS_FILE), "w", encoding="utf-8") as f:
        json.dump(record, f, indent=2, sort_keys=True)
        f.write("\n")


def draw_curves(metrics, title, num_domains):
    """Draws `curves.png`: loss parts over the steps (the domain loss beside its chance level), accuracies below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = [row for row in metrics.rows if row["kind"] == "train"]
    dev = [row for row in metrics.rows if row["kind"] == "dev"]
    figure = Figure(figsize=(9, 8), constrained_layout=True)
    FigureCanvasAgg(figure)
    losses, accuracies = figure.subplots(2, 1, sharex=True)
    losses.set_title(title)
    for name in [n for n in (train[0] if train else {}) if n == "loss" or n.endswith("_loss")]:
        losses.plot([row["step"] for row in train], [row[name] for row in train], label=name.replace("_", " "), linewidth=1)
    if dev:
        losses.plot(
            [row["step"] for row in dev],
            [row["cross_entropy"] for row in dev],
            "k.-",
            label="dev cross-entropy",
            linewidth=1,
        )
    if num_domains > 1 and any("domain_loss" in row for row in train):
        losses.axhline(math.log(num_domains), color="gray", linestyle=":", linewidth=1, label="domain loss at chance")
    losses.set_ylabel("loss (nats)")
    losses.legend(fontsize=8)
    for name in sorted({n for row in dev for n in row.get("by_domain", {})}):
        accuracies.plot(
            [r["step"] for r in dev],
            [r["by_domain"][name]["accuracy"] for r in dev],
            ".-",
            linewidth=1,
            label="dev " + name,
        )
    if dev:
        accuracies.plot([row["step"] for row in dev], [row["accuracy"] for row in dev], "k.-", label="dev, all")
    if any("domain_accuracy" in row for row in train):
        accuracies.plot(
            [row["step"] for row in train],
            [row["domain_accuracy"] for row in train],
            ":",
            color="gray",
            label="domain head (corrupted domain)",
        )
    accuracies.set_xlabel("step")
    accuracies.set_ylabel("accuracy")
    accuracies.set_ylim(-0.02, 1.02)
    accuracies.legend(fontsize=8, loc="lower right")
    figure.savefig(os.path.join(metrics.folder, CURVES_FILE), dpi=110)


def mean_rows(rows):
    """Mean over the first axis of a list of float arrays."""
    return np.mean(np.stack(rows), axis=0)
