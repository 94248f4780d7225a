"""recipes/pretrain_pairs.py end to end: what it writes, resumed runs, groups, pairs that are learnt, and what takes its snapshot."""

import os

import numpy as np
import pytest
import tiny

from modeling.bert.names import TRAINING_ONLY_PREFIX
from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.flags import PRETRAIN_PAIRS
from modeling.embedder import Embedder
from modeling.objectives.pairs import compare_pairs
from ofrecord_util.corpus import Corpus
from ofrecord_util.pair_batches import cut_in_halves

pytestmark = pytest.mark.slow

SCRIPT = os.path.join(tiny.ROOT, "recipes", "pretrain_pairs.py")
COMMON = f"{SCRIPT} --task_name g1 --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --seed 3 --device cpu"
LINE = (
    f"{COMMON} --data_dir data --corpus_file more.txt --use_task_text --evaluation_text leave_out --batch_size_per_device 6 --num_epochs 1 "
    "--dev_every_step_num 3 --learning_rate 1e-2 --loss_print_every_n_iter 1 --save_last_snapshot --shuffle_window 20"
)
DRY = "--hidden_dropout_prob 0 --attention_probs_dropout_prob 0"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("pairs") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=8, dev=4)
    rows = [row for domain in ("mr", "cr") for row in tiny.opinions(domain, (4, 4), "more")]
    with open(project.path("more.txt"), "w", encoding="utf-8") as file:
        file.write("".join(row[0] + "\n" for row in rows))
    tiny.write_rows(project.path("one_row"), "train", rows)
    tiny.write_rows(project.path("one_row"), "dev", [("a good plot", "mr", "1")])
    return project


@pytest.fixture(scope="module")
def run(project):
    return project.run_of(project.run(f"{LINE} --model_save_dir output/run"))


def test_what_a_run_writes(project, run):
    best = run.best()
    assert run.flags["script"] == PRETRAIN_PAIRS
    train, dev = run.rows("train"), run.rows("dev")
    assert train[-1]["loss"] < train[0]["loss"]
    assert train[0]["temperature"] == 1.0
    assert train[-1]["temperature"] != 1.0
    assert all(0 <= row["pair_accuracy"] <= 1 for row in train)
    found = [row["recall"] for row in dev]
    assert best == f"snapshot_best_pairs_model_g1_dev_{max(found)!r}"
    assert all(row["recall"] == row["accuracy"] == row["correct"] / row["total"] for row in dev)
    assert set(dev[-1]["by_domain"]) == {"SST-2", "mr", "cr"}
    snapshot = Snapshot(run.path(best))
    assert not any(name.startswith(TRAINING_ONLY_PREFIX) for name in snapshot.sizes)
    assert snapshot.config().pooling == "mean"
    pooler = Snapshot(project.path("encoder")).read("bert-pooler-dense-weight", (20, 20))
    assert np.array_equal(snapshot.read("bert-pooler-dense-weight", (20, 20)), pooler)  # not trained, and kept
    for name in ("report.html", "curves.png", "run.flags"):
        assert os.path.getsize(run.path(name)) > 0
    with open(run.path(best, "README.md"), encoding="utf-8") as file:
        card = file.read()
    assert "the two halves of a text" in card
    assert "pairs of dev" in card
    assert "tools/embed.py" in card
    assert "predict.py" not in card
    page = tiny.read_bytes(run.path("report.html"))
    assert b"dev recall" in page
    assert b"Not on this page" not in page


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_goes_on_where_it_stopped(project, run, stop):
    """Bit for bit, before and at an evaluation, with the temperature."""
    output = f"output/cut-{stop}"
    project.run(f"{LINE} --max_steps {stop} --model_save_dir {output}")
    project.run(f"{LINE} --resume {output}")
    resumed = tiny.Run(project.path(output))
    for kind in ("train", "dev"):
        assert tiny.without_times(resumed.rows(kind)) == tiny.without_times(run.rows(kind))
    assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(run.path("snapshot_last"))
    assert resumed.best() == run.best()


def test_other_flags_are_refused_before_records_are_written(project):
    project.run(f"{LINE} --max_steps 1 --model_save_dir output/other-flags")
    before = tiny.tree(project.path("data"))
    for more, said in (("--seq_length 20", "--seq_length was 24, is 20"), ("--pair_loss triplet", "--pair_loss was symmetric, is triplet")):
        process = project.start(f"{LINE} {more} --resave_ofrecord --resume output/other-flags")
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 2
        assert said in errors
        assert tiny.tree(project.path("data")) == before


def test_child_tuning(project, run):
    """D looks at one epoch of pairs first."""
    child = project.run_of(project.run(f"{LINE} --child_tuning D --model_save_dir output/child"))
    assert child.rows("train")[0]["loss"] == run.rows("train")[0]["loss"]
    assert child.rows("train")[-1]["loss"] != run.rows("train")[-1]["loss"]


def test_processes_have_groups_as_accumulated_batches_do(project):
    losses = []
    for name, more in (("parts", "--gradient_accumulation_steps 2"), ("ranks", "--gpu_num_per_node 2")):
        line = LINE.replace("--batch_size_per_device 6", "--batch_size_per_device 3")
        run = project.run_of(project.run(f"{line} {DRY} {more} --model_save_dir output/{name}"))
        losses.append([row["loss"] for row in run.rows("train")])
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_a_few_pairs_are_learnt(project):
    """The second half of each text is found among all; the snapshot's vectors say the same."""
    words = [*tiny.GOOD, *tiny.BAD, "cats", "dogs", "sleep"]
    others = [*tiny.FILLERS["mr"], *tiny.FILLERS["cr"][:4]]
    texts = [f"{word} {word} {other} {other}" for word, other in zip(words, others)]
    tiny.write_rows(project.path("few"), "train", [(text, "mr", str(row % 2)) for row, text in enumerate(texts)])
    tiny.write_rows(project.path("few"), "dev", [(text, "mr", str(row % 2)) for row, text in enumerate(texts)])
    line = f"{COMMON} --data_dir few --evaluation_text keep --domains mr --batch_size_per_device 9 --num_epochs 60 {DRY}"
    run = project.run_of(project.run(f"{line} --dev_every_step_num 60 --learning_rate 5e-3 --model_save_dir output/few"))
    assert run.rows("train")[-1]["pair_accuracy"] == 1.0
    assert run.best() == "snapshot_best_pairs_model_g1_dev_1.0"
    halves = [half for text in texts for half in (" ".join(text.split()[:2]), " ".join(text.split()[2:]))]
    vectors = np.concatenate(list(Embedder(run.path(run.best()), device="cpu")(halves)))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (units[::2] @ units[1::2].T).argmax(axis=1).tolist() == list(range(len(texts)))


CALL = f"recipes.pretrain_pairs.py {' '.join(COMMON.split()[1:])} --batch_size_per_device 3 --num_epochs 2 --loss_print_every_n_iter 1"


def recall_of(snapshot, pairs):
    """The share of the pairs whose second text is the nearest one of all, by the vectors of a snapshot."""
    vectors = np.concatenate(list(Embedder(snapshot, device="cpu", log=lambda line: None)([text for pair in pairs for text in pair])))
    return compare_pairs(vectors, [(np.arange(len(pairs)), len(pairs))])[0].mean()


def test_the_two_texts_of_a_task_are_a_pair(project):
    """Its own columns, in training and on dev."""
    tiny.write_pairs(project.path("task"), ("mnli",), ("0", "1"), counts=(8, 7, 5))
    line = f"{CALL} --task_name own --data_dir task --model_save_dir output/task"
    run = project.run_of(project.call_well(line))
    assert len(run.rows("train")) == 4
    assert run.flags["data"]["corpus"]["rows"] == 8
    pairs = [row[:2] for row in tiny.pairs("mnli", 7, "dev", ("0", "1"))]
    assert run.rows("dev")[-1]["total"] == 7
    best = max(row["recall"] for row in run.rows("dev"))
    assert recall_of(run.path(run.best()), pairs) == best


def test_the_two_texts_of_a_line_are_a_pair(project):
    """The log, the records and a run that goes on; single texts of the task stay halves."""
    pairs = [row[:2] for row in tiny.pairs("lines", 9, "lines", ("0", "1"))]
    with open(project.path("lines.txt"), "w", encoding="utf-8") as file:
        file.write("".join("\t".join(pair) + "\n" for pair in pairs))
    tiny.write_g1(project.path("lines"), train=2, dev=2)
    line = f"--data_dir lines --corpus_file lines.txt --paired_lines --evaluation_text leave_out {DRY} --save_last_snapshot"
    run = project.run_of(project.call_well(f"{CALL} {line} --model_save_dir output/lines"))
    assert "corpus: texts: lines.txt: 9" in run.log
    corpus = Corpus(project.path("lines"))
    assert corpus.manifest["packing"] == "pairs"
    halves = cut_in_halves(corpus.read(0, 9))
    found = [" ".join(tiny.TOKENS[token] for token in ids[1 : size - 1]) for ids, size in zip(halves.input_ids, halves.lengths)]
    assert found == [text for pair in pairs for text in pair]
    project.run(f"{CALL.replace('recipes.pretrain_pairs.py', SCRIPT)} {line} --max_steps 3 --model_save_dir output/lines-cut")
    project.call_well(f"{CALL} {line} --resume output/lines-cut")
    assert tiny.tree(project.path("output/lines-cut/snapshot_last")) == tiny.tree(run.path("snapshot_last"))
    code, _, errors = project.call(f"{CALL} {line} --paired_lines false --model_save_dir output/unpaired")
    assert code == 2
    assert "they hold the two texts of a line" in errors
    code, _, errors = project.call(f"{CALL} --data_dir lines --paired_lines --model_save_dir output/no-file")
    assert code == 2
    assert "--paired_lines: there is no --corpus_file whose lines have two texts: leave the flag out" in errors
    both = project.run_of(project.call_well(f"{CALL} {line} --use_task_text --resave_ofrecord --max_steps 1 --model_save_dir output/both"))
    assert both.flags["data"]["corpus"]["rows"] == 9 + 11


@pytest.mark.parametrize("loss", ["contrastive", "all", "triplet"])
def test_other_losses(project, loss):
    run = project.run_of(project.run(f"{LINE} --pair_loss {loss} --max_steps 2 --model_save_dir output/{loss}"))
    assert ("temperature" in run.rows("train")[0]) == (loss == "contrastive")


def test_the_next_steps_take_the_snapshot(project, run):
    snapshot = run.path(run.best())
    common = f"--task_name g1 --data_dir data --seq_length 24 --vocab_file vocab.txt --device cpu --model_load_dir {snapshot}"
    project.run(f"preprocess.py {common}")
    script = os.path.join(tiny.ROOT, "recipes", "metric_learning.py")
    output = project.run(f"{script} {common} --num_steps 2 --batch_size_per_device 4 --model_save_dir output/metric")
    assert project.run_of(output).best().startswith("snapshot_best_metric_model_g1_dev_")
    project.run(f"{SCRIPT} {common} --do_train false --model_save_dir output/eval")
    (row,) = tiny.Run(project.path("output/eval")).rows("dev")
    assert row["recall"] == max(dev["recall"] for dev in run.rows("dev"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--batch_size_per_device 600", "--batch_size_per_device 600: a step compares 600 texts, and the corpus has"),
        ("--data_dir one_row", "error: one_row/dev.csv: has one pair, so there is none to compare it with"),
        ("--freeze_encoder", "--freeze_encoder: the training on pairs trains the encoder alone"),
        ("--batch_size_per_device 1", "--batch_size_per_device: 1"),
        ("--paired_lines --corpus_file more.txt --resave_ofrecord", "has 1 column, but with --paired_lines each line of --corpus_file"),
    ],
)
def test_what_is_refused(project, run, more, said):
    code, _, errors = project.call(f"recipes.pretrain_pairs.py {' '.join(LINE.split()[1:])} {more}")
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert said in errors
