"""recipes/sequence_labeling.py end to end: what it writes, resumed runs, domains that training has not seen, and tools/tag_words.py."""

import os
import sys

import numpy as np
import pytest
import tiny
import xlmr

from modeling.bert.names import TAG_HEAD
from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.flags import SEQUENCE_LABELING
from modeling.run.entity_measures import count_entities, entity_measures
from modeling.tagger import Tagger
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import convert
from tools.tag_words import main

pytestmark = pytest.mark.slow

SCRIPT = os.path.join(tiny.ROOT, "recipes", "sequence_labeling.py")
COMMON = f"{SCRIPT} --task_name names --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --seed 3 --device cpu"
LINE = (
    f"{COMMON} --data_dir data --batch_size_per_device 6 --num_epochs 12 --dev_every_step_num 20 --learning_rate 1e-2 "
    "--loss_print_every_n_iter 1 --save_last_snapshot --hidden_dropout_prob 0.03 --attention_probs_dropout_prob 0.03"
)
LABELS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("tags") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_tagged(project.path("data"))
    return project


@pytest.fixture(scope="module")
def run(project):
    return project.run_of(project.run(f"{LINE} --model_save_dir output/run"))


def read_tags(path):
    """Sentences of a file of tags, as lists of rows."""
    with open(path, encoding="utf-8") as file:
        return [[tuple(row.split("\t")) for row in part.split("\n") if row] for part in file.read().split("\n\n") if part.strip()]


def test_what_a_run_writes(project, run):
    best, train, dev = run.best(), run.rows("train"), run.rows("dev")
    assert run.flags["script"] == SEQUENCE_LABELING
    assert run.flags["task"]["labels"] == LABELS
    assert run.flags["task"]["domains"] == ["cr", "mr"]
    assert train[-1]["loss"] < train[0]["loss"] / 4
    assert train[-1]["tag_accuracy"] > 0.9
    assert best == f"snapshot_best_tags_model_names_dev_{max(row['entity_f1'] for row in dev)!r}"
    assert max(row["entity_f1"] for row in dev) > 0.9
    (test,) = run.rows("test")
    assert test["entity_f1"] > 0.7
    assert set(test["by_domain"]) == {"mr", "cr"}
    snapshot = Snapshot(run.path(best))
    assert snapshot.shapes[TAG_HEAD[0]] == (5, 20)
    pooler = Snapshot(project.path("encoder")).read("bert-pooler-dense-weight", (20, 20))
    assert np.array_equal(snapshot.read("bert-pooler-dense-weight", (20, 20)), pooler)  # not trained, and kept
    for name in ("report.html", "curves.png", "run.flags"):
        assert os.path.getsize(run.path(name)) > 0
    with open(run.path(best, "README.md"), encoding="utf-8") as file:
        card = file.read()
    assert "A BERT that tags words" in card
    assert f"tools/tag_words.py --model_load_dir {best}" in card
    page = tiny.read_bytes(run.path("report.html"))
    assert b"dev F1" in page
    assert b"Not on this page" not in page
    for split in ("train", "dev", "test"):
        assert f"{split}.tsv written as OFRecord" in run.log
        assert sorted(os.listdir(project.path("data", "ofrecord", split))) == sorted(["manifest.json", f"{split}.of_record-0"])


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_files_of_tags_have_the_measures(project, run, split):
    """Those of dev are of the best snapshot."""
    rows = [row for row in run.rows(split) if row.get("best", True)][-1]
    sentences = read_tags(run.path(f"tagged_{split}.tsv"))
    given = read_tags(project.path("data", f"{split}.tsv"))
    assert [[row[:3] for row in sentence] for sentence in sentences] == given
    tags = [[[row[column] for row in sentence] for sentence in sentences] for column in (2, 3)]
    found = entity_measures(count_entities(*tags))
    assert {name: rows[name] for name in found} == pytest.approx(found)
    hits = [true == predicted for sentence in sentences for _, _, true, predicted in sentence]
    assert (rows["correct"], rows["total"]) == (sum(hits), len(hits))
    for domain, values in rows["by_domain"].items():
        own = [sentence for sentence in sentences if sentence[0][1] == domain]
        tags = [[[row[column] for row in sentence] for sentence in own] for column in (2, 3)]
        assert values["entity_f1"] == pytest.approx(entity_measures(count_entities(*tags))["entity_f1"])


def test_a_run_from_records_is_that_from_the_text(project, run):
    """Also without the training text, and with records that are written again."""
    before, text = tiny.tree(project.path("data", "ofrecord")), project.path("data", "train.tsv")
    rows = [row for row in run.rows("train") if row["step"] <= 3]
    for name, more in (("records", ""), ("resaved", "--resave_ofrecord"), ("no-text", "")):
        if name == "no-text":
            os.rename(text, text + ".away")
        try:
            found = project.run_of(project.run(f"{LINE} {more} --max_steps 3 --model_save_dir output/{name}"))
        finally:
            if name == "no-text":
                os.rename(text + ".away", text)
        assert tiny.without_times(found.rows("train")) == tiny.without_times(rows)
        assert ("written as OFRecord" in found.log) == bool(more)
        assert found.flags["data"]["train"]["rows"] == run.flags["data"]["train"]["rows"]
        assert tiny.tree(project.path("data", "ofrecord")) == before


def test_held_out_domains(project):
    """No step has a sentence of them: other tags there give the same weights, and each file has its own sentences."""
    more = "--held_out_domains cr --max_steps 3"
    run = project.run_of(project.run(f"{LINE} {more} --model_save_dir output/held-out"))
    assert "train: --held_out_domains: 30 samples are left out (cr 30), 30 are used" in run.log
    assert run.flags["data"]["train"]["sentences"] == 30
    names = ("dev", "dev_held_out", "test", "test_held_out")
    assert {name: set(run.rows(name)[-1]["by_domain"]) for name in names} == {
        name: {"cr" if name.endswith("held_out") else "mr"} for name in names
    }
    assert len(run.rows("dev_held_out")) == 1
    for split, count in (("dev", 9), ("test", 11)):
        given = read_tags(project.path("data", f"{split}.tsv"))
        for domain, name in (("mr", split), ("cr", f"{split}_held_out")):
            found = [[row[:3] for row in sentence] for sentence in read_tags(run.path(f"tagged_{name}.tsv"))]
            assert found == [sentence for sentence in given if sentence[0][1] == domain]
            assert len(found) == count
    other = tiny.Project(project.path("held-out"))
    tiny.write_tagged(other.path("data"))
    with open(other.path("data", "train.tsv"), encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    changed = [row if len(row) < 3 or row[1] != "cr" else [*row[:2], "B-PER" if row[2] == "O" else "O"] for row in rows]
    assert changed != rows
    with open(other.path("data", "train.tsv"), "w", encoding="utf-8") as file:
        file.writelines("\t".join(row) + "\n" for row in changed)
    line = LINE.replace("--data_dir data", "--data_dir held-out/data")
    garbled = project.run_of(project.run(f"{line} {more} --label_list {','.join(LABELS)} --model_save_dir output/garbled"))
    assert tiny.without_times(garbled.rows("train")) == tiny.without_times(run.rows("train"))
    process = project.start(f"{LINE} --held_out_domains mr,cr --model_save_dir output/none")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "--held_out_domains mr,cr: no domain is left for training" in errors


def test_terms_that_compare_passes(project, run):
    """The loss is that of a run without them and the terms; the first pass has the same dropout masks."""
    more = "--consistency_weight 0.5 --adversarial_factor 5e-5 --max_steps 2"
    found = project.run_of(project.run(f"{LINE} {more} --model_save_dir output/terms")).rows("train")
    for row in found:
        assert row["consistency_loss"] > 0
        assert row["adversarial_loss"] > 0
        expected = row["label_loss"] + 0.5 * row["consistency_loss"] + row["adversarial_loss"]
        assert row["loss"] == pytest.approx(expected, rel=1e-5)
    first = run.rows("train")[0]
    assert (found[0]["label_loss"], found[0]["tag_accuracy"]) == pytest.approx((first["loss"], first["tag_accuracy"]), rel=1e-5)


@pytest.mark.parametrize("stop", [19, 20])
def test_a_run_goes_on_where_it_stopped(project, run, stop):
    """Bit for bit, before and at an evaluation."""
    output = f"output/cut-{stop}"
    project.run(f"{LINE} --max_steps {stop} --model_save_dir {output}")
    project.run(f"{LINE} --resume {output}")
    resumed = tiny.Run(project.path(output))
    for kind in ("train", "dev", "test"):
        assert tiny.without_times(resumed.rows(kind)) == tiny.without_times(run.rows(kind))
    assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(run.path("snapshot_last"))
    assert resumed.best() == run.best()
    for split in ("dev", "test"):
        assert tiny.read_bytes(resumed.path(f"tagged_{split}.tsv")) == tiny.read_bytes(run.path(f"tagged_{split}.tsv"))


def test_parts_ranks_and_label_all_tokens_do_what_they_say(project):
    dry = "--hidden_dropout_prob 0 --attention_probs_dropout_prob 0 --max_steps 3"
    losses = {}
    variants = {
        "whole": "", "parts": "--gradient_accumulation_steps 2 --batch_size_per_device 3", "ranks": "--gpu_num_per_node 2 "
        "--batch_size_per_device 3", "child": "--child_tuning D", "first": "--label_all_tokens false --resave_ofrecord",
    }  # fmt: skip
    for name, more in variants.items():
        project.run(f"{LINE} {dry} {more} --model_save_dir output/{name}")
        losses[name] = [row["loss"] for row in tiny.Run(project.path("output", name)).rows("train")]
    assert losses["parts"] == pytest.approx(losses["whole"], abs=1e-3)
    assert losses["ranks"] == pytest.approx(losses["whole"], abs=1e-3)
    assert losses["child"][0] == losses["whole"][0]
    assert losses["child"][2] != losses["whole"][2]  # the first step has the rate 0
    assert losses["first"][0] != losses["whole"][0]  # actors has three pieces
    project.run(f"{LINE} --resave_ofrecord --max_steps 1 --model_save_dir output/again")  # the records of the other tests


def test_another_domain_is_measured_without_training(project, run):
    """A language that training has not seen, with the head of the snapshot."""
    tiny.write_tagged(project.path("sst"), ("sst-2",), (1, 3, 9))
    line = f"{COMMON.replace('encoder', run.path(run.best()))} --data_dir sst --domains mr,cr,sst-2 --label_list {','.join(LABELS)}"
    project.run(f"{line} --do_train false --model_save_dir output/eval")
    (row,) = tiny.Run(project.path("output/eval")).rows("test")
    assert list(row["by_domain"]) == ["sst-2"]
    assert row["entity_f1"] > 0.4


def test_the_tool_tags_as_the_run_did(project, run):
    sentences = read_tags(run.path("tagged_test.tsv"))
    tagger = Tagger(run.path(run.best()), device="cpu", batch_size=4)
    assert list(tagger([[row[0] for row in sentence] for sentence in sentences])) == [[row[3] for row in own] for own in sentences]
    assert tagger.cut == 0
    code, output, errors = project.call(f"tools.tag_words.py --model_load_dir {run.folder} --input data/test.tsv --device cpu")
    assert code == 0
    assert "warning: data/test.tsv: row 1 has 3 columns: the first one is the word" in errors
    assert output == "\n".join("".join(f"{row[0]}\t{row[3]}\n" for row in sentence) for sentence in sentences) + "\n"
    project.run(f"{tiny.ROOT}/tools/tag_words.py --model_load_dir {run.folder} --input data/test.tsv --device cpu --output out.tsv")
    kept = tiny.read_bytes(project.path("out.tsv"))
    with open(project.path("empty.tsv"), "w", encoding="utf-8"):
        pass
    code, _, errors = project.call(f"tools.tag_words.py --model_load_dir {run.folder} --input empty.tsv --device cpu --output out.tsv")
    assert code == 2
    assert "there is no word in it" in errors
    assert tiny.read_bytes(project.path("out.tsv")) == kept
    assert tiny.read_bytes(project.path("out.tsv")).decode("utf-8") == output


def test_xlm_r(tmp_path):
    """Its tokenizer splits each word by itself; the head goes with the snapshot."""
    project, tokenizer = tiny.Project(tmp_path / "project"), xlmr.review_tokenizer()
    tensors, sizes = xlmr.random_encoder(tokenizer)
    source = xlmr.write_folder(tmp_path / "hf", tensors, "encoder", tokenizer, **sizes)
    convert(source, project.path("encoder"), log=lambda line: None)
    rows = {"de": [("Das", "O"), ("Zimmer", "B-X"), ("war", "I-X")], "en": [("The", "O"), ("room", "B-X"), ("!?", "O")]}
    text = "\n".join("".join(f"{word}\t{name}\t{tag}\n" for word, tag in own) for name, own in rows.items())
    os.makedirs(project.path("data"))
    for split in ("train", "dev"):
        with open(project.path("data", split + ".tsv"), "w", encoding="utf-8") as file:
            file.write(text)
    line = f"{SCRIPT} --task_name x --data_dir data --model_load_dir encoder --seq_length 19 --device cpu --learning_rate 1e-2"
    more = "--num_epochs 60 --batch_size_per_device 2 --dev_every_step_num 20 --hidden_dropout_prob 0 --model_save_dir output/run"
    run = project.run_of(project.run(f"{line} {more}"))
    assert max(row["entity_f1"] for row in run.rows("dev")) == 1.0
    found = list(Tagger(run.path(run.best()), device="cpu")([[word for word, _ in own] for own in rows.values()]))
    assert found == [[tag for _, tag in own] for own in rows.values()]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--do_train false", "--do_train false: encoder has no head that tags words"),
        ("--label_list B-PER,O", f"their task is names with domains cr,mr and labels {','.join(LABELS)}, not names with cr,mr and B-PER,O"),
        ("--label_list B-PER,O --resave_ofrecord", "train.tsv: row "),
        ("--label_list PER,LOC", "error: --label_list: the label 'PER' of task 'names' is no tag"),
        ("--label_list O,O", "--label_list: label 'O' is listed twice"),
        (
            "--label_all_tokens false",
            "they were written with --label_all_tokens true; write them again with --resave_ofrecord",
        ),
        ("--seq_length 23", "their length is 24 and --seq_length is 23; write them again with --resave_ofrecord"),
        ("--domains mr --resave_ofrecord", "is not one of task 'names' (mr)"),
        ("--task_name g1", "--label_list: the label '0' of task 'g1' is no tag"),
        ("--text_format csv", "--text_format"),
        ("--metric_for_best macro_f1", "--metric_for_best"),
    ],
)
@pytest.mark.usefixtures("run")  # which has written the records
def test_what_is_refused(project, more, said):
    code, _, errors = project.call(f"recipes.sequence_labeling.py {' '.join(LINE.split()[1:])} {more}")
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert said in errors


def test_a_snapshot_without_the_head_is_refused(project):
    code, _, errors = project.call("tools.tag_words.py --model_load_dir encoder cats")
    assert code == 2
    assert "encoder: has no head that tags words" in errors


def test_texts_without_a_word_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tag_words.py", "--model_load_dir", "x", " ", ""])
    with pytest.raises(UserError, match="the texts have no word"):
        main()
