"""Text of users and files, such as names of tasks, labels, variables and folders, as it is shown: on a terminal, in Markdown and
YAML, in a shell command and in Python source.

A name can hold escape sequences that change a terminal, markup that a page would run, and quotes that end a string. Each function
below makes it harmless in one of these places. Files that programs read, such as predictions, hold the text as it is.
"""

import json
import re
import shlex
import sys
from typing import Any, Optional, Sequence, TextIO

_MARKUP = re.compile(r"([\\`*|<\[\]#~$]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_]))")  # _ within a word is no markup


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def for_terminal(text: Any) -> str:
    """Text on one line for a terminal or a log: a character that is not visible (control, format, line end, half of a surrogate pair)
    becomes its escape sequence in Python's form, such as \\x1b. Printable text is unchanged.
    """
    text = str(text)
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def say(line: Any, stream: Optional[TextIO] = None) -> None:
    """Prints a line as `for_terminal` returns it, at once. Tools print all lines that may contain text of users or files with it.

    Args:
        line: text, or what `str` makes text of.
        stream: None for standard output.
    """
    print(for_terminal(line), file=stream or sys.stdout, flush=True)


def for_json(text: str) -> str:
    """JSON of one line for standard output: the same values. A character that is not visible, or that the encoding of standard output does
    not have, becomes an escape sequence of JSON; Python's own, which the stream would write, is no JSON."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if text.isprintable() and _has(encoding, text):
        return text
    return "".join(char if char.isprintable() and _has(encoding, char) else json.dumps(char)[1:-1] for char in text)


def _has(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def for_yaml(text: Any) -> str:
    """Text as a string of YAML in double quotes. Its escape sequences are those of Python."""
    return for_python(text)


def for_markdown(text: Any) -> str:
    """Text in a paragraph, a list or a cell of Markdown. It is on one line; characters of Markdown and HTML are escaped."""
    text = for_terminal(" ".join(str(text).split()))
    # a backslash that `for_terminal` has written is shown, as those of the text are
    return _MARKUP.sub(r"\\\1", text)


def for_markdown_code(text: Any) -> str:
    """Text as a code span of Markdown, with its backticks."""
    text = for_terminal(" ".join(str(text).split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if not text or text.startswith("`") or text.endswith("`") else ""
    return fence + pad + text + pad + fence


def markdown_block(lines: Any, language: str = "") -> list:
    """Lines as a block of code in Markdown: list of str with the fences, which are longer than any row of backticks in the lines."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + language, *lines, fence]


def for_shell(text: Any) -> str:
    """Text as one word of a command of bash: unchanged if it needs no quotes."""
    text = str(text)
    if text.isprintable():
        return shlex.quote(text)
    inner = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(char if char.isprintable() else _shell_escape(char) for char in inner) + "'"


def _shell_escape(char: str) -> str:
    # bytes rather than \u, which depends on the locale; a half of a surrogate pair stands for a byte of a name that is not UTF-8
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape" if "\udc80" <= char <= "\udcff" else "replace"))


def for_python(text: Any) -> str:
    """Text as a string of Python in double quotes."""
    return '"' + for_terminal(str(text).replace("\\", "\\\\").replace('"', '\\"')) + '"'


def counted(count: int, noun: str) -> str:
    """A number of things in a message: "1 label", "2 labels"."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names in a message, the first ones of more than `most`: "a, b and 3 others"."""
    return ", ".join(names[:most]) + (f" and {counted(len(names) - most, 'other')}" if len(names) > most else "")
