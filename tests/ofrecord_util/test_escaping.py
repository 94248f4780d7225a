"""Names on a terminal, in Markdown, in a shell and in Python source: nothing in them acts, and nothing is lost."""

import ast
import io
import json
import os
import subprocess
import sys

import pytest
import tiny

from ofrecord_util.escaping import for_json, for_markdown, for_markdown_code, for_python, for_shell, for_terminal, markdown_block, say

# print() shows control characters of names and texts as they are: `say` is used instead
PRINTS = {
    "ofrecord_util/escaping.py": "say itself",
    "modeling/run/log.py": "lines that it has escaped, between those of a progress bar",
    "tools/demo.py": "text of the demo",
    "tools/demo_kd.py": "text of the demo",
    "tools/demo_steps.py": "text of the demo, with line ends",
}

TEXTS = [
    "plain",
    "two words",
    'it\'s "q"',
    "$(touch x) `y` \\ !",
    "\x1b[31mred",
    "a\nb\tc\r",
    "é 中 \U0001f600",
    "\u202egnp.exe",
    "",
    "-x",
    "a|b",
]


@pytest.mark.parametrize("text", [*TEXTS, "\udc80"])
def test_python_reads_the_same_text(text):
    shown = for_python(text)
    assert eval(shown) == text
    assert shown.isprintable()


@pytest.mark.parametrize("text", [*TEXTS, "\udc80"])
def test_bash_reads_the_same_text(text):
    shown = for_shell(text)
    assert shown.isprintable()
    result = subprocess.run(["bash", "-c", f"printf %s {shown}"], stdout=subprocess.PIPE, check=True)
    assert result.stdout == text.encode("utf-8", "surrogateescape")


def test_terminal():
    assert [for_terminal(text) for text in ("é 中", "a\x1b[0mb\n", "\x9b\u202e\u200b", "\udc80")] == [
        "é 中",
        "a\\x1b[0mb\\x0a",
        "\\x9b\\u202e\\u200b",
        "\\udc80",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("snapshot_best_1", "snapshot_best_1"),
        ("<img src=x onerror=alert(1)>", "\\<img src=x onerror=alert(1)>"),
        ("a|b *c* _d_ [e](f)", "a\\|b \\*c\\* \\_d\\_ \\[e\\](f)"),
        ("R&B &lt;", "R&B \\&lt;"),
        ("a\n# b\n", "a \\# b"),
        ("`code` \\", "\\`code\\` \\\\"),
    ],
)
def test_markdown(text, expected):
    assert for_markdown(text) == expected


def test_code_in_markdown():
    assert [for_markdown_code(text) for text in ("a", "a`b", "``a``", "<b>\n")] == ["`a`", "``a`b``", "``` ``a`` ```", "`<b>`"]
    assert markdown_block(["x ``` y"], "python") == ["````python", "x ``` y", "````"]


@pytest.mark.parametrize("text", [*TEXTS, "\x85\x9b", "\U000e0001"])
def test_json_has_the_same_values(text):
    shown = for_json(json.dumps({text: [text]}, ensure_ascii=False))
    assert json.loads(shown) == {text: [text]}
    assert shown.isprintable()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_json_for_an_output_with_few_characters(encoding, monkeypatch):
    values = {"n\u00e9gatif": ["\N{BULLET}", "\N{THUMBS UP SIGN}", "\x1b"]}
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace"))
    shown = for_json(json.dumps(values, ensure_ascii=False))
    assert json.loads(shown.encode(encoding).decode(encoding)) == values


def test_lines_that_are_said():
    out = io.StringIO()
    say("domain a\x1b[31m\nb \N{BULLET}", out)
    assert out.getvalue() == "domain a\\x1b[31m\\x0ab \N{BULLET}\n"


def printing():
    """Files that use `print`, also as a default such as log=print."""
    for place, folders, names in os.walk(tiny.ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ("tests", "benchmarks", "models", "output")]
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".py"):
                with open(path, encoding="utf-8") as file:
                    if any(isinstance(node, ast.Name) and node.id == "print" for node in ast.walk(ast.parse(file.read()))):
                        yield os.path.relpath(path, tiny.ROOT)


def test_lines_are_printed_in_one_place():
    assert set(printing()) == set(PRINTS)
