"""recipes/pretrain_mlm.py end to end: what it writes, resumed runs, parts and ranks, and the steps that take its snapshot."""

import dataclasses
import os

import numpy as np
import pytest
import tiny

from modeling.bert.variant import Variant
from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.flags import PRETRAIN_MLM
from ofrecord_util.corpus import Corpus

pytestmark = pytest.mark.slow

SCRIPT = os.path.join(tiny.ROOT, "recipes", "pretrain_mlm.py")
COMMON = f"{SCRIPT} --task_name g1 --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --seed 3 --device cpu"
LINE = (
    f"{COMMON} --data_dir data --corpus_file more.txt --use_task_text --evaluation_text leave_out --batch_size_per_device 6 --num_epochs 1 "
    "--dev_every_step_num 4 --learning_rate 1e-2 --loss_print_every_n_iter 1 --save_last_snapshot --shuffle_window 20 "
    "--corpus_data_part_num 3"
)
HEAD = "cls-predictions-"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("mlm") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=8, dev=4)
    rows = [row for domain in ("mr", "cr") for row in tiny.opinions(domain, (4, 4), "more")]
    with open(project.path("more.txt"), "w", encoding="utf-8") as file:
        file.write("".join(row[0] + "\n" for row in rows))
    with open(project.path("eight.txt"), "w", encoding="utf-8") as file:
        file.write("".join(" ".join((word, *tiny.FILLERS["cr"][:2], word)) + "\n" for word in (*tiny.GOOD, *tiny.BAD, "yes", "no")))
    return project


@pytest.fixture(scope="module")
def run(project):
    return project.run_of(project.run(f"{LINE} --model_save_dir output/run"))


def test_what_a_run_writes(project, run):
    best = run.best()
    assert run.flags["script"] == PRETRAIN_MLM
    train, dev = run.rows("train"), run.rows("dev")
    assert all(row["perplexity"] == pytest.approx(np.exp(row["loss"])) for row in train)
    assert all(0 <= row["mlm_accuracy"] <= 1 for row in train)
    assert train[-1]["loss"] < train[0]["loss"]
    found = [row["perplexity"] for row in dev]
    assert best == f"snapshot_best_mlm_model_g1_dev_{min(found)!r}"
    assert all(row["perplexity"] == pytest.approx(np.exp(row["cross_entropy"])) for row in dev)
    assert set(dev[-1]["by_domain"]) == {"SST-2", "mr", "cr"}
    assert len({row["total"] for row in dev}) == 1  # the same masked tokens each time
    assert sum(values["total"] for values in dev[-1]["by_domain"].values()) == dev[-1]["total"]
    snapshot = Snapshot(run.path(best))
    assert sum(name.startswith(HEAD) for name in snapshot.sizes) == 5
    assert snapshot.sizes["cls-predictions-output_bias"] == len(tiny.TOKENS)
    pooler = Snapshot(project.path("encoder")).read("bert-pooler-dense-weight", (20, 20))
    assert np.array_equal(snapshot.read("bert-pooler-dense-weight", (20, 20)), pooler)  # not trained, and kept
    for name in ("report.html", "curves.png", "run.flags"):
        assert os.path.getsize(run.path(name)) > 0
    assert not os.path.exists(run.path("predictions_dev.tsv"))
    with open(run.path(best, "README.md"), encoding="utf-8") as file:
        card = file.read()
    assert "masked language modelling" in card
    assert "perplexity" in card
    assert "predict.py" not in card
    page = tiny.read_bytes(run.path("report.html"))
    assert b"dev perplexity" in page
    assert b"Not on this page" not in page


def test_all_word_embeddings_are_trained(project, run):
    shape = len(tiny.TOKENS), 20
    before, after = (
        Snapshot(path).read("bert-embeddings-word_embeddings", shape) for path in (project.path("encoder"), run.path(run.best()))
    )
    assert (np.abs(before - after).max(axis=1) > 1e-5).all()


@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_goes_on_where_it_stopped(project, run, stop):
    """Bit for bit, before and at an evaluation, from another corpus window on."""
    output = f"output/cut-{stop}"
    project.run(f"{LINE} --max_steps {stop} --model_save_dir {output}")
    project.run(f"{LINE} --resume {output}")
    resumed = tiny.Run(project.path(output))
    for kind in ("train", "dev"):
        assert tiny.without_times(resumed.rows(kind)) == tiny.without_times(run.rows(kind))
    assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(run.path("snapshot_last"))
    assert resumed.best() == run.best()


def test_child_tuning(project, run):
    """D looks at one epoch of the corpus first, and a resumed run has its masks."""
    line = f"{LINE} --child_tuning D --weight_decay_rate 0"
    whole = project.run_of(project.run(f"{line} --model_save_dir output/child"))
    assert whole.rows("train")[0]["loss"] == run.rows("train")[0]["loss"]
    assert whole.rows("train")[-1]["loss"] != run.rows("train")[-1]["loss"]
    project.run(f"{line} --max_steps 3 --model_save_dir output/child-cut")
    project.run(f"{line} --resume output/child-cut")
    assert tiny.tree(project.path("output/child-cut/snapshot_last")) == tiny.tree(whole.path("snapshot_last"))


def test_the_log_says_what_the_corpus_has(project):
    """As it does of a split: cut texts, words that the vocabulary lacks, and a file without text; also of records that are there."""
    with open(project.path("odd.txt"), "w", encoding="utf-8") as file:
        file.write("zebra quagga\n" * 20 + "a good film " * 100 + "\n")
    with open(project.path("blank.txt"), "w", encoding="utf-8") as file:
        file.write("\n \n")
    tiny.write_g1(project.path("odd"), train=1, dev=1)
    line = f"{COMMON} --data_dir odd --corpus_file odd.txt,blank.txt --num_epochs 1 --max_steps 1 --model_save_dir output/odd"
    for more in ("", "-again"):
        run = project.run_of(project.run(line + more))
        with open(run.path("run.log"), encoding="utf-8") as file:
            log = file.read()
        assert "corpus: texts: odd.txt: 21, blank.txt: 0" in log
        assert "warning: corpus: records of 4 to 24 tokens, median 4, 95 % have at most 4; 4.8 % of the texts are cut at" in log
        assert "40 of 62 tokens are [UNK] (64.5 %): check --vocab_file" in log
        assert "warning: blank.txt: the corpus has no text of it: all lines are blank" in log
        assert run.flags["data"]["corpus"]["truncated"] == 1


DRY = "--hidden_dropout_prob 0 --attention_probs_dropout_prob 0 --learning_rate 1e-3"


def test_the_loss_does_not_depend_on_parts_lanes_and_ranks(project):
    losses = {}
    for name, more in (
        ("whole", "--cpu_lanes 1"),
        ("lanes", "--cpu_lanes 3"),
        ("parts", "--batch_size_per_device 2 --gradient_accumulation_steps 3"),
        ("ranks", "--batch_size_per_device 3 --gpu_num_per_node 2"),
    ):
        run = project.run_of(project.run(f"{LINE} {DRY} {more} --model_save_dir output/{name}"))
        losses[name] = [row["loss"] for row in run.rows("train")]
    for name in ("lanes", "parts", "ranks"):
        assert losses[name] == pytest.approx(losses["whole"], abs=2e-4), name


def test_the_parts_of_the_records_do_not_matter(project, run):
    line = LINE.replace("--corpus_data_part_num 3", "--corpus_data_part_num 1 --resave_ofrecord")
    other = project.run_of(project.run(f"{line} --model_save_dir output/one-part"))
    assert tiny.without_times(other.rows("train")) == tiny.without_times(run.rows("train"))
    project.run(f"{LINE} --resave_ofrecord --max_steps 1 --model_save_dir output/three-parts")  # as the other tests expect


def test_full_records_of_several_texts(project):
    """--packing packed: fewer records than texts, all tokens of the corpus, and a step for each batch of records."""
    tiny.write_g1(project.path("packed"), train=8, dev=4)
    line = f"recipes.pretrain_mlm.py {' '.join(LINE.split()[1:])} --data_dir packed --packing packed"
    run = project.run_of(project.call_well(f"{line} --model_save_dir output/packed"))
    corpus = Corpus(project.path("packed"))
    lengths = corpus.read(0, len(corpus)).lengths
    assert corpus.manifest["packing"] == "packed"
    assert len(corpus) < corpus.manifest["texts"]
    assert (lengths < 24).sum() <= 2  # the last one of the task's texts, and of the file's
    train, dev = run.rows("train"), run.rows("dev")
    assert len(train) == -(-len(corpus) // 6)
    assert train[-1]["loss"] < train[0]["loss"]
    assert dev[-1]["perplexity"] < len(tiny.TOKENS)
    assert run.best() == f"snapshot_best_mlm_model_g1_dev_{min(row['perplexity'] for row in dev)!r}"


def test_eight_sentences_are_learnt_by_heart(project):
    """In full records of other texts, without dropout: the model finds every masked word of its corpus."""
    tiny.write_g1(project.path("eight"), train=1, dev=1)
    line = f"{COMMON} --data_dir eight --corpus_file eight.txt --batch_size_per_device 8 --num_epochs 300 --dev_every_step_num 300 {DRY}"
    run = project.run_of(project.run(f"{line} --learning_rate 1e-2 --mask_probability 0.1 --model_save_dir output/eight"))
    assert [row["mlm_accuracy"] for row in run.rows("train")[-3:]] == [1.0] * 3  # 240 masked words
    assert run.rows("train")[-1]["loss"] < 0.05


def test_the_next_steps_take_the_snapshot(project, run):
    """The log says which variables start from initial values, and that the head is not used."""
    snapshot = run.path(run.best())
    common = f"--task_name g1 --data_dir data --seq_length 24 --vocab_file vocab.txt --device cpu --model_load_dir {snapshot}"
    assert "not taken from the snapshot: cls-predictions-output_bias" in project.run(f"preprocess.py {common}")
    output = project.run(f"meta_finetuning.py {common} --num_epochs 1 --batch_size_per_device 8 --model_save_dir output/mft")
    assert "not taken from the snapshot: cls-predictions-output_bias" in output
    assert not any(name.startswith(HEAD) for name in Snapshot(project.run_of(output).path(project.run_of(output).best())).sizes)
    tiny.write_single(project.path("single"))
    output = project.run(
        f"finetuning.py --task_name sst-2 --data_dir single --seq_length 24 --vocab_file vocab.txt --device cpu --num_epochs 1 "
        f"--batch_size_per_device 4 --model_load_dir {snapshot} --model_save_dir output/ft"
    )
    assert project.run_of(output).best().startswith("snapshot_best_ft_model_sst-2_dev_")
    # the phase itself continues with its head
    output = project.run(f"{LINE} --model_load_dir {snapshot} --max_steps 1 --model_save_dir output/again")
    assert "initialised, not in the snapshot" not in output


def test_meta_kd_and_a_recipe_take_the_snapshot(project, run):
    """A step each: as the start of the teacher, of the student, and of a recipe that trains a classifier."""
    snapshot, runs = run.path(run.best()), {}
    common = "--task_name g1 --data_dir data --seq_length 24 --vocab_file vocab.txt --device cpu --max_steps 1 --batch_size_per_device 6"
    for name, line in (
        ("teacher", "meta_teacher.py --model_load_dir {snapshot}"),
        ("student", "meta_distill.py --student_model {snapshot} --teacher_model {teacher} --teacher_outputs online"),
        ("mixing", "recipes.domain_mixing.py --model_load_dir {snapshot}"),
    ):
        line = line.format(snapshot=snapshot, teacher=runs and runs["teacher"].path(runs["teacher"].best()))
        scores = "" if "mixing" in name else "--use_sample_weights false"
        output = project.call_well(f"{line} {common} {scores} --model_save_dir output/{name}")
        assert "not taken from the snapshot: cls-predictions-output_bias" in output, name
        runs[name] = tiny.Run(project.path("output", name))
        kept = Snapshot(runs[name].path(runs[name].best()))
        assert "cls-predictions-output_bias" not in kept.sizes
        # one step of a small rate: the encoder is still nearly that of the snapshot
        bias = [place.read("bert-encoder-layer_1-output-dense-bias", (20,)) for place in (kept, Snapshot(snapshot))]
        np.testing.assert_allclose(*bias, rtol=0, atol=1e-3)


def test_a_run_without_training_measures_the_snapshot(project, run):
    output = project.run(f"{LINE} --model_load_dir {run.path(run.best())} --do_train false --model_save_dir output/measured")
    measured = tiny.Run(project.path("output/measured")).rows("dev")[0]["perplexity"]
    assert run.best().endswith(f"_{measured!r}") or measured == pytest.approx(float(run.best().rsplit("_", 1)[1]), rel=1e-6)
    assert "perplexity" in output
    code, _, errors = project.call(f"recipes.pretrain_mlm.py {' '.join(LINE.split()[1:])} --do_train false")
    assert code == 2
    assert "has no head of language modelling" in errors


def test_a_plain_head(project):
    """MEAD's, the word embeddings and a bias: it is trained, continued bit for bit, kept and measured."""
    tiny.write_encoder(project.path("plain"), dataclasses.replace(tiny.CONFIG, variant=Variant(token_head="plain")))
    line = f"recipes.pretrain_mlm.py {' '.join(LINE.split()[1:])} --model_load_dir plain"
    run = project.run_of(project.call_well(f"{line} --model_save_dir output/plain"))
    train = run.rows("train")
    assert train[-1]["loss"] < train[0]["loss"]
    snapshot = Snapshot(run.path(run.best()))
    assert [name for name in snapshot.sizes if name.startswith(HEAD)] == [HEAD + "output_bias"]
    assert np.abs(snapshot.read(HEAD + "output_bias", (len(tiny.TOKENS),))).max() > 1e-3
    assert snapshot.config().variant.token_head == "plain"
    project.run(f"{LINE} --model_load_dir plain --max_steps 3 --model_save_dir output/plain-cut")
    project.call_well(f"{line} --resume output/plain-cut")
    assert tiny.tree(project.path("output/plain-cut/snapshot_last")) == tiny.tree(run.path("snapshot_last"))
    project.call_well(f"{line} --do_train false --model_load_dir {run.path(run.best())} --model_save_dir output/plain-measured")
    (measured,) = tiny.Run(project.path("output/plain-measured")).rows("dev")
    assert measured["perplexity"] == pytest.approx(float(run.best().rsplit("_", 1)[1]), rel=1e-6)
    code, _, errors = project.call(f"{line} --do_train false")
    assert code == 2
    assert "plain has no head of language modelling (cls-predictions-output_bias)" in errors


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--evaluation_text refuse --resave_ofrecord", "is a text of dev"),
        ("--packing packed", "they hold one text per record (recipes/pretrain_mlm.py --packing line), and this run needs"),
        ("--corpus_file eight.txt", "the text has changed since, or --corpus_file"),
        ("--corpus_file ,", "--corpus_file: the list ',' is empty"),
        ("--corpus_file absent.txt", "--corpus_file absent.txt: no such file"),
        ("--corpus_data_part_num 2", "--corpus_data_part_num was 3 and is 2"),
    ],
)
def test_what_is_refused(project, run, more, said):
    with open(project.path("more.txt"), encoding="utf-8") as file:
        first = file.readline().strip()
    if "refuse" in more:
        tiny.write_rows(project.path("refused"), "dev", [(first, "mr", "1"), ("a bad plot", "cr", "0")])
        tiny.write_rows(project.path("refused"), "train", [("a good plot", "mr", "1"), ("a bad story", "cr", "0")])
        more += " --data_dir refused"
    code, _, errors = project.call(f"recipes.pretrain_mlm.py {' '.join(LINE.split()[1:])} {more}")
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert said in errors
