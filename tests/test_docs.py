"""The pages keep what they say: commands parse, the tutorial's run and print what it shows, links and named files are there.

A fenced block marked `sh` is run, in the order of the page (docs/tutorial.md alone has such); the block marked `text` behind it shows what
the command prints. Of blocks without a mark, lines that begin with `python3` or `make` are parsed by the program that they name.
"""

import contextlib
import dataclasses
import glob
import importlib
import io
import json
import os
import re
import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from ofrecord_util.schema import FEATURES

PAGES = ["README.md", *sorted(f"docs/{name}" for name in os.listdir(os.path.join(tiny.ROOT, "docs")) if name.endswith(".md"))]
TUTORIAL, FORMATS, ARCHITECTURE = "docs/tutorial.md", "docs/formats.md", "docs/architecture.md"
ENCODER = "models/uncased_L-6_H-384_A-12_oneflow"
LEFT_OUT = "…"  # stands in a command or in output for what is not shown

# How the tutorial's commands become small: (pattern, replacement), each of which must be found
SMALLER = (
    (r"--k 16\b", "--k 5"),
    (r"\b16-42\b", "5-42"),
    (r"--test_cap \d+", "--test_cap 6"),
    (r"--num_epochs \d+", "--num_epochs 1"),
    (r"--student_num_hidden_layers \d+", "--student_num_hidden_layers 1"),
)


def read(page):
    with open(os.path.join(tiny.ROOT, page), encoding="utf-8") as file:
        return file.read()


def blocks(page):
    """(mark, line number, text) of each fenced block of a page."""
    text = read(page)
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield found.group(1), text.count("\n", 0, found.start()) + 2, found.group(2)


def commands(text, programs=("python3", "make")):
    """The commands of a block, lines that end with a backslash joined to the next."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.split(" ")[0] in programs]


def all_commands():
    found = [
        pytest.param(words, id=f"{page}:{line}:{' '.join(words[:3])}")
        for page in PAGES
        for mark, line, text in blocks(page)
        if mark in ("", "sh")
        for words in commands(text)
    ]
    assert len(found) > 20
    return found


# --- commands parse


class Parsed(Exception):
    """A command line has been parsed; what would follow is not run."""


def check_some_flags(parser, words):
    """Checks the flags of a command line of which a part is left out; ValueError says which one is wrong."""
    for position, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            following = words[position + 1 : position + 2]
            given = [value] if equals else [w for w in following if not w.startswith("--") and w != LEFT_OUT]
            parser.check_flag(name, given[0] if given else None)


def check_command(words, monkeypatch):
    """AssertionError where `python3 SCRIPT …` or `make TARGET …` would be refused."""
    program, script, *flags = words
    if program == "make":
        assert re.search(rf"^{re.escape(script)}:", read("Makefile"), re.MULTILINE), f"no target {script} in the Makefile"
        return
    if script == "-m":
        return
    assert os.path.isfile(os.path.join(tiny.ROOT, script)), f"no file {script}"
    original = Parser.parse_args

    def parse_args(parser, args=None, namespace=None):
        if LEFT_OUT in flags:
            check_some_flags(parser, flags)
        else:
            original(parser, args, namespace)
        raise Parsed

    main = importlib.import_module(script[: -len(".py")].replace("/", ".")).main
    monkeypatch.setattr(Parser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), pytest.raises(Parsed):
            main()
    except (SystemExit, ValueError) as error:
        raise AssertionError(f"{' '.join(words)}: {errors.getvalue() or error}") from error


@pytest.mark.parametrize("words", all_commands())
def test_commands_parse(words, monkeypatch):
    check_command(words, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "python3 preprocess.py --task_name g1",
        "python3 preprocess.py --task_name g1 --data_dir data --seq_len 128",
        "python3 finetuning.py … --learning_rate fast",
        "python3 finetuning.py … --learning-rate 1e-5",
        "python3 tools/predict.py text",
        "python3 tools/convert_checkpoint.py --model_dir a --output_dir b --to tflite",
        "python3 tools/make_kshot.py draw --k 16",
        "python3 tools/not_there.py",
        "make coffee",
    ],
)
def test_a_command_that_does_not_parse_is_found(line, monkeypatch):
    with pytest.raises(AssertionError):
        check_command(line.split(), monkeypatch)


# --- the tutorial


def write_corpora(folder):
    """Tiny corpora in the layout of the real ones: SST-2 of GLUE, MR with a byte that is not UTF-8, CR."""

    def texts(domain, count):
        rows = tiny.opinions(domain, (count, count), "raw")
        return [[text for text, _, label in rows if label == wanted] for wanted in ("0", "1")]

    def write(path, lines, encoding="utf-8"):
        path = os.path.join(folder, *path.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write("".join(line + "\n" for line in lines).encode(encoding))

    negative, positive = texts("sst-2", 60)
    for split, rows in (("train", slice(8, None)), ("dev", slice(0, 8))):
        labelled = [f"{text}\t{label}" for label, group in enumerate((negative, positive)) for text in group[rows]]
        write(f"SST-2/{split}.tsv", ["sentence\tlabel", *labelled])
    for name, stem in (("mr", "MR/rt-polarity"), ("cr", "CR/custrev")):
        for group, end in zip(texts(name, 50), ("neg", "pos")):
            write(f"{stem}.{end}", [*group, "a café is a great plot"] if stem.startswith("MR") and end == "pos" else group, "cp1252")


def execute(folder, words):
    """Runs `SCRIPT FLAGS…` there within this process, wildcards replaced by what they match; returns (exit code, what it printed)."""
    argv, before, output = [], sys.argv, io.StringIO()
    for word in words:
        argv += sorted(os.path.relpath(path, folder) for path in glob.glob(os.path.join(folder, word))) if "*" in word else [word]
    main = importlib.import_module(argv[0][: -len(".py")].replace("/", ".")).main
    here = os.getcwd()
    os.chdir(folder)
    sys.argv = argv
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            run(main)
    except SystemExit as end:
        return end.code or 0, output.getvalue()
    finally:
        sys.argv = before
        os.chdir(here)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """The tutorial's commands, run in their order on tiny data: the folder, and for each command what it was, what it printed and what the
    page shows of that."""
    folder = str(tmp_path_factory.mktemp("tutorial"))
    write_corpora(os.path.join(folder, "raw"))
    config = dataclasses.replace(tiny.CONFIG, max_position_embeddings=64)
    tiny.write_encoder(os.path.join(folder, *ENCODER.split("/")), config)
    steps, found = [], {pattern for pattern, _ in SMALLER}
    for mark, line, text in blocks(TUTORIAL):
        if mark == "text" and steps and steps[-1].shown is None:
            steps[-1].shown = text
        if mark != "sh":
            continue
        lines = text.replace("\\\n", " ").splitlines()
        assert len(lines) == 1, f"{TUTORIAL}:{line}: one command of python3 is expected"
        assert lines[0].startswith("python3 "), f"{TUTORIAL}:{line}: one command of python3 is expected"
        command = lines[0]
        for pattern, replacement in SMALLER:
            command, count = re.subn(pattern, replacement, command)
            found -= {pattern} if count else set()
        code, output = execute(folder, shlex.split(command)[1:])
        assert code == 0, f"{TUTORIAL}:{line}: {command}\n{output}"
        steps.append(SimpleNamespace(line=line, command=command, output=output, shown=None))
    assert not found, f"{TUTORIAL} has no {found} any more"
    return SimpleNamespace(folder=folder, steps=steps)


@pytest.mark.slow
def test_the_tutorial_has_ten_commands(tutorial):
    assert len(tutorial.steps) == 10


def masked(text):
    """A line with every number, and every list of numbers, as #, every size in bytes and every run of blanks as one."""
    numbers = re.sub(r"\d[\d.,e/+-]*\d|\d", "#", re.sub(r"\s+", " ", text))
    return re.sub(r"# (bytes|MB|GB)\b", "# bytes", re.sub(r"#(, #)+", "#", numbers)).strip()


@pytest.mark.slow
def test_the_tutorial_shows_what_is_printed(tutorial):
    """But for numbers, each line that the page shows is one that the command prints."""
    for step in tutorial.steps:
        assert step.shown is not None, f"{TUTORIAL}:{step.line}: no block marked text shows what is printed"
        printed = [masked(line) for line in step.output.splitlines()]
        for line in filter(str.strip, step.shown.splitlines()):
            pattern = ".*".join(re.escape(masked(part).strip(" ,")).replace(r"\ ", " ") for part in line.split(LEFT_OUT))
            assert any(re.search(pattern, other) for other in printed), f"{TUTORIAL}:{step.line}: not printed: {line}\n{step.output}"


@pytest.mark.slow
def test_every_file_and_key_of_a_run_is_described(tutorial):
    """docs/formats.md names each file that the tutorial leaves behind, each key of its JSON and each array of its .npz."""
    page = read(FORMATS)
    missing = set()

    def need(name, where):
        if f"`{name}`" not in page:
            missing.add(f"{name} ({where})")

    def need_keys(value, where):
        for key in value:
            need(key, where)

    inner = {"manifest.json": ("parts", "task", "arrays"), "flags.json": ("task", "versions", "data")}
    for place, _, names in os.walk(tutorial.folder):
        if os.path.relpath(place, tutorial.folder).split(os.sep)[0] in ("raw", "models", "student_hugging_face"):
            continue
        for name in names:
            path = os.path.join(place, name)
            where = os.path.relpath(path, tutorial.folder)
            if re.match(r"(train|dev|test)\.(of_record-\d+|csv)\Z", name) or place.endswith("/output"):
                continue
            need(re.sub(r"predictions_(teacher_)?(dev|test)", r"predictions_\1SPLIT", name), where)
            if name.endswith(".json"):
                with open(path, encoding="utf-8") as file:
                    record = json.load(file)
                need_keys(record, where)
                for key in inner.get(name, ()):
                    value = record.get(key, {})
                    value = value[0] if isinstance(value, list) else value
                    need_keys(next(iter(value.values())) if key in ("arrays", "data") and value else value, where)
            elif name.endswith(".jsonl"):
                with open(path, encoding="utf-8") as file:
                    for row in map(json.loads, file):
                        need(row["kind"], where)
                        need_keys(row, where)
            elif name.endswith(".npz"):
                with np.load(path, allow_pickle=False) as arrays:
                    need_keys(arrays, where)
    for feature in FEATURES:
        need(feature.key, "schema")
    assert not missing, f"{FORMATS} does not say what these are: {', '.join(sorted(missing))}"


@pytest.mark.slow
def test_the_deployed_student_is_smaller(tutorial):
    (path,) = glob.glob(os.path.join(tutorial.folder, "output", "student", "snapshot_best_*"))
    assert Snapshot(path).config().num_hidden_layers == 1
    assert Snapshot(os.path.join(tutorial.folder, ENCODER)).config().num_hidden_layers == tiny.CONFIG.num_hidden_layers


# --- links and names


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", target)]
    for target in targets:
        path = os.path.join(tiny.ROOT, os.path.dirname(page), target.split("#")[0])
        assert os.path.exists(path), f"{page}: {target} is not there"
    named = re.findall(r"(?<![\w./-])((?:modeling|ofrecord_util|tools|tests|benchmarks|docs)/[\w./-]+\.(?:py|sh|md|css))\b", text)
    for path in named:
        assert os.path.isfile(os.path.join(tiny.ROOT, path)), f"{page}: there is no {path}"


def test_the_overview_names_every_module():
    page = read(ARCHITECTURE)
    for folder in ("modeling", "modeling/report", "ofrecord_util", "tools"):
        for name in sorted(os.listdir(os.path.join(tiny.ROOT, folder))):
            if name.endswith(".py") and name != "__init__.py":
                assert f"`{name}`" in page or f"`{folder}/{name}`" in page, f"{ARCHITECTURE} does not say what {folder}/{name} is for"
