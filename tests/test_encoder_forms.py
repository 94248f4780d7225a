"""Scripts on encoders of another form than BERT's: training from a converted start, its continuation, and predictions."""

import math
import signal

import numpy as np
import pytest
import tiny

from modeling.bert.variant import Variant
from modeling.checkpoints.snapshot import Snapshot
from modeling.embedder import Embedder
from modeling.predictor import Predictor
from tools.convert_checkpoint import convert

pytestmark = pytest.mark.slow

TRAINING = "--task_name sst-2 --data_dir data/single --seq_length 24 --num_epochs 4 --learning_rate 5e-3 --batch_size_per_device 4"
LINE = f"finetuning.py {TRAINING} --dev_every_step_num 100 --model_load_dir form --vocab_file vocab.txt --resave_ofrecord"
FORMS = {
    "before": ({"layer_norms": "before", "positions": "sinusoidal"}, "2ha"),
    "biased": ({"positions": "learned_with_bias"}, "sqrt_length"),
}


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
