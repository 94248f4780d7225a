"""A Chinese StructBERT through all six steps: from its archive and Chinese text to predictions, the server and exports."""

import dataclasses
import json
import os
import re
from types import SimpleNamespace

import chinese
import numpy as np
import pytest
import serving
import tiny
from tokenizers import Tokenizer as LibraryTokenizer

from benchmarks.side_by_side import torch_python
from modeling.checkpoints.snapshot import Snapshot
from modeling.checkpoints.snapshot_tokenizer import open_tokenizer
from modeling.predictor import Predictor
from ofrecord_util.tokenization import Tokenizer, TokenizerSettings
from tools.convert_checkpoint import ONNX, convert

DATA, ENCODER = "data/评论", "structbert"
COMMON = f"--task_name reviews --data_dir {DATA} --seq_length 26 --seed 42 --vocab_file {ENCODER}/vocab.txt"
TRAIN = "--batch_size_per_device 9 --learning_rate 5e-3"


@pytest.fixture(scope="module")
def tokens():
    return chinese.vocabulary()


def test_each_chinese_character_is_a_token(tmp_path, tokens):
    vocabulary = tiny.write_vocabulary(str(tmp_path / "vocab.txt"), tokens)
    tokenizer = Tokenizer(vocabulary, TokenizerSettings(True))
    assert tokenizer.check_casing() is None
    assert tokenizer.tokenize("早餐糟糕，WiFi还连不上，差!") == [*"早餐糟糕，", "wifi", *"还连不上，差", "!"]
    assert tokenizer.tokenize("看了10页APP") == [*"看了", "1", "##0", "页", "app"]
    assert tokenizer.tokenize("龘好") == ["[UNK]", "好"]
    # without the split of characters, a whole run of them is one word
    whole = Tokenizer(vocabulary, TokenizerSettings(True, tokenize_chinese_chars=False))
    assert whole.tokenize("早餐差。") == ["早", "##餐", "##差", "。"]
    texts = [text for texts in chinese.REVIEWS.values() for text in texts]
    encoded = tokenizer.encode(texts, None, 26)
    assert tokenizer.count_unknown(encoded.input_ids, encoded.input_mask)[0] == 0
    assert encoded.truncated == 0
    for text, row in zip(texts, encoded.input_ids):
        found = [tokens[piece] for piece in row]
        assert [piece for piece in found if "一" <= piece[-1] <= "龥"] == [char for char in text if "一" <= char <= "龥"]


@pytest.fixture(scope="module")
def project(tmp_path_factory, tokens):
    folder = tmp_path_factory.mktemp("chinese")
    project = tiny.Project(folder / "project")
    for script in ("meta_teacher.py", "meta_teacher_eval.py", "meta_distill.py"):
        os.symlink(os.path.join(tiny.ROOT, script), project.path(script))
    config = dataclasses.replace(tiny.CONFIG, vocab_size=len(tokens), num_hidden_layers=3)
    archive = chinese.write_structbert(str(folder / "chinese_sbert"), str(folder), config)
    convert(archive, project.path(ENCODER), log=lambda line: None)
    chinese.write_reviews(project.path(*DATA.split("/")))
    output = project.call_well(f"preprocess.py {COMMON} --model_load_dir {ENCODER} --resave_ofrecord")
    return SimpleNamespace(call=project, step_1=output, path=project.path)


def training_loss(run, name="classification_loss"):
    """Means of a loss over the first and the last fifth of the steps that were logged."""
    losses = [row[name] for row in run.rows("train")]
    part = max(1, len(losses) // 5)
    return np.mean(losses[:part]), np.mean(losses[-part:])


def finish(project, name, output):
    run = tiny.Run(project.path("output", name))
    run.output, run.snapshot = output, f"output/{name}/{run.best()}"
    return run


@pytest.mark.slow
def test_scores_of_chinese_text(project):
    assert re.search(r"train: .* 0 of \d+ tokens are \[UNK\]", project.step_1)
    scores = np.load(project.path(DATA, "ofrecord", "train", "weight.npy"))
    assert scores.shape == (36,)
    assert np.isfinite(scores).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Glyph")  # of curves.png, which would reach the terminal
def test_meta_fine_tuning(project):
    steps = "--num_epochs 30 --dev_every_step_num 40 --dev_batch_size_per_device 6 --loss_print_every_n_iter 4"
    output = project.call.call_well(f"meta_finetuning.py {COMMON} --model_load_dir {ENCODER} {TRAIN} {steps} --model_save_dir output/meta")
    meta = finish(project, "meta", output)
    first, last = training_loss(meta)
    assert last < 0.6 * first, (first, last)
    assert set(meta.rows("dev")[0]["by_domain"]) == set(chinese.DOMAINS)
    tuned = finish(
        project,
        "tuned",
        project.call.call_well(
            f"finetuning.py {COMMON} --model_load_dir {meta.snapshot} {TRAIN} --num_epochs 2 --dev_every_step_num 4 "
            "--loss_print_every_n_iter 1 --model_save_dir output/tuned"
        ),
    )
    assert training_loss(tuned, "loss")[0] < first  # goes on from the meta learner
    snapshot = Snapshot(project.path(tuned.snapshot))
    assert snapshot.task()["labels"] == sorted(chinese.LABELS)
    tokenizer = open_tokenizer(snapshot, snapshot.config())
    assert tokenizer.tokenize("很好") == ["很", "好"]
    texts = {label: [text for (_, own), rows in chinese.REVIEWS.items() if own == label for text in rows[:6]] for label in chinese.LABELS}
    predictor = Predictor(snapshot.path, "cpu")
    right = sum(prediction.label == label for label, rows in texts.items() for prediction in predictor(rows))
    assert right >= 27  # of 36; guessing gives 18


@pytest.fixture(scope="module")
def kd(project):
    """Teacher, its outputs, and a student of two of the three layers."""
    steps = "--num_epochs 30 --eval_every_step_num 40 --eval_batch_size_per_device 6 --loss_print_every_n_iter 4"
    output = project.call.call_well(f"meta_teacher.py {COMMON} --model_load_dir {ENCODER} {TRAIN} {steps} --model_save_dir output/teacher")
    teacher = finish(project, "teacher", output)
    student = "--student_num_hidden_layers 2"
    project.call.call_well(f"meta_teacher_eval.py {COMMON} --model_load_dir {teacher.snapshot} {student} --eval_batch_size_per_device 6")
    output = project.call.call_well(
        f"meta_distill.py {COMMON} --student_model {ENCODER} --teacher_model {teacher.snapshot} {TRAIN} {steps} {student} "
        "--model_save_dir output/student"
    )
    return SimpleNamespace(teacher=teacher, student=finish(project, "student", output))


@pytest.mark.slow
def test_meta_kd(project, kd):
    first, last = training_loss(kd.teacher)
    assert last < 0.6 * first, (first, last)
    losses = [row["loss"] for row in kd.student.rows("train")]
    assert losses[-1] < 0.8 * losses[0]
    snapshot = Snapshot(project.path(kd.student.snapshot))
    assert snapshot.config().num_hidden_layers == 2
    with open(os.path.join(snapshot.path, "task.json"), encoding="utf-8") as file:
        assert set(json.load(file)["domains"]) == set(chinese.DOMAINS)


TEXTS = ["早餐糟糕，WiFi还连不上，差!", "房间很干净，服务也很好。", "龘", "电池优秀，推荐。"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_teacher_and_student_predict_and_serve(project, kd, kind, monkeypatch, capsys):
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    found = serving.check_all_ways(project.path(getattr(kd, kind).snapshot), TEXTS, monkeypatch, capsys)
    assert [prediction.label for prediction in found if prediction.text != "龘"] == ["差评", "好评", "好评"]


@pytest.mark.slow
@pytest.mark.skipif(torch_python() is None, reason="BENCH_TORCH_PYTHON names no Python with torch and transformers")
def test_the_student_in_transformers(project, kd, tmp_path):
    """From the raw text, by the Auto classes: the ids and log-probabilities of the distilled StructBERT."""
    serving.check_in_transformers(project.path(kd.student.snapshot), TEXTS, str(tmp_path / "hf"))


@pytest.mark.slow
def test_the_student_in_onnx_runtime(project, kd, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = project.path(kd.student.snapshot)
    convert(path, str(tmp_path / "student.onnx"), to=ONNX, log=lambda line: None)
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = LibraryTokenizer.from_str(json.dumps(json.loads(session.get_modelmeta().custom_metadata_map["tokenizer.json"])))
    for text, prediction in zip(TEXTS, Predictor(path, "cpu")(TEXTS)):
        encoding = tokenizer.encode(text)
        arrays = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        inputs = {name: np.array([values]) for name, values in zip(("input_ids", "attention_mask", "token_type_ids"), arrays)}
        (logits,) = session.run(None, inputs)
        log_probabilities = logits[0] - np.log(np.exp(logits[0].astype(np.float64)).sum())
        np.testing.assert_allclose(log_probabilities, np.log(list(prediction.probabilities.values())), rtol=0, atol=1e-5)
