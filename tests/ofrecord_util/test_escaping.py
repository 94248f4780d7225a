"""Names on a terminal, in Markdown, in a shell and in Python source: nothing in them acts, and nothing is lost."""

import subprocess

import pytest

from ofrecord_util.escaping import for_markdown, for_markdown_code, for_python, for_shell, for_terminal, markdown_block

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
