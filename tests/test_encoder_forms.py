"""Scripts on encoders of another form than BERT's: training from a converted start, its continuation, and predictions."""

import dataclasses
import math
import signal

import numpy as np
import pytest
import tiny
from reference_encoder import encode, softmax, text_vector

from modeling.bert.names import CLASSIFIER
from modeling.bert.variables import classifier_shapes, encoder_shapes
from modeling.bert.variant import Variant
from modeling.checkpoints.snapshot import Snapshot
from modeling.embedder import Embedder
from modeling.predictor import Predictor
from ofrecord_util.tokenization import Tokenizer
from tools.convert_checkpoint import convert

pytestmark = pytest.mark.slow

TRAINING = "--task_name sst-2 --data_dir data/single --seq_length 24 --num_epochs 4 --learning_rate 5e-3 --batch_size_per_device 4"
LINE = f"finetuning.py {TRAINING} --dev_every_step_num 100 --model_load_dir form --vocab_file vocab.txt --resave_ofrecord"
FORMS = {
    "before": ({"layer_norms": "before", "positions": "sinusoidal"}, "2ha"),
    "biased": ({"positions": "learned_with_bias"}, "sqrt_length"),
}


OTHER_FORMS = {
    "relative keys": ({"positions": "none", "relative_distances": (2, 4)}, "mean"),
    "relative values": ({"positions": "none", "relative_distances": (2, 20), "relative_values": True}, "raw_cls"),
    "windowed": ({"relative_distances": (1, 3), "relative_values": True, "windowed": True, "layer_norms": "before"}, "sha"),
    "no norm of the embeddings": ({"embeddings_norm": False}, "cls"),
    "sinusoidal": ({"positions": "sinusoidal", "layer_norms": "before", "embeddings_norm": False}, "2ha"),
}


@pytest.mark.parametrize("form", sorted(OTHER_FORMS))
def test_predictions_of_other_forms(tmp_path, form):
    """`Predictor` on a snapshot of random weights, against the formulas in NumPy."""
    flags, pooling = OTHER_FORMS[form]
    config = dataclasses.replace(tiny.CONFIG, variant=Variant(**flags, pooling_head_size=3), pooling=pooling)
    folder = tiny.write_classifier(str(tmp_path / "form"), ("no", "yes", "maybe"), config=config)
    snapshot, shapes = Snapshot(folder), {**encoder_shapes(config), **classifier_shapes(config, 3)}
    assert snapshot.config() == config
    values = {name: snapshot.read(name, shape).astype(np.float64) for name, shape in shapes.items()}
    tokenizer = Tokenizer(str(tmp_path / "form" / "vocab.txt"))
    lines = ["good", "the plot was a bore , and the actors run !", "dogs " * 33]
    said = list(Predictor(folder, "cpu", log=lambda line: None)(lines))
    for one, ids in zip(said, tokenizer.whole_texts(lines)):
        _, cls, sep = tokenizer.special_ids
        state = encode(values, config, np.array([cls, *ids, sep]), np.zeros(len(ids) + 2, int))
        scores = softmax(values[CLASSIFIER[0]] @ text_vector(values, config, state) + values[CLASSIFIER[1]])
        assert [one.probabilities[label] for label in ("no", "yes", "maybe")] == pytest.approx(scores.tolist(), abs=1e-5)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_training_its_continuation_and_predictions(tmp_path, form):
    flags, pooling = FORMS[form]
    project = tiny.Project(tmp_path / "project")
    tiny.write_single(project.path("data", "single"))
    tiny.write_encoder(project.path("bert"))
    convert(project.path("bert"), project.path("form"), log=lambda line: None, **flags)
    line = f"{LINE} --pooling {pooling} --texts_per_row 2"
    run = project.run_of(project.call_well(line + " --model_save_dir output/run"))
    snapshot = run.path(run.best())
    config = Snapshot(snapshot).config()
    assert (config.variant, config.pooling) == (Variant(**flags), pooling)
    project.check_resumed(line, run, 7, signal.SIGTERM)

    with open(project.path("data", "single", "test.csv"), encoding="utf-8") as file:
        rows = [row.rstrip("\n").split("\t") for row in file]
    said = list(Predictor(snapshot, "cpu", log=lambda line: None)([text for text, _, _ in rows]))
    losses = [-math.log(one.probabilities[label]) for one, (_, _, label) in zip(said, rows)]
    (test,) = run.rows("test")
    assert np.mean(losses) == pytest.approx(test["cross_entropy"], rel=1e-4)
    (vectors,) = Embedder(snapshot, reduction=pooling, log=lambda line: None, device="cpu")(["a good film", "Great!"])
    assert vectors.shape == (2, config.pooled_size)
