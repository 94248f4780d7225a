"""recipes/meta_reptile.py: both methods end to end, resumed runs, two processes, and what the next step takes."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling.bert.names import layer_of
from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.flags import META_REPTILE, flags_of
from modeling.run.meta_tasks import TaskSampler

pytestmark = pytest.mark.slow

SCRIPT = os.path.join(tiny.ROOT, "recipes", "meta_reptile.py")
LINE = (
    f"{SCRIPT} --task_name g1 --data_dir data --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --seed 3 --device cpu "
    "--support_num 6 --query_num 4 --tasks_per_step 3 --inner_steps 4 --inner_batch_size 4 --meta_steps 5 --dev_every_step_num 2 "
    "--inner_learning_rate 1e-3 --loss_print_every_n_iter 1 --save_last_snapshot"
)
KEPT = "--meta_method fomaml --inner_state kept --outer_optimizer adam --outer_learning_rate 1e-3 --outer_weight_decay 0.01 --query_dropout"


CHILD = "--child_tuning D --reserve_p 0.3 --weight_decay_rate 0 --consistency_weight 0.5 --inner_optimizer sgd"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("reptile") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=8, dev=3)
    return project


def run_of(project, name, more=""):
    output = project.run(f"{LINE} {more} --model_save_dir output/{name}")
    return project.run_of(output), output


@pytest.fixture(scope="module")
def reptile(project):
    return run_of(project, "reptile")[0]


@pytest.fixture(scope="module")
def kept(project):
    return run_of(project, "kept", KEPT)[0]


@pytest.fixture(scope="module")
def child(project):
    return run_of(project, "child", CHILD)[0]


def variables_of(run, name="snapshot_last"):
    snapshot = Snapshot(run.path(name) if run else name)
    return {variable: snapshot.read(variable, snapshot.shapes[variable]) for variable in snapshot.sizes if variable in snapshot.shapes}


def test_what_a_run_writes(project, reptile):
    assert reptile.best().startswith("snapshot_best_reptile_model_g1_dev_")
    assert reptile.flags["script"] == META_REPTILE
    rows = reptile.rows("train")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["learning_rate"] for row in rows] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    for row in rows:
        assert row["update_norm"] > 0
        assert {"loss", "support_loss_first", "query_loss", "query_accuracy", "query_accuracy_before"} <= set(row)
    assert [row["step"] for row in reptile.rows("dev")] == [2, 4, 5]
    assert set(reptile.rows("dev")[-1]["by_domain"]) == {"SST-2", "mr", "cr"}
    assert reptile.rows("dev")[-1]["total"] == 17
    assert "240 sample passes in the whole run" in reptile.log
    for name in ("report.html", "curves.png", "run.flags", "predictions_dev.tsv"):
        assert os.path.getsize(reptile.path(name)) > 0
    with open(reptile.path(reptile.best(), "README.md"), encoding="utf-8") as file:
        assert "Reptile or FOMAML has learnt" in file.read()


@pytest.mark.parametrize(("name", "more"), [("reptile", ""), ("kept", KEPT), ("child", CHILD)])
def test_a_run_goes_on_where_it_stopped(project, request, name, more):
    """Weights, outer moments and a kept inner state come from the state, bit for bit; so does an evaluation that follows it."""
    whole = request.getfixturevalue(name)
    project.run(f"{LINE} {more} --max_steps 2 --model_save_dir output/cut-{name}")
    project.run(f"{LINE} {more} --resume output/cut-{name}")
    resumed = tiny.Run(project.path("output", f"cut-{name}"))
    for kind in ("train", "dev"):
        assert tiny.without_times(resumed.rows(kind)[-1:]) == tiny.without_times(whole.rows(kind)[-1:])
    assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(whole.path("snapshot_last"))


def test_child_tuning(project, child, reptile):
    """Elements outside the child network of D have no gradient in any inner loop."""
    before, after = Snapshot(project.path("encoder")), variables_of(child)
    names = [name for name in before.shapes if layer_of(name) is not None]
    equal = np.concatenate([(before.read(name, before.shapes[name]) == after[name]).reshape(-1) for name in names])
    assert 0.69 < equal.mean() < 0.95  # a step of SGD may be below the last bit of a weight
    drawn, _ = run_of(project, "drawn", "--child_tuning F --reserve_p 0.5 --meta_steps 1")
    assert drawn.rows("train")[0]["support_loss_first"] == pytest.approx(reptile.rows("train")[0]["support_loss_first"], rel=1e-6)
    assert drawn.rows("train")[0]["loss"] != reptile.rows("train")[0]["loss"]


def test_a_consistency_term(reptile, child):
    """The loss of the inner loop contains it."""
    first, other = (run.rows("train")[0]["support_loss_first"] for run in (reptile, child))
    assert first < other < 1.5 * first


def test_an_evaluation_changes_nothing(project, kept):
    """Weights and the kept inner state are the same with another number of evaluations."""
    run, _ = run_of(project, "evaluated", KEPT + " --dev_every_step_num 1")
    assert len(run.rows("dev")) == 5
    ours, theirs = variables_of(run), variables_of(kept)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_several_tasks_of_an_evaluation(project, reptile):
    """Measures are means over the tasks, of which the first is that of a run with one. Two processes have the same ones, weights do not
    change."""
    more = "--eval_tasks 3 --dev_every_step_num 5"
    run, output = run_of(project, "tasks", more)
    assert "each after adapting to 6 rows, 3 times" in output
    (row,), single = run.rows("dev"), reptile.rows("dev")[-1]
    assert row["total"] == single["total"] == sum(values["total"] for values in row["by_domain"].values()) == 17
    assert (row["tasks"], "tasks" in single) == (3, False)
    assert row["correct"] == pytest.approx(17 * row["accuracy"])
    assert row["correct"] == pytest.approx(sum(values["correct"] for values in row["by_domain"].values()))
    assert sum(values["support"] for values in row["by_class"].values()) == 17
    assert f"dev accuracy {row['accuracy']:.4f} (17 rows, mean of 3 tasks per domain)" in output
    with open(run.path(run.best(), "README.md"), encoding="utf-8") as file:
        card = file.read()
    assert "Measured on 17 rows of dev after 3 tasks per domain" in card
    assert "51" not in card.split("## Results")[1].split("## Data")[0]
    assert b"17 rows, mean of 3 tasks per domain" in tiny.read_bytes(run.path("report.html"))
    if row["best"] and single["best"]:
        assert tiny.read_bytes(run.path("predictions_dev.tsv")) == tiny.read_bytes(reptile.path("predictions_dev.tsv"))
    ours, theirs = variables_of(run), variables_of(reptile)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    two, _ = run_of(project, "tasks-two", f"{more} --gpu_num_per_node 2")
    assert two.rows("dev")[-1]["cross_entropy"] == pytest.approx(row["cross_entropy"], abs=1e-5)


def test_held_out_domains(project):
    """No training task has a row of them: other texts there give the same weights."""
    more = "--held_out_domains cr --validation_domains mr"
    run, output = run_of(project, "held-out", more)
    assert "on 1 domains (SST-2)" in output
    assert set(run.rows("dev")[-1]["by_domain"]) == {"mr"}
    (held_out,) = run.rows("dev_held_out")  # once, with the best snapshot
    assert set(held_out["by_domain"]) == {"cr"}
    assert held_out["total"] == 6
    path = project.path("data", "train.csv")
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    changed = [line.replace("good", "awful").replace("great", "boring") if line.split("\t")[1] in ("cr", "MR") else line for line in lines]
    assert changed != lines
    other = tiny.Project(project.path("other"))
    tiny.write_g1(other.path("data"), train=8, dev=3)
    with open(other.path("data", "train.csv"), "w", encoding="utf-8") as file:
        file.write("\n".join(changed) + "\n")
    garbled = project.run(f"{LINE} {more} --model_save_dir output/garbled".replace("--data_dir data", "--data_dir other/data"))
    ours, theirs = variables_of(project.run_of(garbled)), variables_of(run)
    for name in theirs:
        if name != "bert-embeddings-word_embeddings":
            assert np.array_equal(ours[name], theirs[name]), name


def check_equal(one, two):
    """That two runs have the same numbers up to rounding."""
    for kind in ("train", "dev"):
        assert len(one.rows(kind)) == len(two.rows(kind)) > 0
        for first, second in zip(one.rows(kind), two.rows(kind)):
            for key in ("loss", "support_loss_first", "query_loss", "query_accuracy", "update_norm", "accuracy", "cross_entropy"):
                assert first.get(key) == pytest.approx(second.get(key), abs=1e-5), key
    ours, theirs = variables_of(two), variables_of(one)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_query_rows_change_no_weight(project):
    """Other texts in all rows that no inner loop trains on: the query numbers change, and no weight does."""
    line = f"{LINE} --meta_steps 2 --tasks_per_step 2 --dev_every_step_num 9"
    one = project.run_of(project.run(f"{line} --model_save_dir output/query"))
    path = project.path("data", "train.csv")
    with open(path, encoding="utf-8") as file:
        rows = [row.split("\t") for row in file.read().splitlines()]
    task = one.flags["task"]
    domain = np.array([[name.lower() for name in task["domains"]].index(row[1].lower()) for row in rows])
    samples = SimpleNamespace(domain=domain, label=np.array([task["labels"].index(row[2]) for row in rows]))
    sampler = TaskSampler(samples, SimpleNamespace(num_labels=len(task["labels"])), 6, 4, False, 3, path)
    tasks = [sampler.training_task(sorted(set(domain.tolist())), step, number) for step in range(2) for number in range(2)]
    trained = set(np.concatenate([task.support for task in tasks]).tolist())
    garbled = set(np.concatenate([task.query for task in tasks]).tolist()) - trained
    assert garbled
    words = [rows[place][0].split() for place in sorted(garbled)]
    shuffled = words[1:] + words[:1]  # equal words in all, as the word embeddings of a run depend on them
    for place, text in zip(sorted(garbled), shuffled):
        rows[place][0] = " ".join(reversed(text))
    tiny.write_g1(project.path("queries"), train=8, dev=3)
    with open(project.path("queries", "train.csv"), "w", encoding="utf-8") as file:
        file.writelines("\t".join(row) + "\n" for row in rows)
    other = project.run_of(project.run(f"{line} --model_save_dir output/queries".replace("--data_dir data", "--data_dir queries")))
    assert any(first["query_loss"] != second["query_loss"] for first, second in zip(one.rows("train"), other.rows("train")))
    assert [row["loss"] for row in one.rows("train")] == [row["loss"] for row in other.rows("train")]
    ours, theirs = variables_of(other), variables_of(one)
    assert all(np.array_equal(ours[name], value) for name, value in theirs.items())


def test_reptile_takes_domains_without_query_rows(project):
    """It measures the rows that are left, and means over the tasks that have some."""
    few = project.path("few")
    tiny.write_g1(few, train=8, dev=3)
    path = os.path.join(few, "train.csv")
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    taken = [line for line in lines if line.split("\t")[1].lower() == "cr"][:6]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines if line.split("\t")[1].lower() != "cr" or line in taken)
    line = f"{LINE} --tasks_per_step 4 --meta_steps 2 --dev_every_step_num 9".replace("--data_dir data", "--data_dir few")
    run = project.run_of(project.run(f"{line} --model_save_dir output/few"))
    losses = [row["query_loss"] for row in run.rows("train")]
    assert losses[0] == 0  # all tasks of the step are of the domain without query rows
    assert losses[1] > 0.55
    process = project.start(f"{line} --meta_method fomaml --model_save_dir output/few-fomaml")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "domain cr has 6 rows, but a task needs 10 of it (--support_num, --query_num)" in errors


def test_two_processes(project, reptile):
    """They divide tasks and domains: dropout on, the numbers are those of one process, also after an interruption."""
    line = f"{LINE} --gpu_num_per_node 2 --model_save_dir output/two"
    code, output, errors = project.cut_off(line, 4, signal.SIGINT)
    assert code == 130, output + errors
    output = project.run(f"{line} --resume output/two")
    assert "after step 4 of 5" in output
    check_equal(reptile, project.run_of(output))


def test_the_number_of_processes_does_not_change_a_bit(project):
    """Process 0 adds up what the tasks say in their order. Two processes have two tasks and one."""
    line, runs = f"{LINE} --meta_steps 2 --dev_every_step_num 9 --cpu_lanes 1", []
    for name, more in (("bits-one", ""), ("bits-two", "--gpu_num_per_node 2")):
        process = project.start(f"{line} {more} --model_save_dir output/{name}", OMP_NUM_THREADS="1")
        runs.append(project.run_of(project.finish(process)))
    ours, theirs = map(variables_of, runs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_two_processes_with_fomaml(project):
    """An outer Adam, and masks of Child-Tuning that belong to inner steps."""
    more = "--meta_method fomaml --outer_optimizer adam --child_tuning F --tasks_per_step 2 --meta_steps 2"
    one, _ = run_of(project, "one-fomaml", more)
    two, _ = run_of(project, "two-fomaml", more + " --gpu_num_per_node 2")
    check_equal(one, two)


def test_a_process_that_dies_ends_the_others(project):
    code, output, errors = project.cut_off(f"{LINE} --gpu_num_per_node 2 --model_save_dir output/killed", 2, signal.SIGKILL, rank=1)
    assert code == 128 + signal.SIGKILL, output + errors
    assert errors.strip().splitlines()[-1] == "error: rank 1 ended with signal SIGKILL, the others were stopped"


def test_a_frozen_encoder(project):
    run, _ = run_of(project, "frozen", "--freeze_encoder --meta_steps 2")
    before, after = variables_of(None, project.path("encoder")), variables_of(run)
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    assert np.abs(after["classification-output_weights"]).max() > 0


def test_finetuning_takes_the_snapshot(project, reptile):
    tiny.write_single(project.path("single"))
    output = project.run(
        f"finetuning.py --task_name sst-2 --data_dir single --model_load_dir {reptile.path(reptile.best())} --seq_length 24 "
        "--num_epochs 1 --batch_size_per_device 4 --dev_every_step_num 2 --device cpu --resave_ofrecord --model_save_dir output/single"
    )
    assert "initialised" not in output  # the classifier is that of the snapshot


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--inner_epochs 2", "--inner_steps, --inner_epochs: give one of the two"),
        ("--inner_state kept --inner_schedule linear", "--inner_state kept: the step counter goes on"),
        ("--meta_method fomaml --query_num 0", "--query_num 0: fomaml takes the gradient of query rows"),
        ("--support_num 60", "but a task needs 60 of it (--support_num)"),
        ("--support_num 60 --meta_method fomaml", "but a task needs 64 of it (--support_num, --query_num)"),
        ("--inner_optimizer sgd --inner_beta1 0", "--inner_beta1: --inner_optimizer sgd has no moments"),
        (KEPT + " --gpu_num_per_node 2", "--inner_state kept: a task continues where the one before it ended"),
        ("--held_out_domains films", "'films' is none of the domains"),
        ("--eval_inner_steps 9 --inner_schedule linear", "--inner_schedule linear ends after 4 steps"),
    ],
)
def test_what_is_refused(project, more, said):
    process = project.start(f"{LINE} {more} --model_save_dir output/refused")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    assert said in errors
    assert not os.path.exists(project.path("output", "refused"))


def test_a_run_that_diverges(project):
    """One inner step: its loss is that of the weights before it, so only the query rows show what it did."""
    more = "--inner_steps 1 --inner_batch_size 2 --inner_learning_rate 1e30 --model_save_dir output/diverged"
    process = project.start(f"{LINE} {more}")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: step 1: the query loss is nan on the training samples")
    assert "give a lower --inner_learning_rate or --outer_learning_rate, or" in line
    assert not os.path.getsize(project.path("output", "diverged", "metrics.jsonl"))


def test_flags_without_effect():
    without = [flag.name for flag in flags_of(META_REPTILE) if not flag.has_effect]
    assert {"num_epochs", "learning_rate", "batch_size_per_device", "warmup_proportion", "gradient_accumulation_steps"} <= set(without)
