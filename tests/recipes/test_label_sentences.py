"""recipes/metric_learning.py --label_sentences: rows that say what a label means count as training rows."""

import os
import shutil

import pytest
import tiny

from ofrecord_util.reader import read_split

pytestmark = pytest.mark.slow

SCRIPT = os.path.join(tiny.ROOT, "recipes", "metric_learning.py")
LINE = (
    f"{SCRIPT} --task_name g1 --data_dir data --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --seed 3 --device cpu "
    "--batch_size_per_device 6 --num_steps 6 --dev_every_step_num 6 --learning_rate 3e-3 --loss_print_every_n_iter 1 --save_last_snapshot"
)
EPISODES = "--objective prototypical --head prototypes --support_num 2 --query_num 2 --num_steps 2"

SENTENCES = ("bad\t0", "it was bad\t0", "good\t1", "it was good\t1", "very good\t1")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("sentences") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=4, dev=3)
    with open(project.path("sentences.tsv"), "w", encoding="utf-8") as file:
        file.writelines(row + "\n" for row in SENTENCES)
    with open(project.path("words.tsv"), "w", encoding="utf-8") as file:
        file.write("no\tbad\nyes\tgood\n")
    return project


def run_of(project, name, more=""):
    output = project.run(f"{LINE} {more} --model_save_dir output/{name}")
    return project.run_of(output), output


def refused(project, more):
    """The message of a run that ends with exit code 2."""
    process = project.start(f"{LINE} {more}")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    return errors


@pytest.fixture(scope="module")
def run(project):
    return run_of(project, "sentences", "--label_sentences sentences.tsv")


def test_they_are_training_rows(project, run):
    """The run is, number for number, the one whose training text has these rows; its records have not."""
    run, output = run
    shutil.copytree(project.path("data"), project.path("longer"), ignore=shutil.ignore_patterns("ofrecord"))
    with open(project.path("longer", "train.csv"), "a", encoding="utf-8") as file:
        file.writelines("{}\tSST-2\t{}\n".format(*row.split("\t")) for row in SENTENCES)
    joined = project.run_of(project.run(f"{LINE} --model_save_dir output/joined".replace("--data_dir data", "--data_dir longer")))
    without = run_of(project, "without")[0]
    assert tiny.without_times(run.rows("train")) == tiny.without_times(joined.rows("train"))
    assert tiny.tree(run.path("snapshot_last")) == tiny.tree(joined.path("snapshot_last"))
    assert tiny.without_times(run.rows("train")) != tiny.without_times(without.rows("train"))
    assert "--label_sentences sentences.tsv: 5 rows (0 2, 1 3), added to 23 rows of training text" in output
    facts = run.flags["data"]["train"]
    assert (facts["rows"], facts["label_sentences"]["rows"]) == (23, 5)
    assert len(read_split(project.path("data"), "train")) == 23


def test_episodes_use_them(project):
    run = run_of(project, "episodes", f"{EPISODES} --label_sentences sentences.tsv")[0]
    assert tiny.without_times(run.rows("train")) != tiny.without_times(run_of(project, "episodes-without", EPISODES)[0].rows("train"))


def test_a_run_goes_on_with_the_same_sentences(project, run):
    """Bit for bit, from another place; other sentences are refused."""
    line = f"{LINE} --label_sentences sentences.tsv"
    project.run(f"{line} --max_steps 3 --model_save_dir output/cut")
    shutil.copy(project.path("sentences.tsv"), project.path("moved.tsv"))
    with open(project.path("other.tsv"), "w", encoding="utf-8") as file:
        file.write("bad\t0\ngood\t1\n")
    for more in ("--label_sentences other.tsv", ""):
        assert "label sentences' digest was" in refused(project, f"{more} --resume output/cut")
    project.run(f"{LINE} --label_sentences moved.tsv --resume output/cut")
    assert tiny.tree(project.path("output", "cut", "snapshot_last")) == tiny.tree(run[0].path("snapshot_last"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--label_sentences sentences.tsv --within_domain", "--label_sentences: its rows belong to no domain, but --within_domain"),
        ("--label_sentences words.tsv --label_list bad,good", "the labels are words in words.tsv, but numbers in unwritten/train.csv"),
        ("--label_sentences absent.tsv", "absent.tsv: cannot be read (No such file or directory); check --label_sentences"),
    ],
)
def test_what_is_refused(project, more, message):
    shutil.rmtree(project.path("unwritten"), ignore_errors=True)
    shutil.copytree(project.path("data"), project.path("unwritten"), ignore=shutil.ignore_patterns("ofrecord"))
    assert message in refused(project, f"--data_dir unwritten {more} --model_save_dir output/refused")
    assert not os.path.exists(project.path("output", "refused"))
    assert not os.path.exists(project.path("unwritten", "ofrecord"))
