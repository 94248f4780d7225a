"""Labels texts with a trained snapshot.

    python3 tools/predict.py "a moving film" \\
        --model_load_dir output/…/snapshot_best_ft_model_sst-2_dev_0.75
    python3 tools/predict.py --model_load_dir SNAPSHOT "a moving film" "two hours lost"
    python3 tools/predict.py --model_load_dir SNAPSHOT --input reviews.txt --output out.jsonl \\
        --format json
    cat reviews.txt | python3 tools/predict.py --model_load_dir SNAPSHOT

The input has one text per line. If a line has tabs, only its first column is read (the first two for a task of text pairs),
so files with domain and label columns can be used. The output has one line per text, in the same order: the label, its
probability and the text, separated by tabs, or a JSON object with all probabilities. The tool reads texts as it needs them,
so a large file needs little memory.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import json
import sys

import six
from tqdm import tqdm

from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.predictor import Predictor
from ofrecord_util.files import replacing


def read_lines(stream, name):
    """Yields the lines of a binary stream as str, without line ends.

    Raises:
        UserError: if a line is not UTF-8. The message names the line and the byte.
    """
    for number, line in enumerate(stream, 1):
        try:
            yield six.ensure_text(line.rstrip(b"\r\n"), "utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: line {number} is not UTF-8 (byte {error.start + 1}: 0x{line[error.start]:02X})") from error


def split_columns(lines, pair, name):
    """Yields the text of each line: the first column, or the first two for text pairs.

    Raises:
        UserError: if a line of a task of text pairs has one column.
    """
    for number, line in enumerate(lines, 1):
        cells = line.split("\t")
        if pair and len(cells) < 2:
            raise UserError(
                f"{name}: line {number} has 1 column, but a task of text pairs needs two texts separated by a tab: {line[:40]!r}"
            )
        yield (cells[0], cells[1]) if pair else cells[0]


def as_text(text, prediction):
    """Returns label TAB probability TAB text."""
    words = "\t".join(text) if isinstance(text, tuple) else text
    return f"{prediction.label}\t{prediction.probabilities[prediction.label]:.6f}\t{words}"


def as_json(text, prediction):
    """Returns a JSON object: text (or a list of two), label, probabilities by label."""
    values = {"text": text, "label": prediction.label, "probabilities": prediction.probabilities}
    return json.dumps(values, ensure_ascii=False)


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
    parser = Parser(description=__doc__)
    parser.add_argument("text", nargs="*", help="texts to label (default: the lines of --input or of standard input)")
    parser.add_argument("--model_load_dir", required=True, metavar="SNAPSHOT", help="snapshot of a training script")
    parser.add_argument("--input", metavar="FILE", help="file with one text per line")
    parser.add_argument("--output", metavar="FILE", help="output file (default: standard output)")
    parser.add_argument("--format", choices=("tsv", "json"), default="tsv", help="format of the lines")
    parser.add_argument(
        "--batch_size", type=int, default=32, help="number of texts per batch on a GPU; on a CPU, the size of the model determines it"
    )
    parser.add_argument("--seq_length", type=int, help="maximum number of tokens per text (default: as in training)")
    parser.add_argument("--vocab_file", help="vocabulary (default: the one of the snapshot)")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="device for the computation")
    args = parser.parse_args()
    if args.text and args.input:
        raise UserError("set either texts or --input, not both")
    if args.batch_size < 1:
        raise UserError(f"--batch_size {args.batch_size}: must be at least 1")

    def say(line):
        print(line, file=sys.stderr)

    stream, name = sys.stdin.buffer, "standard input"
    if args.input:
        try:
            stream, name = open(args.input, "rb"), args.input  # noqa: SIM115  closed when the process ends
        except OSError as error:
            raise UserError(f"--input {args.input}: cannot be read ({error.strerror})") from error
    predictor = Predictor(args.model_load_dir, args.device, args.batch_size, args.seq_length, args.vocab_file, say)
    lines = args.text or read_lines(stream, name)
    texts = split_columns(lines, predictor.task.pair, "argument" if args.text else name)
    form = as_json if args.format == "json" else as_text
    if args.output is None:
        write(predictor, texts, form, sys.stdout)
        return
    with replacing(args.output) as raw, open(raw.fileno(), "w", encoding="utf-8", closefd=False) as out:
        count = write(predictor, texts, form, out)
    say(f"{count} texts labelled, {args.output}")


if __name__ == "__main__":
    run(main)
