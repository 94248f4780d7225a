"""tools/make_kshot.py: bad input in one line, nothing is written."""

import os
import subprocess
import sys

import pytest
from kshot_files import ROOT, kshot, portions, reviews, sentence, table, tree, write

from ofrecord_util.errors import UserError
from tools.make_kshot import main

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
        (["--source", "d=fdu:{raw}/one-column"], "one-column: row 1: 1 column, but a row of form fdu has 2 (label TAB text)"),
        (["--source", "d=tsv:{raw}/no-label"], "no-label: row 1: label '': must be a name"),
        (["--source", "d=tsv:{raw}/header"], "header: row 1 is a header, but form tsv has none; use form tsv-header"),
        (["--source", "d=sst2:{raw}/good"], "row 1: the header of form sst2 is sentence TAB label, not 'd000 is a thing"),
        (["--source", "d=tsv-header:{raw}/good"], "row 1: the header of form tsv-header is a text (text, sentence, review) and a label"),
        (["--source", "d=fdu:{raw}/good"], "d: 12 labels in 12 rows; check whether text and label are swapped"),
        (["--source", "d=tsv:{raw}/empty"], "empty: has no text of form tsv; check --source d"),
        (["--source", "d=lines:1={raw}/good,0={raw}/blank"], "blank: has no text of form lines"),
        (["--source", "d=lines:1={raw}/good,0={raw}/old"], "old: row 1: the rows end with carriage returns alone"),
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
        ("old", b"a film\ranother film\r"),
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
