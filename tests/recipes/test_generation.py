"""recipes/generation.py end to end: what it writes, resumed runs, parts, lanes and ranks, and tools/generate.py with its snapshot."""

import json
import os
import random

import numpy as np
import pytest
import tiny

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.flags import GENERATION
from modeling.palm.config import PalmConfig
from modeling.run.generations import read_generations

pytestmark = pytest.mark.slow

SCRIPT, TOOL = (os.path.join(tiny.ROOT, *path) for path in (("recipes", "generation.py"), ("tools", "generate.py")))
SIZES = (
    f"--vocab_size {len(tiny.TOKENS)} --num_hidden_layers 2 --dec_hidden_layers 1 --num_attention_heads 2 --hidden_size_per_head 10 "
    "--max_position_embeddings 17"
)
COMMON = f"{SCRIPT} --task_name turned --data_dir data --vocab_file vocab.txt --seq_length 9 --target_length 10 --seed 3 --device cpu"
LINE = (
    f"{COMMON} {SIZES} --batch_size_per_device 6 --num_epochs 2 --dev_every_step_num 4 --learning_rate 1e-2 --loss_print_every_n_iter 1 "
    "--save_last_snapshot --beam_size 2"
)
WORDS = ("cats", "dogs", "sleep", "run", "yes", "no", "maybe")
DRY = "--hidden_dropout_prob 0 --attention_probs_dropout_prob 0"


def rows(count, seed):
    """A few words and their reverse."""
    draw = random.Random(seed)
    texts = [[draw.choice(WORDS) for _ in range(draw.randint(2, 6))] for _ in range(count)]
    return [(" ".join(words), " ".join(reversed(words))) for words in texts]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("generation") / "project")
    for split, count in (("train", 23), ("dev", 7), ("test", 5)):
        tiny.write_rows(project.path("data"), split, rows(count, split))
    return project


@pytest.fixture(scope="module")
def run(project):
    return project.run_of(project.run(f"{LINE} --model_save_dir output/run"))


def test_what_a_run_writes(project, run):
    best = run.best()
    assert run.flags["script"] == GENERATION
    assert run.flags["task"] == {"name": "turned", "domains": ["turned"], "labels": [], "pair": True}
    train, dev = run.rows("train"), run.rows("dev")
    assert train[-1]["loss"] < train[0]["loss"]
    assert all(0 <= row["token_accuracy"] <= 1 for row in train)
    found = [row["perplexity"] for row in dev]
    assert best == f"snapshot_best_generation_model_turned_dev_{min(found)!r}"
    assert all(row["perplexity"] == pytest.approx(np.exp(row["cross_entropy"])) for row in dev)
    tokens = sum(len(target.split()) + 1 for _, target in rows(7, "dev"))
    assert {row["total"] for row in dev} == {tokens}
    snapshot = Snapshot(run.path(best))
    config = snapshot.config(kind=PalmConfig)
    assert (config.dec_hidden_layers, config.encoder_final_layer_norms, config.hidden_size) == (1, 2, 20)
    assert snapshot.task()["target_length"] == 10
    scores = {row["split"]: row for row in run.rows("generation")}
    assert {split: row["rows"] for split, row in scores.items()} == {"dev": 7, "test": 5}
    assert all(0 <= row["bleu_4"] <= row["bleu_1"] <= 1 for row in scores.values())
    samples = read_generations(run.path("generations_dev.tsv"))
    assert [(sample.source, sample.target) for sample in samples] == rows(7, "dev")
    page = tiny.read_bytes(run.path("report.html"))
    assert b"Generated texts" in page
    assert b"BLEU-4" in page
    assert samples[3].source.encode() in page
    assert b"Not on this page" not in page
    with open(run.path(best, "README.md"), encoding="utf-8") as file:
        card = file.read()
    assert "tools/generate.py" in card
    assert "target tokens" in card
    assert "predict.py" not in card
    assert "labels" not in card


@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_goes_on_where_it_stopped(project, run, stop):
    """Bit for bit, before and at an evaluation; its texts are the same."""
    output = f"output/cut-{stop}"
    project.run(f"{LINE} --max_steps {stop} --model_save_dir {output}")
    project.run(f"{LINE} --resume {output}")
    resumed = tiny.Run(project.path(output))
    for kind in ("train", "dev"):
        assert tiny.without_times(resumed.rows(kind)) == tiny.without_times(run.rows(kind))
    assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(run.path("snapshot_last"))
    assert tiny.read_bytes(resumed.path("generations_dev.tsv")) == tiny.read_bytes(run.path("generations_dev.tsv"))


def test_the_loss_does_not_depend_on_parts_lanes_and_ranks(project):
    losses = {}
    for name, more in (
        ("whole", "--cpu_lanes 1"),
        ("lanes", "--cpu_lanes 3"),
        ("parts", "--batch_size_per_device 2 --gradient_accumulation_steps 3"),
        ("ranks", "--batch_size_per_device 3 --gpu_num_per_node 2"),
    ):
        output = project.run(f"{LINE} {DRY} --num_epochs 1 --learning_rate 1e-3 {more} --model_save_dir output/{name}")
        losses[name] = [row["loss"] for row in project.run_of(output).rows("train")]
        assert ("no texts are generated" in output) == (name == "ranks")
    for name in ("lanes", "parts", "ranks"):
        assert losses[name] == pytest.approx(losses["whole"], abs=2e-4), name


@pytest.mark.parametrize("mode", ["F", "D"])
def test_child_tuning(project, run, mode):
    """Of the elements of encoder and decoder layers, F leaves out those that no step draws, D those outside the child network."""
    line = f"{LINE} --child_tuning {mode} --weight_decay_rate 0 --num_epochs 1"
    whole = project.run_of(project.run(f"{line} --model_save_dir output/child-{mode}"))
    assert whole.rows("train")[0]["loss"] == run.rows("train")[0]["loss"]
    project.run(f"{line} --max_steps 3 --model_save_dir output/child-cut-{mode}")
    project.run(f"{line} --resume output/child-cut-{mode}")
    assert tiny.tree(project.path(f"output/child-cut-{mode}/snapshot_last")) == tiny.tree(whole.path("snapshot_last"))
    start, end = (whole.path(name) for name in ("snapshot_initial_model", "snapshot_last"))
    kept = {
        name: float(np.mean(tiny.read_variable(start, name) == tiny.read_variable(end, name)))
        for name in ("palm-decoder-layer_0-cross_attention-key-weight", "bert-encoder-layer_1-output-dense-weight")
    }
    never = (1 - 0.2) ** 4  # in four steps
    assert all(abs(value - never) < 0.08 if mode == "F" else value > 0.05 for value in kept.values()), kept


def test_best_by_bleu(project):
    run = project.run_of(project.run(f"{LINE} --metric_for_best bleu_4 --score_units words --model_save_dir output/bleu"))
    assert all(set(row) >= {"bleu_1", "bleu_4", "rouge_l"} for row in run.rows("dev"))
    best = [row for row in run.rows("dev") if row["best"]][-1]
    assert best["bleu_4"] == max(row["bleu_4"] for row in run.rows("dev"))
    scores = next(row for row in run.rows("generation") if row["split"] == "dev")
    assert scores["bleu_4"] == best["bleu_4"]


def test_pretraining_and_the_next_step(project):
    """On rows of one text; the snapshot has the head of masked language modelling, which fine-tuning keeps as it is."""
    for split, count in (("train", 23), ("dev", 7)):
        tiny.write_rows(project.path("texts"), split, [(source + " " + target,) for source, target in rows(count, split)])
    line = LINE.replace("--data_dir data", "--data_dir texts").replace("--seq_length 9", "--seq_length 12")
    first = project.run_of(project.run(f"{line} --objective pretraining --model_save_dir output/pre"))
    row = first.rows("train")[-1]
    assert row["generation_loss"] + row["mlm_loss"] == pytest.approx(row["loss"], abs=1e-5)
    assert row["loss"] < first.rows("train")[0]["loss"]
    project.run(f"{line} --objective pretraining --max_steps 3 --model_save_dir output/pre-cut")
    project.run(f"{line} --objective pretraining --resume output/pre-cut")
    assert tiny.tree(project.path("output/pre-cut/snapshot_last")) == tiny.tree(first.path("snapshot_last"))
    start = first.path(first.best())
    run = project.run_of(
        project.run(f"{COMMON} --model_load_dir {start} --num_epochs 1 --label_smoothing 0.1 --model_save_dir output/next")
    )
    name = "cls-predictions-transform-dense-weight"
    assert np.array_equal(tiny.read_variable(run.path(run.best()), name), tiny.read_variable(start, name))


def test_evaluation_alone(project, run):
    output = project.run(f"{COMMON} --do_train false --model_load_dir {run.path(run.best())} --beam_size 2 --model_save_dir output/eval")
    found = tiny.Run(project.path("output/eval"))
    assert "test perplexity" in output
    best = [row for row in run.rows("dev") if row["best"]][-1]
    assert found.rows("dev")[0]["cross_entropy"] == pytest.approx(best["cross_entropy"], abs=1e-5)
    assert tiny.read_bytes(found.path("generations_test.tsv")) == tiny.read_bytes(run.path("generations_test.tsv"))


def test_the_tool_generates_the_same_texts(project, run):
    snapshot, samples = run.path(run.best()), read_generations(run.path("generations_dev.tsv"))
    with open(project.path("sources.txt"), "w", encoding="utf-8") as file:
        file.write("".join(sample.source + "\n" for sample in samples))
    output = project.run(f"{TOOL} --model_load_dir {snapshot} --input sources.txt --beam_size 2 --format json --device cpu --batch_size 3")
    found = [json.loads(line) for line in output.splitlines()]
    assert [one["source"] for one in found] == [sample.source for sample in samples]
    assert [one["text"] for one in found] == [sample.generated for sample in samples]
    assert [one["score"] for one in found] == pytest.approx([sample.score for sample in samples], abs=1e-4)
    output = project.run(f"{TOOL} --model_load_dir {snapshot} --beam_size 2 --device cpu --max_length 3 cats dogs")
    assert [line.split("\t")[2] for line in output.splitlines()] == ["cats", "dogs"]
    assert all(len(line.split("\t")[0].split()) <= 3 for line in output.splitlines())


def test_what_is_refused(project, run):
    for more, message in (
        (f"--model_load_dir {tiny.write_encoder(project.path('bert'))}", "model_type 'bert' is none of palm; recipes/generation.py starts"),
        (f"{SIZES} --target_length 18", "--target_length 18: the model has 17 positions"),
        (f"{SIZES} --min_length 9", "--min_length 9: must be below --max_length 9"),
        (f"{SIZES} --seq_length 2", "--seq_length"),
        (f"{SIZES} --label_smoothing 1", "--label_smoothing 1: the loss does not depend on the target"),
        ("--do_train false " + SIZES, "--do_train false: --model_load_dir is needed"),
        (f"--model_load_dir {run.path(run.best())} --dec_hidden_layers 2", "--dec_hidden_layers 2 contradicts"),
    ):
        code, _, errors = project.call(f"{COMMON.replace(SCRIPT, 'recipes.generation.py')} {more} --model_save_dir output/refused")
        assert code == 2, errors
        assert message in errors
        tiny.check_advice(errors)
    assert not os.path.exists(project.path("output/refused"))
    code, _, errors = project.call(
        f"meta_finetuning.py --task_name g1 --data_dir data --vocab_file vocab.txt --model_load_dir {run.path(run.best())} --device cpu"
    )
    assert code == 2
    assert "model_type 'palm' is none of bert" in errors
    code, _, errors = project.call("tools.generate.py --model_load_dir bert cats")
    assert code == 2
    assert "bert: has no decoder: give a snapshot of recipes/generation.py" in errors
