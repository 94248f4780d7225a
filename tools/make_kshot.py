"""Makes the few-shot layout (`kshot`) or the Meta-KD split (`portions`) from raw corpora, without leaks into the test rows.

    python3 tools/make_kshot.py kshot --group g1 --k 16 --seeds 42 13 --output_dir data/g1-raw --test_cap 2000 \\
        --source SST-2=sst2:raw/SST-2/train.tsv MR=lines:1=raw/MR/rt-polarity.pos,0=raw/MR/rt-polarity.neg \\
        CR=lines:1=raw/CR/custrev.pos,0=raw/CR/custrev.neg --test_source SST-2=sst2:raw/SST-2/dev.tsv

    python3 tools/make_kshot.py portions --train 6480 --dev 720 --test 800 --output_dir data/SENTI-raw \\
        --source books=reviews:raw/books dvd=reviews:raw/dvd electronics=reviews:raw/electronics kitchen=reviews:raw/kitchen

A source is DOMAIN=FORM:FILE[,FILE...]; `--help` lists the forms. Written are rows `text TAB domain TAB label`:

    kshot     OUT/k-shot-cross/GROUP/K-SEED/{train,dev}.csv (all domains), OUT/k-shot-single/DOMAIN/K-SEED/{train,dev,test}.csv
    portions  OUT/{train,dev,test}.csv

and OUT/make_kshot.json: the flags, the sources' digests and the counts. A draw depends on the seed, the domain's name and the
rows, not on the order of rows or arguments, nor on a random generator: rows are ranked by SHA-256.
"""
import argparse
import collections
import hashlib
import os
import re
import shutil
import sys
import unicodedata

if not __package__:  # run as a file: Python put tools/ on the path, where the project's root belongs
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from tqdm import tqdm

from modeling.errors import UserError, run
from ofrecord_util import files

MANIFEST = "make_kshot.json"
SPLITS = ("train", "dev", "test")
EQUAL, CONTAINS, CONTAINED = "equal", "contains", "contained"

# A test row of fewer words is part of too many sentences to say anything; it counts for equality only.
_LEAST_WORDS = 3

# What --overwrite may replace: what this tool writes, and the records that the phases put beside it.
_OWN_ENTRIES = {
    "kshot": {MANIFEST, "k-shot-cross", "k-shot-single"},
    "portions": {MANIFEST, "ofrecord", *(split + ".csv" for split in SPLITS)},
}

# name: (column names in order, or None for those of the first row; whether the first row is a header)
_TABLES = {
    "tsv": (("text", "label"), False),
    "fdu": (("label", "text"), False),
    "sst2": (("sentence", "label"), True),
    "tsv-header": (None, True),
}
_BY_CLASS = ("lines", "reviews")
_TEXT_NAMES, _LABEL_NAMES = ("text", "sentence", "review"), ("label", "sentiment")

_FORMS_HELP = """\
sources: DOMAIN=FORM:FILE[,FILE...]
  tsv         rows text TAB label
  tsv-header  the same under a header row, in either order: text, sentence or review; label or sentiment
  sst2        GLUE's SST-2: header sentence TAB label
  fdu         FDU-MTL: rows label TAB text
  lines       one text a line, a class a file: lines:LABEL=FILE,LABEL=FILE
  reviews     multi-domain Amazon pseudo-XML, a class a file: reviews:LABEL=FILE,LABEL=FILE, or reviews:FOLDER for
              FOLDER/positive.review and FOLDER/negative.review
Files are read as UTF-8, or else as Windows-1252 (said in the output). Names of domains, labels and files hold no comma.
All domains must have the same labels.
"""

Source = collections.namedtuple("Source", ("domain", "form", "files"))
Source.__doc__ = """A corpus on the command line: `files` is a list of (path, label), the label None where the rows have it."""

Row = collections.namedtuple("Row", ("text", "label", "spaced", "letters"))
Row.__doc__ = """A sample: its text as written out, label, and the two forms in which texts are compared (see `make_row`)."""

Corpus = collections.namedtuple("Corpus", ("rows", "blank", "files"))
Corpus.__doc__ = """A source's rows in the files' order, the number of rows without text, and what the manifest says of each file."""


# Text


class _LettersOnly(dict):
    """Table for str.translate that keeps letters, marks, digits and emoji: what is left when two spellings of a sentence
    (it's / it 's, "so" / `` so '') are one."""

    def __missing__(self, code):
        category = unicodedata.category(chr(code))
        keep = category[0] in "LMN" or (category[0] == "S" and code > 127)
        self[code] = code if keep else None
        return self[code]


_LETTERS_ONLY = _LettersOnly()

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
    return Row(text, label, spaced, spaced.translate(_LETTERS_ONLY))


def key(row):
    """What makes two rows the same text: the letters, or, where there are none, the characters."""
    return row.letters or row.spaced


def rank(*parts):
    """Bytes that order things at random, by their names alone: SHA-256 of the parts (str or int)."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8")).digest()


# The command line's small languages


def _check_name(kind, name, forbidden):
    if not name or name != name.strip() or _HAS_CONTROL.search(name) or any(sign in name for sign in forbidden):
        raise UserError(
            f"{kind} {name!r:.60}: must be a name without {' '.join(forbidden)}, control characters, and spaces at its ends"
        )


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
    _check_name(f"{flag} {value}: domain", domain, ("/", "\\", ",", "="))
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
            _check_name(f"{flag} {value}: label", label, (",",))
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


def parse_by_domain(flag, values, domains, convert):
    """dict of domain -> value (None where none is given) from words VALUE and DOMAIN=VALUE.

    Args:
        convert: function of the word; ValueError or LookupError where it is no value.
    Raises:
        UserError: an unknown domain, a bad value, or two values for one domain.
    """
    found = {}
    for word in values or ():
        domain, equals, value = word.rpartition("=")
        domain = domain if equals else None
        if domain is not None and domain not in domains:
            raise UserError(f"{flag} {word}: no --source is named {domain!r}; there are {', '.join(domains)}")
        if domain in found:
            raise UserError(f"{flag} {word}: {'all domains have' if domain is None else domain + ' has'} a value already")
        try:
            found[domain] = convert(value)
        except (ValueError, LookupError) as error:
            raise UserError(f"{flag} {word}: {error}") from error
    return {domain: found.get(domain, found.get(None)) for domain in domains}


def _positive(word):
    if not re.match(r"[0-9]+\Z", word) or int(word) < 1:
        raise ValueError(f"{word!r} is no number above 0")
    return int(word)


def _encoding(word):
    try:
        b"a".decode(word)
    except UnicodeError:
        pass  # UTF-16, say: one byte is no text, but the name is known
    return word


# Reading


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
        _check_name(f"{path}: row {number}: label", label, (",",))
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
        yield content[begin + len(start):position]


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


# Leaks and duplicates


class Substrings:
    """Finds which of many strings occur in a text, in time that hardly depends on how many there are.

    Each string is kept under its first characters, as many as the largest of a few sizes that it has; a text is looked up
    at every position, once for each size.
    """

    _SIZES = (24, 8, 3, 1)

    def __init__(self, strings):
        self._starts = {}
        for string in dict.fromkeys(strings):
            size = next((size for size in self._SIZES if size <= len(string)), None)
            if size is not None:  # the empty string is in every text, which nobody asks
                self._starts.setdefault(size, {}).setdefault(string[:size], []).append(string)

    def inside(self, text):
        """Yields the strings that occur in `text`; one that occurs twice may come twice."""
        for size, starts in self._starts.items():
            for position in range(len(text) - size + 1):
                for string in starts.get(text[position:position + size], ()):
                    if text.startswith(string, position):
                        yield string


def find_leaks(rows, tests):
    """How each row gives a test row away.

    Two texts are compared in both of their forms (`make_row`); a leak in either counts. Test rows of fewer than 3 words (of
    fewer than 3 words with a letter, for the second form) count for equality only. Words are what white space parts.

    Args:
        rows: list of N `Row`, candidates of training and dev.
        tests: list of M `Row`.
    Returns:
        list of N: "equal" to a test row, "contained" in one, "contains" one (the first that holds), or None.
    """
    leaks = [None] * len(rows)
    for form in ("spaced", "letters"):
        test_texts = dict.fromkeys(getattr(test, form) for test in tests if getattr(test, form))
        texts = [getattr(row, form) for row in rows]
        searched = Substrings(text for text, leak in zip(texts, leaks) if leak is None)
        inside = set()
        for text in tqdm(test_texts, desc="inside test rows", delay=1, leave=False, disable=None):
            inside.update(searched.inside(text))
        long_tests = Substrings(getattr(test, form) for test in tests if _words(test, form) >= _LEAST_WORDS)
        for i, text in enumerate(tqdm(texts, desc="around test rows", delay=1, leave=False, disable=None)):
            if text in test_texts:
                leaks[i] = EQUAL
            elif leaks[i] is None and text in inside:
                leaks[i] = CONTAINED
            elif leaks[i] is None and next(long_tests.inside(text), None) is not None:
                leaks[i] = CONTAINS
    return leaks


def _words(row, form):
    words = row.spaced.split()
    return len(words) if form == "spaced" else sum(bool(word.translate(_LETTERS_ONLY)) for word in words)


def unique(rows):
    """(rows with each text once, how many repeats were left out, how many rows whose text has several labels)."""
    labels = collections.defaultdict(set)
    for row in rows:
        labels[key(row)].add(row.label)
    kept, conflicts = {}, 0
    for row in rows:
        if len(labels[key(row)]) > 1:
            conflicts += 1
        else:
            # of several spellings the same one, wherever they stand
            kept[key(row)] = min(kept.get(key(row), row), row, key=lambda one: one.text)
    return list(kept.values()), len(rows) - conflicts - len(kept), conflicts


# Few-shot sets


def balanced(sizes, total):
    """As even a split of `total` over classes as their sizes (dict of label -> int) allow: dict of label -> int."""
    parts, left = {}, total
    for i, label in enumerate(sorted(sizes, key=lambda label: (sizes[label], label))):
        parts[label] = min(sizes[label], left // (len(sizes) - i))
        left -= parts[label]
    return parts


def draw_test(domain, rows, cap):
    """`cap` rows, balanced over the classes, each text once; all rows as they are where they are no more than `cap`.

    Args:
        cap: int, or None for all.
    Returns:
        list of `Row` in an order that depends on texts and domain only.
    """
    if cap is not None and cap < len(rows):
        by_label = collections.defaultdict(list)
        for row in sorted(unique(rows)[0], key=lambda row: rank("test", domain, row.label, row.text)):
            by_label[row.label].append(row)
        parts = balanced({label: len(found) for label, found in by_label.items()}, cap)
        rows = [row for label, found in by_label.items() for row in found[:parts[label]]]
    return sorted(rows, key=lambda row: rank("test order", domain, row.label, row.text))


def _without(rows, taken):
    """The rows less one copy of each of `taken`."""
    left = collections.Counter(map(key, taken))
    rest = []
    for row in rows:
        if left[key(row)]:
            left[key(row)] -= 1
        else:
            rest.append(row)
    return rest


def draw_kshot(candidates, labels, k, seed):
    """K training and K dev rows of each class of each domain; no text twice in all of them.

    Args:
        candidates: dict of domain -> list of `Row`.
        labels: list of str.
    Returns:
        ({split: {domain: list of Row}}, dict of domain -> rows passed over because another domain has drawn their text), the
        lists shuffled by the seed.
    Raises:
        UserError: too few candidates.
    """
    drawn, passed, used = {"train": {}, "dev": {}}, collections.Counter(), set()
    for domain in sorted(candidates):  # so that the order of the arguments has no say
        for split in drawn:
            drawn[split][domain] = []
        for label in labels:
            some = [row for row in candidates[domain] if row.label == label]
            chosen = []
            for row in sorted(some, key=lambda row: rank("draw", seed, domain, row.label, row.text)):
                if len(chosen) == 2 * k:
                    break
                if key(row) in used:
                    passed[domain] += 1
                    continue
                used.add(key(row))
                chosen.append(row)
            if len(chosen) < 2 * k:
                raise UserError(
                    f"{domain}: class {label!r} has {len(chosen)} candidates left, --k {k} needs {2 * k} (train and dev); lower "
                    "--k or --test_cap, or give more text"
                )
            drawn["train"][domain] += chosen[:k]
            drawn["dev"][domain] += chosen[k:]
        for split in drawn:
            drawn[split][domain].sort(key=lambda row: rank("order", seed, domain, row.label, row.text))
    return drawn, passed


def make_kshot(sources, test_sources, caps, encodings, group, k, seeds, log=print):
    """The files of the few-shot layout.

    Args:
        sources, test_sources: dict of domain -> `Source`.
        caps, encodings: dict of domain -> int / str, or None.
        group: name of the cross-domain set.
        k: int, rows a class a split.
        seeds: list of int.
    Returns:
        (dict of path -> list of (text, domain, label), dict for the manifest).
    """
    for domain in sources:
        if domain not in test_sources and caps[domain] is None:
            raise UserError(f"{domain}: where do test rows come from? --test_source {domain}=..., or --test_cap N to draw N of its own")
    corpora = {d: read_source(source, "--source", encodings[d], log) for d, source in sources.items()}
    test_corpora = {d: read_source(source, "--test_source", encodings[d], log) for d, source in test_sources.items()}
    labels = labels_of(corpora)
    for domain, corpus in test_corpora.items():
        strange = sorted({row.label for row in corpus.rows} - set(labels))
        if strange:
            raise UserError(
                f"--test_source {domain} has labels that --source lacks: {', '.join(strange):.100}; there are {', '.join(labels):.100}"
            )

    tests = {d: draw_test(d, test_corpora.get(d, corpora[d]).rows, caps[d]) for d in sources}
    left = {d: corpora[d].rows if d in test_corpora else _without(corpora[d].rows, tests[d]) for d in sources}
    leaks = iter(find_leaks([row for d in sources for row in left[d]], [row for d in sources for row in tests[d]]))
    candidates, counts = {}, {}
    for domain in sources:
        kinds = [next(leaks) for _ in left[domain]]
        clear = [row for row, kind in zip(left[domain], kinds) if kind is None]
        candidates[domain], repeats, conflicts = unique(clear)
        counts[domain] = {
            "rows": len(corpora[domain].rows),
            "without text": corpora[domain].blank,
            "drawn for test": len(corpora[domain].rows) - len(left[domain]),
            "leaks": {kind: kinds.count(kind) for kind in (EQUAL, CONTAINS, CONTAINED)},
            "duplicates": repeats,
            "two labels": conflicts,
            "candidates": len(candidates[domain]),
        }
        log(_skipped(domain, counts[domain]))

    contents = {}
    for seed in seeds:
        drawn, passed = draw_kshot(candidates, labels, k, seed)
        name = f"{k}-{seed}"
        for domain in sources:
            for split, rows in (*((split, drawn[split][domain]) for split in drawn), ("test", tests[domain])):
                contents[f"k-shot-single/{domain}/{name}/{split}.csv"] = [(row.text, domain, row.label) for row in rows]
            counts[domain].setdefault("duplicates of another domain's draw", {})[str(seed)] = passed[domain]
            if passed[domain]:
                log(f"{domain}, seed {seed}: {passed[domain]} more duplicates skipped, their text drawn for another domain")
        for split in drawn:
            rows = [(row.text, domain, row.label) for domain in sources for row in drawn[split][domain]]
            contents[f"k-shot-cross/{group}/{name}/{split}.csv"] = sorted(rows, key=lambda row: rank("cross", seed, *row))
    flags = {"group": group, "k": k, "seeds": seeds, "test_cap": caps}
    return contents, {
        "mode": "kshot", "flags": flags, "counts": counts,
        "sources": {d: c.files for d, c in corpora.items()}, "test_sources": {d: c.files for d, c in test_corpora.items()},
    }


def _skipped(domain, count):
    leaks = count["leaks"]
    return (
        f"{domain}: {count['rows']} rows; skipped {sum(leaks.values())} leaks ({leaks[EQUAL]} equal a test row, {leaks[CONTAINS]} contain "
        f"one, {leaks[CONTAINED]} are contained in one), {count['duplicates']} duplicates, {count['two labels']} with two labels, "
        f"{count['without text']} without text; {count['drawn for test']} drawn for test; {count['candidates']} candidates"
    )


# Meta-KD's split


def stratified(sizes, wanted):
    """Whole numbers as near to proportional as sums allow.

    Args:
        sizes: dict of stratum -> int.
        wanted: list of int, sizes of the parts; their sum is that of `sizes`.
    Returns:
        dict of stratum -> list of int: its share of each part. Every stratum and every part comes out exactly.
    """
    total = sum(sizes.values())
    shares = {s: [n * part // total for part in wanted] for s, n in sizes.items()}
    open_strata = {s: n - sum(shares[s]) for s, n in sizes.items()}
    open_parts = [part - sum(shares[s][j] for s in sizes) for j, part in enumerate(wanted)]
    # largest remainder first; a second round where both sums of the first choice were full
    cells = sorted((-(n * part % total), s, j) for s, n in sizes.items() for j, part in enumerate(wanted))
    while any(open_parts):
        for _, s, j in cells:
            if open_strata[s] and open_parts[j]:
                shares[s][j] += 1
                open_strata[s] -= 1
                open_parts[j] -= 1
    return shares


def split_portions(rows, wanted, seed):
    """Parts of a corpus, stratified by domain and class; all copies of a text lie in one part.

    Args:
        rows: list of N (domain, `Row`).
        wanted: list of int [3], rows of train, dev and test; what they leave of N is not used.
    Returns:
        list of 3 lists of (domain, `Row`), shuffled by the seed.
    Raises:
        UserError: too few rows, or copies that fit into no part.
    """
    if sum(wanted) > len(rows):
        raise UserError(
            "--train {} --dev {} --test {} ask for {} rows, the corpus has {}".format(*wanted, sum(wanted), len(rows))
        )
    rows = sorted(rows, key=lambda pair: rank("portions", seed, pair[0], pair[1].label, pair[1].text))
    groups = collections.defaultdict(list)
    for pair in rows:
        groups[key(pair[1])].append(pair)
    sizes = collections.Counter((domain, row.label) for domain, row in rows)
    room = stratified(sizes, [*wanted, len(rows) - sum(wanted)])
    parts = [[] for _ in range(4)]
    # Copies first, while there is room: to the training rows (no test row should count twice), else to those not used.
    # A single row always fits somewhere, and fills the parts exactly.
    for group in sorted(groups.values(), key=len, reverse=True):
        need = collections.Counter((domain, row.label) for domain, row in group)
        order = (0, 3, 1, 2) if len(group) > 1 else (2, 1, 0, 3)
        part = next((j for j in order if all(room[stratum][j] >= n for stratum, n in need.items())), None)
        if part is None:
            raise UserError(
                f"{group[0][0]}: the {len(group)} copies of {group[0][1].text!r:.60} fit into no part whole; give --train more rows"
            )
        parts[part] += group
        for stratum, n in need.items():
            room[stratum][part] -= n
    return [
        sorted(part, key=lambda pair: rank("order", seed, pair[0], pair[1].label, pair[1].text)) for part in parts[:3]
    ]


def make_portions(sources, encodings, wanted, seed, log=print):
    """The files of Meta-KD's split. Arguments and results as in `make_kshot` and `split_portions`."""
    corpora = {d: read_source(source, "--source", encodings[d], log) for d, source in sources.items()}
    labels_of(corpora)
    rows = [(domain, row) for domain, corpus in corpora.items() for row in corpus.rows]
    parts = split_portions(rows, wanted, seed)
    copies = collections.Counter(key(row) for _, row in rows)
    learned = parts[0] + parts[1]
    leaks = find_leaks([row for _, row in learned], [row for _, row in parts[2]])
    counts = {}
    for domain, corpus in corpora.items():
        near = sum(leak is not None and d == domain for leak, (d, _) in zip(leaks, learned))
        repeated = sum(copies[key(row)] > 1 for row in corpus.rows)
        counts[domain] = {"rows": len(corpus.rows), "without text": corpus.blank, "repeated": repeated, "kept leaks": near}
        log(
            f"{domain}: {len(corpus.rows)} rows, {corpus.blank} without text skipped; {repeated} repeat a text, all copies in one split; "
            f"{near} rows of train and dev contain or are contained in a test row (a split of everything leaves none out)"
        )
    contents = {
        split + ".csv": [(row.text, domain, row.label) for domain, row in part] for split, part in zip(SPLITS, parts) if part
    }
    flags = {"seed": seed, **dict(zip(SPLITS, wanted))}
    return contents, {
        "mode": "portions", "flags": flags, "counts": counts, "sources": {d: c.files for d, c in corpora.items()},
    }


# Writing


def check_output(output_dir, mode, overwrite, sources):
    """UserError where the output folder holds something and may not be replaced."""
    target = os.path.realpath(output_dir)
    for source in sources:
        for path, _ in source.files:
            if os.path.realpath(path).startswith(target + os.sep):
                raise UserError(f"--output_dir {output_dir} holds the source {path}, and would replace it")
    if not os.path.lexists(output_dir):
        return
    if not os.path.isdir(output_dir):
        raise UserError(f"--output_dir {output_dir} is no folder")
    entries = set(os.listdir(output_dir))
    if not entries:
        return
    if not overwrite:
        raise UserError(f"--output_dir {output_dir} is not empty; --overwrite replaces what this tool wrote there")
    # a mistyped path must not cost anybody a folder
    foreign = sorted(entries - _OWN_ENTRIES[mode])
    if MANIFEST not in entries or foreign:
        reason = f"it holds {foreign[0]}" if foreign else f"no {MANIFEST} in it"
        raise UserError(f"--output_dir {output_dir} was not written by this tool's {mode} alone ({reason}), so --overwrite leaves it alone")


def write_output(output_dir, contents, manifest):
    """Writes all files into a folder beside `output_dir`, which then takes its place; whole or not at all.

    Args:
        contents: dict of path inside the folder -> list of rows (tuples of str).
        manifest: dict for make_kshot.json.
    """
    target = os.path.realpath(output_dir)
    temporary, old = (f"{target}.{word}-{os.getpid()}" for word in ("tmp", "old"))
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.mkdir(temporary)
        try:
            for path, rows in contents.items():
                path = os.path.join(temporary, path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with files.replacing(path) as file:
                    file.write("".join("\t".join(row) + "\n" for row in rows).encode("utf-8"))
            files.write_json(os.path.join(temporary, MANIFEST), manifest)
            if os.path.isdir(target):
                os.rename(target, old)
            try:
                os.rename(temporary, target)
            except BaseException:
                if os.path.isdir(old):
                    os.rename(old, target)
                raise
            files.sync_folder(os.path.dirname(target))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir} cannot be written: {error.strerror or error}") from error


def table(contents):
    """Lines that say, for each file, how many rows each class has, by domain."""
    labels = sorted({row[2] for rows in contents.values() for row in rows})
    lines = [("file", "domain", *labels)]
    for path in sorted(contents):
        counted = collections.Counter((row[1], row[2]) for row in contents[path])
        for domain in sorted({domain for domain, _ in counted}):
            lines.append((path, domain, *(str(counted[domain, label]) for label in labels)))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        "  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths)))
        for line in lines
    ]


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def _parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=_FORMS_HELP, formatter_class=_Help)
    modes = parser.add_subparsers(dest="mode", required=True, metavar="{kshot,portions}")
    hidden = argparse.SUPPRESS  # no default to show

    def add_mode(name, text):
        mode = modes.add_parser(name, help=text, description=text, epilog=_FORMS_HELP, formatter_class=_Help)
        mode.add_argument("--source", nargs="+", action="append", required=True, default=hidden, metavar="DOMAIN=FORM:FILES",
                          help="a domain's corpus; any number")
        mode.add_argument("--encoding", nargs="+", default=hidden, metavar="[DOMAIN=]NAME",
                          help="of all files, or of one domain's (without it UTF-8, else cp1252)")
        mode.add_argument("--output_dir", required=True, default=hidden, help="folder to write; whole or not there")
        mode.add_argument("--overwrite", action="store_true",
                          help="replace what this tool wrote into --output_dir before, and the records made from it")
        return mode

    kshot = add_mode("kshot", "K rows of each class of each domain for train and for dev, and a test split")
    kshot.add_argument("--group", required=True, default=hidden, help="name of the cross-domain set, g1 say")
    kshot.add_argument("--k", type=int, default=16, help="rows of each class of each domain, in train and in dev")
    kshot.add_argument("--seeds", type=int, nargs="+", default=[42], metavar="SEED", help="a draw each, into K-SEED")
    kshot.add_argument("--test_source", nargs="+", action="append", default=hidden, metavar="DOMAIN=FORM:FILES",
                       help="a domain's test corpus, whole unless capped; without it the test rows are drawn from --source")
    kshot.add_argument("--test_cap", nargs="+", default=hidden, metavar="[DOMAIN=]N",
                       help="at most N test rows a domain, balanced over the classes as far as they go")
    portions = add_mode("portions", "train, dev and test of all domains, stratified by domain and class, for Meta-KD")
    for split, rows in zip(SPLITS, (6480, 720, 800)):
        portions.add_argument("--" + split, type=int, default=rows, help=f"{split} rows")
    portions.add_argument("--seed", type=int, default=42, help="of the draw")
    return parser.parse_args(argv)


def main(argv=None):
    """Parses the command line, reads, draws and writes."""
    flags = _parse(argv)
    sources = parse_sources("--source", [value for values in flags.source for value in values])
    encodings = parse_by_domain("--encoding", getattr(flags, "encoding", None), sources, _encoding)
    if flags.mode == "kshot":
        tests = parse_sources("--test_source", [value for values in getattr(flags, "test_source", []) for value in values])
        for domain in tests:
            if domain not in sources:
                raise UserError(f"--test_source {domain}: no --source is named so; there are {', '.join(sources)}")
        caps = parse_by_domain("--test_cap", getattr(flags, "test_cap", None), sources, _positive)
        _check_name("--group", flags.group, ("/", "\\"))
        if not flags.group.strip("."):
            raise UserError(f"--group {flags.group!r} cannot be a folder's name")
        if flags.k < 1:
            raise UserError(f"--k {flags.k}: must be at least 1")
        if min(flags.seeds) < 0 or len(set(flags.seeds)) < len(flags.seeds):
            raise UserError(f"--seeds {' '.join(map(str, flags.seeds))}: must be different numbers from 0 up")
        check_output(flags.output_dir, flags.mode, flags.overwrite, [*sources.values(), *tests.values()])
        contents, manifest = make_kshot(sources, tests, caps, encodings, flags.group, flags.k, flags.seeds)
    else:
        wanted = [flags.train, flags.dev, flags.test]
        if min(wanted[:2]) < 1 or flags.test < 0:
            raise UserError("--train {} --dev {} --test {}: train and dev must have rows".format(*wanted))
        check_output(flags.output_dir, flags.mode, flags.overwrite, list(sources.values()))
        contents, manifest = make_portions(sources, encodings, wanted, flags.seed)
    write_output(flags.output_dir, contents, manifest)
    for line in table(contents):
        print(line)
    print(f"{len(contents)} files in {flags.output_dir}")


if __name__ == "__main__":
    run(main)
