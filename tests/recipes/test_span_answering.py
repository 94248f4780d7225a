"""recipes/span_answering.py end to end: what it writes, resumed runs, questions without answers, and tools/answer_questions.py."""

import argparse
import json
import os
import shutil

import pytest
import tiny

from modeling.answerer import Answerer
from modeling.bert.names import SPAN_HEAD
from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.flags import SPAN_ANSWERING
from modeling.run.answer_measures import best_of, exact_match, f1
from ofrecord_util.errors import UserError
from ofrecord_util.question_text import read_questions
from tools.answer_questions import check_flags

pytestmark = pytest.mark.slow

SCRIPT = os.path.join(tiny.ROOT, "recipes", "span_answering.py")
WINDOWS = "--seq_length 19 --doc_stride 5 --max_answer_length 4 --n_best_size 6"
COMMON = f"{SCRIPT} --task_name places --model_load_dir encoder {WINDOWS} --vocab_file vocab.txt --seed 3 --device cpu"
LINE = (
    f"{COMMON} --data_dir data --batch_size_per_device 8 --num_epochs 4 --dev_every_step_num 30 --learning_rate 1e-2 --do_lower_case "
    "--loss_print_every_n_iter 1 --save_last_snapshot --hidden_dropout_prob 0.03 --attention_probs_dropout_prob 0.03"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("answers") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_questions(project.path("data"))
    return project


@pytest.fixture(scope="module")
def run(project):
    return project.run_of(project.run(f"{LINE} --model_save_dir output/run"))


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def test_what_a_run_writes(project, run):
    best, train, dev = run.best(), run.rows("train"), run.rows("dev")
    assert run.flags["script"] == SPAN_ANSWERING
    assert run.flags["data"]["train"]["windows"] > run.flags["data"]["train"]["rows"] == 160
    assert train[-1]["loss"] < train[0]["loss"]
    assert {"start_accuracy", "end_accuracy"} < set(train[0])
    assert best == f"snapshot_best_answers_model_places_dev_{max(row['answer_f1'] for row in dev)!r}"
    assert dev[-1]["answer_f1"] > dev[0]["answer_f1"] or dev[0]["answer_f1"] > 0.9
    assert all(row["exact_match"] == row["accuracy"] == row["correct"] / row["total"] for row in dev)
    (test,) = run.rows("test")
    assert set(test["by_domain"]) == {"mr", "cr"}
    assert test["total"] == 44
    assert Snapshot(run.path(best)).shapes[SPAN_HEAD[0]] == (2, 20)
    with open(run.path(best, "README.md"), encoding="utf-8") as file:
        card = file.read()
    assert "finds the answer to a question" in card
    assert f"tools/answer_questions.py --model_load_dir {best}" in card
    page = tiny.read_bytes(run.path("report.html"))
    assert b"exact match" in page
    assert b"Not on this page" not in page


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_files_of_answers_have_the_measures(project, run, split):
    """Those of dev are of the best snapshot."""
    row = [row for row in run.rows(split) if row.get("best", True)][-1]
    answers, nbest = (read_json(run.path(f"{name}_{split}.json")) for name in ("answers", "nbest"))
    questions = read_questions(project.path("data", f"{split}.json"))
    assert list(answers) == list(nbest) == [question.id for question in questions]
    for measure, name in ((f1, "answer_f1"), (exact_match, "exact_match")):
        found = [best_of(measure, answers[question.id], [answer.text for answer in question.answers]) for question in questions]
        assert row[name] == pytest.approx(sum(found) / len(found))
    for question in questions:
        own = nbest[question.id]
        assert answers[question.id] == own[0]["text"] != ""
        assert len(own) <= 6
        assert sum(each["probability"] for each in own) == pytest.approx(1)
        for each in own:
            assert question.context[each["start"] : each["end"]] == each["text"]
            assert len(each["text"].split()) <= 4


def test_a_run_from_records_is_that_from_the_text(project, run):
    """Also with records that are written again; other windows are refused until they are."""
    before = tiny.tree(project.path("data", "ofrecord"))
    rows = [row for row in run.rows("train") if row["step"] <= 3]
    assert run.log.count("written as OFRecord") == 3
    for name, more in (("records", ""), ("resaved", "--resave_ofrecord")):
        found = project.run_of(project.run(f"{LINE} {more} --max_steps 3 --model_save_dir output/{name}"))
        assert tiny.without_times(found.rows("train")) == tiny.without_times(rows)
        assert ("written as OFRecord" in found.log) == bool(more)
        assert tiny.tree(project.path("data", "ofrecord")) == before


def test_held_out_domains(project):
    """No step has a window of them: other answers there give the same losses, and each file has its own questions."""
    more = "--held_out_domains mr --max_steps 3"
    run = project.run_of(project.run(f"{LINE} {more} --model_save_dir output/held-out"))
    assert "train: --held_out_domains: " in run.log
    assert run.flags["data"]["train"]["rows"] == 80
    names = ("dev", "dev_held_out", "test", "test_held_out")
    assert {name: set(run.rows(name)[-1]["by_domain"]) for name in names} == {
        name: {"mr" if name.endswith("held_out") else "cr"} for name in names
    }
    for split in ("dev", "test"):
        for domain, name in (("cr", split), ("mr", f"{split}_held_out")):
            row, answers = run.rows(name)[-1], read_json(run.path(f"answers_{name}.json"))
            questions = [one for one in read_questions(project.path("data", f"{split}.json")) if one.domain == domain]
            assert list(answers) == list(read_json(run.path(f"nbest_{name}.json"))) == [question.id for question in questions]
            hits = [best_of(exact_match, answers[question.id], [answer.text for answer in question.answers]) for question in questions]
            assert (row["correct"], row["total"]) == (sum(hits), len(questions))
    value = read_json(project.path("data", "train.json"))
    for article in value["data"]:
        for paragraph in article["paragraphs"] if article["domain"] == "mr" else ():
            for entry in paragraph["qas"]:
                entry["answers"] = [{"text": paragraph["context"].split()[0], "answer_start": 0}]
    shutil.copytree(project.path("data"), project.path("garbled"), ignore=shutil.ignore_patterns("ofrecord"))
    with open(project.path("garbled", "train.json"), "w", encoding="utf-8") as file:
        json.dump(value, file)
    line = LINE.replace("--data_dir data", "--data_dir garbled")
    garbled = project.run_of(project.run(f"{line} {more} --model_save_dir output/garbled"))
    assert tiny.without_times(garbled.rows("train")) == tiny.without_times(run.rows("train"))


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
    assert (found[0]["label_loss"], found[0]["end_accuracy"]) == pytest.approx((first["loss"], first["end_accuracy"]), rel=1e-5)


@pytest.mark.parametrize("stop", [29, 30])
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
    for name in ("answers_dev.json", "nbest_test.json"):
        assert tiny.read_bytes(resumed.path(name)) == tiny.read_bytes(run.path(name))


def test_parts_and_ranks_do_not_change_the_loss(project):
    dry = "--hidden_dropout_prob 0 --attention_probs_dropout_prob 0 --max_steps 2"
    losses = []
    for name, more in (("whole", ""), ("parts", "--gradient_accumulation_steps 2 --batch_size_per_device 4"),
                       ("ranks", "--gpu_num_per_node 2 --batch_size_per_device 4")):  # fmt: skip
        project.run(f"{LINE} {dry} {more} --model_save_dir output/{name}")
        losses.append([row["loss"] for row in tiny.Run(project.path("output", name)).rows("train")])
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    assert losses[2] == pytest.approx(losses[0], abs=1e-3)


def test_the_tool_answers_as_the_run_did(project, run):
    questions = read_questions(project.path("data", "test.json"))
    given = [(question.question, question.context) for question in questions]
    windows = {"doc_stride": 5, "max_answer_length": 4, "n_best_size": 6}
    found = list(Answerer(run.path(run.best()), device="cpu", batch_size=8, **windows)(given))
    assert [each[0]["text"] for each in found] == list(read_json(run.path("answers_test.json")).values())
    tool = f"{tiny.ROOT}/tools/answer_questions.py --model_load_dir {run.folder} --device cpu {WINDOWS}"
    project.run(f"{tool} --input data/test.json --output answers.json --nbest nbest.json")
    assert read_json(project.path("answers.json")) == read_json(run.path("answers_test.json"))
    assert list(read_json(project.path("nbest.json"))) == [question.id for question in questions]
    code, _, errors = project.call(
        f"tools.answer_questions.py --model_load_dir {run.folder} --device cpu --doc_stride 16 --question a --context b"
    )
    assert code == 2
    assert "--doc_stride 16: a window has room for 15 tokens of a context" in errors


def test_the_command_of_the_card(project, run):
    """The windows of the training are in task.json: 64 tokens would not fit."""
    with open(run.path(run.best(), "README.md"), encoding="utf-8") as file:
        (command,) = [line.strip() for line in file if "tools/answer_questions.py" in line]
    line = command.replace("python3 tools", f"{tiny.ROOT}/tools").replace(run.best(), run.path(run.best()))
    project.run(line.replace("questions.json", "data/test.json") + " --device cpu")


def test_the_windows_of_the_training_are_the_default(project, run):
    snapshot, given = project.path("kept"), [("good", " ".join(["good cats"] * 20))]
    shutil.copytree(run.path(run.best()), snapshot)
    task = {**read_json(os.path.join(snapshot, "task.json")), "doc_stride": 4, "max_query_length": 1}
    with open(os.path.join(snapshot, "task.json"), "w", encoding="utf-8") as file:
        json.dump(task, file)
    for more, windows in (({}, (4, 1)), ({"doc_stride": 7}, (7, 1))):
        answerer = Answerer(snapshot, device="cpu", **more)
        assert tuple(answerer._form.settings[name] for name in ("doc_stride", "max_query_length")) == windows
        assert len(list(answerer(given))) == 1
    for name in ("doc_stride", "max_query_length"):
        del task[name]
    with open(os.path.join(snapshot, "task.json"), "w", encoding="utf-8") as file:
        json.dump(task, file)
    with pytest.raises(UserError, match="--doc_stride 64: a window has room for 15 tokens"):
        Answerer(snapshot, device="cpu")


def test_questions_without_answers(project):
    value = read_json(project.path("data", "train.json"))
    for article in value["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["qas"][1].update(answers=[], is_impossible=True)
    os.makedirs(project.path("open"))
    for split in ("train", "dev"):
        with open(project.path("open", split + ".json"), "w", encoding="utf-8") as file:
            json.dump(value, file)
    line = LINE.replace("--data_dir data", "--data_dir open")
    code, _, errors = project.call(f"recipes.span_answering.py {' '.join(line.split()[1:])}")
    assert code == 2
    assert "and 79 others have no answer: give --no_answer" in errors
    project.run(f"{line} --no_answer --max_steps 30 --model_save_dir output/open")
    nbest = read_json(project.path("output", "open", "nbest_dev.json"))
    assert any("" in [each["text"] for each in own] for own in nbest.values())
    assert sum(own[0]["text"] == "" for own in nbest.values()) > 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--do_train false", "--do_train false: encoder has no head that finds answers"),
        ("--domains mr", "their task is places with domains cr,mr and labels end,start, not places with mr"),
        ("--domains mr --resave_ofrecord", "is not one of task 'places' (mr)"),
        ("--data_dir encoder", "put train.json there"),
        ("--doc_stride 18", "--doc_stride 18: a window has room for 15 tokens of a context, beside a question of one token"),
        ("--doc_stride 6", "the records are stale: they were written with --doc_stride 5; write them again with --resave_ofrecord"),
        ("--max_query_length 3", "they were written with --max_query_length 64"),
        ("--metric_for_best entity_f1", "--metric_for_best"),
    ],
)
@pytest.mark.usefixtures("run")  # which has written the records
def test_what_is_refused(project, more, said):
    code, _, errors = project.call(f"recipes.span_answering.py {' '.join(LINE.split()[1:])} {more}")
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert said in errors


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "give --input FILE, or --question and --context"),
        ("--question a", "give --input FILE, or --question and --context"),
        ("--question a --context b --output c", "--output and --nbest belong to --input"),
        ("--input data/dev.json", "give --output FILE, --nbest FILE, or both"),
        ("--question a --context b", "encoder: has no head that finds answers"),
    ],
)
def test_what_the_tool_refuses(project, more, said):
    code, _, errors = project.call(f"tools.answer_questions.py --model_load_dir encoder {more}")
    assert code == 2
    assert said in errors


@pytest.mark.parametrize(("question", "context", "said"), [(" \u3000", "b", "--question ' "), ("a", "\t", "--context '")])
def test_blank_texts_are_refused(question, context, said):
    flags = argparse.Namespace(question=question, context=context, input=None, output=None, nbest=None)
    with pytest.raises(UserError, match=f"{said}.* has no word: give a text"):
        check_flags(None, flags)
