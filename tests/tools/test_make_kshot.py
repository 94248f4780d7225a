"""tools/make_kshot.py: every form is read, the layout is the documented one, nothing of the test rows is learned from."""

import collections
import json
import os
import random
import re
import subprocess
import sys

import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.tasks import resolve_task
from ofrecord_util.text import read_text
from tools.kshot_corpora import clean, key, make_row, parse_source, read_source
from tools.kshot_draws import balanced, stratified
from tools.kshot_leaks import CONTAINED, CONTAINS, EQUAL, find_leaks
from tools.make_kshot import main

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def sentence(domain, number):
    """A text that no other one contains, with no short words in common beginnings."""
    return f"{domain}{number:03} is a thing of number {number:03}"


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def table(path, domain, numbers, order=(0, 1), header=""):
    """Rows of text and label (0 for even numbers), in the order of columns that is asked for."""
    rows = [(sentence(domain, number), str(number % 2)) for number in numbers]
    return write(path, header + "".join("\t".join(row[i] for i in order) + "\n" for row in rows))


def rows_of(path):
    with open(str(path), "rb") as file:
        data = file.read()
    assert data.endswith(b"\n")
    assert b"\r" not in data
    return [tuple(line.split("\t")) for line in data.decode("utf-8").split("\n")[:-1]]


def tree(folder):
    """dict of path -> bytes of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def texts_of(out, split, domain="d"):
    """dict of text -> label of one domain's split, of the only K-SEED."""
    (path,) = (out / "k-shot-single" / domain).glob(f"*/{split}.csv")
    return {text: label for text, _, label in rows_of(path)}


def kshot(out, *words):
    main(["kshot", "--group", "g", "--output_dir", str(out), *map(str, words)])
    return json.loads((out / "make_kshot.json").read_text(encoding="utf-8"))["counts"]


def portions(out, *words):
    main(["portions", "--output_dir", str(out), *map(str, words)])
    return json.loads((out / "make_kshot.json").read_text(encoding="utf-8"))["counts"]


@pytest.fixture
def three(tmp_path):
    """Sources of three domains, 20 rows of each class."""
    return [f"{d}=tsv:{table(tmp_path / 'raw' / (d + '.tsv'), d, range(40))}" for d in ("SST-2", "mr", "cr")]


# Forms


def expected(numbers=range(6)):
    return {sentence("d", number): str(number % 2) for number in numbers}


def read_back(tmp_path, source, *words):
    """All texts and labels that a source gives: K = 1, so 2 rows a class for train and dev, the rest for test."""
    kshot(tmp_path / "out", "--k", 1, "--source", source, "--test_cap", 2, *words)
    found = {}
    for split in ("train", "dev", "test"):
        part = texts_of(tmp_path / "out", split)
        assert len(part) == 2
        assert not set(part) & set(found)
        found.update(part)
    return found


@pytest.mark.parametrize(
    ("form", "order", "header"),
    [
        ("tsv", (0, 1), ""),
        ("tsv-header", (0, 1), "Review\tSentiment\n"),
        ("tsv-header", (1, 0), "label\ttext\n"),
        ("sst2", (0, 1), "sentence\tlabel\n"),
        ("fdu", (1, 0), ""),
    ],
)
def test_tables(tmp_path, form, order, header):
    path = table(tmp_path / "a.tsv", "d", range(6), order, header)
    assert read_back(tmp_path, f"d={form}:{path}") == expected()


@pytest.mark.parametrize(
    ("form", "words", "row", "header"),
    [
        ("csv", (), '"{text}",{label}', ""),
        ("csv", (), '{label},7,"{text}"', "stars,id,review\n"),
        ("csv", ("--text_column", "x", "--label_column", "2"), '"{text}",{label}', "x,y\n"),
        ("jsonl", (), '{{"label": {label}, "text": "{text}"}}', ""),
        ("tsv-header", ("--text_column", "body"), "{text}\t{label}\tno", "body\tlabel\tnote\n"),
    ],
)
def test_tables_of_any_kind(tmp_path, form, words, row, header):
    rows = "".join(row.format(text=text, label=label) + "\n" for text, label in expected().items())
    path = write(tmp_path / "a.txt", header + rows)
    assert read_back(tmp_path, f"d={form}:{path}", *words) == expected()


def test_a_bad_row_of_comma_separated_text(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"a\nb",1\nc\n')
    with pytest.raises(UserError, match=r"a.csv: row 3 \(line 4, comma-separated\): 1 columns, but the header has 2"):
        kshot(tmp_path / "out", "--test_cap", 2, "--source", f"d=csv:{path}")


def test_several_files_blank_rows_and_line_ends(tmp_path):
    first = write(tmp_path / "a.tsv", f"\ufeff{sentence('d', 0)}\t0\r\n\r\n{sentence('d', 1)}\t1\r\n \t1\r\n")
    second = table(tmp_path / "b.tsv", "d", range(2, 6))
    assert read_back(tmp_path, f"d=tsv:{first},{second}") == expected()
    manifest = json.loads((tmp_path / "out" / "make_kshot.json").read_text())
    assert manifest["counts"]["d"]["without text"] == 2
    assert [file["rows"] for file in manifest["sources"]["d"]] == [2, 4]


def test_class_files(tmp_path):
    # as in MR: cp1252, U+0085 is an ellipsis there and no line end; a class may have two files
    positive = write(tmp_path / "rt.pos", "".join(sentence("d", n) + " caf\xe9 \u2026 so\n" for n in (1, 3)), "cp1252")
    more = write(tmp_path / "rt2.pos", sentence("d", 5) + "\tfine \n\n")
    negative = write(tmp_path / "rt.neg", "".join(sentence("d", n) + "\n" for n in (0, 2, 4)))
    found = read_back(tmp_path, f"d=lines:1={positive},0={negative},1={more}")
    assert found == {
        **{sentence("d", n): "0" for n in (0, 2, 4)},
        **{sentence("d", n) + " caf\xe9 \u2026 so": "1" for n in (1, 3)},
        sentence("d", 5) + " fine": "1",
    }


def reviews(texts):
    return "".join(f"<review>\n<title>\nA & B <i>\n</title>\n<review_text>\n{text}\n</review_text>\n</review>\n" for text in texts)


@pytest.mark.parametrize("named", [False, True])
def test_reviews(tmp_path, named):
    for word, numbers in (("negative", (0, 2, 4)), ("positive", (1, 3, 5))):
        texts = [sentence("d", n).replace(" thing", "\n\n thing\x1a") + "  &quot;" for n in numbers]
        write(tmp_path / "books" / f"{word}.review", reviews(texts))
    folder = tmp_path / "books"
    files = f"1={folder}/positive.review,0={folder}/negative.review" if named else folder
    labels = ("0", "1") if named else ("negative", "positive")
    wanted = {sentence("d", n) + "  &quot;": labels[n % 2] for n in range(6)}  # line ends became one space, entities stay
    assert read_back(tmp_path, f"d=reviews:{files}") == wanted


def test_encodings(tmp_path, capsys):
    text = "".join(f"{sentence('d', n)} \u044f\t{n % 2}\n" for n in range(6))
    write(tmp_path / "a.tsv", text, "cp1251")
    wanted = {sentence("d", n) + " \u044f": str(n % 2) for n in range(6)}
    assert read_back(tmp_path, f"d=tsv:{tmp_path}/a.tsv", "--encoding", "utf-8", "d=cp1251") == wanted
    assert "cp1252" not in capsys.readouterr().out
    write(tmp_path / "b.tsv", text, "utf-16")
    assert read_back(tmp_path, f"d=tsv:{tmp_path}/b.tsv", "--encoding", "utf-16", "--overwrite") == wanted
    # UTF-8 that is none is Windows-1252, and that is said
    assert read_back(tmp_path, f"d=tsv:{tmp_path}/a.tsv", "--overwrite") != wanted
    assert "a.tsv: 6 rows; row 1: byte 30 of the file (0xff) is not UTF-8, read as cp1252" in capsys.readouterr().out


def test_clean():
    assert clean("\ufeff a \t\r\n b  c\x00\x85d\u2028\x1a ") == "a b  c d"
    assert clean("   " * 1000) == ""
    assert clean("\x1a\t") == ""


# Few-shot sets


def test_layout_and_union(tmp_path, three):
    out = tmp_path / "out"
    counts = kshot(out, "--k", 4, "--seeds", 42, 13, "--test_cap", 10, "cr=7", "--source", *three)
    wanted = {"make_kshot.json"}
    for name in ("4-42", "4-13"):
        wanted |= {f"k-shot-cross/g/{name}/{split}.csv" for split in ("train", "dev")}
        wanted |= {f"k-shot-single/{d}/{name}/{split}.csv" for d in ("SST-2", "mr", "cr") for split in ("train", "dev", "test")}
    assert set(tree(out)) == wanted

    for name in ("4-42", "4-13"):
        seen = []
        for split in ("train", "dev"):
            cross = rows_of(out / "k-shot-cross" / "g" / name / f"{split}.csv")
            single = [rows_of(out / "k-shot-single" / d / name / f"{split}.csv") for d in ("SST-2", "mr", "cr")]
            assert sorted(cross) == sorted(row for rows in single for row in rows)
            assert [row[1] for row in cross] != sorted(row[1] for row in cross)  # shuffled
            assert set(collections.Counter(row[1:] for row in cross).values()) == {4}
            assert len(cross) == 24
            seen += [row[0] for row in cross]
        for domain, sizes in (("SST-2", [5, 5]), ("mr", [5, 5]), ("cr", [3, 4])):
            test = rows_of(out / "k-shot-single" / domain / name / "test.csv")
            assert sorted(collections.Counter(row[2] for row in test).values()) == sizes
            seen += [row[0] for row in test]
        assert len(seen) == len(set(seen))
    one, other = ((out / "k-shot-single" / "mr" / name / "test.csv").read_bytes() for name in ("4-42", "4-13"))
    assert one == other
    assert counts["cr"]["drawn for test"] == 7
    assert counts["cr"]["candidates"] == 33
    assert sorted(os.listdir(str(tmp_path))) == ["out", "raw"]

    # the phases read it
    folder = out / "k-shot-cross" / "g" / "4-42"
    assert len(read_text(str(folder / "train.csv"), resolve_task("g1", str(folder)))) == 24


def test_draw_depends_on_seed_domain_and_rows_only(tmp_path, three):
    words = ["--k", 4, "--test_cap", 10, "--seeds", 42]
    kshot(tmp_path / "a", *words, 13, "--source", *three)
    script = "import sys; from tools.make_kshot import main; main(sys.argv[1:])"
    arguments = ["kshot", "--group", "g", "--output_dir", str(tmp_path / "b"), *map(str, words), "13", "--source", *three[::-1]]
    environment = dict(os.environ, PYTHONHASHSEED="7")
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")

    # neither the other domains nor the order of rows matter
    path = write(tmp_path / "raw" / "reversed.tsv", "".join((tmp_path / "raw" / "mr.tsv").read_text().splitlines(True)[::-1]))
    kshot(tmp_path / "c", *words, "--source", f"mr=tsv:{path}")
    a, c = tree(tmp_path / "a"), tree(tmp_path / "c")
    for split in ("train", "dev", "test"):
        name = f"k-shot-single/mr/4-42/{split}.csv"
        assert a[name] == c[name]
        other = a[f"k-shot-single/mr/4-13/{split}.csv"]
        assert (a[name] == other) == (split == "test")

    # the very draw, from an independent script: a published result names a seed, so no release may change what it draws
    train = [int(text[2:5]) for text, _, _ in rows_of(tmp_path / "c" / "k-shot-single" / "mr" / "4-42" / "train.csv")]
    assert train == [25, 15, 38, 32, 6, 31, 18, 1]


def test_test_source_is_whole_unless_capped(tmp_path):
    train = table(tmp_path / "train.tsv", "d", range(20))
    test = table(tmp_path / "test.tsv", "d", [*range(50, 57), 50, 50])  # a whole file keeps its repeats
    words = ["--k", 2, "--source", f"d=tsv:{train}", "--test_source", f"d=tsv:{test}"]
    kshot(tmp_path / "whole", *words)
    (path,) = (tmp_path / "whole" / "k-shot-single" / "d").glob("*/test.csv")
    assert sorted(rows_of(path)) == sorted((sentence("d", n), "d", str(n % 2)) for n in [*range(50, 57), 50, 50])
    kshot(tmp_path / "capped", *words, "--test_cap", 6)
    assert sorted(texts_of(tmp_path / "capped", "test").values()) == list("000111")


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


# Published splits


def fdu(path, domain, numbers, more=b""):
    """A file in the form of FDU-MTL: rows of label and text."""
    rows = "".join(f"{number % 2}\t{sentence(domain, number)}\n" for number in numbers)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rows.encode() + more)
    return path


def splits(out, *words):
    main(["splits", "--output_dir", str(out), "--group", "g", *map(str, words)])
    return json.loads((out / "make_kshot.json").read_text(encoding="utf-8"))["counts"]


@pytest.fixture
def published(tmp_path):
    """Words for two domains: 20 and 15 training rows, 6 test rows each. Some rows of `a` are test rows of `b` or dev rows."""
    raw = tmp_path / "raw"
    leak, copy = f"1\t{sentence('b', 101)}!\n", f"1\t{sentence('b', 13).upper()}\n"
    train = {"a": fdu(raw / "a.task.train", "a", range(3, 21), b""), "b": fdu(raw / "b.task.train", "b", range(15))}
    train["a"].write_bytes((leak + copy).encode() + train["a"].read_bytes())
    tests = {domain: fdu(raw / f"{domain}.task.test", domain, range(100, 106)) for domain in train}
    named = [[f"{domain}=fdu:{path}" for domain, path in paths.items()] for paths in (train, tests)]
    return ["--source", *named[0], "--test_source", *named[1]]


def test_the_last_rows_are_dev(tmp_path, published, capsys):
    out = tmp_path / "out"
    counts = splits(out, "--dev_rows", 4, *published)
    names = {f"{folder}/{split}.csv" for folder in ("cross/g", "single/a", "single/b") for split in ("train", "dev", "test")}
    assert set(tree(out)) == {"make_kshot.json", *names}

    def numbers(domain, wanted):
        return [(sentence(domain, number), domain, str(number % 2)) for number in wanted]

    for domain, train, dev in (("a", range(3, 17), range(17, 21)), ("b", range(11), range(11, 15))):
        assert rows_of(out / "single" / domain / "train.csv") == numbers(domain, train)  # without the leak and the copy
        assert rows_of(out / "single" / domain / "dev.csv") == numbers(domain, dev)
        assert rows_of(out / "single" / domain / "test.csv") == numbers(domain, range(100, 106))
    for split in ("train", "dev", "test"):
        cross = rows_of(out / "cross" / "g" / f"{split}.csv")
        assert sorted(cross) == sorted(row for d in "ab" for row in rows_of(out / "single" / d / f"{split}.csv"))
        assert [row[1] for row in cross] != sorted(row[1] for row in cross)  # shuffled
    leaks = {"equal": 1, "contains": 0, "contained": 0}
    assert counts["a"] == {"rows": 20, "without text": 0, "leaks": leaks, "text of a dev row": 1, "train": 14, "dev": 4, "test": 6}
    assert "a: 20 rows; skipped 1 leaks (1 equal a test row, 0 contain one" in capsys.readouterr().out
    first = tree(out)
    splits(out, "--dev_rows", 4, "--overwrite", *published)
    assert tree(out) == first


def test_a_leak_among_the_last_rows_leaves_fewer_dev_rows(tmp_path):
    raw = tmp_path / "raw"
    train = fdu(raw / "train", "a", range(12), f"0\t{sentence('a', 100)}\n".encode())
    test = fdu(raw / "test", "a", range(100, 104))
    counts = splits(tmp_path / "out", "--dev_rows", 3, "--source", f"a=fdu:{train}", "--test_source", f"a=fdu:{test}")
    assert [row[0] for row in rows_of(tmp_path / "out" / "single" / "a" / "dev.csv")] == [sentence("a", 10), sentence("a", 11)]
    assert counts["a"]["dev"] == 2


def test_few_shot_draws_of_published_files(tmp_path, published):
    """K rows per class for each seed; the test rows are the published ones, and none is learned from."""
    counts = kshot(tmp_path / "out", "--k", 2, "--seeds", 1, 2, *published)
    assert counts["a"]["leaks"]["equal"] == 1
    tests = {sentence(domain, number) for domain in "ab" for number in range(100, 106)}
    drawn = []
    for seed in (1, 2):
        rows = rows_of(tmp_path / "out" / "k-shot-cross" / "g" / f"2-{seed}" / "train.csv")
        assert set(collections.Counter(row[1:] for row in rows).values()) == {2}
        assert not {row[0] for row in rows} & tests
        drawn.append({row[0] for row in rows})
    assert drawn[0] != drawn[1]


def test_single_bytes_among_utf8(tmp_path):
    """As in the published files: the row with such a byte keeps its other characters, and so do the rows around it."""
    path = fdu(tmp_path / "raw", "d", range(4), "1\tun été \n".encode() + b"0\tcaf\xe9 cr\xc3\xa8me\n")
    lines = []
    rows = read_source(parse_source("--source", f"d=fdu:{path}"), "--source", log=lines.append).rows
    assert [row.text for row in rows[4:]] == ["un été", "café crème"]
    assert "row 6: byte" in lines[0]
    assert "such bytes are read as cp1252" in lines[0]
    path.write_bytes(path.read_bytes() + b"1\t\x81\n")  # no character of cp1252
    with pytest.raises(UserError, match=r"raw: row 7: byte [0-9]+ of the file .0x81. is not UTF-8"):
        read_source(parse_source("--source", f"d=fdu:{path}"), "--source", log=lines.append)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dev_rows", "0"], "--dev_rows 0: must be at least 1"),
        (["--dev_rows", "15"], "--dev_rows 15: --source b has 15 rows, so none are left for train"),
        (["--dev_rows", "1"], "a: dev has no row of label '1'; change --dev_rows"),
        (["--group", ".."], "cannot be the name of a folder"),
    ],
)
def test_refused_splits(tmp_path, published, words, message):
    with pytest.raises(UserError) as caught:
        splits(tmp_path / "out", *published, *words)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_splits_need_test_rows_of_each_domain(tmp_path, published):
    with pytest.raises(UserError, match="b: has no test rows; set --test_source b="):
        splits(tmp_path / "out", *published[:-1])


def test_balanced():
    assert balanced({"0": 10, "1": 10}, 7) == {"0": 3, "1": 4}
    assert balanced({"0": 2, "1": 10, "2": 9}, 14) == {"0": 2, "1": 6, "2": 6}
    assert balanced({"0": 2, "1": 3}, 9) == {"0": 2, "1": 3}


# Meta-KD's split


def test_portions(tmp_path, capsys):
    """3 domains of different sizes, with copies in one domain, across domains, and in another case."""
    sources = []
    for domain, n in (("a", 40), ("b", 60), ("c", 20)):
        path = table(tmp_path / f"{domain}.tsv", domain, range(n))
        copies = [sentence(domain, number).upper() + f"\t{number % 2}\n" for number in range(0, 12, 3)] + ["in all of them\t1\n"]
        write(path, path.read_text() + "".join(copies))
        sources.append(f"{domain}=tsv:{path}")
    counts = portions(tmp_path / "out", "--source", *sources, "--train", 90, "--dev", 18, "--test", 27)
    assert counts["a"] == {"rows": 45, "without text": 0, "repeated": 9, "kept leaks": 0}
    assert set(tree(tmp_path / "out")) == {"train.csv", "dev.csv", "test.csv", "make_kshot.json"}
    parts = {split: rows_of(tmp_path / "out" / f"{split}.csv") for split in ("train", "dev", "test")}
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 90, "dev": 18, "test": 27}

    strata = collections.Counter(row[1:] for rows in parts.values() for row in rows)
    for split, share in (("train", 90 / 135), ("dev", 18 / 135), ("test", 27 / 135)):
        found = collections.Counter(row[1:] for row in parts[split])
        assert all(abs(found[stratum] - share * n) <= 1 for stratum, n in strata.items())
    where = collections.defaultdict(set)
    for split, rows in parts.items():
        for text, _, _ in rows:
            where[key(make_row(text, ""))].add(split)
    assert len(where) == 135 - 3 * 4 - 2
    assert all(len(splits) == 1 for splits in where.values())
    assert where["inallofthem"] == {"train"}
    assert "a: 45 rows, 0 without text skipped; 9 repeat a text, all copies in one split" in capsys.readouterr().out

    portions(tmp_path / "again", "--source", *sources[::-1], "--train", 90, "--dev", 18, "--test", 27)
    assert tree(tmp_path / "out") == tree(tmp_path / "again")
    portions(tmp_path / "other", "--source", *sources, "--train", 90, "--dev", 18, "--test", 27, "--seed", 13)
    assert tree(tmp_path / "out")["train.csv"] != tree(tmp_path / "other")["train.csv"]


def test_portions_of_a_part(tmp_path):
    source = f"d=tsv:{table(tmp_path / 'd.tsv', 'd', range(50))}"
    portions(tmp_path / "out", "--source", source, "--train", 10, "--dev", 4, "--test", 0)
    assert set(tree(tmp_path / "out")) == {"train.csv", "dev.csv", "make_kshot.json"}
    assert sorted(row[2] for row in rows_of(tmp_path / "out" / "dev.csv")) == list("0011")


def test_stratified_sums_are_exact():
    for sizes, wanted in (({"a": 7, "b": 5, "c": 1}, [6, 4, 3, 0]), ({"a": 1, "b": 1, "c": 1}, [1, 1, 1, 0]), ({"a": 9}, [2, 3, 4, 0])):
        shares = stratified(sizes, wanted)
        assert {name: sum(share) for name, share in shares.items()} == sizes
        assert [sum(column) for column in zip(*shares.values())] == wanted


# Bad input


GOOD = "".join(f"{sentence('d', n)}\t{n % 2}\n" for n in range(12))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--k", "9"], "d: class '0' has 5 candidates left, but --k 9 needs 18 (train and dev); lower --k or --test_cap, or add text"),
        (["--source", "d=xml:{raw}/good"], "unknown form 'xml'; there are csv, fdu, jsonl, lines, reviews, sst2, tsv, tsv-header"),
        (["--source", "d:{raw}/good"], "must be DOMAIN=FORM:FILE[,FILE...]"),
        (["--source", "../d=tsv:{raw}/good"], "domain '../d': must be a name without / "),
        (["--source", "..=tsv:{raw}/good"], "cannot be the name of a folder"),
        (["--source", "d=tsv:{raw}/good,"], "a file's name is empty"),
        (["--source", "d=lines:{raw}/good"], "form lines needs LABEL=FILE"),
        (["--source", "d=tsv:{raw}/good", "D=tsv:{raw}/good"], "domain 'D' is repeated"),
        (["--source", "d=tsv:{raw}/absent"], "absent: cannot be read (No such file or directory); check --source d"),
        (["--source", "d=tsv:{raw}"], "cannot be read (Is a directory)"),
        (["--source", "d=tsv:{raw}/undecodable"], "undecodable: row 2: byte 7 of the file (0x81) is not UTF-8, nor cp1252; --encoding"),
        (["--source", "d=tsv:{raw}/cp1252", "--encoding", "utf-8"], "cp1252: row 2: byte 7 of the file (0xe9) is not utf-8; --encoding"),
        (["--source", "d=tsv:{raw}/utf-16"], "utf-16: row 1: NUL; the file is not text, or is UTF-16 (--encoding utf-16)"),
        (["--source", "d=tsv:{raw}/columns"], "columns: row 3: 3 columns, but a row of form tsv has 2 (text TAB label)"),
        (["--source", "d=fdu:{raw}/one-column"], "one-column: row 1: 1 columns, but a row of form fdu has 2 (label TAB text)"),
        (["--source", "d=tsv:{raw}/no-label"], "no-label: row 1: label '': must be a name"),
        (["--source", "d=tsv:{raw}/header"], "header: row 1 is a header, but form tsv has none; use form tsv-header"),
        (["--source", "d=sst2:{raw}/good"], "row 1: the header of form sst2 is sentence TAB label, not 'd000 is a thing"),
        (["--source", "d=tsv-header:{raw}/good"], "row 1: the header of form tsv-header is a text (text, sentence, review) and a label"),
        (["--source", "d=fdu:{raw}/good"], "d: 12 labels in 12 rows; check whether text and label are swapped"),
        (["--source", "d=tsv:{raw}/empty"], "empty: has no text of form tsv; check --source d"),
        (["--source", "d=lines:1={raw}/good,0={raw}/blank"], "blank: has no text of form lines"),
        (["--source", "d=reviews:1={raw}/good,0={raw}/good"], "good: has no text of form reviews"),
        (["--source", "d=reviews:1={raw}/unclosed,0={raw}/unclosed"], "unclosed: row 5: <review_text> of review 1 has no </review_text>"),
        (["--source", "d=lines:1={raw}/good"], "all rows have the label '1'"),
        (["--source", "d=lines:a={raw}/good,A={raw}/good"], "these labels differ in case only: A, a"),
        (["--source", "d=tsv:{raw}/good", "e=lines:pos={raw}/good,neg={raw}/good"], "--source e has the labels neg, pos, d has 0, 1; use"),
        (["--test_cap", "e=3"], "--test_cap e=3: no --source is named 'e'; there are d"),
        (["--test_cap", "0"], "--test_cap 0: '0' is not a number above 0"),
        (["--test_cap", "d=1", "d=2"], "--test_cap d=2: d has a value already"),
        (["--encoding", "klingon"], "--encoding klingon: unknown encoding"),
        (["--encoding", "hex"], "--encoding hex: 'hex' is not a text encoding"),
        (["--test_source", "e=tsv:{raw}/good"], "--test_source e: there is no such --source; the sources are d"),
        (
            ["--test_source", "d=lines:0={raw}/good,2={raw}/good"],
            "--test_source d has labels that --source does not have: 2; its labels are 0, 1",
        ),
        (["--k", "0"], "--k 0: must be at least 1"),
        (["--seeds", "1", "1"], "--seeds 1 1: must be different numbers"),
        (["--group", "a/b"], "--group 'a/b': must be a name without / "),
        (["--output_dir", "{raw}"], "holds the source"),
        (["--output_dir", "{raw}/full"], "is not empty; --overwrite replaces"),
        (["--output_dir", "{raw}/good"], "is not a folder"),
        (["--output_dir", "{raw}/good/out"], "cannot be written"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, words, message):
    raw = tmp_path / "raw"
    write(raw / "full" / "note", "mine")
    for name, data in (
        ("good", GOOD.encode()),
        ("undecodable", b"fin\t1\nb\x81d\t0\n"),
        ("cp1252", b"fin\t1\nb\xe9d\t0\n"),
        ("utf-16", GOOD.encode("utf-16-le")),
        ("columns", b"a\t1\n\nb\tc\t0\n"),
        ("one-column", b"1 a\n"),
        ("no-label", b"a\t \n"),
        ("header", b"sentence\tlabel\n" + GOOD.encode()),
        ("empty", b""),
        ("blank", b"\n \n\x1a\n"),
        ("unclosed", reviews(["a"]).replace("</review_text>", "").encode()),
    ):
        (raw / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    given = {"--group": ["g"], "--output_dir": ["out"], "--source": [f"d=tsv:{raw}/good"], "--test_cap": ["2"], "--k": ["1"]}
    flag = None
    for word in words:
        if word.startswith("--"):
            flag, given[word] = word, []
        else:
            given[flag].append(word.format(raw=raw))
    with pytest.raises(UserError) as error:
        main(["kshot", *(word for flag, values in given.items() for word in (flag, *values))])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert tree(tmp_path) == before
    assert not os.path.exists("out")
    assert os.listdir(".") == ["raw"]


def test_test_rows_must_come_from_somewhere(tmp_path):
    with pytest.raises(UserError, match="d: has no test rows"):
        kshot(tmp_path / "out", "--source", f"d=tsv:{table(tmp_path / 'a', 'd', range(12))}")


def test_a_seed_below_zero(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        portions(tmp_path / "out", "--source", "books=tsv:books.tsv", "--seed", "-3")
    assert end.value.code == 2
    assert "--seed: -3 is not 0 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "sizes", "message"),
    [
        ("tsv:{raw}/good", (10, 2, 1), "--train 10 --dev 2 --test 1 need 13 rows, but the corpus has 12"),
        ("tsv:{raw}/good", (0, 2, 1), "--train 0 --dev 2 --test 1: train and dev must have rows"),
        ("lines:0={raw}/same,1={raw}/other", (4, 4, 4), "d: the 6 copies of 'same' do not fit into one part; raise --train"),
    ],
)
def test_bad_portions(tmp_path, source, sizes, message):
    write(tmp_path / "good", GOOD)
    write(tmp_path / "same", "same\n" * 6)
    write(tmp_path / "other", "".join(sentence("d", n) + "\n" for n in range(6)))
    with pytest.raises(UserError) as error:
        portions(
            tmp_path / "out",
            "--source",
            "d=" + source.format(raw=tmp_path),
            *(word for pair in zip(("--train", "--dev", "--test"), sizes) for word in pair),
        )
    assert message in str(error.value)
    assert not list(tmp_path.glob("out*"))


def test_overwrite(tmp_path, three):
    out, words = tmp_path / "out", ["--k", 1, "--test_cap", 2, "--source", *three]
    out.mkdir()
    kshot(out, *words)  # an empty folder is no obstacle
    before = tree(out)
    with pytest.raises(UserError, match="--overwrite"):
        kshot(out, *words, "--seeds", 13)
    assert tree(out) == before
    records = write(out / "k-shot-cross" / "g" / "1-42" / "ofrecord" / "train" / "weight.npy", "of the old rows")
    kshot(out, *words, "--seeds", 13, "--overwrite")
    assert not records.exists()
    assert (out / "k-shot-cross" / "g" / "1-13" / "train.csv").exists()

    write(out / "notes.txt", "mine")
    with pytest.raises(UserError, match=r"it holds notes.txt"):
        kshot(out, *words, "--overwrite")
    assert (out / "notes.txt").exists()
    (out / "notes.txt").unlink()
    (out / "make_kshot.json").unlink()
    with pytest.raises(UserError, match=r"no make_kshot.json in it"):
        kshot(out, *words, "--overwrite")
    with pytest.raises(UserError, match="and would replace it"):
        kshot(tmp_path / "raw", *words, "--overwrite")
    assert sorted(os.listdir(str(tmp_path))) == ["out", "raw"]


def test_nothing_is_left_when_writing_fails(tmp_path, three, monkeypatch):
    out, words = tmp_path / "out", ["--k", 1, "--test_cap", 2, "--source", *three]
    kshot(out, *words)
    before = tree(tmp_path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        kshot(out, *words, "--seeds", 13, "--overwrite")
    assert tree(tmp_path) == before


def test_command_line_says_one_line_and_needs_no_oneflow(tmp_path):
    command = [
        sys.executable,
        "-X",
        "importtime",
        "tools/make_kshot.py",
        "kshot",
        "--group",
        "g",
        "--output_dir",
        str(tmp_path / "out"),
        "--source",
        f"d=tsv:{tmp_path}/absent",
        "--test_cap",
        "2",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("import time:")]
    assert result.returncode == 2
    assert result.stdout == ""
    assert lines == [f"error: {tmp_path}/absent: cannot be read (No such file or directory); check --source d"]
    assert "tqdm" in result.stderr
    assert "oneflow" not in result.stderr
    assert os.listdir(str(tmp_path)) == []


def test_one_stray_byte_is_no_reason_to_read_utf8_as_another_encoding(tmp_path):
    """Each accent would become two characters."""
    rows = [f"un café très réussi numéro {number}\t{number % 2}\n".encode() for number in range(30)]
    rows[24] = b"un caf\xe9 bien r\xe9ussi\t0\n"
    (tmp_path / "raw.tsv").write_bytes(b"".join(rows))
    source = parse_source("--source", f"d=tsv:{tmp_path / 'raw.tsv'}")
    with pytest.raises(UserError, match=r"raw.tsv: row 25: byte [0-9]+ of the file .0xe9. is not UTF-8, but other rows are; .*--encoding"):
        read_source(source, "--source", log=lambda line: None)
    assert "cafÃ©" in read_source(source, "--source", "cp1252", log=lambda line: None).rows[0].text  # as asked for
    (tmp_path / "raw.tsv").write_bytes(rows[24] + b"plain\t1\n")
    lines = []
    assert read_source(source, "--source", log=lines.append).rows[0].text == "un café bien réussi"
    assert "read as cp1252" in lines[0]


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


def test_labels_that_look_alike(tmp_path):
    """The scripts would refuse the files that were made."""
    rows = [f"text number {row}\t{label}\n" for row in range(20) for label in ("positif", "positif\u200b")]
    (tmp_path / "raw.tsv").write_text("".join(rows), encoding="utf-8")
    source = parse_source("--source", f"d=tsv:{tmp_path}/raw.tsv")
    with pytest.raises(UserError, match=r"--source d: the labels 'positif.*' and 'positif.*' look the same"):
        read_source(source, "--source")
