"""recipes/pretrain_mlm.py --structural end to end: what it writes, resumed runs, parts, and what is refused."""

import os

import numpy as np
import pytest
import tiny

from modeling.bert.names import SENTENCE_HEAD, TOKEN_HEAD
from modeling.checkpoints.snapshot import Snapshot
from modeling.objectives.structural import STRUCTURAL_METRICS

pytestmark = pytest.mark.slow

SCRIPT = os.path.join(tiny.ROOT, "recipes", "pretrain_mlm.py")
COMMON = (
    "--structural --task_name g1 --data_dir data --model_load_dir encoder --seq_length 21 --vocab_file vocab.txt --seed 3 --device cpu "
    "--corpus_file more.txt --use_task_text --evaluation_text leave_out --batch_size_per_device 6 --num_epochs 1 --dev_every_step_num 4 "
    "--learning_rate 1e-2 --loss_print_every_n_iter 1 --save_last_snapshot --shuffle_window 20 --corpus_data_part_num 3"
)
LINE = f"{SCRIPT} {COMMON}"
DRY = "--hidden_dropout_prob 0 --attention_probs_dropout_prob 0 --learning_rate 1e-3"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("structural") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=8, dev=4)
    rows = [row[0].rstrip(".! ") for domain in ("mr", "cr") for row in tiny.opinions(domain, (12, 12), "more")]
    with open(project.path("more.txt"), "w", encoding="utf-8") as file:
        file.write("".join(". ".join(rows[start : start + 3]) + ".\n" for start in range(0, len(rows), 3)))
    return project


@pytest.fixture(scope="module")
def run(project):
    return project.run_of(project.run(f"{LINE} --model_save_dir output/run"))


def test_what_a_run_writes(project, run):
    train = run.rows("train")
    assert set(STRUCTURAL_METRICS) <= set(train[0])
    for row in train:
        parts = [row[name] for name in ("mlm_loss", "word_structure_loss", "sentence_structure_loss")]
        assert row["loss"] == pytest.approx(sum(parts), abs=1e-4)
        assert row["perplexity"] == pytest.approx(np.exp(row["mlm_loss"]))
    assert run.best().startswith("snapshot_best_mlm_model_g1_dev_")
    snapshot = Snapshot(run.path(run.best()))
    assert {*TOKEN_HEAD, *SENTENCE_HEAD} <= set(snapshot.sizes)
    assert snapshot.shapes[SENTENCE_HEAD[0]] == (3, 20)
    before = Snapshot(project.path("encoder")).read("bert-pooler-dense-weight", (20, 20))
    assert not np.array_equal(snapshot.read("bert-pooler-dense-weight", (20, 20)), before)  # a part of the head of pairs
    page = tiny.read_bytes(run.path("report.html"))
    assert b"sentence structure" in page


@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_goes_on_where_it_stopped(project, run, stop):
    """Bit for bit, before and at an evaluation."""
    output = f"output/cut-{stop}"
    project.run(f"{LINE} --max_steps {stop} --model_save_dir {output}")
    project.run(f"{LINE} --resume {output}")
    resumed = tiny.Run(project.path(output))
    for kind in ("train", "dev"):
        assert tiny.without_times(resumed.rows(kind)) == tiny.without_times(run.rows(kind))
    assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(run.path("snapshot_last"))


def test_the_loss_does_not_depend_on_parts_lanes_and_ranks(project):
    losses = {}
    for name, more in (
        ("whole", "--cpu_lanes 1"),
        ("parts", "--cpu_lanes 2 --batch_size_per_device 2 --gradient_accumulation_steps 3"),
        ("ranks", "--batch_size_per_device 3 --gpu_num_per_node 2"),
    ):
        run = project.run_of(project.run(f"{LINE} {DRY} {more} --model_save_dir output/{name}"))
        losses[name] = [[row[metric] for metric in STRUCTURAL_METRICS[:4]] for row in run.rows("train")]
    for name in ("parts", "ranks"):
        assert np.array(losses[name]) == pytest.approx(np.array(losses["whole"]), abs=5e-4), name


def test_the_next_steps_take_the_snapshot(project, run):
    snapshot = run.path(run.best())
    common = f"--task_name g1 --data_dir data --seq_length 21 --vocab_file vocab.txt --device cpu --model_load_dir {snapshot}"
    output = project.run(f"meta_finetuning.py {common} --use_sample_weights false --max_steps 1 --batch_size_per_device 8")
    assert "not taken from the snapshot: cls-predictions-output_bias" in output
    assert "cls-seq_relationship-output_weights" in output
    # the phase itself continues with its heads; masked language modelling alone leaves the head of pairs behind
    output = project.run(f"{LINE} --model_load_dir {snapshot} --max_steps 1 --model_save_dir output/again")
    assert "initialised, not in the snapshot" not in output
    assert "not taken from the snapshot" not in output
    plain = LINE.replace("--structural", "--resave_ofrecord --data_dir plain")
    tiny.write_g1(project.path("plain"), train=8, dev=4)
    output = project.run(f"{plain} --data_dir plain --model_load_dir {snapshot} --max_steps 1 --model_save_dir output/plain")
    assert "not taken from the snapshot: cls-seq_relationship-output_bias, cls-seq_relationship-output_weights" in output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--packing packed", "--packing packed: with --structural a record has sentences of one text: leave the flag out"),
        ("--document_end blank_line", "--structural --document_end line), and this run needs the sentences of a text"),
        ("--structural false", "--structural --document_end line), and this run needs one text per record"),
        ("--seq_length 4 --resave_ofrecord", "--seq_length 4 is too short"),
        ("--model_load_dir one_type", "one_type has 1 token type, but pairs of sentences need 2"),
        ("--data_dir short --use_task_text false --corpus_file short.txt --corpus_data_part_num 1", "no document of the corpus has two"),
    ],
)
def test_what_is_refused(project, run, more, said):
    tiny.write_encoder(project.path("one_type"), tiny.CONFIG.__class__(**{**vars(tiny.CONFIG), "type_vocab_size": 1}))
    tiny.write_g1(project.path("short"), train=2, dev=2)
    with open(project.path("short.txt"), "w", encoding="utf-8") as file:
        file.write("no\nyes\n")
    code, _, errors = project.call(f"recipes.pretrain_mlm.py {COMMON} {more}")
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert said in errors
