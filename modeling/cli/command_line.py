"""Argument parser of all scripts and tools.

An error is one line and exit code 2. An unknown flag is reported with the most similar known flag. Flags cannot be abbreviated.
--help shows every default and is at most 100 columns wide.
"""

import argparse
import difflib
import itertools
import shutil
import sys
import textwrap
from typing import Optional

from modeling.cli import advice, process
from modeling.cli.errors import fail
from ofrecord_util.errors import UserError

HELP_COLUMNS = 100


def default_text(action: argparse.Action) -> Optional[str]:
    """Default of an argparse action as --help shows it; None if --help does not show one."""
    default = action.default
    if action.required or action.nargs == 0 or default in (None, argparse.SUPPRESS, ""):
        return None
    if isinstance(default, (list, tuple)):
        separator = " " if action.nargs in ("+", "*") else ","  # so that the text can be copied to a command line
        return separator.join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


class HelpFormatter(argparse.HelpFormatter):
    """Shows defaults and wraps the paragraphs of descriptions; indented lines (commands, tables) are not changed."""

    def __init__(self, prog):
        super().__init__(prog, width=min(shutil.get_terminal_size().columns - 2, HELP_COLUMNS))

    def _get_help_string(self, action):
        default = default_text(action)
        note = " (required)" if action.required and action.option_strings else ""
        return (action.help or "") + (note if default is None else " (default: {})".format(default.replace("%", "%%")))

    def _fill_text(self, text, width, indent):
        lines = []
        for verbatim, part in itertools.groupby(text.strip("\n").splitlines(), lambda line: line[:1] in ("", " ")):
            part = list(part)
            lines += part if verbatim else textwrap.wrap(" ".join(part), width, break_on_hyphens=False)
        return "\n".join(indent + line for line in lines)


def similar_flags(name, flags):
    """At most one of the flags that `name` may mean, as a list: one with these initials (`--lr`), the only one that begins with it, or the
    one that is spelled most similarly."""
    word = name.lstrip("-").lower()
    initials = [flag for flag in flags if len(word) > 1 and "".join(part[:1] for part in flag.lstrip("-").split("_")) == word]
    longer = [flag for flag in flags if len(word) > 2 and flag.lstrip("-").startswith(word)]
    if len(initials) == 1 or len(longer) == 1:
        return initials if len(initials) == 1 else longer
    return difflib.get_close_matches(name, flags, n=1)


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` with the rules above; they also hold for the modes that `add_subparsers` adds.

    Args:
        prints_result: whether the result of the tool is its standard output. A closed standard output, which would lose it, is then an
            error before the work. For a tool that writes files it is none. The output of --help is a result in every tool.
        may_be_empty: names of arguments, without dashes, whose value may be empty. An empty value is mostly a variable of the shell that
            is not set, and would be taken for a flag that is not given.
        settings: those of `argparse.ArgumentParser`.
    """

    def __init__(self, prints_result=False, may_be_empty=(), **settings):
        self._prints_result, self._may_be_empty = prints_result, may_be_empty
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **settings)
        self._optionals.title = "options"  # older Pythons call it "optional arguments"

    def error(self, message):
        fail(UserError(f"{message} ({self.prog} --help lists the flags)"))

    def check_output(self, remedy: str = "redirect it to a file or to /dev/null") -> None:
        """Checks that the result can be printed.

        Args:
            remedy: what the user can do, for the message.
        Raises:
            UserError: standard output was closed when the process started.
        """
        if process.is_closed(1):
            raise UserError(f"standard output is closed, so the result would be lost: {remedy}")

    def print_help(self, file=None):
        if file is None:
            self.check_output()
        super().print_help(file)

    def _get_values(self, action, arg_strings):
        if "" in arg_strings and action.dest not in self._may_be_empty:
            raise argparse.ArgumentError(action, "the value is empty: is a variable of the shell not set?")
        values = super()._get_values(action, arg_strings)
        if values == [] and action.nargs is None and action.dest not in self._may_be_empty:  # a list of commas alone
            raise argparse.ArgumentError(action, f"the list {arg_strings[0]!r:.60} is empty")
        return values

    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else list(args)
        if not self._subparsers:  # otherwise the mode's parser checks its flags
            # argparse would report a missing required flag before the typo that caused it
            for argument in itertools.takewhile(lambda argument: argument != "--", args):
                name = argument.split("=")[0]
                if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                    self.error(self._unknown(name))
        parsed = super().parse_known_args(args, namespace)
        advice.add_flags(self._option_string_actions)
        return parsed

    def parse_args(self, args=None, namespace=None):
        flags, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(self._unknown(rest[0]) if rest[0].startswith("-") else f"unexpected argument {rest[0]!r}")
        if self._prints_result:
            self.check_output()
        return flags

    def _unknown(self, name):
        owner = advice.only_script_with(name)
        if owner:
            return f"unknown flag {name}, which only {owner} has"
        similar = similar_flags(name, list(self._option_string_actions))
        return "unknown flag {}{}".format(name, f", did you mean {similar[0]}?" if similar else "")

    def has_flag(self, name: str) -> bool:
        """Whether `name` (with dashes) is a flag of this parser other than --help."""
        action = self._option_string_actions.get(name)
        return action is not None and action.nargs != 0

    def check_flag(self, name: str, value: Optional[str]) -> None:
        """Checks one flag and its value, independent of other flags.

        Args:
            name: with dashes.
            value: text, or None if the flag has no value.
        Raises:
            ValueError: the flag is unknown, or the value is not allowed; the message says which.
        """
        if not self.has_flag(name):
            raise ValueError(self._unknown(name))
        action = self._option_string_actions[name]
        if value is None and action.nargs != "?":
            raise ValueError(f"{name} needs a value")
        try:
            self._get_values(action, [] if value is None else [value])
        except argparse.ArgumentError as error:
            raise ValueError(str(error)) from error
