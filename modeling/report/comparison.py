"""Compares runs: which flags differ, results with mean and spread over seeds, and McNemar's test between two runs on the same rows."""

import json
import os
from typing import NamedTuple, Optional

import numpy as np

from modeling.cli.flags import SCRIPTS, build_parser, flags_of
from modeling.report.facts import RunFacts, read_results
from modeling.report.markup import Number
from modeling.report.settings import flag_text
from modeling.run.held_out import held_out_name, title_of
from modeling.run.measures import ACCURACY, MACRO_F1, TITLES, mcnemar_test, shown_of
from modeling.run.predictions import predictions_path, read_predictions
from modeling.run.resume import FREE_FLAGS
from ofrecord_util.errors import UserError

# Flags that a continued run may change, but that decide what a run learns and measures
_COUNT = frozenset(
    ["data_dir", "vocab_file", "model_load_dir", "student_model", "teacher_model", "teacher_output_dir", "max_steps", "early_stop_patience"]
)
_SEED, _SCRIPT, _NONE = "seed", "script", "–"


class Group(NamedTuple):
    """Runs that differ only in their seeds."""

    settings: dict  # flags and the script, as text by name, without the seed
    runs: list  # of `RunFacts`


class PairedTest(NamedTuple):
    """McNemar's test between two runs."""

    run: RunFacts
    other: RunFacts
    split: Optional[str]  # None: the runs have no predictions for the same rows
    rows: int
    run_only: int  # rows that only `run` predicts correctly
    other_only: int
    p: float


class Comparison(NamedTuple):
    """Runs in groups, the flags that differ between the groups, and the tests."""

    groups: list  # of `Group`, in the order of the runs
    differing: list  # names of the settings that are not the same in all groups
    tests: list  # of `PairedTest`


def settings_of(run: RunFacts) -> dict:
    """The script, and the flags that can change results, as text by name, without the seed. A flag that a run of an earlier version does
    not have has its default value."""
    defaults, values = {}, run.flags
    if run.script in SCRIPTS:
        parser, inert = build_parser(run.script), {flag.name for flag in flags_of(run.script) if not flag.has_effect}
        defaults = {flag.name: parser.get_default(flag.name) for flag in flags_of(run.script)}
        values = {name: value for name, value in {**defaults, **values}.items() if name not in inert}
    names = [name for name in sorted(values) if name != _SEED and (name not in FREE_FLAGS or name in _COUNT)]
    return {_SCRIPT: run.script, **{name: flag_text(values[name]) for name in names}}


def read_comparison(folders) -> Comparison:
    """The `Comparison` of the runs in some folders.

    The first run is the baseline of the tests. Each other run is compared with the run of the first group that has its seed, or with the
    first run. The test uses the predictions for the test split, or for dev if one of the two has none for test.

    Args:
        folders: run folders, at least one.
    Raises:
        UserError: a folder is not that of a run, is given twice, or one of its files is damaged.
    """
    runs, groups, seen = [], {}, set()
    for folder in folders:
        run = read_results(folder)
        if os.path.realpath(run.folder) in seen:
            raise UserError(f"{folder}: this run is given twice")
        seen.add(os.path.realpath(run.folder))
        runs.append(run)
        settings = settings_of(run)
        groups.setdefault(json.dumps(settings, sort_keys=True), Group(settings, [])).runs.append(run)
    found = list(groups.values())
    names = sorted({name for group in found for name in group.settings})
    differing = [name for name in names if len({group.settings.get(name) for group in found}) > 1]
    cache, first = {}, found[0].runs
    tests = []
    for run in runs[1:]:
        same = [other for other in first if other.flags.get(_SEED) == run.flags.get(_SEED)] if run not in first else []
        tests.append(_test(run, (same or runs)[0], cache))
    return Comparison(found, differing, tests)


def _test(run, other, cache):
    """The `PairedTest` of two runs."""
    for split in ("test", "dev"):
        ours, theirs = (_rows(folder.folder, split, cache) for folder in (run, other))
        if ours is None or theirs is None:
            continue
        keys, others = ([key for key, _, _ in rows] for rows in (ours, theirs))
        texts = [(one, two) for (_, one, _), (_, two, _) in zip(ours, theirs) if one and two]
        if keys != others or any(one != two for one, two in texts):
            continue
        hits, other_hits = (np.array([hit for _, _, hit in rows]) for rows in (ours, theirs))
        run_only, other_only = int((hits & ~other_hits).sum()), int((other_hits & ~hits).sum())
        return PairedTest(run, other, split, len(hits), run_only, other_only, mcnemar_test(run_only, other_only))
    return PairedTest(run, other, None, 0, 0, 0, 1.0)


def _rows(folder, split, cache):
    """List of ((row number, domain, label), texts, whether the prediction is right) of a run's predictions; None without predictions."""
    path = predictions_path(folder, split)
    if path not in cache:
        cache[path] = None
        if os.path.isfile(path):
            labels, _, samples = read_predictions(path)
            if labels:  # of a regression, no prediction is right or wrong
                cache[path] = [((row.idxs, row.domain, row.label), row.texts, row.label == row.predicted) for row in samples]
    return cache[path]


# Tables, as (header, rows) for `markup.table` and for a terminal


def group_name(comparison: Comparison, group: Group) -> str:
    """What distinguishes a group from the others: "learning_rate 5e-05, num_epochs 3"."""
    return ", ".join(f"{name} {group.settings.get(name, 'unset')}" for name in comparison.differing) or group.settings[_SCRIPT]


def values_of(group: Group, split: str, measure: str) -> list:
    """The values of a measure on a split for the runs of a group that have it."""
    results = [run.result(split) or {} for run in group.runs]
    return [result[measure] for result in results if measure in result]


def mean_text(values) -> str:
    """Mean and sample standard deviation, "0.7188 ± 0.0123"; the value alone if there is one, a dash if there is none."""
    if not values:
        return _NONE
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _apart(comparison):
    """(name, title) of the evaluations on held-out domains that at least one run has."""
    names = [held_out_name(split) for split in ("test", "dev")]
    runs = [run for group in comparison.groups for run in group.runs]
    return [(name, f"{title_of(name)}, accuracy") for name in names if any(run.result(name) for run in runs)]


def _shown(comparison) -> tuple:
    """(values by their names in metrics.jsonl, titles): what the tables show of dev and test, and of test alone."""
    runs = [run for group in comparison.groups for run in group.runs]
    results = [result for run in runs for result in (run.result("test"), run.result("dev")) if result]
    shown = shown_of(results[0] if results else {})
    further = MACRO_F1 if shown.share == ACCURACY else shown.loss
    return (shown.share, further), (shown.share_title, TITLES[further])


def group_rows(comparison: Comparison):
    """Results by group: mean and standard deviation over the seeds."""
    apart, ((first, further), titles) = _apart(comparison), _shown(comparison)
    header = [
        *(comparison.differing or [_SCRIPT]),
        "runs",
        f"best dev {titles[0]}",
        f"test {titles[0]}",
        "test, lowest to highest",
        f"test {titles[1]}",
        *(title for _, title in apart),
    ]
    rows = []
    for group in comparison.groups:
        tested = values_of(group, "test", first)
        cells = [mean_text(values_of(group, "dev", first)), mean_text(tested)]
        cells += [f"{min(tested):.4f} to {max(tested):.4f}" if len(tested) > 1 else _NONE, mean_text(values_of(group, "test", further))]
        cells += [mean_text(values_of(group, name, "accuracy")) for name, _ in apart]
        names = [group.settings.get(name, "unset") for name in comparison.differing or [_SCRIPT]]
        rows.append([*names, len(group.runs), *map(Number, cells)])
    return header, rows


def run_rows(comparison: Comparison):
    """Results by run."""

    def shown(result, name):
        value = (result or {}).get(name)
        return Number(_NONE if value is None else f"{value:.4f}" if isinstance(value, float) else f"{value:,}")

    (first, further), titles = _shown(comparison)
    header = [
        "run",
        *comparison.differing,
        "seed",
        "best step",
        f"best dev {titles[0]}",
        *(f"test {title}" for title in titles),
        "test rows",
    ]
    apart = _apart(comparison)
    header += [title for _, title in apart]
    rows = []
    for group in comparison.groups:
        names = [group.settings.get(name, "unset") for name in comparison.differing]
        for run in group.runs:
            dev, test = run.result("dev"), run.result("test")
            cells = [shown(dev, "step"), shown(dev, first), *(shown(test, name) for name in (first, further, "total"))]
            cells += [shown(run.result(name), "accuracy") for name, _ in apart]
            rows.append([_base(run), *names, Number(run.flags.get(_SEED, _NONE)), *cells])
    return header, rows


def paired_rows(comparison: Comparison):
    """McNemar's tests; None for a single run."""
    header = ["run", "compared with", "split", "rows", "only run right", "only other right", "difference", "p"]
    rows = []
    for test in comparison.tests:
        if test.split is None:
            rows.append([_base(test.run), _base(test.other), "no predictions of the same rows", *map(Number, [_NONE] * 5)])
            continue
        points = f"{100 * (test.run_only - test.other_only) / test.rows:+.1f} points"
        cells = [f"{test.rows:,}", f"{test.run_only:,}", f"{test.other_only:,}", points, f"{test.p:.4f}" if test.p >= 1e-4 else "< 0.0001"]
        rows.append([_base(test.run), _base(test.other), test.split, *map(Number, cells)])
    return (header, rows) if rows else None


def _base(run):
    return os.path.basename(os.path.abspath(run.folder))


NOTES = (
    "Runs that differ only in --seed are one row of the first table: mean ± sample standard deviation over the seeds. The test accuracy is "
    "that of the snapshot that is best on dev.",
    "McNemar's exact test, two-sided, of the hypothesis that two models have the same accuracy, on the rows that only one of them labels "
    "correctly. The p values are not corrected for the number of tests. On dev, which has selected the snapshots, a test is optimistic.",
)
