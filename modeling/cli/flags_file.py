"""Files of flags: what a run was given stands in its folder as run.flags, and `SCRIPT @FILE` takes flags from such a file.

    # flags of meta_finetuning.py
    --task_name g1
    --data_dir my data/k-shot-cross/g1/16-42
    --resave_ofrecord true

A flag a line; its value stands behind a space (or =) and reaches to the end of the line. A value that is empty, or begins or ends
with a space or a quote, stands in double quotes, as in JSON. Blank lines and lines that begin with # say nothing, but for a first
line as above, which tells whose flags they are.
"""

import json
import os
import re

from modeling.cli.errors import UserError
from ofrecord_util.files import replacing

RUN_FLAGS_FILE = "run.flags"
_NOT_REPLAYED = ("resume",)  # belongs to one start of a run, not to the run
_OWNER = re.compile(r"#\s*flags of (\w+)\.py\b")


def _value_text(value):
    """A flag's value as the command line has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def write_flags_file(folder, flags):
    """Writes FOLDER/run.flags: what was given of `parse_flags`' flags, in the order of --help."""
    lines = [f"# flags of {flags.script}.py; to run it again: python3 {flags.script}.py @{RUN_FLAGS_FILE}"]
    for name, value in vars(flags).items():
        if name in flags.given and name not in _NOT_REPLAYED:
            text = _value_text(value)
            plain = text and text == text.strip() and not text.startswith('"') and text.isprintable()
            lines.append(f"--{name} {text if plain else json.dumps(text)}")
    path = os.path.join(folder, RUN_FLAGS_FILE)
    try:
        with replacing(path) as file:
            file.write("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def expand(argv, script, parser):
    """A command line with each @FILE replaced by the flags in that file.

    Args:
        argv: list of arguments; one that begins with @ names a file.
        script: whose flags they must be ("meta_finetuning").
        parser: the script's `Parser`.
    Raises:
        UserError: a file that cannot be read, flags.json, another script's flags, or a line at fault, which is named.
    """
    expanded = []
    for argument in argv:
        expanded += _read(argument[1:], script, parser) if argument.startswith("@") else [argument]
    return expanded


def _read(path, script, parser):
    """The flags in a file as arguments --name=value."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise UserError(
            f"@{path}: no file of flags can be read there ({error.strerror}); a value that begins with @ is given as --flag=@value"
        ) from error
    if next(filter(None, lines), "").startswith("{"):
        raise UserError(f"@{path}: JSON, which a run writes for its reader: give the {RUN_FLAGS_FILE} beside it")
    flags = [(number, *_split(line)) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    owner = _OWNER.match(lines[0]) if lines else None
    if owner and owner.group(1) != script:
        foreign = [name for _, name, _ in flags if not parser.has_flag(name)]
        why = f"which has no {foreign[0]}" if foreign else "take that line away where they are meant for both"
        raise UserError(f"{path}: line 1: the flags of {owner.group(1)}.py, this is {script}.py: {why}")
    arguments = []
    for number, name, value in flags:
        try:
            if not name.startswith("--"):
                raise ValueError(f"{name!r} is no --flag, of which a line holds one with its value")
            if value is not None and value.startswith('"'):
                value = _unquoted(value)
            parser.check_flag(name, value)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}") from error
        arguments.append(name if value is None else f"{name}={value}")
    return arguments


def _split(line):
    """(flag, value or None) of a line."""
    name, *rest = re.split(r"\s*=\s*|\s+", line, maxsplit=1)
    return name, rest[0] if rest else None


def _unquoted(text):
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise ValueError(f"{text} is no text in double quotes")
    return value
