"""Compares the default settings of finetuning.py with those of --auto_settings on small data sets (docs/results.md).

    python3 benchmarks/tune_auto_settings.py --model_dir models/uncased_L-6_H-384_A-12_oneflow --data_dir ../shared/data \\
        --output_dir output/auto_settings --seeds 42 43

DATA_DIR contains `raw`, `SENTI`, `fdu-mtl` and `mnli` in their published forms. Each data set is a balanced draw of a few
training rows and up to 200 dev rows. Each job runs finetuning.py in a separate process with one thread. Finished jobs do not
run again. `--also NAME=FLAGS` adds a column with other flags. At the end, the script prints dev accuracies (of the best
evaluation, in percent) in Markdown.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import os
import random

from benchmarks.runs import mean_and_spread, print_table, results_parser, run_jobs, run_script

DEV_ROWS = 200


def _lines(path, encoding="utf-8"):
    with open(path, encoding=encoding, errors="replace", newline="\n") as file:
        return [line.rstrip("\r\n") for line in file if line.strip()]


def _by_class(*parts):
    """Rows (text, label) of a file per class."""
    return lambda root: [(line, label) for name, label in parts for line in _lines(os.path.join(root, name), "cp1252")]


def _table(name, text, label, skip=0):
    """Rows of a tab-separated file; `text` are the columns of the text or of the two texts."""

    def read(root):
        rows = [line.split("\t") for line in _lines(os.path.join(root, *name.split("/")))[skip:]]
        return [("\t".join(row[column] for column in text), row[label]) for row in rows]

    return read


_SST2 = _table("raw/SST-2/train.tsv", (0,), 1, skip=1)
_MR = _by_class(("raw/MR/rt-polarity.pos", "1"), ("raw/MR/rt-polarity.neg", "0"))
_CR = _by_class(("raw/CR/custrev.pos", "1"), ("raw/CR/custrev.neg", "0"))
SETS = {  # name: (function of DATA_DIR that returns rows (text, label), number of training rows)
    "SST-2, 32 rows": (_SST2, 32),
    "CR, 96 rows": (_CR, 96),
    "MR, 200 rows": (_MR, 200),
    "CR, 500 rows": (_CR, 500),
    "SST-2, 1000 rows": (_SST2, 1000),
    "SENTI, 96 rows": (_table("SENTI/train.csv", (0,), 2), 96),
    "FDU software, 64 rows": (_table("fdu-mtl/software.task.train", (1,), 0), 64),
    "MNLI pairs, 300 rows, 3 labels": (_table("mnli/train_genre_480.tsv", (0, 1), 3), 300),
}


def draw(rows, train, seed):
    """(training rows, dev rows), both balanced over the labels, without common texts."""
    unique = sorted(dict(rows).items())
    random.Random(seed).shuffle(unique)
    by_label = collections.defaultdict(list)
    for text, label in unique:
        by_label[label].append((text, label))
    share = -(-train // len(by_label))
    dev = min(DEV_ROWS // len(by_label), *(len(found) - share for found in by_label.values()))
    return (
        [row for found in by_label.values() for row in found[:share]],
        [row for found in by_label.values() for row in found[share : share + dev]],
    )


def write_set(folder, rows, train, seed):
    """Writes train.csv and dev.csv of a draw, unless they are there."""
    if os.path.exists(os.path.join(folder, "dev.csv")):
        return
    os.makedirs(folder, exist_ok=True)
    for split, part in zip(("train", "dev"), draw(rows, train, seed)):
        with open(os.path.join(folder, split + ".csv"), "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{text}\tall\t{label}\n" for text, label in part)


def dev_accuracy(args, name, column, flags, seed):
    """Dev accuracy, in percent, of the best evaluation of a run."""
    read, train = SETS[name]
    file_name = name.replace(",", "").replace(" ", "-")
    data_dir = os.path.join(os.path.abspath(args.output_dir), "data", f"{file_name}-{column}", str(seed))
    write_set(data_dir, read(args.data_dir), train, seed)
    folder = os.path.join(os.path.abspath(args.output_dir), str(seed), f"{file_name}-{column}")
    common = ["--task_name", "small", "--model_load_dir", os.path.abspath(args.model_dir), "--data_dir", data_dir, "--seed", str(seed)]
    rows = run_script(["finetuning.py", *common, "--do_train", "--do_eval", "false", *flags], folder)
    return 100 * max(row["accuracy"] for row in rows if row["kind"] == "dev")


def main():
    parser = results_parser(__doc__)
    parser.add_argument("--sets", nargs="+", default=sorted(SETS), choices=sorted(SETS), metavar="NAME", help="data sets to use")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FLAGS", help="another column, with these flags")
    args = parser.parse_args()
    columns = {"defaults": [], "auto": ["--auto_settings"]}
    columns.update((name, flags.split()) for name, _, flags in (word.partition("=") for word in args.also))
    cells = [(name, column, seed) for name in args.sets for column in columns for seed in args.seeds]
    jobs = [lambda cell=cell: dev_accuracy(args, cell[0], cell[1], columns[cell[1]], cell[2]) for cell in cells]
    found = dict(zip(cells, run_jobs(jobs, args.workers)))
    table = [[name, *(mean_and_spread([found[name, column, seed] for seed in args.seeds]) for column in columns)] for name in args.sets]
    print_table("dev accuracy", args.seeds, list(columns), table)


if __name__ == "__main__":
    main()
