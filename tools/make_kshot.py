"""Makes the few-shot layout (`kshot`), a published split (`splits`) or the Meta-KD split (`portions`) from raw corpora, without leaks of
test rows.

    python3 tools/make_kshot.py kshot --group g1 --k 16 --seeds 42 13 --output_dir data/g1-raw \\
        --source SST-2=sst2:raw/SST-2/train.tsv CR=lines:1=raw/CR/custrev.pos,0=raw/CR/custrev.neg \\
        MR=lines:1=raw/MR/rt-polarity.pos,0=raw/MR/rt-polarity.neg \\
        --test_source SST-2=sst2:raw/SST-2/dev.tsv --test_cap 2000

    python3 tools/make_kshot.py splits --group fdu --dev_rows 200 --output_dir data/fdu \\
        --source books=fdu:raw/books.task.train dvd=fdu:raw/dvd.task.train \\
        --test_source books=fdu:raw/books.task.test dvd=fdu:raw/dvd.task.test

    python3 tools/make_kshot.py portions --train 6480 --dev 720 --test 800 \\
        --output_dir data/SENTI-raw --source books=reviews:raw/books dvd=reviews:raw/dvd \\
        electronics=reviews:raw/electronics kitchen=reviews:raw/kitchen

A source is DOMAIN=FORM:FILE[,FILE...]; `--help` lists the forms. The output has rows `text TAB domain TAB label`:

    kshot     OUT/k-shot-cross/GROUP/K-SEED/{train,dev}.csv (all domains),
              OUT/k-shot-single/DOMAIN/K-SEED/{train,dev,test}.csv
    splits    OUT/cross/GROUP/{train,dev,test}.csv (all domains),
              OUT/single/DOMAIN/{train,dev,test}.csv
    portions  OUT/{train,dev,test}.csv

OUT/make_kshot.json has the flags, the digests of the sources and the counts. A draw depends on the seed, the name of the
domain and the rows. It does not depend on the order of rows or arguments, because SHA-256 ranks the rows.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import contextlib
import os
import re

from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import non_negative_int
from modeling.cli.flags import add_text_flags
from ofrecord_util import files, output_checks
from ofrecord_util.escaping import say
from ofrecord_util.text_columns import TextOptions
from tools.kshot_corpora import FORMS_HELP, check_name, parse_sources
from tools.kshot_draws import SPLITS, make_kshot, make_portions, make_splits
from tools.text_table import text_table

MANIFEST = "make_kshot.json"

# Files and folders that --overwrite may replace: those of this tool, and the records that the scripts write there.
_OWN_ENTRIES = {
    "kshot": {MANIFEST, "k-shot-cross", "k-shot-single"},
    "splits": {MANIFEST, "cross", "single"},
    "portions": {MANIFEST, "ofrecord", *(split + ".csv" for split in SPLITS)},
}


def parse_by_domain(flag, values, domains, convert):
    """Parses words VALUE and DOMAIN=VALUE into a dict of domain -> value, or None without a value.

    Args:
        convert: function of a word. It raises ValueError or LookupError for a bad value.
    Raises:
        UserError: if a domain is unknown, a value is bad, or a domain has two values.
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
        raise ValueError(f"{word!r} is not a number above 0")
    return int(word)


def _encoding(word):
    with contextlib.suppress(UnicodeError):  # UTF-16, for example, cannot decode one byte, but the name is known
        b"a".decode(word)
    return word


def check_output(output_dir, mode, overwrite, sources):
    """Raises a UserError if the output folder is not empty and must not be replaced."""
    target = os.path.realpath(output_dir)
    for source in sources:
        for path, _ in source.files:
            if os.path.realpath(path).startswith(target + os.sep):
                raise UserError(f"--output_dir {output_dir} holds the source {path} and would replace it; choose another folder")
    output_checks.check_output_folder(output_dir, "--output_dir", whole=False)
    if not os.path.lexists(output_dir):
        return
    if not os.path.isdir(output_dir):
        raise UserError(f"--output_dir {output_dir} is not a folder")
    entries = set(os.listdir(output_dir))
    if not entries:
        return
    if not overwrite:
        raise UserError(f"--output_dir {output_dir} is not empty; --overwrite replaces earlier output of this tool")
    # a mistyped path must not delete a folder of the user
    foreign = sorted(entries - _OWN_ENTRIES[mode])
    if MANIFEST not in entries or foreign:
        reason = f"it holds {foreign[0]}" if foreign else f"no {MANIFEST} in it"
        raise UserError(f"--output_dir {output_dir} was not written by this tool's {mode} alone ({reason}), so --overwrite leaves it alone")


def write_output(output_dir, contents, manifest):
    """Writes all files into a temporary folder, which then replaces `output_dir`.

    Args:
        contents: dict of path inside the folder -> list of rows (tuples of str).
        manifest: dict for make_kshot.json.
    """
    try:
        with files.replacing_folder(os.path.realpath(output_dir)) as new:
            for path, rows in contents.items():
                path = os.path.join(new, path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write("".join("\t".join(row) + "\n" for row in rows).encode("utf-8"))
            files.write_json(os.path.join(new, MANIFEST), manifest)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir} cannot be written: {error.strerror or error}") from error


def table(contents):
    """Returns the lines of a table: the number of rows per file, domain and class."""
    labels = sorted({row[2] for rows in contents.values() for row in rows})
    lines = []
    for path in sorted(contents):
        counted = collections.Counter((row[1], row[2]) for row in contents[path])
        for domain in sorted({domain for domain, _ in counted}):
            lines.append((path, domain, *(counted[domain, label] for label in labels)))  # noqa: PERF401
    return text_table(("file", "domain", *labels), lines, left=2)


def _parse(argv):
    parser = Parser(description=__doc__, epilog=FORMS_HELP)
    modes = parser.add_subparsers(
        dest="mode", required=True, metavar="{kshot,splits,portions}", help="kind of output; kshot --help and so on list the flags"
    )

    def add_mode(name, text):
        mode = modes.add_parser(name, help=text, description=text, epilog=FORMS_HELP)
        mode.add_argument(
            "--source", nargs="+", action="append", required=True, metavar="DOMAIN=FORM:FILES", help="corpus of a domain; may be repeated"
        )
        mode.add_argument(
            "--encoding",
            nargs="+",
            metavar="[DOMAIN=]NAME",
            help="encoding of all files, or of one domain (default: UTF-8, or cp1252 for other files)",
        )
        add_text_flags(mode, ("text_column", "label_column"))
        mode.add_argument("--output_dir", required=True, help="folder for the output")
        mode.add_argument(
            "--overwrite", action="store_true", help="replace earlier output of this tool in --output_dir, and the records made from it"
        )
        return mode

    kshot = add_mode("kshot", "K rows per class and domain for train and for dev, and a test split")
    kshot.add_argument("--k", type=int, default=16, help="rows per class and domain, in train and in dev")
    kshot.add_argument(
        "--seeds", type=int, nargs="+", default=[42], metavar="SEED", help="seeds; each makes one draw, in the folder K-SEED"
    )
    kshot.add_argument(
        "--test_cap", nargs="+", metavar="[DOMAIN=]N", help="at most N test rows per domain, balanced over the classes as far as possible"
    )
    splits = add_mode("splits", "the published split of each domain: the last rows of the training file are dev")
    splits.add_argument("--dev_rows", type=int, default=200, help="rows at the end of each --source that are dev")
    for mode, default in ((kshot, " (default: the test rows are drawn from --source)"), (splits, "")):
        mode.add_argument("--group", required=True, help="name of the cross-domain set, for example g1")
        mode.add_argument(
            "--test_source",
            nargs="+",
            action="append",
            required=mode is splits,
            metavar="DOMAIN=FORM:FILES",
            help="test corpus of a domain" + default,
        )
    portions = add_mode("portions", "train, dev and test of all domains, stratified by domain and class, for Meta-KD")
    for split, rows in zip(SPLITS, (6480, 720, 800)):
        portions.add_argument("--" + split, type=int, default=rows, help=f"number of {split} rows")
    portions.add_argument("--seed", type=non_negative_int, default=42, help="seed of the draw")
    return parser.parse_args(argv)


def main(argv=None):
    """Parses the command line, reads, draws and writes."""
    flags = _parse(argv)
    options = TextOptions.from_flags(vars(flags))
    sources = parse_sources("--source", [value for values in flags.source for value in values], options)
    encodings = parse_by_domain("--encoding", flags.encoding, sources, _encoding)
    if flags.mode != "portions":
        tests = parse_sources("--test_source", [value for values in flags.test_source or [] for value in values], options)
        for domain in tests:
            if domain not in sources:
                raise UserError(f"--test_source {domain}: there is no such --source; the sources are {', '.join(sources)}")
        check_name("--group", flags.group, ("/", "\\"))
        if not flags.group.strip("."):
            raise UserError(f"--group {flags.group!r} cannot be the name of a folder")
    if flags.mode == "kshot":
        caps = parse_by_domain("--test_cap", flags.test_cap, sources, _positive)
        if flags.k < 1:
            raise UserError(f"--k {flags.k}: must be at least 1")
        if min(flags.seeds) < 0 or len(set(flags.seeds)) < len(flags.seeds):
            raise UserError(f"--seeds {' '.join(map(str, flags.seeds))}: must be different numbers, 0 or above")
        check_output(flags.output_dir, flags.mode, flags.overwrite, [*sources.values(), *tests.values()])
        contents, manifest = make_kshot(sources, tests, caps, encodings, flags.group, flags.k, flags.seeds)
    elif flags.mode == "splits":
        if flags.dev_rows < 1:
            raise UserError(f"--dev_rows {flags.dev_rows}: must be at least 1")
        check_output(flags.output_dir, flags.mode, flags.overwrite, [*sources.values(), *tests.values()])
        contents, manifest = make_splits(sources, tests, encodings, flags.group, flags.dev_rows)
    else:
        wanted = [flags.train, flags.dev, flags.test]
        if min(wanted[:2]) < 1 or flags.test < 0:
            raise UserError("--train {} --dev {} --test {}: train and dev must have rows".format(*wanted))
        check_output(flags.output_dir, flags.mode, flags.overwrite, list(sources.values()))
        contents, manifest = make_portions(sources, encodings, wanted, flags.seed)
    write_output(flags.output_dir, contents, manifest)
    for line in table(contents):
        say(line)
    say(f"{len(contents)} files in {flags.output_dir}")


if __name__ == "__main__":
    run(main)
