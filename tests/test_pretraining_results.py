"""benchmarks/pretraining_results.py without training: texts, command lines, tables, and runs that are finished."""

import json
import os

import pytest
from test_learners import Scripts, raw, sentences  # noqa: F401  a fixture

from benchmarks import learners_data, learners_jobs, pretraining_results, runs, unlabelled_texts
from modeling.cli.flags import build_parser
from ofrecord_util.errors import UserError

DOMAINS = [f"d{number:02}" for number in range(12)]


@pytest.fixture
def data(raw):  # noqa: F811
    """The raw data of benchmarks/learners.py with unlabelled texts, of which some reveal a test row."""
    for number, domain in enumerate(DOMAINS):
        texts = sentences(5, f"{domain} unlabel")
        with open(os.path.join(raw, "fdu-mtl", f"{domain}.task.unlabel"), "w", encoding="utf-8") as file:
            file.write("".join(text + "\n" for text in texts))
            file.write(f"{domain}: " + sentences(6, f"{number} test")[0] + "\n")  # contains a test row
            file.write(sentences(6, "MR")[1] + "\n" if number == 3 else "")  # a test row of part A
    return raw


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    found = Scripts(tmp_path / "out")
    monkeypatch.setattr(learners_jobs, "run_script", found)

    def language(flags, folder):
        if not os.path.exists(os.path.join(folder, runs.DONE)):
            script = os.path.basename(flags[0])
            found.calls.append((script, os.path.relpath(folder, found.output), *(["structural"] if "--structural" in flags else [])))
            build_parser(script[:-3]).parse_args([*flags[1:], "--model_save_dir", folder])
            os.makedirs(os.path.join(folder, "snapshot_best_any_model_learners_dev_9.0"))
            measures = {"pretrain_mlm.py": ["perplexity"], "pretrain_pairs.py": ["recall", "accuracy"]}.get(script, ["accuracy"])
            scale = 1 if script == "pretrain_mlm.py" else 0.01
            values = ((4, 30.0), (8, 9.0), (12, 9.5))
            rows = [{"kind": "dev", "step": step, **dict.fromkeys(measures, scale * value)} for step, value in values]
            for name, values in ((runs.DONE, [{"seconds": 7.0, "command": ""}]), ("metrics.jsonl", rows)):
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.writelines(json.dumps(value) + "\n" for value in values)

    monkeypatch.setattr(pretraining_results, "run_script", language)
    return found


def measure(tmp_path, data, *words):
    common = ["--model_dir", str(tmp_path), "--data_dir", data, "--output_dir", str(tmp_path / "out")]
    pretraining_results.main([*common, *map(str, words)])


def test_texts_reveal_no_test_row(tmp_path, data):
    texts = unlabelled_texts.Texts(data, str(tmp_path / "texts"))
    kept = {name: open(texts.file(name), encoding="utf-8").read().splitlines() for name in pretraining_results.ENCODERS}  # noqa: SIM115
    assert len(kept["reviews"]) == 12 * 5
    assert len(kept["first"]) == len(kept["second"]) == 6 * 5
    assert sorted(kept["first"] + kept["second"]) == sorted(kept["reviews"])
    assert kept["first"][:5] == sentences(5, "d00 unlabel")
    assert kept["SENTI"] == [row[0] for row in learners_data.read_rows(os.path.join(data, "SENTI"), "train")]


def test_a_measurement(tmp_path, data, scripts, capsys):
    flags = (
        "--parts",
        "A",
        "B",
        "--arms",
        "mixing",
        "--encoders",
        "first",
        "second",
        "--part_flags",
        "A: --draws 16-42",
        "B: --draws 5-1 50-42",
    )
    measure(tmp_path, data, *flags)
    assert [call for call in scripts.calls if call[0] == "pretrain_mlm.py"] == [
        ("pretrain_mlm.py", os.path.join("encoders", name)) for name in ("first", "second")
    ]
    output = capsys.readouterr().out
    assert "| first | 30 | 12 | 7 | perplexity | 30.00 | 9.00 |" in output
    assert "### Part A" in output
    (row,) = [line for line in output.split("### Part B")[1].splitlines() if line.startswith("| mixing")]
    assert row.count("(12)") == 3  # domains: first, second, own - other
    calls = len(scripts.calls)
    measure(tmp_path, data, *flags)
    assert len(scripts.calls) == calls  # finished
    assert (tmp_path / "out" / pretraining_results.PAGE).exists()


def test_other_objectives(tmp_path, data, scripts, capsys):
    objectives = ("structural", "discriminator", "pairs")
    flags = (
        "--parts",
        "A",
        "B",
        "--encoders",
        "first",
        "second",
        "--objectives",
        *objectives,
        "--part_flags",
        "A: --draws 16-42",
    )
    setting = (*flags, "B: --draws 50-42 --arms 'mixing, mean vectors'", "--language_flags", "--max_predictions_per_seq 7")
    measure(tmp_path, data, *setting)
    trained = [call for call in scripts.calls if call[0].startswith("pretrain_")]
    assert [call[0] for call in trained[::2]] == ["pretrain_mlm.py", "pretrain_discriminator.py", "pretrain_pairs.py"]
    assert trained[0][1:] == (os.path.join("encoders", "first-structural"), "structural")
    output = capsys.readouterr().out
    assert "| second, discriminator | 30 | 12 | 7 | accuracy | 0.3000 | 0.3000 |" in output
    assert "| first, pairs | 30 | 12 | 7 | recall | 0.3000 | 0.3000 |" in output
    a, b = output.split("### Part A")[1].split("### Part B")
    assert "\n| contrastive, last step |" in a  # the arms that docs/results.md recommends
    assert "own - other, pairs" in b
    (row,) = [line for line in b.splitlines() if line.startswith("| mixing, mean vectors |")]
    assert row.count("(12)") == 3 * 3
    assert not [line for line in b.splitlines() if line.startswith("| MFT")]


def test_own_text_against_other_text():
    """Of two domains, each half has the text of one."""
    base = {("a", "1", 42): 70.0, ("b", "1", 42): 80.0}
    measured = {
        "none": {"mixing": base},
        "first": {"mixing": {("a", "1", 42): 73.0, ("b", "1", 42): 81.0}},
        "second": {"mixing": {("a", "1", 42): 71.0, ("b", "1", 42): 84.0}},
    }
    (row,) = pretraining_results.differences_table("B", measured, ("a", "b")).rows
    assert row[:2] == ["mixing", "75.0"]
    assert [cell.split(" ")[0] for cell in row[2:]] == ["+2.0", "+2.5", "+2.5"]
    assert pretraining_results.differences_table("B", {"none": {}}, ("a", "b")) is None


def test_what_is_refused(tmp_path, data):
    with pytest.raises(UserError, match="--data_dir absent: no such folder"):
        pretraining_results.main(["--model_dir", str(tmp_path), "--data_dir", "absent", "--output_dir", str(tmp_path / "out")])


def test_unlabelled_reviews_for_distillation(tmp_path, data, monkeypatch):
    folder = tmp_path / "SENTI"
    folder.mkdir()
    train, dev = sentences(5, "d00 unlabel")[0], sentences(5, "d01 unlabel")[3]
    (folder / "train.csv").write_text(f"{train.upper()}\tbooks\t1\n", encoding="utf-8")
    (folder / "dev.csv").write_text(f"{dev}\tdvd\t0\n", encoding="utf-8")
    monkeypatch.setattr(unlabelled_texts, "FDU_DOMAINS", {"books": "d00", "dvd": "d01", "kitchen": "d03"})
    texts = unlabelled_texts.Texts(data, str(tmp_path / "texts"))
    texts.unlabelled_split(str(folder))
    rows = [line.split("\t") for line in (folder / "unlabelled.csv").read_text(encoding="utf-8").splitlines()]
    expected = {"books": sentences(5, "d00 unlabel")[1:], "dvd": sentences(5, "d01 unlabel"), "kitchen": sentences(5, "d03 unlabel")}
    expected["dvd"].remove(dev)
    assert rows == [[text, domain] for domain, found in expected.items() for text in found]
    (folder / "unlabelled.csv").write_text("kept\tdvd\n", encoding="utf-8")
    texts.unlabelled_split(str(folder))
    assert (folder / "unlabelled.csv").read_text(encoding="utf-8") == "kept\tdvd\n"
