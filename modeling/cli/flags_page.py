"""Text of docs/flags.md, made from the flag table."""

from typing import List

from modeling.cli.flag_kinds import Flag
from modeling.cli.flag_table import FLAGS
from modeling.cli.scripts import ALL, EPOCH_TRAINING, META_KD, TRAINING, script_path

PAGE = "docs/flags.md"

# Sets of scripts that have a name on the page; every other set is a list of scripts
_SET_NAMES = {ALL: "all", TRAINING: "training scripts", EPOCH_TRAINING: "training in epochs", META_KD: "Meta-KD"}

_INTRO = """# Flags

This page is generated from `modeling/cli/flag_table.py`. After a change of the table, write it again:

    python3 tools/write_flags_page.py

- `SCRIPT --help` lists the flags of one script.
- A boolean flag without a value is true: `--do_train` and `--do_train true` are the same.
- `@FILE` inserts the flags in a file, one flag per line. Later flags on the command line override them.
- A flag has several rows if its default or meaning differs by script.
"""


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _scripts_text(scripts) -> str:
    if scripts in _SET_NAMES:
        return _SET_NAMES[scripts]
    others = [script for script in ALL if script not in scripts]
    if 0 < len(others) <= 2:
        return "all but " + ", ".join(map(_code, others))
    return ", ".join(map(_code, scripts))


def _default_text(flag: Flag) -> str:
    if flag.required:
        return "required"
    if flag.default in (None, ""):
        return flag.unset or "none"
    return _code(str(flag.default).lower() if isinstance(flag.default, bool) else str(flag.default))


def _table(rows: List[List[str]]) -> List[str]:
    return ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]


def flags_page() -> str:
    """Makes the text of docs/flags.md: one section per group, one table row per row of the flag table."""
    lines = [_INTRO, "Sets of scripts:", ""]
    lines += _table([["set", "scripts"], ["---", "---"]])
    lines += _table([[name, ", ".join(_code(script_path(script)) for script in scripts)] for scripts, name in _SET_NAMES.items()])
    groups = {flag.group: None for flag in FLAGS}  # a dict keeps the order of the table
    for group in groups:
        lines += ["", f"## {group.title[0].upper()}{group.title[1:]}", ""]
        if group.note:
            lines += [group.note, ""]
        lines += _table([["flag", "default", "scripts", "meaning"], ["---"] * 4])
        lines += _table(
            [
                [", ".join(map(_code, flag.option_strings)), _default_text(flag), _scripts_text(flag.scripts), flag.meaning]
                for flag in FLAGS
                if flag.group == group
            ]
        )
    return "\n".join(lines) + "\n"
