"""Generates a text for each source with a PALM, a snapshot of recipes/generation.py or a converted model.

    python3 tools/generate.py --model_load_dir SNAPSHOT "a source" "another source"
    python3 tools/generate.py --model_load_dir SNAPSHOT --input sources.txt --output generated.tsv
    python3 tools/generate.py --model_load_dir SNAPSHOT --beam_size 1 --format json < sources.txt

Sources are one per line; of a table, the first column, or that of --text_column. A line of the result has the generated text, its score and
the source, separated by tabs, or is one JSON object. The score is the sum of the log-probabilities of its tokens, divided by
((5 + tokens) / 6) ^ --length_penalty. The characters [SEP] in a source separate its parts.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import dataclasses
import json
import sys

from tqdm import tqdm

from modeling.cli import process
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import batch_size, beam_size, length_penalty, non_negative_int, positive_float, positive_int
from modeling.cli.flags import add_text_flags
from modeling.palm.beam_search import Search
from modeling.text_generator import TextGenerator
from ofrecord_util.escaping import counted, for_json, for_terminal, say
from ofrecord_util.files import replacing
from ofrecord_util.text_columns import TextOptions
from tools.texts import check_outputs, decode_argument, one_line, open_input, prepare_output, read_lines, texts_of, warn_of_unknown


def as_text(source, generated):
    """Returns text TAB score TAB source."""
    return f"{one_line(generated.text)}\t{generated.score:.6f}\t{one_line(source)}"


def as_json(source, generated):
    """Returns a JSON object: source, text, score, and whether the text has an end."""
    values = {"source": source, "text": generated.text, "score": generated.score, "ended": generated.ended}
    return json.dumps(values, ensure_ascii=False)


def write(generator, sources, form, out, escape=str):
    """Writes one line per source to the text stream `out` and returns the number of lines."""
    seen, count = collections.deque(), 0

    def remembered():
        for source in sources:
            seen.append(source)
            yield source

    for generated in tqdm(generator(remembered()), desc="generate", unit="text", disable=None, delay=1, leave=False):
        out.write("\t".join(map(escape, form(seen.popleft(), generated).split("\t"))) + "\n")
        count += 1
    return count


def main():
    parser = Parser(may_be_empty=("source",), description=__doc__)
    parser.add_argument("source", nargs="*", help="sources (default: the lines of --input or of standard input)")
    parser.add_argument(
        "--model_load_dir", required=True, metavar="SNAPSHOT", help="snapshot of recipes/generation.py, or a converted PALM"
    )
    parser.add_argument("--input", metavar="FILE", help="file with one source per line, or a table")
    add_text_flags(parser, ("text_format", "text_column"))
    parser.add_argument("--output", metavar="FILE", help="output file (default: standard output)")
    parser.add_argument("--format", choices=("tsv", "json"), default="tsv", help="format of the lines")
    parser.add_argument("--beam_size", type=beam_size, default=5, help="hypotheses of a search; 1 = greedy")
    parser.add_argument("--length_penalty", type=length_penalty, default=0.6, help="power of (5 + tokens) / 6 that divides the score")
    parser.add_argument("--min_length", type=non_negative_int, default=0, help="tokens before [SEP] at least")
    parser.add_argument("--max_length", type=positive_int, help="tokens with [SEP] at most (default: as in training, else 99)")
    parser.add_argument("--batch_size", type=batch_size, default=16, help="sources per batch at most")
    parser.add_argument("--seq_length", type=positive_int, help="maximum number of tokens per source (default: as in training, else 128)")
    parser.add_argument("--vocab_file", help="vocabulary (default: the one of the snapshot)")
    parser.add_argument(
        "--memory_limit", type=positive_float, metavar="GB", help="GB of memory to use on a CPU (default: nine tenths of the free memory)"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="device for the computation")
    args = parser.parse_args()
    if args.source and args.input:
        raise UserError("set either sources or --input, not both")
    if args.output is None:
        prepare_output(parser, "give --output FILE")
    if process.is_closed(0) and not (args.source or args.input):
        raise UserError("standard input is closed: give sources or --input FILE")

    def warn(line):
        say(line, sys.stderr)

    stream, name = open_input(args.input)
    sources = [decode_argument(source) for source in args.source]
    check_outputs(args, args.model_load_dir)
    search = Search(args.beam_size, args.length_penalty, args.min_length, args.max_length)
    settings = args.device, args.batch_size, args.seq_length, args.vocab_file, warn, args.memory_limit
    generator = TextGenerator(args.model_load_dir, search, *settings)
    if not sources:
        options = dataclasses.replace(TextOptions.from_flags(vars(args)), targets=True)  # the columns may be those of the training text
        sources = texts_of(read_lines(stream, name), False, name, options, warn=warn)
    form = as_json if args.format == "json" else as_text
    if args.output is None:
        escape = str if not sys.stdout.isatty() else for_json if args.format == "json" else for_terminal
        write(generator, sources, form, sys.stdout, escape)
    else:
        with replacing(args.output) as raw, open(raw.fileno(), "w", encoding="utf-8", closefd=False) as out:
            count = write(generator, sources, form, out)
        warn(f"{counted(count, 'text')} generated, {args.output}")
    warn_of_unknown(generator, warn)


if __name__ == "__main__":
    run(main)
