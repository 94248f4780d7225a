"""The parser of every command line of this project: a fault is one line and exit code 2, a typo is answered with the flag that it may
have meant, nothing is abbreviated, and --help shows every default in at most 100 columns."""

import argparse
import difflib
import itertools
import shutil
import sys
import textwrap

from modeling.cli.errors import EXIT_BAD_INPUT

HELP_COLUMNS = 100


def default_text(action):
    """The default of an argparse action as --help shows it; None where there is none to show."""
    default = action.default
    if action.required or action.nargs == 0 or default in (None, argparse.SUPPRESS, ""):
        return None
    if isinstance(default, (list, tuple)):
        separator = " " if action.nargs in ("+", "*") else ","  # as it would be given
        return separator.join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


class HelpFormatter(argparse.HelpFormatter):
    """Shows defaults, and fills the prose of descriptions; their indented lines (commands, tables) stay as they are."""

    def __init__(self, prog):
        super().__init__(prog, width=min(shutil.get_terminal_size().columns - 2, HELP_COLUMNS))

    def _get_help_string(self, action):
        default = default_text(action)
        note = " (required)" if action.required and action.option_strings else ""
        return (action.help or "") + (note if default is None else " (default {})".format(default.replace("%", "%%")))

    def _fill_text(self, text, width, indent):
        lines = []
        for as_it_is, part in itertools.groupby(text.strip("\n").splitlines(), lambda line: line[:1] in ("", " ")):
            part = list(part)
            lines += part if as_it_is else textwrap.wrap(" ".join(part), width, break_on_hyphens=False)
        return "\n".join(indent + line for line in lines)


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` with the rules above, for scripts and tools; modes of its `add_subparsers` follow them too."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **settings)
        self._optionals.title = "options"  # as Python 3.10 has it

    def error(self, message):
        print(f"error: {message} ({self.prog} --help lists the flags)", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)

    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else list(args)
        if not self._subparsers:  # a mode's own parser knows its flags
            # before argparse misses the required flag that a typo was meant for
            for argument in itertools.takewhile(lambda argument: argument != "--", args):
                name = argument.split("=")[0]
                if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                    self.error(self._unknown(name))
        return super().parse_known_args(args, namespace)

    def parse_args(self, args=None, namespace=None):
        flags, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(self._unknown(rest[0]) if rest[0].startswith("-") else f"unexpected argument {rest[0]!r}")
        return flags

    def _unknown(self, name):
        near = difflib.get_close_matches(name, list(self._option_string_actions), n=1)
        return "unknown flag {}{}".format(name, f", did you mean {near[0]}?" if near else "")

    def has_flag(self, name):
        """Whether `name` (with its dashes) is a flag; --help is none."""
        action = self._option_string_actions.get(name)
        return action is not None and action.nargs != 0

    def check_flag(self, name, value):
        """Checks one flag by itself.

        Args:
            name: with its dashes.
            value: text, or None where none is given.
        Raises:
            ValueError: no such flag, or no value of it; the message says what is wrong.
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
