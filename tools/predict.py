"""Labels texts with a trained snapshot.

    python3 tools/predict.py "a moving film" \\
        --model_load_dir output/…/snapshot_best_ft_model_sst-2_dev_0.75
    python3 tools/predict.py --model_load_dir SNAPSHOT "a moving film" "two hours lost"
    python3 tools/predict.py --model_load_dir SNAPSHOT --input reviews.txt --output out.jsonl \\
        --format json
    cat reviews.txt | python3 tools/predict.py --model_load_dir SNAPSHOT
    python3 tools/predict.py --model_load_dir SNAPSHOT --domain_scores train.csv "a moving film"

The input has one text per line. If a line has tabs, only its first column is read (the first two for a task of text pairs),
with a warning, so files with domain and label columns can be used. Files with a header, comma-separated files with a header
and JSON lines are read too, in the same way as by the training scripts; `--text_column` chooses the column. Empty lines at
the end are left out. The output has one line per text, in the same order: the label, its probability and the text, separated
by tabs, or a JSON object with all probabilities. A model of --task_type regression gives a number without a probability, one
of multi_label the labels with a probability above 0.5, with commas between them and between their probabilities. The tool
reads texts as it needs them, so a large file needs little memory. With --domain_scores the domain that is most similar and
its score follow the probability. --pipeline runs a class of your own around the model.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import json
import sys

from tqdm import tqdm

from modeling.cli import process
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from ofrecord_util.escaping import counted, for_json, for_terminal, say
from ofrecord_util.files import replacing
from ofrecord_util.label_kinds import spell_set
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_kinds import TSV
from tools.evaluate import read_labelled
from tools.pipeline import HELP, load_pipeline
from tools.texts import (
    add_model_flags,
    check_outputs,
    decode_argument,
    one_line,
    open_input,
    prepare_output,
    read_lines,
    texts_of,
    warn_of_unknown,
)


def as_text(text, prediction):
    """Returns label TAB probability TAB text; with domain scores, the most similar domain TAB its score before the text.

    The label of a subclass of `Predictor` may have no probability of its own, then it is the greatest. A number (--task_type regression)
    has none at all. Sets of labels have commas between the labels and between their probabilities.
    """
    words, label, probabilities = one_line(text), prediction.label, prediction.probabilities
    if isinstance(label, tuple):
        first = spell_set(label), ",".join(f"{probabilities[name]:.6f}" for name in label)
    elif probabilities:
        first = label, f"{probabilities.get(label, max(probabilities.values())):.6f}"
    else:
        first = (f"{label:.6f}",)
    scores = prediction.domain_scores or {}
    best = "".join(f"{name}\t{scores[name]:.6f}\t" for name in sorted(scores, key=scores.get)[-1:])
    return "\t".join((*first, f"{best}{words}"))


def as_json(text, prediction):
    """Returns a JSON object, as of `Prediction.to_dict` for this text."""
    return json.dumps(prediction._replace(text=text).to_dict(), ensure_ascii=False)


def shown(form):
    """A form whose lines do nothing to a terminal. Files and pipes get texts as they are, since programs read them."""

    def line(text, prediction):
        columns = form(text, prediction).split("\t")
        return "\t".join(map(for_json if form is as_json else for_terminal, columns))

    return line


def write(predictor, texts, form, out):
    """Writes one line per text to the text stream `out` and returns the number of lines."""
    seen, count = collections.deque(), 0

    def remembered():
        for text in texts:
            seen.append(text)
            yield text

    for prediction in tqdm(predictor(remembered()), desc="predict", unit="text", disable=None, delay=1, leave=False):
        out.write(form(seen.popleft(), prediction) + "\n")
        count += 1
    return count


def main():
    parser = Parser(may_be_empty=("text",), description=__doc__)
    parser.add_argument("text", nargs="*", help="texts to label (default: the lines of --input or of standard input)")
    add_model_flags(parser)
    parser.add_argument("--output", metavar="FILE", help="output file (default: standard output)")
    parser.add_argument("--format", choices=("tsv", "json"), default="tsv", help="format of the lines")
    parser.add_argument("--domain_scores", metavar="FILE", help="labelled texts: give the similarity to each of their domains too")
    parser.add_argument("--pipeline", metavar="MODULE:CLASS", help=HELP)
    args = parser.parse_args()
    pipeline = load_pipeline(args.pipeline)
    if args.text and args.input:
        raise UserError("set either texts or --input, not both")
    if args.output is None:
        prepare_output(parser, "give --output FILE")
    if process.is_closed(0) and not (args.text or args.input):
        raise UserError("standard input is closed: give texts or --input FILE")

    def warn(line):
        say(line, sys.stderr)

    stream, name = open_input(args.input)
    texts = [decode_argument(text) for text in args.text]
    check_outputs(args, args.model_load_dir)
    settings = args.device, args.batch_size, args.seq_length, args.vocab_file, warn, args.memory_limit
    predictor = pipeline(args.model_load_dir, *settings, announce=warn if args.output is not None else None)
    if args.domain_scores:
        predictor.compare_domains(*read_labelled(args.domain_scores, predictor.task, {}))
    pair = predictor.task.pair
    if not texts:
        texts = texts_of(read_lines(stream, name), pair, name, TextOptions.from_flags(vars(args)), warn=warn)
    elif pair:  # other arguments are whole texts, with their tabs
        texts = texts_of(texts, pair, "argument", TextOptions(TSV), header=False)
    form = as_json if args.format == "json" else as_text
    if args.output is None:
        write(predictor, texts, shown(form) if sys.stdout.isatty() else form, sys.stdout)
        warn_of_unknown(predictor, warn)
        return
    with replacing(args.output) as raw, open(raw.fileno(), "w", encoding="utf-8", closefd=False) as out:
        count = write(predictor, texts, form, out)
    warn(f"{counted(count, 'text')} labelled, {args.output}")
    warn_of_unknown(predictor, warn)


if __name__ == "__main__":
    run(main)
