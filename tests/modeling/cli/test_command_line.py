"""modeling/cli/command_line.py: --help of every script and tool, typos, abbreviations."""

import importlib
import pathlib
import re
import sys

import pytest
from tiny_model import ROOT

from modeling.cli.command_line import HELP_COLUMNS, Parser, default_text, similar_flags
from modeling.cli.flag_kinds import comma_list, int_list
from modeling.cli.flags import DOCUMENTED_SCRIPTS

SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(pathlib.Path(ROOT, "tools").glob("*.py"))}
TOOLS = [name for name, text in SOURCES.items() if "def main(" in text]
COMMANDS = [(name,) for name in DOCUMENTED_SCRIPTS] + [("tools." + name,) for name in TOOLS]
COMMANDS += [("tools.make_kshot", "kshot"), ("tools.make_kshot", "portions")]


@pytest.fixture
def call(monkeypatch):
    """Calls the main function of a command with arguments, within this process; returns its exit code."""

    def call(command, *arguments):
        name, *mode = command
        monkeypatch.setattr(sys, "argv", [name.replace(".", "/") + ".py", *mode, *arguments])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(name).main()
        return end.value.code or 0

    return call


def test_tools_are_found():
    assert {"convert_checkpoint", "demo", "demo_kd", "fetch_demo_model", "inspect", "make_kshot", "predict"} <= set(TOOLS)
    assert not [name for name, text in SOURCES.items() if "ArgumentParser" in text]  # for which the rules of `Parser` would not hold


@pytest.mark.parametrize("command", COMMANDS, ids="-".join)
def test_help(command, call, capsys, monkeypatch):
    parsers, show = [], Parser.print_help
    monkeypatch.setattr(Parser, "print_help", lambda self, file=None: (parsers.append(self), show(self, file)))
    monkeypatch.setenv("COLUMNS", "200")
    assert call(command, "--help") == 0
    captured = capsys.readouterr()
    text, (parser,) = captured.out, parsers
    widths = {line: len(line) for line in text.splitlines()}
    assert captured.err == "", max(widths, key=widths.get)
    assert max(widths.values()) <= HELP_COLUMNS, max(widths, key=widths.get)
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    if command[0] in DOCUMENTED_SCRIPTS:
        assert titles[:2] == ["options", "data"]
        assert {"optimisation", "output and machine"} <= set(titles)
        assert "@FILE" in text
    else:
        assert {"options", "positional arguments"} & set(titles)
    assert parser.description.split()[0] in text
    flat = " ".join(text.split())
    for action in parser._actions:
        assert action.help, action.option_strings
        default, shown = default_text(action), " ".join((action.help % {**vars(action), "prog": parser.prog}).split())
        if default is not None:
            shown += f" (default: {default})"
        elif action.required and action.option_strings:
            shown += " (required)"
        assert shown in flat, action.option_strings
        for flag in action.option_strings:
            assert flag in text


@pytest.mark.parametrize("command", COMMANDS, ids="-".join)
def test_typos_and_abbreviations(command, call, capsys, monkeypatch):
    """A typo is answered before the flag is missed that it was meant for, and no beginning of a name stands for it."""
    if command == ("tools.make_kshot",):
        assert call(command, "kshoot", "--k", "3") == 2
        assert "kshoot" in capsys.readouterr().err
        return
    parsers, parse = [], Parser.parse_known_args
    monkeypatch.setattr(Parser, "parse_known_args", lambda self, *more: (parsers.append(self), parse(self, *more))[1])
    call(command, "--help")
    flags = [flag for flag in parsers[-1]._option_string_actions if len(flag) > 5 and flag != "--help"]
    capsys.readouterr()
    for flag in sorted(flags, key=len)[-3:]:
        for wrong in (flag[:-1], flag[:-2] + flag[-1] + flag[-2]):
            if wrong in flags:
                continue
            assert call(command, wrong, "1") == 2
            captured = capsys.readouterr()
            assert captured.out == ""
            assert captured.err.count("\n") == 1
            assert captured.err.startswith(f"error: unknown flag {wrong}, did you mean --"), captured.err


def parser():
    made = Parser(prog="it")
    made.add_argument("text", nargs="*", help="words")
    made.add_argument("--seeds", type=int, nargs="+", default=[3, 5], help="numbers")
    made.add_argument("--share", default="50%", help="of all")
    made.add_argument("--loud", action="store_true", help="say more")
    made.add_argument("--folder", required=True, help="where")
    return made


def test_what_stands_behind_two_dashes_is_no_flag():
    flags = parser().parse_args(["--folder", "f", "-3 stars", "--", "--folder2", "x"])
    assert flags.text == ["-3 stars", "--folder2", "x"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--fodler f", "error: unknown flag --fodler, did you mean --folder? (it --help lists the flags)"),
        ("--folder f -x", "error: unknown flag -x (it --help lists the flags)"),
        ("--fold f", "error: unknown flag --fold, did you mean --folder? (it --help lists the flags)"),
        ("--seeds one --folder f", "error: argument --seeds: invalid int value: 'one' (it --help lists the flags)"),
        ("text", "error: the following arguments are required: --folder (it --help lists the flags)"),
    ],
)
def test_faults_are_one_line(line, said, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(line.split())
    assert end.value.code == 2
    assert capsys.readouterr().err == said + "\n"


def test_defaults(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = parser().format_help()
    assert "numbers (default: 3 5)" in text
    assert "of all (default: 50%)" in text
    assert text.count("(default") == 2


def test_descriptions_are_filled_and_commands_stay(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    made = Parser(prog="it", description="One two three four five six seven eight nine\nten eleven.\n\n    python3  it.py\n\nEnd.")
    assert "One two three four five six seven\neight nine ten eleven.\n\n    python3  it.py\n\nEnd.\n" in made.format_help()


@pytest.mark.parametrize("value", [",", " , ,"])
def test_lists_of_commas_alone(capsys, value):
    """They would be taken for a flag that is not given."""
    parser = Parser(prog="x", may_be_empty=("free",))
    for name in ("files", "layers", "free"):
        parser.add_argument(f"--{name}", type=int_list if name == "layers" else comma_list)
    parser.add_argument("--several", nargs="*")
    assert parser.parse_args(["--free", value, "--several", "--files", "a,,b"]).files == ["a", "b"]
    for name in ("files", "layers"):
        with pytest.raises(SystemExit):
            parser.parse_args([f"--{name}", value])
        assert f"--{name}: the list {value!r} is empty" in capsys.readouterr().err


def test_empty_values(capsys):
    """A variable of the shell that is not set: "--model_load_dir $MODEL" in quotes would start from initial values without a word."""
    parser = Parser(prog="x", may_be_empty=("text", "free"))
    parser.add_argument("text", nargs="*")
    parser.add_argument("--path", default="kept")
    parser.add_argument("--paths", nargs="+")
    parser.add_argument("--free")
    assert parser.parse_args(["", "a", "--free", ""]).path == "kept"
    for words in (["--path", ""], ["--path="], ["--paths", "a", ""]):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(words)
        assert end.value.code == 2
        assert "the value is empty: is a variable of the shell not set?" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the value is empty"):
        parser.check_flag("--path", "")


def test_long_values_make_no_long_line(capsys):
    parser = Parser(prog="x")
    parser.add_argument("--count", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(["--count", "9" * 100000 + "x"])
    line = capsys.readouterr().err
    assert line.startswith("error: argument --count: ")
    assert line.endswith("(x --help lists the flags)\n")
    assert len(line) < 2100


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("--lr", ["--learning_rate"]),
        ("--learning-rate", ["--learning_rate"]),
        ("--learning", ["--learning_rate"]),
        ("--epochs", ["--num_epochs"]),
        ("--batch_size", ["--batch_size_per_device"]),
        ("--log", ["--log_dir"]),
        ("--xyzzy", []),
    ],
)
def test_the_flag_that_was_meant(word, found):
    flags = ["--learning_rate", "--log_dir", "--num_epochs", "--batch_size_per_device", "--dev_batch_size_per_device"]
    assert similar_flags(word, flags) == found
