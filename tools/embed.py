"""Computes the vectors of texts with any snapshot or converted encoder, and finds the texts that are most similar to others.

    python3 tools/embed.py --model_load_dir SNAPSHOT --input reviews.txt --output vectors.npy
    python3 tools/embed.py --model_load_dir SNAPSHOT --input reviews.txt --neighbours 5 "it broke"
    python3 tools/embed.py --model_load_dir SNAPSHOT --input reviews.txt --neighbours 5 \\
        --query questions.txt --format json --output vectors.npy
    cat reviews.txt | python3 tools/embed.py --model_load_dir SNAPSHOT --layer 4 --output out.npy

The texts of --input, or of standard input, are read in the same way as by tools/predict.py. --output has one vector per text, in the same
order, float32 [N, H]. The file appears when it is complete. --neighbours prints, for each query, the K texts with the greatest cosine
similarity, the nearest first: the query, the similarity, the position of the text (from 0, as in the array) and the text, separated by
tabs, or one JSON object per query. Texts and vectors are used as they come, so a large file needs little memory; those of the queries are
all in memory.
"""

if not __package__:
    import _root  # noqa: F401

import contextlib
import json
import sys

import numpy as np
from tqdm import tqdm

from modeling.bert.config import MEAN
from modeling.cli import process
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import positive_int
from modeling.embedder import REDUCTIONS, Embedder, Neighbours
from ofrecord_util.escaping import counted, for_json, for_terminal, say
from ofrecord_util.files import replacing
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_kinds import TSV
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

_HEADER = 128  # bytes of the header of a .npy file, enough for any number of rows


class NpyRows:
    """A .npy file of float32 [N, H] whose rows are written as they come. N is written last, by `finish`.

    Args:
        file: open for writing bytes, at its beginning.
        width: H.
    Attributes:
        count: rows so far.
    """

    def __init__(self, file, width):
        self._file, self._width, self.count = file, width, 0
        file.write(self._header())

    def _header(self):
        """Version 1.0 of the format (numpy.lib.format): magic, length of the rest, a dict as text, blanks, a line end."""
        text = repr({"descr": "<f4", "fortran_order": False, "shape": (self.count, self._width)})
        rest = text.ljust(_HEADER - 11).encode("latin-1") + b"\n"
        return b"\x93NUMPY\x01\x00" + len(rest).to_bytes(2, "little") + rest

    def add(self, rows):
        """Writes the next rows, float32 [n, H]."""
        self._file.write(np.ascontiguousarray(rows, "<f4").tobytes())
        self.count += len(rows)

    def finish(self):
        """Writes the number of rows."""
        self._file.seek(0)
        self._file.write(self._header())


@contextlib.contextmanager
def npy_rows(path, width):
    """Yields the `NpyRows` of a file that appears when the block ends, or None if `path` is None."""
    if path is None:
        yield None
        return
    with replacing(path) as file:
        if isinstance(file.name, int) or not file.seekable():
            raise UserError(f"--output {path}: the number of vectors is written last, so it must be a file on disk")
        rows = NpyRows(file, width)
        yield rows
        rows.finish()


def embed(embedder, texts, rows=None, neighbours=None):
    """Computes the vectors of texts, and hands them to the file and to the search.

    Args:
        embedder: `Embedder`.
        texts: iterable.
        rows: `NpyRows` or None.
        neighbours: `Neighbours` or None.
    Returns:
        (number of texts, dict of position -> text with the neighbours' texts).
    """
    waiting, near, count = [], {}, 0

    def remembered():
        for text in texts:
            waiting.append(text)
            yield text

    with tqdm(desc="embed", unit="text", disable=None, delay=1, leave=False) as bar:
        for vectors in embedder(remembered()):
            if rows is not None:
                rows.add(vectors)
            if neighbours is not None:
                neighbours.add(vectors)
                known, first = near, count
                near = {row: known[row] if row < first else waiting[row - first] for row in np.unique(neighbours.rows).tolist()}
            waiting.clear()
            count += len(vectors)
            bar.update(len(vectors))
    return count, near


def lines_of_neighbours(queries, neighbours, texts, form):
    """Yields the lines of the result.

    Args:
        queries: list of texts.
        neighbours: `Neighbours`.
        texts: dict of position -> text.
        form: "tsv" or "json".
    """
    for query, rows, similarities in zip(queries, neighbours.rows.tolist(), neighbours.similarities.tolist()):
        found = list(zip(rows, similarities))
        if form == "json":
            near = [{"row": row, "similarity": similarity, "text": texts[row]} for row, similarity in found]
            yield json.dumps({"text": query, "neighbours": near}, ensure_ascii=False)
        else:
            for row, similarity in found:
                yield "\t".join([one_line(query), f"{similarity:.6f}", str(row), one_line(texts[row])])


def check_flags(args):
    """Raises a UserError where the flags contradict each other."""
    if args.output is None and args.neighbours is None:
        raise UserError("there is nothing to write: give --output FILE, --neighbours K, or both")
    given = " and ".join([name for name, value in (("texts", args.text), ("--query", args.query)) if value])
    if args.text and args.query:
        raise UserError("set either texts or --query, not both")
    if args.neighbours is None and given:
        raise UserError(f"{given} are compared with the texts of --input: give --neighbours K too")
    if args.neighbours is not None and not given:
        raise UserError("--neighbours: give texts, or --query FILE, to compare with those of --input")
    if process.is_closed(0) and not args.input:
        raise UserError("standard input is closed: give --input FILE")


def add_vector_flags(parser):
    """Adds the flags that say how the states of a text become its vector."""
    parser.add_argument("--layer", type=positive_int, help="encoder layer, from 1, whose states are used (default: the last one)")
    parser.add_argument(
        "--reduction",
        choices=REDUCTIONS,
        default=MEAN,
        help="the vector of a text: mean or max of its states, cls = the state at [CLS], pooler = the pooler's output for it; "
        "sqrt_length, sha and 2ha as in MEAD (docs/models.md)",
    )


def main():
    parser = Parser(may_be_empty=("text",), description=__doc__)
    parser.add_argument("text", nargs="*", help="queries of --neighbours")
    add_model_flags(parser)
    parser.add_argument("--output", metavar="FILE", help="file for the vectors, .npy")
    add_vector_flags(parser)
    parser.add_argument("--neighbours", type=positive_int, metavar="K", help="print the K most similar texts of each query")
    parser.add_argument("--query", metavar="FILE", help="queries of --neighbours: one text per line, or a table")
    parser.add_argument("--format", choices=("tsv", "json"), default="tsv", help="format of the lines of --neighbours")
    args = parser.parse_args()
    check_flags(args)
    if args.neighbours is not None:
        prepare_output(parser, "redirect it to a file")
    check_outputs(args, args.model_load_dir)

    def warn(line):
        say(line, sys.stderr)

    stream, name = open_input(args.input)
    query_stream = open_input(args.query, "--query") if args.query else None
    arguments = [decode_argument(text) for text in args.text]
    settings = {key: getattr(args, key) for key in ("device", "batch_size", "seq_length", "vocab_file", "memory_limit")}
    announce = warn if args.output is not None else None
    embedder = Embedder(args.model_load_dir, args.layer, args.reduction, log=warn, announce=announce, **settings)
    options, pair = TextOptions.from_flags(vars(args)), embedder.pair
    neighbours, queries = None, []
    if query_stream:
        queries = list(texts_of(read_lines(*query_stream), pair, args.query, options, warn=warn))
    elif arguments:  # whole texts, with their tabs; those of a pair are in one argument
        queries = list(texts_of(arguments, True, "argument", TextOptions(TSV), header=False)) if pair else arguments
    if args.neighbours is not None:
        if not queries:
            raise UserError(f"--query {args.query}: there is no text in it")
        neighbours = Neighbours(np.concatenate(list(embedder(queries))), args.neighbours)
    texts = texts_of(read_lines(stream, name), pair, name, options, warn=warn)
    with npy_rows(args.output, embedder.width) as rows:
        count, near = embed(embedder, texts, rows, neighbours)
        if not count:
            raise UserError(f"{name}: there is no text in it")
    if neighbours is not None:
        shown = (for_json if args.format == "json" else for_terminal) if sys.stdout.isatty() else str
        for line in lines_of_neighbours(queries, neighbours, near, args.format):
            sys.stdout.write("\t".join(map(shown, line.split("\t"))) + "\n")
    if args.output is not None:
        warn(f"{counted(count, 'vector')} of {embedder.width} numbers, {args.output}")
    warn_of_unknown(embedder, warn)


if __name__ == "__main__":
    run(main)
