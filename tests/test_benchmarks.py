"""The benchmarks' own rules, without measuring anything: cases, and who is timed when."""

import os
import sys

import pytest

from benchmarks import bench_corpus, bench_growth, bench_memory, bench_steps, kd_results, side_by_side
from ofrecord_util.errors import UserError


class FakeWorker:
    """Answers at once, and notes what it is asked."""

    def __init__(self, name, seconds, log):
        self.name, self.seconds, self.log = name, seconds, log
        self.turns, self.problem, self.first, self.facts, self.peak_bytes = [], None, 0.5, {"flop": 7}, None
        log.append(f"start {name}")

    def turn(self):
        self.log.append(f"turn {self.name}")
        if self.seconds is None:
            self.problem = "out of memory"
        else:
            self.turns.append(self.seconds.pop(0))

    def end(self):
        self.log.append(f"end {self.name}")
        self.peak_bytes = 2e9


def compare(log, together, **seconds):
    starts = [lambda name=name, values=values: FakeWorker(name, values, log) for name, values in seconds.items()]
    return side_by_side.compare({"case": "c"}, starts, 3, together)


@pytest.mark.parametrize("together", [True, False])
def test_medians_and_ratios(together):
    """The first turn does not count: it may still touch memory."""
    told = compare([], together, ours=[9.0, 1.0, 3.0, 2.0], other=[9.0, 4.0, 4.0, 5.0])
    ours, other = told["results"]["ours"], told["results"]["other"]
    assert (ours["seconds"], ours["least"], ours["largest"], ours["peak_gb"], ours["flop"]) == (2.0, 1.0, 3.0, 2.0, 7)
    assert other["ours_over_this"] == 0.5
    assert "ours_over_this" not in ours
    assert (told["case"], told["rounds"], told["together"]) == ("c", 3, together)


def test_turns_go_round():
    log = []
    compare(log, True, a=[1.0] * 4, b=[1.0] * 4)
    assert log == ["start a", "start b"] + ["turn a", "turn b"] * 4 + ["end a", "end b"]


def test_apart_one_ends_before_the_next_starts():
    log = []
    compare(log, False, a=[1.0] * 4, b=[1.0] * 4)
    assert log == [f"{step} {name}" for name in "ab" for step in ["start"] + ["turn"] * 4 + ["end"]]


def test_a_worker_that_fails_is_named_and_the_others_go_on():
    told = compare([], True, ours=[1.0] * 4, other=None)
    assert told["results"]["other"] == {"problem": "out of memory"}
    assert told["results"]["ours"]["seconds"] == 1.0


def test_the_last_announcement_of_memory_counts():
    text = "the predictions need about 0.75 GB of memory\nthe predictions need about 1.20 GB of memory\n"
    assert bench_memory.announced(text) == 1.2e9
    assert bench_memory.announced("3 texts labelled") is None


def test_bfloat16_processors(tmp_path):
    for flags, expected in (("flags\t: sse avx512_bf16 lm", True), ("flags\t: sse avx512f lm", False), ("bugs\t: amx_bf16", False)):
        (tmp_path / "cpuinfo").write_text(f"processor: 0\n{flags}\n", encoding="utf-8")
        assert bench_steps.computes_bfloat16(str(tmp_path / "cpuinfo")) == expected


def test_growth_is_a_factor_over_the_smallest(capsys):
    cell = {"seconds": 0.5, "peak_bytes": 1e9}
    bench_growth.print_table({"batch": {4: cell, 8: dict(cell, seconds=0.75)}})
    assert capsys.readouterr().out.splitlines()[-1].endswith("| 8 | 2 | 0.75 | 1.50 | 1.00 |")


def test_the_memory_of_a_corpus_is_a_factor_over_the_smallest(capsys):
    assert bench_corpus.sizes_of("2,0.5,2") == [0.5, 2.0]
    cells = {part: {"seconds": 1.5, "peak_bytes": 2e8} for part in bench_corpus.PARTS}
    bench_corpus.print_table({0.5: cells, 2.0: {part: dict(cell, peak_bytes=3e8) for part, cell in cells.items()}})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * 3
    assert lines[-1] == "| train | 2 | 1.5 | 0.30 | 1.50 |"


def test_cases():
    assert bench_steps.parse_case("minilm-4x40") == {
        "layers": 6,
        "hidden": 384,
        "heads": 12,
        "batch": 4,
        "length": 40,
        "memory_limit": None,
    }
    assert bench_steps.parse_case("base-24x128@2.5")["memory_limit"] == 2.5
    assert {case: bench_steps.parse_case(case)["length"] for case in bench_steps.CASES}["base-24x128"] == 128
    for case in ("huge-4x40", "minilm-4", "minilm-ax4", "", "minilm-4x40@", "minilm-4x40@x"):
        with pytest.raises(UserError, match="--cases"):
            bench_steps.parse_case(case)


@pytest.mark.parametrize("has_raw_dir", [False, True])
def test_text_without_labels_is_there_before_the_teacher_is_trained(tmp_path, monkeypatch, has_raw_dir):
    """The teacher takes most of the time of benchmarks/kd_results.py."""

    class Texts:
        def __init__(self, raw_dir, folder):
            assert raw_dir == "raw"

        def unlabelled_split(self, data_dir):
            (tmp_path / "unlabelled.csv").write_text("a\tb\n")

    def preprocess(study):
        raise NotImplementedError(os.listdir(tmp_path))

    monkeypatch.setattr(kd_results, "Texts", Texts)
    monkeypatch.setattr(kd_results.Study, "preprocess", preprocess)
    words = ["--model_dir", "m", "--data_dir", str(tmp_path), "--output_dir", "o", "--rows", "after unlabelled text"]
    monkeypatch.setattr(sys, "argv", ["kd_results.py", *words, *(["--raw_dir", "raw"] if has_raw_dir else [])])
    said = (
        "unlabelled.csv"
        if has_raw_dir
        else "unlabelled text not found.*; give --raw_dir, which writes it for --rows 'after unlabelled text'"
    )
    with pytest.raises(NotImplementedError if has_raw_dir else UserError, match=said):
        kd_results.main()
