"""tools/sweep.py, compare.py and evaluate.py on real runs: which runs a sweep starts, skips and continues; measures of a file; refusals."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling.run.measures import mcnemar_test
from modeling.run.predictions import read_predictions
from ofrecord_util.errors import UserError
from tools.sweep import inputs, main, parse_variations, plan, replaced

COMMAND = (
    "finetuning.py --task_name sst-2 --data_dir data --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --num_epochs 2 "
    "--batch_size_per_device 5 --dev_every_step_num 3 --learning_rate 5e-3 --device cpu --resave_ofrecord "
    "--class_weights balanced --label_smoothing 0.1 --metric_for_best macro_f1"
)
SWEEP = "--vary num_epochs=1,2 --seeds 1,2 --jobs 2 --output_dir output/sweep"
NAMES = ["num_epochs=1,seed=1", "num_epochs=1,seed=2", "num_epochs=2,seed=1", "num_epochs=2,seed=2"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("sweep") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_single(project.path("data"))
    return project


def tool(project, name, *arguments, **environment):
    command = [sys.executable, os.path.join(tiny.ROOT, "tools", name), *arguments]
    environment = dict(os.environ, COLUMNS="160", **environment)
    return subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, encoding="utf-8", timeout=400)


def sweep(project, line, **environment):
    return tool(project, "sweep.py", *line.split(), "--", *COMMAND.split(), **environment)


@pytest.fixture(scope="module")
def swept(project):
    result = sweep(project, SWEEP)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def runs(project, names=NAMES, folder="output/sweep"):
    return [tiny.Run(project.path(folder, name)) for name in names]


@pytest.mark.slow
def test_a_sweep_trains_each_combination_and_compares(project, swept):
    found = runs(project)
    assert [(run.flags["flags"]["num_epochs"], run.flags["flags"]["seed"]) for run in found] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert sorted(os.listdir(project.path("output/sweep"))) == sorted(
        [*NAMES, *(name + ".out" for name in NAMES), "sweep.json", "sweep.log"]
    )
    with open(project.path("output/sweep/sweep.json"), encoding="utf-8") as file:
        assert sorted(json.load(file)["finished"]) == NAMES
    (first,) = [line for line in swept.stdout.splitlines() if re.match(r"1 +2 +\d\.", line)]
    accuracies = [run.rows("test")[-1]["accuracy"] for run in found[:2]]
    assert f"{np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f}" in first
    for run in found:  # the label loss, the metric of the best snapshot and its name
        assert "class weights: 0 1, 1 1" in run.log
        best = [row for row in run.rows("dev") if row["best"]][-1]
        assert best["macro_f1"] == max(row["macro_f1"] for row in run.rows("dev"))
        assert run.best().endswith(f"_dev_{best['accuracy']!r}")
        assert re.search(rf"dev accuracy .*, macro F1 {best['macro_f1']:.4f}, saved", run.log)


@pytest.mark.slow
def test_finished_runs_are_not_run_again(project, swept):
    before = {name: os.stat(project.path("output/sweep", name, "run.log")).st_mtime_ns for name in NAMES}
    again = sweep(project, SWEEP)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is finished") == 4
    assert {name: os.stat(project.path("output/sweep", name, "run.log")).st_mtime_ns for name in NAMES} == before
    assert again.stdout.split("\n\n", 1)[1] == swept.stdout.split("\n\n", 1)[1]
    more = sweep(project, SWEEP.replace("num_epochs=1,2", "num_epochs=1").replace("1,2 --jobs", "1,2,3 --jobs"))
    assert more.returncode == 0, more.stderr
    assert (more.stdout.count("is finished"), more.stdout.count(": starts")) == (2, 1)
    with open(project.path("output/sweep/sweep.json"), encoding="utf-8") as file:
        assert sorted(json.load(file)["finished"]) == sorted([*NAMES, "num_epochs=1,seed=3"])
    other = tool(project, "sweep.py", *SWEEP.split(), "--", *COMMAND.split(), "--weight_decay_rate", "0.1")
    assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
    assert "is of a sweep of another script, or with other flags: give another --output_dir" in other.stderr


@pytest.mark.slow
def test_an_interrupted_run_continues(project):
    """The run gets SIGTERM at its fourth step. It keeps a state, and the next start of the sweep continues it."""
    line = "--seeds 1 --output_dir output/interrupted"
    path = os.pathsep.join([os.path.join(tiny.ROOT, "tests", "signals"), tiny.ROOT])
    result = sweep(project, line, PYTHONPATH=path, SIGNAL_AT="0 4 15")
    assert result.returncode == 2, result.stdout
    assert "1 of 1 runs failed: seed=1: interrupted by SIGTERM" in result.stderr
    result = sweep(project, line)
    assert result.returncode == 0, result.stderr
    assert "seed=1: continues" in result.stdout
    alone = sweep(project, "--seeds 1 --output_dir output/alone")
    assert alone.returncode == 0, alone.stderr
    resumed, unbroken = (runs(project, ["seed=1"], folder)[0] for folder in ("output/interrupted", "output/alone"))
    for kind in ("train", "dev", "test"):
        assert tiny.without_times(resumed.rows(kind)) == tiny.without_times(unbroken.rows(kind))
    # another metric is another run
    line = COMMAND.replace("macro_f1", "matthews") + " --seed 1 --model_save_dir output/cut"
    project.run(COMMAND + " --seed 1 --model_save_dir output/cut --max_steps 2")  # as a process, which lets go of its folder
    code, _, errors = project.call(line + " --resume output/cut")
    assert code == 2
    assert "--metric_for_best was macro_f1, is matthews" in errors


@pytest.mark.slow
def test_a_run_that_fails_does_not_end_the_others(project):
    result = sweep(project, "--vary class_weights=[1,2],[1,2,3] --output_dir output/failed")
    assert result.returncode == 2
    assert "1 of 2 runs failed: class_weights=1,2,3: error: --class_weights 1,2,3: 3 weights for 2 labels" in result.stderr
    assert "class_weights=1,2: finished" in result.stdout
    assert os.path.isdir(project.path("output/failed", "class_weights=1,2"))


@pytest.mark.slow
def test_compare(project, swept):
    folders = [os.path.join("output", "sweep", name) for name in NAMES]
    result = tool(project, "compare.py", *folders, "--html", "output/page.html")
    assert result.returncode == 0, result.stderr
    hits = []
    for run in runs(project):
        _, _, samples = read_predictions(run.path("predictions_test.tsv"))
        hits.append(np.array([sample.label == sample.predicted for sample in samples]))
    for run, other in ((1, 0), (2, 0), (3, 1)):
        more, less = int((hits[run] & ~hits[other]).sum()), int((hits[other] & ~hits[run]).sum())
        (line,) = [line.split() for line in result.stdout.splitlines() if line.split()[:2] == [NAMES[run], NAMES[other]]]
        assert line[2:6] == ["test", "23", str(more), str(less)]
        assert line[-1] == f"{mcnemar_test(more, less):.4f}"
    with open(project.path("output/page.html"), encoding="utf-8") as file:
        assert "Comparison of 4 runs" in file.read()
    refused = tool(project, "compare.py", "output")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


@pytest.mark.slow
def test_evaluate(project, swept):
    """The test split as a file: the numbers of the run itself. Other domains have their own rows."""
    run = runs(project)[3]
    snapshot, (expected,) = run.path(run.best()), run.rows("test")
    options = ("--output", "output/measures.json", "--predictions", "output/predictions.tsv", "--seed", "2")
    result = tool(project, "evaluate.py", snapshot, "data/test.csv", *options)
    assert result.returncode == 0, result.stderr
    with open(project.path("output/measures.json"), encoding="utf-8") as file:
        found = json.load(file)
    for name in ("correct", "total", "macro_f1", "balanced_accuracy", "matthews", "intervals"):
        assert found[name] == expected[name], name
    assert found["cross_entropy"] == pytest.approx(expected["cross_entropy"], abs=1e-5)
    assert found["by_class"] == expected["by_class"]
    assert f"accuracy {expected['accuracy']:.4f} ({expected['correct']}/23)" in result.stdout
    _, _, ours = read_predictions(project.path("output/predictions.tsv"))
    _, _, theirs = read_predictions(run.path("predictions_test.tsv"))
    for one, other in zip(ours, theirs):
        assert one[:4] == other[:4]
        assert one.texts == other.texts
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    tiny.write_rows(project.path("other"), "rows", [*tiny.opinions("sst-2", (3, 2), "x"), *tiny.opinions("Books", (2, 2), "y")])
    result = tool(project, "evaluate.py", snapshot, "other/rows.csv", "--output", "output/measures.json")
    assert result.returncode == 0, result.stderr
    with open(project.path("output/measures.json"), encoding="utf-8") as file:
        assert {name: part["total"] for name, part in json.load(file)["by_domain"].items()} == {"SST-2": 5, "Books": 4}
    assert re.search(r"^SST-2 +5 ", result.stdout, re.MULTILINE)
    with open(project.path("other/quoted.csv"), "w", encoding="utf-8") as file:  # without domains, columns by their names
        file.write('sentence,label\n"a good, great film",1\na bad film,0\n')
    result = tool(project, "evaluate.py", snapshot, "other/quoted.csv", "--output", "output/measures.json")
    assert result.returncode == 0, result.stderr
    with open(project.path("output/measures.json"), encoding="utf-8") as file:
        assert {name: part["total"] for name, part in json.load(file)["by_domain"].items()} == {"SST-2": 2}
    tiny.write_rows(project.path("other"), "bad", [("a film", "sst-2", "0"), ("a plot", "sst-2", "perhaps")])
    result = tool(project, "evaluate.py", snapshot, "other/bad.csv", "--output", "output/none.json")
    assert (result.returncode, result.stdout) == (2, "")
    assert "other/bad.csv: row 2: " in result.stderr
    assert not os.path.exists(project.path("output/none.json"))


@pytest.mark.slow
def test_the_meta_learner_is_measured_on_a_test_split(project, swept):
    tiny.write_g1(project.path("all"), train=3, dev=2)
    shutil.copy(project.path("data/test.csv"), project.path("all/test.csv"))
    line = "--task_name g1 --data_dir all --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --num_epochs 1 --device cpu "
    line += "--use_sample_weights false --resave_ofrecord --class_weights balanced --label_smoothing 0.2 --model_save_dir output/meta"
    project.call_well("meta_finetuning.py " + line)
    run = tiny.Run(project.path("output/meta"))
    assert [row["total"] for row in run.rows("test")] == [23]
    assert os.path.isfile(run.path("predictions_test.tsv"))
    assert run.flags["data"]["test"]["rows"] == 23


# --- without a run


def test_variations():
    values = ["learning_rate=2e-5,5e-5", "--domain_layers=[1,2],[3]"]
    assert parse_variations(values) == {"learning_rate": ["2e-5", "5e-5"], "domain_layers": ["1,2", "3"]}
    for value in (["learning_rate"], ["=3"], ["seed="], ["a=1,1"], ["a=1", "a=2"]):
        with pytest.raises(UserError, match="--vary"):
            parse_variations(value)
    for value in ("domain_layers=[1,2", "domain_layers=[1,2],3]", "a=1,[", "a=[]", "a=[1]2", "a=1,,2"):
        with pytest.raises(UserError, match=f"--vary {re.escape(value)}: give FLAG=VALUE,VALUE(; each|$)"):
            parse_variations([value])
    assert parse_variations(["model_load_dir=a[1]/b,c"]) == {"model_load_dir": ["a[1]/b", "c"]}


def test_the_page_replaces_no_input(tmp_path, monkeypatch):
    """Neither a file of the data or of a snapshot, nor one that the sweep will write."""
    for name in ("data", "encoder", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.csv").write_text("x")
    monkeypatch.chdir(tmp_path)
    line = ["--task_name", "t", "--data_dir", "data", "--corpus_file", "other/file.csv,gone"]
    assert {"data", "other/file.csv"} <= set(inputs("pretrain_mlm", plan("pretrain_mlm", line, {}, [])))
    command = "--vary model_load_dir=encoder,other --output_dir o -- finetuning.py --task_name t --data_dir data"
    written = ("o/sweep.json", "o/model_load_dir=encoder/metrics.jsonl", "o/report.html")
    (tmp_path / "finetuning.py").write_text("x")
    for path in ("data/file.csv", "encoder/file.csv", "other/file.csv", "finetuning.py", *written):
        monkeypatch.setattr("sys.argv", ["sweep.py", "--html", path, *command.split()])
        with pytest.raises(UserError, match=f"^{path}: is .*; give another --html"):
            main()
    monkeypatch.setattr("sys.argv", ["sweep.py", "--html", "gone/page.html", *command.split()])
    with pytest.raises(UserError, match=r"gone/page\.html: cannot be written .*give another --html"):
        main()
    assert sorted(os.listdir(tmp_path)) == ["data", "encoder", "finetuning.py", "other"]


def test_flags_of_the_command_that_the_sweep_sets():
    argv = ["--task_name", "sst-2", "--data_dir", "d", "--seed", "7", "--num_epochs=2"]
    assert replaced("finetuning", argv, {"learning_rate": ["1e-4"]}, []) == []
    assert replaced("finetuning", argv, {"num_epochs": ["1", "3"]}, [1, 2]) == [
        "--num_epochs of the command is not used: --vary has 1,3",
        "--seed of the command is not used: --seeds has 1,2",
    ]


def test_the_plan():
    argv = ["--task_name", "sst-2", "--data_dir", "d"]
    found = plan("finetuning", argv, {"model_load_dir": ["a/b", "c"]}, [3, 4])
    assert [one.name for one in found] == [f"model_load_dir={name},seed={seed}" for name in ("a_b", "c") for seed in (3, 4)]
    assert found[0].argv == (*argv, "--model_load_dir=a/b", "--seed=3")
    assert [one.name for one in plan("finetuning", argv, {}, [])] == ["finetuning"]
    with pytest.raises(UserError, match="--model_save_dir: the sweep sets this flag itself"):
        plan("finetuning", [*argv, "--model_save_dir", "x"], {}, [])
    with pytest.raises(UserError, match=r"learning_rate=1e-4 and learning_rate=0\.0001 are the same settings"):
        plan("finetuning", argv, {"learning_rate": ["1e-4", "0.0001"]}, [])
    with pytest.raises(UserError, match="shorter names"):
        plan("finetuning", argv, {"model_load_dir": ["a/b", "a:b"]}, [])


def test_a_flag_that_the_script_does_not_have(capsys):
    with pytest.raises(SystemExit):
        plan("finetuning", ["--task_name", "x", "--data_dir", "d"], {"learning_rte": ["1"]}, [])
    assert "did you mean --learning_rate?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--output_dir o -- predict.py", "is not a training script"),
        ("--output_dir o --seeds 1,1 -- finetuning.py --task_name x --data_dir d", "a seed is given twice"),
        ("--output_dir o --vary seed=1,2 -- finetuning.py --task_name x --data_dir d", "give --seeds"),
    ],
)
def test_refusals(tmp_path, line, message):
    result = tool(SimpleNamespace(folder=str(tmp_path)), "sweep.py", *line.split())
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert message in result.stderr
    assert os.listdir(str(tmp_path)) == []
