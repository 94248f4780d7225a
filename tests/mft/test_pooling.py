"""--pooling through the steps."""

import json
import math
import os

import numpy as np
import pytest
import tiny

from modeling.checkpoints.snapshot import Snapshot
from modeling.predictor import Predictor
from ofrecord_util.errors import UserError
from ofrecord_util.reader import read_split
from tools.convert_checkpoint import HUGGING_FACE, convert

pytestmark = pytest.mark.slow


def test_pooling(project):
    """The snapshot carries it: later steps and predictions go by it; what contradicts it or has no place for it is refused."""
    folder = project.path("data", "pooled")
    tiny.write_single(folder)
    common = "--task_name sst-2 --data_dir data/pooled --seq_length 24"
    encoder = "--model_load_dir uncased_L-2_H-20_A-4_oneflow"
    scores = []
    for more in ("--resave_ofrecord", "--pooling max"):
        project.call_well(f"preprocess.py {common} {encoder} {more}")
        scores.append(read_split(folder, "train").sample_weights)
        with open(os.path.join(folder, "ofrecord", "train", "weight.json"), encoding="utf-8") as file:
            assert json.load(file)["info"]["pooling"] == ("max" if more == "--pooling max" else "mean")
    assert np.abs(scores[0] - scores[1]).max() > 1e-3

    training = f"{common} --num_epochs 8 --learning_rate 5e-3 --batch_size_per_device 4 --dev_every_step_num 100"
    run = project.run_of(project.call_well(f"finetuning.py {training} {encoder} --pooling max --model_save_dir output/pooled"))
    snapshot = run.path(run.best())
    assert Snapshot(snapshot).config().pooling == "max"
    assert "parameters are trained, 420 frozen" in run.log  # the pooler, which the classifier does not stand on
    for name, size in (("bert-pooler-dense-weight", 400), ("bert-embeddings-LayerNorm-gamma", 20)):
        values = tiny.read_variable(snapshot, name)
        same = np.array_equal(values, tiny.read_variable(project.path("uncased_L-2_H-20_A-4_oneflow"), name))
        assert values.size == size
        assert same == ("pooler" in name)

    predictor = Predictor(snapshot, "cpu", log=lambda line: None)
    with open(os.path.join(folder, "test.csv"), encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    said = list(predictor([text for text, _, _ in rows]))
    (test,) = run.rows("test")
    assert sum(one.label == label for one, (_, _, label) in zip(said, rows)) == test["correct"]
    losses = [-math.log(one.probabilities[label]) for one, (_, _, label) in zip(said, rows)]
    assert np.mean(losses) == pytest.approx(test["cross_entropy"], rel=1e-4)

    line = f"finetuning.py {common} --model_load_dir {snapshot} --do_train false --do_eval --model_save_dir output/pooled-again"
    project.call_well(line)
    (again,) = tiny.Run(project.path("output", "pooled-again")).rows("test")
    assert again["correct"] == test["correct"]
    assert again["cross_entropy"] == pytest.approx(test["cross_entropy"], rel=1e-5)
    code, _, errors = project.call(line + " --pooling mean")
    assert code == 2
    assert f"--pooling mean contradicts {snapshot}, whose classifier was trained with max" in errors
    assert errors.count("\n") == 1
    with pytest.raises(UserError, match="classifier of the checkpoint reads the max of the states"):
        convert(snapshot, project.path("exported"), to=HUGGING_FACE, log=lambda line: None)
    assert not os.path.exists(project.path("exported"))
