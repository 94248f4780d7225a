"""Raw corpora of `make_kshot.py`: how a source is named on the command line, its forms, its rows."""

import collections
import hashlib
import os
import re
import unicodedata

from ofrecord_util.errors import UserError

# name: (column names in order, or None for those of the first row; whether the first row is a header)
_TABLES = {
    "tsv": (("text", "label"), False),
    "fdu": (("label", "text"), False),
    "sst2": (("sentence", "label"), True),
    "tsv-header": (None, True),
}
_BY_CLASS = ("lines", "reviews")
_TEXT_NAMES, _LABEL_NAMES = ("text", "sentence", "review"), ("label", "sentiment")

FORMS_HELP = """\
sources: DOMAIN=FORM:FILE[,FILE...]
  tsv         rows text TAB label
  tsv-header  the same under a header row, in either order: text, sentence or review; label or
              sentiment
  sst2        GLUE's SST-2: header sentence TAB label
  fdu         FDU-MTL: rows label TAB text
  lines       one text a line, a class a file: lines:LABEL=FILE,LABEL=FILE
  reviews     multi-domain Amazon pseudo-XML, a class a file: reviews:LABEL=FILE,LABEL=FILE,
              or reviews:FOLDER for FOLDER/positive.review and FOLDER/negative.review
Files are read as UTF-8, or else as Windows-1252 (said in the output). Names of domains, labels and files hold no comma.
All domains must have the same labels.
"""

Source = collections.namedtuple("Source", ("domain", "form", "files"))
Source.__doc__ = """A corpus on the command line: `files` is a list of (path, label), the label None where the rows have it."""

Row = collections.namedtuple("Row", ("text", "label", "spaced", "letters"))
Row.__doc__ = """A sample: its text as written out, label, and the two forms in which texts are compared (see `make_row`)."""

Corpus = collections.namedtuple("Corpus", ("rows", "blank", "files"))
Corpus.__doc__ = """A source's rows in the files' order, the number of rows without text, and what the manifest says of each file."""


class _LettersOnly(dict):
    """Table for str.translate that keeps letters, marks, digits and emoji: what is left when two spellings of a sentence
    (it's / it 's, "so" / `` so '') are one."""

    def __missing__(self, code):
        category = unicodedata.category(chr(code))
        keep = category[0] in "LMN" or (category[0] == "S" and code > 127)
        self[code] = code if keep else None
        return self[code]


_LETTERS_ONLY = _LettersOnly()


def letters(text):
    """The text without white space, punctuation and ASCII symbols."""
    return text.translate(_LETTERS_ONLY)


# Control characters, line and paragraph separators, and the byte-order mark, which a reader would take off the first row.
_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff"
_HAS_CONTROL = re.compile(f"[{_CONTROL}]")
_CONTROL_RUN = re.compile(f"[ {_CONTROL}]+")


def clean(text):
    """The text on one line: each run of control characters (tabs and line ends among them) and the spaces around it is one
    space, none at the ends. Other runs of spaces stay."""
    return _CONTROL_RUN.sub(lambda run: " " if _HAS_CONTROL.search(run.group()) else run.group(), text).strip()


def make_row(text, label):
    """A `Row` of a text as read.

    `spaced` is the text in lower case, its words one space apart; `letters` is that without spaces, punctuation and ASCII
    symbols. Corpora differ in their tokenisation: of SST-2's 872 dev sentences, 394 are sentences of MR by the first form
    and 731 by the second.
    """
    text = clean(text)
    spaced = " ".join(text.lower().split())
    return Row(text, label, spaced, letters(spaced))


def key(row):
    """What makes two rows the same text: the letters, or, where there are none, the characters."""
    return row.letters or row.spaced


def check_name(kind, name, forbidden):
    """UserError where `name` (what `kind` says) is empty, holds control characters or one of `forbidden`, or has spaces at its ends."""
    if not name or name != name.strip() or _HAS_CONTROL.search(name) or any(sign in name for sign in forbidden):
        raise UserError(f"{kind} {name!r:.60}: must be a name without {' '.join(forbidden)}, control characters, and spaces at its ends")


def parse_source(flag, value):
    """A `Source` from DOMAIN=FORM:FILE[,FILE...].

    Args:
        flag: the flag's name, for messages.
        value: str.
    Raises:
        UserError: another shape, an unknown form, or a name that cannot be a folder's.
    """
    domain, equals, rest = value.partition("=")
    form, colon, names = rest.partition(":")
    if not equals or not colon:
        raise UserError(f"{flag} {value}: must be DOMAIN=FORM:FILE[,FILE...]; see --help")
    if form not in _TABLES and form not in _BY_CLASS:
        raise UserError(f"{flag} {value}: unknown form {form!r}; there are {', '.join(sorted([*_TABLES, *_BY_CLASS]))}")
    # The name becomes a folder's, and stands in a comma list of --domains.
    check_name(f"{flag} {value}: domain", domain, ("/", "\\", ",", "="))
    if domain.strip(".") == "":
        raise UserError(f"{flag} {value}: domain {domain!r} cannot be a folder's name")
    found = []
    for name in names.split(","):
        label, path = None, name
        if form in _BY_CLASS:
            label, equals, path = name.partition("=")
            if not equals and form == "reviews" and label:
                found.extend((os.path.join(label, word + ".review"), word) for word in ("positive", "negative"))
                continue
            if not equals:
                raise UserError(f"{flag} {value}: form {form} wants LABEL=FILE, not {name!r}")
            check_name(f"{flag} {value}: label", label, (",",))
        if not path:
            raise UserError(f"{flag} {value}: a file's name is empty")
        found.append((path, label))
    return Source(domain, form, found)


def parse_sources(flag, values):
    """dict of domain -> `Source`, sorted by domain; UserError for a domain given twice (in any case)."""
    sources = {}
    for value in values:
        source = parse_source(flag, value)
        if source.domain.lower() in sources:
            raise UserError(f"{flag} {value}: domain {source.domain!r} is given twice; its files go into one source, commas between")
        sources[source.domain.lower()] = source
    return {source.domain: source for source in sorted(sources.values())}


def _decode(path, data, encoding):
    """(text, name of the encoding, what to tell the user) of a file's bytes."""
    note, tried = "", [encoding] if encoding else ["utf-8", "cp1252"]
    for name in tried:
        try:
            content = data.decode(name)
            content.encode("utf-8")  # some encodings can spell half a character, which UTF-8 cannot
        except UnicodeError as error:
            problem = error
        else:
            if "\0" in content:
                row = content.count("\n", 0, content.index("\0")) + 1
                raise UserError(f"{path}: row {row}: NUL; the file is no text, or UTF-16 (--encoding utf-16)")
            return content[1:] if content.startswith("\ufeff") else content, name, note
        where = "the text is"
        if isinstance(problem, UnicodeDecodeError) and problem.start < len(data):
            start = problem.start
            where = f"row {data.count(10, 0, start) + 1}: byte {start} of the file (0x{data[start]:02x}) is"
        note = f"{where} not UTF-8, read as cp1252"
    raise UserError(f"{path}: {where} not {encoding or 'UTF-8, nor cp1252'}; --encoding names another")


def _lines(content):
    """Numbered lines, from 1. Rows end at LF only: reviews hold U+0085 and the like, at which str.splitlines would cut."""
    lines = content.split("\n")
    if not lines[-1]:
        lines.pop()
    return [(number, line[:-1] if line.endswith("\r") else line) for number, line in enumerate(lines, 1)]


def _header(path, form, cells, columns):
    """The column names that a header row gives. UserError where it is not the form's header."""
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
    """(text, label) of each row of a tab-separated file, None for a row without text."""
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
            raise UserError(f"{path}: row {number}: {len(cells)} columns, a row of form {form} has 2 ({' TAB '.join(columns)})")
        label_column = 0 if columns[0] in _LABEL_NAMES else 1
        text, label = cells[1 - label_column], cells[label_column].strip()
        if number == 1 and label.lower() in _LABEL_NAMES:
            raise UserError(f"{path}: row 1 is a header, form {form} has none; form tsv-header reads it")
        check_name(f"{path}: row {number}: label", label, (",",))
        yield (text, label) if text.strip() else None


def _review_rows(path, content):
    """The text of each <review_text> of the pseudo-XML, which no XML parser takes: its & and < are bare."""
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


def read_source(source, flag, encoding=None, log=print):
    """Reads a corpus.

    Args:
        source: `Source`.
        flag: the flag that named it, for messages.
        encoding: str, or None for UTF-8 and else cp1252.
        log: called with one line a file.
    Returns:
        `Corpus` of at least two classes.
    Raises:
        UserError: names file and row: a file that is missing, cannot be decoded or holds no text; a wrong number of columns;
            fewer than two classes.
    """
    rows, blank, described = [], 0, []
    for path, label in source.files:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); check {flag} {source.domain}") from error
        content, name, note = _decode(path, data, encoding)
        if source.form in _TABLES:
            pairs = _table_rows(path, content, source.form)
        else:
            texts = _review_rows(path, content) if source.form == "reviews" else (line for _, line in _lines(content))
            pairs = ((text, label) for text in texts)
        # clean() may leave nothing of a text that is all control characters
        read = [make_row(*pair) if pair else None for pair in pairs]
        kept = [row for row in read if row and row.text]
        if not kept:
            raise UserError(f"{path}: holds no text of form {source.form}; check {flag} {source.domain}")
        rows += kept
        blank += len(read) - len(kept)
        described.append({"path": path, "sha256": hashlib.sha256(data).hexdigest(), "encoding": name, "rows": len(kept)})
        log(f"{source.domain}: {path}: {len(kept)} rows" + (f"; {note}" if note else ""))
    labels = sorted({row.label for row in rows})
    if len(labels) < 2:
        raise UserError(f"{flag} {source.domain}: all rows have the label {labels[0]!r}; a task has at least two")
    if len(labels) * 2 > len(rows) > 4:
        raise UserError(f"{flag} {source.domain}: {len(labels)} labels in {len(rows)} rows; are text and label the other way round?")
    if len({label.lower() for label in labels}) < len(labels):
        raise UserError(f"{flag} {source.domain}: labels that differ in case only: {', '.join(labels)}")
    return Corpus(rows, blank, described)


def labels_of(corpora):
    """The labels of all domains, sorted. UserError where two domains differ: no task could read the rows together."""
    by_domain = {domain: sorted({row.label for row in corpus.rows}) for domain, corpus in corpora.items()}
    first = min(by_domain)
    for domain, labels in by_domain.items():
        if labels != by_domain[first]:
            raise UserError(
                f"--source {domain} has the labels {', '.join(labels):.60}, {first} {', '.join(by_domain[first]):.60}; write them in "
                "one way (class files take theirs from LABEL=FILE)"
            )
    return by_domain[first]
