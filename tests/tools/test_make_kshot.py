"""tools/make_kshot.py: the layout is the documented one, a seed draws the same rows, a folder is replaced as a whole or stays as it is."""

import collections
import json
import os
import subprocess
import sys

import pytest
from kshot_files import ROOT, fdu, kshot, portions, rows_of, sentence, table, texts_of, tree, write

from ofrecord_util.errors import UserError
from ofrecord_util.tasks import resolve_task
from ofrecord_util.text import read_text
from tools.kshot_corpora import key, make_row
from tools.kshot_draws import balanced, stratified
from tools.make_kshot import main

# Few-shot sets


@pytest.fixture
def three(tmp_path):
    """Sources of three domains, 20 rows of each class."""
    return [f"{d}=tsv:{table(tmp_path / 'raw' / (d + '.tsv'), d, range(40))}" for d in ("SST-2", "mr", "cr")]


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


# Published splits


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dev_rows", "0"], "--dev_rows 0: must be at least 1"),
        (["--dev_rows", "15"], "--dev_rows 15: --source b has 15 rows, so none are left for train"),
        (
            ["--dev_rows", "1"],
            "--source a: dev has no row of label '1' (1 of 20 rows reveal a test row and are left out; dev is the last 1 row): change "
            "--dev_rows, or give a file with its labels mixed",
        ),
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
