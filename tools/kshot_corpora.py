"""Reads the raw corpora of `make_kshot.py`: the sources on the command line, their forms and their rows."""

import codecs
import collections
import dataclasses
import hashlib
import html
import os
import re
import unicodedata

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted, say
from ofrecord_util.names import spelled, split_by_look
from ofrecord_util.reading import TEXT_LIMIT, has_utf8, read_bytes
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import check_line_ends, rows_of_text
from ofrecord_util.text_kinds import CSV, JSONL, TSV

# name: (column names in order, or None if the first row has them; whether the first row is a header)
_TABLES = {
    "tsv": (("text", "label"), False),
    "fdu": (("label", "text"), False),
    "sst2": (("sentence", "label"), True),
    "tsv-header": (None, True),
}
_OF_ANY_KIND = {"csv": CSV, "jsonl": JSONL}
_BY_CLASS = ("lines", "reviews")
_TEXT_NAMES, _LABEL_NAMES = ("text", "sentence", "review"), ("label", "sentiment")

FORMS_HELP = """\
sources: DOMAIN=FORM:FILE[,FILE...]
  tsv         rows text TAB label
  tsv-header  the same with a header row, columns in any order: text, sentence or review; label
              or sentiment
  csv         comma-separated, with double quotes: a header that names the columns, or text,label
  jsonl       one JSON object per line
  sst2        GLUE's SST-2: header sentence TAB label
  fdu         FDU-MTL: rows label TAB text, UTF-8 with single bytes of Windows-1252
  lines       one text per line, one class per file: lines:LABEL=FILE,LABEL=FILE
  reviews     multi-domain Amazon pseudo-XML, one class per file: reviews:LABEL=FILE,LABEL=FILE,
              or reviews:FOLDER for FOLDER/positive.review and FOLDER/negative.review
In csv, jsonl and tsv-header, --text_column and --label_column choose the columns. Files are read as
UTF-8, or as Windows-1252 if they have no UTF-8 (the output says so). Names of domains, labels and
files must not contain a comma. All domains must have the same labels.
"""

Source = collections.namedtuple("Source", ("domain", "form", "files", "options"), defaults=(TextOptions(),))
Source.__doc__ = """A corpus on the command line. `files` is a list of (path, label). The label is None if each row has its own.
`options` are `TextOptions` with the columns of text and label."""

Row = collections.namedtuple("Row", ("text", "label", "spaced", "letters"))
Row.__doc__ = """A sample: its text for the output, its label, and the two forms for comparing texts (see `make_row`)."""

Corpus = collections.namedtuple("Corpus", ("rows", "blank", "files"))
Corpus.__doc__ = (
    """The rows of a source in the order of the files, the number of rows without text, and the manifest's entry for each file."""
)


class _LettersOnly(dict):
    """Table for str.translate that keeps letters, marks, digits and emoji. Two spellings of a sentence (it's / it 's,
    "so" / `` so '') become equal."""

    def __missing__(self, code):
        category = unicodedata.category(chr(code))
        keep = category[0] in "LMN" or (category[0] == "S" and code > 127)
        self[code] = code if keep else None
        return self[code]


_LETTERS_ONLY = _LettersOnly()


def letters(text):
    """Returns the text without white space, punctuation and ASCII symbols."""
    return text.translate(_LETTERS_ONLY)


# Control characters, line and paragraph separators, and the byte-order mark, which a reader would remove from the first row.
_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff"
_HAS_CONTROL = re.compile(f"[{_CONTROL}]")
_CONTROL_RUN = re.compile(f"[ {_CONTROL}]+")


def clean(text):
    """Returns the text on one line. Each run of control characters (including tabs and line ends), with the spaces around
    it, becomes one space. Spaces at the ends are removed. Other runs of spaces stay."""
    return _CONTROL_RUN.sub(lambda run: " " if _HAS_CONTROL.search(run.group()) else run.group(), text).strip()


_TAG = re.compile("</?[a-zA-Z][^<>]{0,200}>")


def _plain(text):
    """A text for comparisons: HTML entities (also entities of entities, `&amp;quot;`) and tags are resolved, characters are composed."""
    if "&" in text or "<" in text:
        for _ in range(3):
            resolved = html.unescape(text)
            if resolved == text:
                break
            text = resolved
        text = _TAG.sub(" ", text)
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def make_row(text, label):
    """Makes the `Row` of a text.

    `spaced` is the text in lower case with one space between words, without HTML entities and tags, and with composed
    accents. `letters` is `spaced` without spaces, punctuation and ASCII symbols. The second form is needed because corpora
    differ in their tokenisation: of the 872 dev sentences of SST-2, 394 are in MR by the first form and 731 by the second.
    """
    text = clean(text)
    spaced = " ".join(_plain(text).lower().split())
    return Row(text, label, spaced, letters(spaced))


def key(row):
    """Returns the key that is equal for rows with the same text: the letters or, without letters, all characters."""
    return row.letters or row.spaced


def check_name(kind, name, forbidden):
    """Raises a UserError if `name` is empty, has control characters or one of `forbidden`, or has spaces at its ends."""
    if not name or name != name.strip() or _HAS_CONTROL.search(name) or any(sign in name for sign in forbidden):
        raise UserError(f"{kind} {name!r:.60}: must be a name without {' '.join(forbidden)}, control characters, and spaces at its ends")


def parse_source(flag, value):
    """Parses DOMAIN=FORM:FILE[,FILE...] into a `Source`.

    Args:
        flag: name of the flag, for messages.
        value: str.
    Raises:
        UserError: if the syntax is wrong, the form is unknown, or a name cannot be the name of a folder.
    """
    domain, equals, rest = value.partition("=")
    form, colon, names = rest.partition(":")
    if not equals or not colon:
        raise UserError(f"{flag} {value}: must be DOMAIN=FORM:FILE[,FILE...]; see --help")
    forms = [*_TABLES, *_OF_ANY_KIND, *_BY_CLASS]
    if form not in forms:
        raise UserError(f"{flag} {value}: unknown form {form!r}; there are {', '.join(sorted(forms))}")
    # The name becomes the name of a folder and an item in the comma-separated list of --domains.
    check_name(f"{flag} {value}: domain", domain, ("/", "\\", ",", "="))
    if domain.strip(".") == "":
        raise UserError(f"{flag} {value}: domain {domain!r} cannot be the name of a folder")
    found = []
    for name in names.split(","):
        label, path = None, name
        if form in _BY_CLASS:
            label, equals, path = name.partition("=")
            if not equals and form == "reviews" and label:
                found.extend((os.path.join(label, word + ".review"), word) for word in ("positive", "negative"))
                continue
            if not equals:
                raise UserError(f"{flag} {value}: form {form} needs LABEL=FILE, not {name!r}")
            check_name(f"{flag} {value}: label", label, (",",))
        if not path:
            raise UserError(f"{flag} {value}: a file's name is empty")
        found.append((path, label))
    return Source(domain, form, found)


def parse_sources(flag, values, options=None):
    """Returns a dict of domain -> `Source` with these `TextOptions`, sorted by domain. Raises a UserError if a domain is repeated (in any
    case)."""
    sources = {}
    for value in values:
        source = parse_source(flag, value)._replace(options=options or TextOptions())
        if source.domain.lower() in sources:
            raise UserError(f"{flag} {value}: domain {source.domain!r} is repeated; list all its files in one source, separated by commas")
        sources[source.domain.lower()] = source
    return {source.domain: source for source in sorted(sources.values())}


def _stray_byte(error):
    """Decodes the bytes of a UnicodeDecodeError of UTF-8 as cp1252."""
    try:
        return error.object[error.start : error.end].decode("cp1252"), error.end
    except UnicodeDecodeError:
        raise error from None


codecs.register_error("cp1252-bytes", _stray_byte)
_MIXED = "UTF-8 with single bytes of cp1252"


def _decode(path, data, encoding, mixed=False):
    """Returns (text, name of the encoding, note for the user) for the bytes of a file. In a `mixed` file that has UTF-8, only the bytes
    that are not UTF-8 are read as cp1252."""
    note, tried = "", [encoding] if encoding else ["utf-8", *([_MIXED] if mixed and has_utf8(data) else []), "cp1252"]
    for name in tried:
        try:
            content = data.decode("utf-8", "cp1252-bytes") if name == _MIXED else data.decode(name)
            content.encode("utf-8")  # some encodings can encode half a character, but UTF-8 cannot
        except UnicodeError as error:
            problem = error
        else:
            if "\0" in content:
                row = content.count("\n", 0, content.index("\0")) + 1
                raise UserError(f"{path}: row {row}: NUL; the file is not text, or is UTF-16 (--encoding utf-16)")
            return content[1:] if content.startswith("\ufeff") else content, name, note
        where = "the text is"
        if isinstance(problem, UnicodeDecodeError) and problem.start < len(data):
            start = problem.start
            where = f"row {data.count(10, 0, start) + 1}: byte {start} of the file (0x{data[start]:02x}) is"
        if name == "utf-8" and _MIXED in tried:
            note = f"{where} not UTF-8; such bytes are read as cp1252"
            continue
        if name in ("utf-8", _MIXED) and encoding is None and has_utf8(data):
            # as cp1252, each character outside of ASCII would become two or three others
            raise UserError(
                f"{path}: {where} not UTF-8, but other rows are; mend this row (iconv -c -f utf-8 -t utf-8 leaves such bytes out), or set "
                "--encoding cp1252 if the whole file has that encoding"
            )
        note = f"{where} not UTF-8, read as cp1252"
    raise UserError(f"{path}: {where} not {encoding or 'UTF-8, nor cp1252'}; --encoding names another")


def _lines(content):
    """Returns the lines with their numbers, from 1. Rows end at LF only. str.splitlines would also split at U+0085."""
    lines = content.split("\n")
    if not lines[-1]:
        lines.pop()
    return [(number, line[:-1] if line.endswith("\r") else line) for number, line in enumerate(lines, 1)]


def _header(path, form, cells, columns):
    """Returns the column names of a header row. Raises a UserError if the header does not fit the form."""
    names = tuple(cell.strip().lower() for cell in cells)
    if columns is not None:
        good, wanted = names == columns, " TAB ".join(columns)
    else:
        good = len(names) == 2 and any(a in _TEXT_NAMES and b in _LABEL_NAMES for a, b in (names, names[::-1]))
        wanted = f"a text ({', '.join(_TEXT_NAMES)}) and a label ({', '.join(_LABEL_NAMES)}) column"
    if not good:
        raise UserError(f"{path}: row 1: the header of form {form} is {wanted}, not {' TAB '.join(cells)!r:.100}")
    return names


def _table_rows(path, content, form):
    """Yields (text, label) for each row of a tab-separated file, or None for a row without text."""
    columns, has_header = _TABLES[form]
    for number, line in _lines(content):
        cells = line.split("\t")
        if has_header and number == 1:
            columns = _header(path, form, cells, columns)
            continue
        if not line.strip():
            yield None
            continue
        if len(cells) != 2:
            raise UserError(
                f"{path}: row {number}: {counted(len(cells), 'column')}, but a row of form {form} has 2 ({' TAB '.join(columns)})"
            )
        label_column = 0 if columns[0] in _LABEL_NAMES else 1
        text, label = cells[1 - label_column], cells[label_column].strip()
        if number == 1 and label.lower() in _LABEL_NAMES:
            raise UserError(f"{path}: row 1 is a header, but form {form} has none; use form tsv-header")
        check_name(f"{path}: row {number}: label", label, (",",))
        yield (text, label) if text.strip() else None


def _rows_of_kind(path, content, form, options):
    """Yields (text, label) for each row of a file of any kind, or None for a row without text."""
    kind = _OF_ANY_KIND.get(form, TSV)
    table = rows_of_text(content, path, dataclasses.replace(options, format=kind), ("text", "label"))
    for place, cells in table.rows:
        if len(cells) != 2:
            raise UserError(
                f"{path}: {place}: {counted(len(cells), 'column')}, but without a header, a row of form {form} has 2 (text, label)"
            )
        check_name(f"{path}: {place}: label", cells[1].strip(), (",",))
        yield (cells[0], cells[1].strip()) if cells[0].strip() else None


def _review_rows(path, content):
    """Yields the text of each <review_text>. The files are not XML, because & and < are not escaped."""
    start, end, position, number = "<review_text>", "</review_text>", 0, 0
    while True:
        begin = content.find(start, position)
        if begin < 0:
            return
        number += 1
        position = content.find(end, begin)
        if position < 0 or content.find(start, begin + 1, position) >= 0:
            raise UserError(f"{path}: row {content.count(chr(10), 0, begin) + 1}: {start} of review {number} has no {end}")
        yield content[begin + len(start) : position]


def read_source(source, flag, encoding=None, log=say):
    """Reads a corpus.

    Args:
        source: `Source`.
        flag: name of the flag, for messages.
        encoding: str, or None for UTF-8 with cp1252 as the fallback.
        log: called with one line per file.
    Returns:
        `Corpus` of at least two classes.
    Raises:
        UserError: if a file is missing, cannot be decoded or has no text, a row has a wrong number of columns, or there are
            fewer than two classes. The message names the file and the row.
    """
    rows, blank, described = [], 0, []
    for path, label in source.files:
        data = read_bytes(path, f"check {flag} {source.domain}", TEXT_LIMIT)
        content, name, note = _decode(path, data, encoding, mixed=source.form == "fdu")
        check_line_ends(content, path)
        if source.form in _OF_ANY_KIND or (source.form == "tsv-header" and source.options.columns()):
            pairs = _rows_of_kind(path, content, source.form, source.options)
        elif source.form in _TABLES:
            pairs = _table_rows(path, content, source.form)
        else:
            texts = _review_rows(path, content) if source.form == "reviews" else (line for _, line in _lines(content))
            pairs = ((text, label) for text in texts)
        # a text of control characters only is empty after clean()
        read = [make_row(*pair) if pair else None for pair in pairs]
        kept = [row for row in read if row and row.text]
        if not kept:
            raise UserError(f"{path}: has no text of form {source.form}; check {flag} {source.domain}")
        rows += kept
        blank += len(read) - len(kept)
        described.append({"path": path, "sha256": hashlib.sha256(data).hexdigest(), "encoding": name, "rows": len(kept)})
        log(f"{source.domain}: {path}: {len(kept)} rows" + (f"; {note}" if note else ""))
    labels = sorted({row.label for row in rows})
    if len(labels) < 2:
        raise UserError(f"{flag} {source.domain}: all rows have the label {labels[0]!r}, but a task needs at least two labels")
    if len(labels) * 2 > len(rows) > 4:
        raise UserError(f"{flag} {source.domain}: {len(labels)} labels in {len(rows)} rows; check whether text and label are swapped")
    alike = split_by_look(labels)
    if alike is not None:
        one, other = map(spelled, alike)
        raise UserError(f"{flag} {source.domain}: the labels {one} and {other} look the same; write both in the same way")
    if len({label.lower() for label in labels}) < len(labels):
        raise UserError(f"{flag} {source.domain}: these labels differ in case only: {', '.join(labels)}")
    return Corpus(rows, blank, described)


def labels_of(corpora):
    """Returns the sorted labels of all domains. Raises a UserError if two domains have different labels."""
    by_domain = {domain: sorted({row.label for row in corpus.rows}) for domain, corpus in corpora.items()}
    first = min(by_domain)
    for domain, labels in by_domain.items():
        if labels != by_domain[first]:
            raise UserError(
                f"--source {domain} has the labels {', '.join(labels):.60}, {first} has {', '.join(by_domain[first]):.60}; use "
                "the same labels (the labels of class files come from LABEL=FILE)"
            )
    return by_domain[first]
