"""Advice of an error message that the running program can follow.

Shared modules name the flags of the scripts in their messages. A tool has only a few of them. A part of a message that names a flag which
the program lacks is left out, unless it names the script to run.
"""

import re
from typing import Iterable, List, Optional, Set

from modeling.cli.flag_table import FLAGS
from modeling.cli.scripts import script_path

_SCRIPT_FLAGS = frozenset(option for flag in FLAGS for option in flag.option_strings)
_FLAG = re.compile(r"--[a-z]\w*")
BREAK = re.compile(r"(; |: )")

_known: Optional[Set[str]] = None  # flags of the running program; None before its command line is parsed


def forget_flags() -> None:
    """Forgets the flags of a program. From here on `fitting` changes nothing, until `add_flags` is called."""
    global _known
    _known = None


def add_flags(flags: Iterable[str]) -> None:
    """Adds flags, with dashes, to those that the running program has."""
    global _known
    _known = (_known or set()).union(flags)


def foreign_flags(text: str) -> List[str]:
    """Flags of the scripts in a text that the running program does not have. Empty if the text names the script to run."""
    if _known is None or ".py" in text:
        return []
    return [flag for flag in _FLAG.findall(text) if flag in _SCRIPT_FLAGS and flag not in _known]


def only_script_with(option: str) -> Optional[str]:
    """The path of the script that has a flag, with dashes, and that no other script has; None if there is none."""
    scripts = {script for flag in FLAGS for script in flag.scripts if option in flag.option_strings}
    return script_path(scripts.pop()) if len(scripts) == 1 else None


def fitting(line: str) -> str:
    """The line without the parts, after the first, that name a flag of the scripts which the running program does not have. What follows a
    first part with a colon stays if nothing else would: "FILE: " alone does not say what is wrong.

    Args:
        line: parts are separated by "; " or ": ".
    """
    first, *rest = BREAK.split(line)
    pairs = list(zip(rest[::2], rest[1::2]))
    kept = [pair for pair in pairs if not foreign_flags(pair[1])]
    if not kept and pairs and pairs[0][0] == ": " and " " not in first.strip():
        kept = pairs[:1]
    return "".join([first, *(word for pair in kept for word in pair)])
