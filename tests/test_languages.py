"""XLM-R through all six steps: the domains are languages, one of which no step trains on; then predictions and the server."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import serving
import tiny
import xlmr
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from benchmarks.side_by_side import torch_python
from modeling.checkpoints.snapshot import Snapshot
from modeling.checkpoints.snapshot_tokenizer import open_tokenizer
from modeling.predictor import Predictor
from ofrecord_util.reader import read_split
from tools import predict
from tools.convert_checkpoint import convert

pytestmark = pytest.mark.slow

DATA, ENCODER = "data/reviews", "xlmr"
COMMON = f"--task_name reviews --data_dir {DATA} --seq_length 37 --seed 42"
TEXTS = ["The room was good.", "Das Personal war schlecht.", "Une bonne batterie.", "房间很好。"]
TRAIN = "--batch_size_per_device 9 --learning_rate 5e-3 --num_epochs 40 --loss_print_every_n_iter 6"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("languages")
    project = tiny.Project(folder / "project")
    for script in ("meta_teacher.py", "meta_teacher_eval.py", "meta_distill.py"):
        os.symlink(os.path.join(tiny.ROOT, script), project.path(script))
    tokenizer = xlmr.review_tokenizer()
    tensors, sizes = xlmr.random_encoder(tokenizer)
    source = xlmr.write_folder(folder / "hf", tensors, "encoder", tokenizer, **sizes)
    convert(source, project.path(ENCODER), log=lambda line: None)
    xlmr.write_reviews(project.path(*DATA.split("/")))
    project.call_well(f"preprocess.py {COMMON} --model_load_dir {ENCODER} --held_out_domains zh --resave_ofrecord")
    return project


def run_of(project, name):
    run = tiny.Run(project.path("output", name))
    run.snapshot = f"output/{name}/{run.best()}"
    return run


def falls(run, name, share):
    losses = [row[name] for row in run.rows("train")]
    assert losses[-1] < share * losses[0], losses


@pytest.fixture(scope="module")
def tuned(project):
    """Steps 2 and 3 of Meta Fine-tuning."""
    steps = f"{TRAIN} --dev_every_step_num 120 --model_save_dir"
    project.call_well(f"meta_finetuning.py {COMMON} --held_out_domains zh --model_load_dir {ENCODER} {steps} output/meta")
    meta = run_of(project, "meta")
    project.call_well(f"finetuning.py {COMMON} --model_load_dir {meta.snapshot} {steps} output/tuned --num_epochs 2")
    return SimpleNamespace(meta=meta, tuned=run_of(project, "tuned"))


def test_records(project):
    records = read_split(project.path(DATA), "train")
    ids, mask = records.input_ids, records.input_mask
    assert set(ids[:, 0].tolist()) == {0}  # <s>
    assert set(ids[mask == 0].tolist()) == {1}  # <pad>
    assert set(ids[np.arange(len(ids)), mask.sum(axis=1) - 1].tolist()) == {2}  # </s>
    assert not records.segment_ids.any()


def test_meta_fine_tuning(project, tuned):
    falls(tuned.meta, "classification_loss", 0.8)
    dev = tuned.meta.rows("dev")[-1]
    assert set(dev["by_domain"]) == {"de", "en", "fr"}
    assert set(tuned.meta.rows("dev_held_out")[-1]["by_domain"]) == {"zh"}
    snapshot = Snapshot(project.path(tuned.tuned.snapshot))
    assert snapshot.config() == Snapshot(project.path(ENCODER)).config()
    assert tiny.read_bytes(snapshot.vocab_file()) == tiny.read_bytes(Snapshot(project.path(ENCODER)).vocab_file())


def test_predictions_and_the_way_back(project, tuned, tmp_path, capsys, monkeypatch):
    path, texts = project.path(tuned.tuned.snapshot), ["The room was good.", "Das Personal war schlecht.", "房间很好。"]
    ours = [prediction.probabilities for prediction in Predictor(path, "cpu")(texts)]
    monkeypatch.setattr("sys.argv", ["predict.py", "--model_load_dir", path, "--device", "cpu", "--format", "json", *texts])
    predict.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["text"] for line in lines] == texts
    convert(path, str(tmp_path / "hf"), to="hugging_face", log=lambda line: None)
    convert(str(tmp_path / "hf"), str(tmp_path / "back"), log=lambda line: None)
    back = [prediction.probabilities for prediction in Predictor(str(tmp_path / "back"), "cpu")(texts)]
    for one, other in zip(ours, back):
        assert one == pytest.approx(other, abs=1e-6)


@pytest.fixture(scope="module")
def kd(project):
    """Teacher, its outputs, and a student of two of the three layers; no step trains on zh."""
    steps = f"{TRAIN} --eval_every_step_num 120 --model_save_dir"
    project.call_well(f"meta_teacher.py {COMMON} --held_out_domains zh --model_load_dir {ENCODER} {steps} output/teacher")
    teacher = run_of(project, "teacher")
    student = "--held_out_domains zh --student_num_hidden_layers 2"
    project.call_well(f"meta_teacher_eval.py {COMMON} {student} --model_load_dir {teacher.snapshot}")
    models = f"--student_model {ENCODER} --teacher_model {teacher.snapshot}"
    project.call_well(f"meta_distill.py {COMMON} {student} {models} {steps} output/student")
    return SimpleNamespace(teacher=teacher, student=run_of(project, "student"))


def test_meta_kd(project, kd):
    falls(kd.teacher, "classification_loss", 0.8)
    falls(kd.student, "loss", 0.9)
    for run in (kd.teacher, kd.student):
        assert "zh" not in run.rows("dev")[-1]["by_domain"]
        assert set(run.rows("dev_held_out")[-1]["by_domain"]) == {"zh"}
    snapshot = Snapshot(project.path(kd.student.snapshot))
    assert (snapshot.config().model_type, snapshot.config().num_hidden_layers) == ("xlm-roberta", 2)
    assert tiny.read_bytes(snapshot.vocab_file()) == tiny.read_bytes(Snapshot(project.path(ENCODER)).vocab_file())


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_teacher_and_student_predict_and_serve(project, kd, kind, monkeypatch, capsys):
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    found = serving.check_all_ways(project.path(getattr(kd, kind).snapshot), TEXTS, monkeypatch, capsys)
    shares = [prediction.probabilities["good"] for prediction in found]
    assert max(shares) - min(shares) > 0.1  # the texts differ by far more than the tolerance


@pytest.mark.skipif(torch_python() is None, reason="BENCH_TORCH_PYTHON names no Python with torch and transformers")
def test_the_student_in_transformers(project, kd, tmp_path):
    """From the raw text, by the Auto classes: the ids and log-probabilities of the distilled XLM-R."""
    serving.check_in_transformers(project.path(kd.student.snapshot), TEXTS, str(tmp_path / "hf"))


def test_pairs_need_no_second_token_type(project):
    folder = project.path("data/pairs")
    tiny.write_pairs(folder, ("de", "en"), ("no", "yes"), (8, 4, 4))
    steps = f"{TRAIN} --num_epochs 1 --dev_every_step_num 9 --model_save_dir output/pairs".replace("--num_epochs 40 ", "")
    project.call_well(f"finetuning.py {COMMON.replace(DATA, 'data/pairs')} --model_load_dir {ENCODER} {steps} --resave_ofrecord")
    records = read_split(folder, "train")
    assert ((records.input_ids == 2).sum(axis=1) == 3).all()
    snapshot = Snapshot(project.path(run_of(project, "pairs").snapshot))
    tokenizer = open_tokenizer(snapshot, snapshot.config())
    assert tokenizer.separators == 2
    (prediction,) = Predictor(snapshot.path, "cpu")([("the cats", "the dogs yes")])
    assert set(prediction.probabilities) == {"no", "yes"}


def test_roberta_with_byte_level_bpe(project, tmp_path):
    library = LibraryTokenizer(BPE())
    library.pre_tokenizer = ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    library.train_from_iterator([text for texts in xlmr.REVIEWS.values() for text in texts] * 3, trainer)
    tokenizer = json.loads(library.to_str())
    tensors, sizes = xlmr.random_encoder(tokenizer)
    about = {"model_type": "roberta", "architectures": ["RobertaModel"]}
    source = xlmr.write_folder(tmp_path / "hf", tensors, "encoder", tokenizer, about, **sizes)
    convert(source, project.path("roberta"), log=lambda line: None)
    steps = f"{TRAIN} --dev_every_step_num 120 --model_save_dir output/roberta --resave_ofrecord"
    output = project.call_well(f"finetuning.py {COMMON} --model_load_dir roberta {steps}")
    assert " 0 of " in output  # bytes leave no token unknown
    run = run_of(project, "roberta")
    falls(run, "loss", 0.5)
    assert Snapshot(project.path(run.snapshot)).config().model_type == "roberta"
