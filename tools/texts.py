"""Texts for a snapshot: the flags, arguments and files of the tools that read them."""

import contextlib
import itertools
import os
import re
import stat
import sys

import six

from modeling.checkpoints.snapshot import DONE, find_snapshot
from modeling.cli import interruption
from modeling.cli.errors import UserError
from modeling.cli.flag_kinds import batch_size, positive_float, positive_int
from modeling.cli.flags import add_text_flags
from ofrecord_util.names import is_header, is_number, may_be_header, unlike_the_rest
from ofrecord_util.output_checks import check_output
from ofrecord_util.reading import lines_of
from ofrecord_util.summary import hardly_fits
from ofrecord_util.text_columns import TextOptions, find_columns
from ofrecord_util.text_kinds import AUTO, JSONL, kind_of_stream, parse_rows
from ofrecord_util.text_warnings import unread_columns

_SEPARATORS, _FIRST_LINES = "\t,;", 100  # signs between columns; lines that tell whether a stream is a table
_BREAKS = re.compile("[\t\r\n]+")
_READ = ("input", "query", "domain_scores", "file", "vocab_file")  # flags and arguments that name a file that a tool reads
_WRITTEN = ("output", "predictions", "nbest")  # flags that name a file that a tool writes


def read_lines(stream, name):
    """Yields the lines of a binary stream as str, without line ends. Blank lines at the end are left out.

    Raises:
        UserError: if a line is not UTF-8, or has a NUL or a carriage return in it. The message names the line.
    """
    blank = []
    for number, data in enumerate(interruption.interruptible(lines_of(stream, name, "a text has its own line")), 1):
        data = data.rstrip(b"\r\n")
        try:
            line = six.ensure_text(data, "utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            where = f"{name}: line {number} is not UTF-8 (byte {error.start + 1} of it: 0x{byte:02X})"
            raise UserError(f"{where}; mend it, or convert all of the text to UTF-8") from error
        if not line.strip():
            blank.append(line)
            continue
        if "\0" in line:
            raise UserError(f"{name}: line {number} has a NUL; the input must be text in UTF-8")
        if "\r" in line:
            raise UserError(
                f"{name}: line {number} has a carriage return at character {line.index(chr(13)) + 1}; lines must end with LF or CRLF: "
                "convert them, for example with tr '\\r' '\\n'"
            )
        yield from blank
        blank = []
        yield line


def open_input(path, flag="--input"):
    """(binary stream, name for messages) of a file, or of standard input for None. The stream is closed when the process ends.

    Raises:
        UserError: the file cannot be read.
    """
    if path is None:
        return sys.stdin.buffer, "standard input"
    try:
        with interruption.at_once():
            return open(path, "rb"), path
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be read ({error.strerror})") from error


def decode_argument(text):
    """An argument as text, whatever the encoding of the locale.

    Raises:
        UserError: if it is not UTF-8.
    """
    data = os.fsencode(text)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"argument {text!r} is not UTF-8 (byte {error.start + 1}: 0x{data[error.start]:02X})") from error


def check_first_row(lines, kind, name, texts):
    """Raises a UserError if the first row of a table is a header in words that are not known.

    Args:
        lines: the first lines of the table; the last one may end within quotes.
        kind: TSV or CSV.
        name: of the input, for messages.
        texts: positions of the columns of the texts.
    """
    rows = []
    with contextlib.suppress(UserError):  # `texts_of` reports it when it gets there
        rows.extend(row.cells for row in parse_rows(lines, kind, name) if any(row.cells))
    rows = [cells for cells in rows if len(cells) == len(rows[0])]
    others = [column for column in range(len(rows[0]) if rows else 0) if column not in texts]
    if unlike_the_rest(rows, others):
        raise UserError(
            f"{name}: row 1 looks like a header ({', '.join(rows[0]):.100}), which would be read as a text: give --text_column the name of "
            "a column, not its number, or remove the row"
        )


def texts_of(lines, pair, name, options=None, header=None, warn=None):
    """Yields the text of each row, or two texts for text pairs.

    The kind is that of `options`, or follows from the first lines: JSON lines, comma-separated text with a header, or lines of text. Of a
    line of text with tabs only the first column is read (the first two for text pairs), unless there is a header.

    Args:
        lines: iterable of str.
        pair: whether the task has text pairs.
        name: of the input, for messages.
        options: `TextOptions`, or None.
        header: False if the first line is not a header in any case.
        warn: called with one line if the first line is a text that may be the name of a column, and with one if there are columns that
            are not read and have no name, a warning unless they may be the domain and the label; None to say nothing.
    Raises:
        UserError: if a row does not fit the kind, has no second text for text pairs, is a header in the middle or in words that are not
            known, or begins with an index; or if the lines are a table without a header. The message names it.
    """
    options, lines = options or TextOptions(), iter(lines)
    head = list(itertools.islice(lines, 1))
    if not head:
        return
    if any(sign in head[0] for sign in _SEPARATORS) and not head[0].startswith("{"):
        head += itertools.islice(lines, _FIRST_LINES - 1)
    kind = options.format
    if kind == AUTO:
        kind = kind_of_stream(head[0], name, bool(options.columns()), head if header is None else ())
    columns, names, roles, blank = None, None, ("text", "pair") if pair else ("text",), True
    numbers, noted, warned = 0, False, False
    for row in parse_rows(itertools.chain(head, lines), kind, name):
        if row.number == 1:
            columns = find_columns(row, kind, options, name, roles, header)
            if kind != JSONL and header is None and not (columns and columns.header):
                check_first_row(head, kind, name, list(columns.places.values()) if columns else range(len(roles)))
            if columns is not None and pair and not columns.pair:
                raise UserError(f"{name}: {row.place(kind)}: no column of second texts, which the task needs; --pair_column names it")
            if columns is not None and columns.header:
                names = row.cells
                continue
        if columns is not None:
            if columns.header and row.cells == names:
                raise UserError(f"{name}: {row.place(kind)} is the header again, which would be read as a text; remove it")
            cells = columns.pick(row, name) if any(row.cells) else ["", ""]  # a blank line is an empty text, as without a header
        else:
            cells = row.cells
            line = cells[0].strip() if len(cells) == 1 else ""
            if blank and row.number > 1 and line and options.format == AUTO and kind_of_stream(line, name) == JSONL:
                raise UserError(f"{name}: line {row.line} is JSON ({line!r:.60}): remove the blank lines before it")
            blank = blank and not any(cells)
            if row.number == 1 and warn is not None and may_be_header(line):
                warn(f"warning: {name}: line 1 is read as a text ({line!r}): remove it if it is the name of the column")
            numbers += row.number <= 2 and len(cells) > 1 + pair and is_number(cells[0])
            if numbers == row.number == 2:
                raise UserError(
                    f"{name}: lines 1 and 2 begin with a number ({cells[0].strip():.20}) and a tab: an index would be read as a text; "
                    "remove the column, or name that of the texts with --text_column"
                )
            if is_header(cells):
                raise UserError(
                    f"{name}: line {row.line} is a header ({' TAB '.join(cells):.90}), which would be read as a text; remove it"
                )
            if len(cells) > len(roles) and warn is not None:
                first, place = "the first two are the texts" if pair else "the first one is the text", f"{name}: line {row.line}"
                if len(cells) != len(roles) + 2 and not warned:
                    warn(unread_columns(place, len(cells), first))
                    warned = True
                elif not noted and not warned:  # training text has a domain and a label too, and is often predicted
                    warn(f"{place} has {len(cells)} columns, as training text: {first}, the others are not read, in any row")
                noted = True
            if pair and len(cells) < 2:
                raise UserError(
                    f"{name}: line {row.line} has 1 column, but a task of text pairs needs two texts separated by a tab: {cells[0][:40]!r}"
                )
        yield (cells[0], cells[1]) if pair else cells[0] if cells else ""


def one_line(text):
    """A text, or the two of a pair with a tab between, without its tabs and line ends: an argument may have several lines."""
    return "\t".join(_BREAKS.sub(" ", part) for part in (text if isinstance(text, tuple) else (text,)))


def warn_of_unknown(predictor, warn):
    """Warns with one line if many tokens of the texts are [UNK]."""
    if hardly_fits(predictor.unknown, predictor.tokens):
        share = 100 * predictor.unknown / predictor.tokens
        warn(f"warning: {share:.1f} % of the tokens are [UNK]: the model's vocabulary hardly fits these texts")


def prepare_output(parser, remedy):
    """Prepares standard output for the result of a tool: UTF-8 as a file has, except on a terminal, which has its own encoding.

    Raises:
        UserError: it is closed; the message ends with `remedy`.
    """
    parser.check_output(remedy)
    if hasattr(sys.stdout, "reconfigure") and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")


def _file_of_standard_input():
    """[path] if standard input is a regular file (`< reviews.txt`), else []."""
    with contextlib.suppress(OSError):  # it is closed
        if stat.S_ISREG(os.fstat(0).st_mode):
            return [os.path.realpath("/proc/self/fd/0")]
    return []


def check_outputs(args, snapshot):
    """Checks before the work that the files of --output, --predictions and --nbest can be written, and that none of them would replace a
    file that the tool reads, also as standard input, a file of the snapshot or of a run, or another output.

    Args:
        args: the flags of a tool.
        snapshot: its snapshot, or the folder of its run.
    Raises:
        UserError: one cannot be written, or would replace another file.
    """
    given = vars(args)
    used = [*(given[name] for name in _READ if given.get(name) is not None), *_file_of_standard_input()]
    folder = find_snapshot(snapshot)
    if os.path.isfile(os.path.join(folder, DONE)):  # else the tool says what the folder is instead
        used.append(folder)
    for name in _WRITTEN:
        path = given.get(name)
        if path is not None:
            check_output(path, f"--{name}", others=used)
            used.append(path)


def add_model_flags(parser, words=False, has_input=True):
    """Adds the flags of a tool that reads texts for a snapshot. With `words`, the input has one word per line. Without `has_input`, the
    tool has flags of its own for its files."""
    parser.add_argument(
        "--model_load_dir", required=True, metavar="SNAPSHOT", help="snapshot of a training script, or the folder of its run"
    )
    if words:
        parser.add_argument("--input", metavar="FILE", help="file with one word per line, and a blank line after each sentence")
    elif has_input:
        parser.add_argument("--input", metavar="FILE", help="file with one text per line, or a table")
        add_text_flags(parser, ("text_format", "text_column", "pair_column"))
    parser.add_argument(
        "--batch_size",
        type=batch_size,
        default=32,
        help="number of texts per batch on a GPU; on a CPU, the size of the model determines it",
    )
    parser.add_argument("--seq_length", type=positive_int, help="maximum number of tokens per text (default: as in training)")
    parser.add_argument("--vocab_file", help="vocabulary (default: the one of the snapshot)")
    parser.add_argument(
        "--memory_limit", type=positive_float, metavar="GB", help="GB of memory to use on a CPU (default: nine tenths of the free memory)"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="device for the computation")
