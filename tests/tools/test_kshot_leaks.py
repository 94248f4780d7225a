"""tools/kshot_leaks.py: nothing of the test rows is learned from, and no text is drawn twice."""

import random
import re

import pytest
from kshot_files import kshot, rows_of, sentence, table, texts_of, write

from tools.kshot_corpora import make_row
from tools.kshot_leaks import CONTAINED, CONTAINS, EQUAL, find_leaks


def test_leaks_are_skipped_and_counted(tmp_path, capsys):
    """K takes every candidate that is left, so each leak that were not skipped would show."""
    good = "".join(f"{sentence('a', n)}\t{n % 2}\n" for n in range(4))
    leaks = [
        "The  Film is FINE here .",  # equal
        "it's so very bad",  # equal but for its tokenisation
        "i said : the film is fine here . twice",  # contains
        "is fine here",  # contained
    ]
    a = write(tmp_path / "a.tsv", good + "".join(text + "\t1\n" for text in leaks))
    b = write(
        tmp_path / "b.tsv",
        "".join(f"{sentence('b', n)}\t{n % 2}\n" for n in range(4)) + f"{sentence('a', 99)} indeed\t0\nfine film !\t1\n",
    )
    # the test rows of one domain count for the other; `fine film` is too short to be found inside a text
    test_a = write(tmp_path / "test_a.tsv", f"the film is fine here .\t1\nit 's so very bad\t0\n{sentence('a', 99)}\t0\n")
    test_b = write(tmp_path / "test_b.tsv", "fine film !\t1\nThing of\t1\nfar away from here\t0\n")
    counts = kshot(
        tmp_path / "out", "--k", 1, "--source", f"a=tsv:{a}", f"b=tsv:{b}", "--test_source", f"a=tsv:{test_a}", f"b=tsv:{test_b}"
    )
    assert counts["a"]["leaks"] == {EQUAL: 2, CONTAINS: 1, CONTAINED: 1}
    assert counts["a"]["candidates"] == 4
    assert counts["b"]["leaks"] == {EQUAL: 1, CONTAINS: 1, CONTAINED: 0}
    assert counts["b"]["candidates"] == 4
    learned = set(texts_of(tmp_path / "out", "train", "a")) | set(texts_of(tmp_path / "out", "dev", "a"))
    assert learned == {sentence("a", n) for n in range(4)}
    printed = capsys.readouterr().out
    assert "a: 8 rows; skipped 4 leaks (2 equal a test row, 1 contain one, 1 are contained in one), 0 duplicates" in printed
    assert "b: 6 rows; skipped 2 leaks" in printed


def test_find_leaks_against_brute_force():
    chance = random.Random(5)

    def text():
        return " ".join(chance.choice(["A", "b", "bb", "it's", "it", "'s", "!", "\U0001f600", "c-d"]) for _ in range(chance.randint(1, 7)))

    rows = [make_row(text(), "0") for _ in range(400)] + [make_row("word " * 60 + str(n), "0") for n in range(3)]
    tests = [make_row(text(), "0") for _ in range(12)] + [make_row("word " * 40, "0")]

    def letters(words):
        return re.sub(r"[\s!'-]", "", words)

    def leak(row):
        for test in tests:
            a, b = " ".join(row.text.lower().split()), " ".join(test.text.lower().split())
            if a == b or a in b or (b in a and len(b.split()) >= 3):
                return True
            real = sum(bool(letters(word)) for word in b.split())
            if letters(a) and letters(b) and (letters(a) in letters(b) or (letters(b) in letters(a) and real >= 3)):
                return True
        return False

    wanted = [leak(row) for row in rows]
    assert [kind is not None for kind in find_leaks(rows, tests)] == wanted
    assert 20 < sum(wanted) < 380
    assert wanted[-1]


def test_duplicates_are_skipped_and_counted(tmp_path, capsys):
    text = "".join(f"{sentence('d', n)}\t{n % 2}\n" for n in range(4)) * 2
    text += f"{sentence('D', 1).upper()} .\t1\nthis one is in doubt\t0\nThis one is in doubt\t1\n"
    counts = kshot(
        tmp_path / "out",
        "--k",
        1,
        "--source",
        f"d=tsv:{write(tmp_path / 'a.tsv', text)}",
        "--test_source",
        f"d=tsv:{table(tmp_path / 'test.tsv', 'other', range(2))}",
    )
    assert (counts["d"]["duplicates"], counts["d"]["two labels"], counts["d"]["candidates"]) == (5, 2, 4)
    assert "5 duplicates, 2 with two labels" in capsys.readouterr().out
    # copies of drawn test rows are leaks
    assert (
        kshot(tmp_path / "own", "--k", 1, "--source", f"d=tsv:{table(tmp_path / 'b.tsv', 'd', [*range(6)] * 2)}", "--test_cap", 2)["d"][
            "leaks"
        ][EQUAL]
        == 2
    )


def test_no_text_is_drawn_for_two_domains(tmp_path):
    """Two domains of almost the same text: the cross set would repeat rows, or have them in train and dev."""
    sources = [f"{d}=tsv:{table(tmp_path / (d + '.tsv'), 'same', range(24))}" for d in "xy"]
    tests = [f"{d}=tsv:{table(tmp_path / (d + '-test.tsv'), 'other', range(2))}" for d in "xy"]
    counts = kshot(tmp_path / "out", "--k", 3, "--source", *sources, "--test_source", *tests)
    rows = [row for split in ("train", "dev") for row in rows_of(tmp_path / "out" / "k-shot-cross" / "g" / "3-42" / f"{split}.csv")]
    assert len({text for text, _, _ in rows}) == len(rows) == 24
    passed = [counts[d]["duplicates of another domain's draw"]["42"] for d in "xy"]
    assert passed[0] == 0 < passed[1]


@pytest.mark.parametrize(
    "other",
    [
        "it&#39;s &quot;good&quot; &amp; cheap &eacute;t&eacute;",
        "it&amp;#39;s &amp;quot;good&amp;quot; &amp;amp; cheap e\u0301te\u0301",
        "<b>It&apos;s</b> &#34;good&#x22; &AMP; cheap<br />&#233;t&#xE9;",
    ],
)
def test_html_does_not_hide_a_test_row(other):
    test = make_row('it\'s "good" & cheap été', "1")
    assert find_leaks([make_row(other, "1")], [test]) == ["equal"]
    assert make_row(other, "1").text == other  # the output keeps the text
    assert find_leaks([make_row("x &lt; y and AT&T", "1")], [test]) == [None]
