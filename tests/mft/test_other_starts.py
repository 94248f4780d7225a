"""Other starts than a snapshot with all its files: a folder of the earlier converter, and no model at all."""

import json
import os
import shutil

import numpy as np
import pytest
import tiny
from mft_steps import DATA, STEP_1

from modeling.bert.variables import initial_value
from modeling.engine.runtime import flow

pytestmark = pytest.mark.slow


def test_scores_of_an_older_snapshot(project, step_1):
    """A folder of the earlier converter: no meta, no snapshot_done, no sizes."""
    tiny.write_encoder(project.path("older"), older=True)
    shutil.copytree(project.path(DATA), project.path("data", "older"))
    shutil.rmtree(project.path("data", "older", "ofrecord"))
    line = STEP_1.replace("uncased_L-2_H-20_A-4_oneflow", "older --hidden_size_per_head 5")
    project.call_well(line.replace(DATA, "data/older"))
    scores = np.load(project.path("data", "older", "ofrecord", "train", "weight.npy"))
    assert scores == pytest.approx(step_1.scores, abs=1e-6)


def test_no_pretrained_model(project):
    """Sizes come from the flags; without step 1 the samples' weights have to be declined."""
    tiny.write_g1(project.path("data", "bare"), train=2, dev=1)
    sizes = "--num_hidden_layers 1 --num_attention_heads 3 --hidden_size_per_head 2 --max_position_embeddings 25"
    line = (
        f"meta_finetuning.py --task_name g1 --data_dir data/bare --seq_length 24 --num_epochs 1 --vocab_file vocab.txt "
        f"--vocab_size {len(tiny.TOKENS)} {sizes} --batch_size_per_device 7 --resave_ofrecord "
        "--model_save_dir output/bare --seed 5"
    )
    code, _, errors = project.call(line)
    assert code == 2
    assert "preprocess.py" in errors
    run = project.run_of(project.call_well(line + " --use_sample_weights false"))
    assert "--use_sample_weights false: all sample weights are 1" in run.log
    assert "weights of" not in run.log
    assert run.snapshots() == [run.best(), "snapshot_initial_model"]
    initial = run.path("snapshot_initial_model")
    loaded = flow.load(initial)
    assert tuple(loaded["bert-embeddings-position_embeddings"].shape) == (25, 6)
    for name, value in loaded.items():
        assert np.array_equal(value.numpy(), initial_value(name, tuple(value.shape), 5)), name
    with open(os.path.join(initial, "bert_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]) == (1, 3, 24)
