"""Flags files: a run writes its flags to run.flags in its folder, and `SCRIPT @FILE` reads flags from such a file.

    # flags of meta_finetuning.py
    --task_name g1
    --data_dir my data/k-shot-cross/g1/16-42
    --resave_ofrecord true

A file has one flag per line. The value follows a blank or = and ends with the line. A value in double quotes is read as a JSON string;
quotes are needed if the value is empty, starts or ends with a blank, or starts with a quote. Blank lines and lines that start with #
are ignored, except for a first line as above: it names the script that the flags belong to.
"""

import json
import os
import re
from typing import Any, List

from modeling.cli.scripts import script_path
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import for_shell
from ofrecord_util.files import replacing
from ofrecord_util.reading import FLAGS_LIMIT, read_bytes

RUN_FLAGS_FILE = "run.flags"
_NOT_WRITTEN = ("resume",)  # belongs to one start of a run, not to the run
_OWNER = re.compile(r"#\s*flags of ((?:\w+/)*(\w+)\.py)\b")


def _value_text(value):
    """Value of a flag in the syntax of the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def resume_command(script: str, folder: str) -> str:
    """The command that continues a run with all of its flags.

    Args:
        script: a key of `SCRIPTS`.
        folder: run folder, with run.flags.
    """
    return f"python3 {script_path(script)} {for_shell('@' + os.path.join(folder, RUN_FLAGS_FILE))} --resume {for_shell(folder)}"


def write_flags_file(folder: str, flags: Any) -> None:
    """Writes FOLDER/run.flags with the flags that the command line set, in the order of --help.

    Args:
        folder: run folder.
        flags: from `parse_flags`.
    Raises:
        UserError: the file cannot be written.
    """
    script = script_path(flags.script)
    lines = [f"# flags of {script}; to run it again: python3 {script} @FOLDER/{RUN_FLAGS_FILE}"]
    for name, value in vars(flags).items():
        if name in flags.given and name not in _NOT_WRITTEN:
            text = _value_text(value)
            plain = text and text == text.strip() and not text.startswith('"') and text.isprintable()
            lines.append(f"--{name} {text if plain else json.dumps(text)}")
    path = os.path.join(folder, RUN_FLAGS_FILE)
    try:
        with replacing(path) as file:
            file.write("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def expand(argv: List[str], script: str, parser: Any) -> List[str]:
    """Replaces each @FILE of a command line by the flags in that file.

    Args:
        argv: arguments; an argument that starts with @ names a file.
        script: script that the flags must belong to ("meta_finetuning").
        parser: `Parser` of the script.
    Returns:
        arguments without @FILE.
    Raises:
        UserError: the file cannot be read, is flags.json, or belongs to another script; or a line has an error, and the
            message names the line.
    """
    expanded = []
    for argument in argv:
        expanded += _read(argument[1:], script, parser) if argument.startswith("@") else [argument]
    return expanded


def _read(path, script, parser):
    """Reads a flags file; returns its flags as arguments --name=value."""
    try:
        data = read_bytes(path, "write --flag=@value for a value that starts with @", FLAGS_LIMIT)
    except UserError as error:
        raise UserError(f"@{error}; @ names a flags file") from error
    lines = [line.strip() for line in re.split("\r\n?|\n", data.decode("utf-8-sig", "surrogateescape"))]
    if next(filter(None, lines), "").startswith("{"):
        raise UserError(f"@{path}: this is JSON, not a flags file; use {RUN_FLAGS_FILE} in the same folder")
    flags = [(number, *_split(line)) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    owner = _OWNER.match(lines[0]) if lines else None
    if owner and owner.group(2) != script:
        foreign = [name for _, name, _ in flags if not parser.has_flag(name)]
        hint = f"which has no {foreign[0]}" if foreign else "remove that line to use them for both scripts"
        raise UserError(f"{path}: line 1: the flags of {owner.group(1)}, this is {script_path(script)}: {hint}")
    arguments = []
    for number, name, value in flags:
        try:
            if not name.startswith("--"):
                raise ValueError(f"{name!r} does not start with --; a line has one --flag and its value")
            if value is not None and value.startswith('"'):
                value = _unquote(value)
            parser.check_flag(name, value)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}") from error
        arguments.append(name if value is None else f"{name}={value}")
    return arguments


def _split(line):
    """Splits a line into the flag and its value, None if the line has no value."""
    name, *rest = re.split(r"\s*=\s*|\s+", line, maxsplit=1)
    return name, rest[0] if rest else None


def _unquote(text):
    try:
        value = json.loads(text)  # not `reading.parse_json`: half of a surrogate pair stands for a byte of a path that is not UTF-8
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise ValueError(f"{text} is not a valid string in double quotes")
    return value
