"""Measures a trained snapshot on any labelled file: accuracy, F1, calibration and others, by domain and by label.

    python3 tools/evaluate.py output/…/snapshot_best_ft_model_sst-2_dev_0.75 test.csv
    python3 tools/evaluate.py SNAPSHOT FILE --output results.json --predictions predictions.tsv

The file has tabs, commas or JSON lines between its columns, as the text of the scripts. The labels must be those of the snapshot, or
numbers from 0 in their order; a line says which number was read as which label. Those of a regression are numbers, those of a model of sets
of labels have commas between them. The domains may be others, or may be missing. Each row
counts once. --output writes the measures as a JSON object, and --predictions one line per row in the form of a run's
predictions_test.tsv (docs/formats.md).
"""

if not __package__:
    import _root  # noqa: F401

import os
import sys

import numpy as np

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from modeling.cli.flag_kinds import batch_size, non_negative_int, positive_int
from modeling.cli.flags import add_text_flags
from modeling.predictor import Predictor
from modeling.run.evaluation import Predictions, measure
from modeling.run.measures import TITLES, ClassMeasures, further_needed, values_needed
from modeling.run.predictions import write_predictions
from modeling.run.task_outputs import outputs_of
from ofrecord_util.escaping import say
from ofrecord_util.files import write_json
from ofrecord_util.tasks import Task
from ofrecord_util.text import read_names, read_text
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import read_rows
from tools.text_table import text_table
from tools.texts import check_outputs


def read_labelled(path, task, flags):
    """Reads a labelled file for a snapshot.

    Args:
        path: file of rows with text, domain and label. All rows of a file without a column of domains have the domain of the snapshot, or,
            if it has several, the name of the file.
        task: `Task` of the snapshot.
        flags: dict of the flags that describe text files, by name.
    Returns:
        (`Task`, `TextSplit`). The task has the snapshot's labels and the file's domains: first those of the snapshot, in its order and
        spelling, then the others, sorted.
    Raises:
        UserError: as `read_text`; a label is not one of the snapshot.
    """
    only = task.domains[0] if task.num_domains == 1 else os.path.splitext(os.path.basename(path))[0]
    options = TextOptions.from_flags({**flags, "task_type": task.task_type}, only_domain=only)
    table = read_rows(path, options)
    found = {}  # domains by their lower-case name
    for name in sorted(read_names(table, task.task_type)[0]):
        found.setdefault(name.lower(), name)
    own = [name for name in task.domains if found.pop(name.lower(), None)]
    task = Task(task.name, (*own, *found.values()), task.labels, task.pair, task.task_type)
    return task, read_text(path, task, table, options)


def predict(predictor, texts):
    """`Predictions` of a `Predictor` for the rows of a `TextSplit`. Of classes, the logits are logarithms of the probabilities."""
    given = zip(texts.text_a, texts.text_b) if predictor.task.pair else texts.text_a
    outputs = np.array([list(prediction.probabilities.values()) or [prediction.label] for prediction in predictor(given)])
    logits = outputs_of(predictor.task).logits(outputs)
    return Predictions(np.arange(len(texts)), texts.domain, texts.label, logits, texts.digest)


def tables(values):
    """Lines that show an evaluation: a table by domain if there are several, and one by label.

    Args:
        values: of `Evaluation.to_dict`.
    """
    names = tuple(dict.fromkeys((*values_needed(values), *further_needed(values))))
    lines, domains = [], values["by_domain"]
    if len(domains) > 1:
        rows = [[name, part["total"], *(f"{part[key]:.4f}" for key in names)] for name, part in (*domains.items(), ("all", values))]
        lines += ["", *text_table(["domain", "rows", *(TITLES[key] for key in names)], rows)]
    if "by_class" not in values:
        return lines
    columns = [name for name in ClassMeasures._fields if name != "support"]
    rows = [[label, part["support"], *(f"{part[name]:.4f}" for name in columns)] for label, part in values["by_class"].items()]
    return [*lines, "", *text_table(["label", "rows", *columns], rows)]


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="snapshot of a training script, or the folder of its run")
    parser.add_argument("file", metavar="FILE", help="labelled text: a row is text, domain, label (two texts for a task of pairs)")
    parser.add_argument("--output", metavar="FILE", help="file for the measures as JSON")
    parser.add_argument("--predictions", metavar="FILE", help="file for the predictions")
    parser.add_argument("--seed", type=non_negative_int, default=42, help="seed of the bootstrap intervals")
    parser.add_argument("--batch_size", type=batch_size, default=32, help="texts per batch on a GPU; on a CPU, the model determines it")
    parser.add_argument("--seq_length", type=positive_int, help="maximum number of tokens per text (default: as in training)")
    parser.add_argument("--vocab_file", help="vocabulary (default: the one of the snapshot)")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="device for the computation")
    add_text_flags(parser)
    args = parser.parse_args()
    check_outputs(args, args.snapshot)

    def say_aside(line):
        say(line, sys.stderr)

    predictor = Predictor(args.snapshot, args.device, args.batch_size, args.seq_length, args.vocab_file, say_aside)
    task, texts = read_labelled(args.file, predictor.task, vars(args))
    predictions = predict(predictor, texts)
    evaluation = measure(predictions.logits, predictions.label, predictions.domain, task, args.seed)
    values = evaluation.to_dict()
    say(f"{args.snapshot} on {len(texts)} rows of {args.file}")
    say(texts.source)
    more = evaluation.more_text()
    for line in (evaluation, *([more] if more else []), *tables(values)):
        say(line)
    if args.output is not None:
        about = {"snapshot": args.snapshot, "snapshot_digest": Snapshot(predictor.path).digest(), "file": args.file}
        write_json(args.output, {**about, "text_digest": texts.digest, "task": task.to_dict(), "seed": args.seed, **values})
        say(f"measures {args.output}")
    if args.predictions is not None:
        write_predictions(args.predictions, task, predictions, texts)
        say(f"predictions {args.predictions}")


if __name__ == "__main__":
    run(main)
