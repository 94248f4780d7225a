"""Other settings of step 3: learning rates that ruin the model, text without scores, no test, other labels."""

import numpy as np
import pytest
import tiny
from mft_steps import SINGLE, STEP_3

from modeling.bert.names import CLASSIFIER
from modeling.bert.variables import encoder_shapes, initial_value
from ofrecord_util.reader import read_split

pytestmark = pytest.mark.slow


def test_the_best_snapshot_is_tested_and_not_the_last_step(project, step_2):
    """The first step's learning rate is 0, the others ruin the model: the test must be that of the first."""
    line = STEP_3.format(snapshot=step_2.snapshot).replace("--num_epochs 3", "--num_epochs 1")
    line = line.replace("--learning_rate 1e-4", "--learning_rate 0.5").replace("step_num 5", "step_num 1")
    ruined = project.run_of(project.call_well(line + " --warmup_proportion 1"))
    assert [row["best"] for row in ruined.rows("dev")] == [True] + [False] * 5
    assert ruined.rows("dev")[-1]["cross_entropy"] > 2 * ruined.rows("dev")[0]["cross_entropy"]
    for name in (*encoder_shapes(tiny.CONFIG), *CLASSIFIER):  # the classifier is kept, bit for bit
        kept = tiny.read_variable(ruined.path(ruined.best()), name)
        assert np.array_equal(kept, tiny.read_variable(step_2.snapshot, name)), name
    line = STEP_3.format(snapshot=step_2.snapshot) + " --do_train false --do_eval --model_save_dir output/test-alone"
    project.call_well(line)
    alone = tiny.Run(project.path("output", "test-alone"))
    assert [row["kind"] for row in alone.metrics] == ["dev", "test"]
    assert not alone.snapshots()
    for kind in ("dev", "test"):
        measured, expected = ruined.rows(kind)[0], alone.rows(kind)[0]
        assert measured["correct"] == expected["correct"]
        assert measured["cross_entropy"] == pytest.approx(expected["cross_entropy"], rel=1e-5)


def test_step_3_does_not_ask_for_scores(project, step_2):
    """It does not use them, so those of another text do not stop it; those that fit stay in the records."""
    folder = project.path("data", "rescored")
    tiny.write_single(folder)
    encoder = "--model_load_dir uncased_L-2_H-20_A-4_oneflow --data_dir data/rescored --seq_length 24"
    project.call_well(f"preprocess.py --task_name sst-2 {encoder} --resave_ofrecord")
    scores = read_split(folder, "train").sample_weights
    line = STEP_3.format(snapshot=step_2.snapshot).replace(SINGLE, "data/rescored").replace("_epochs 3", "_epochs 1")
    line = line.replace("--batch_size_per_device 3", "--batch_size_per_device 16")
    project.call_well(line)
    assert np.array_equal(read_split(folder, "train").sample_weights, scores)
    assert scores.std() > 0
    tiny.write_rows(folder, "train", tiny.opinions("SST-2", (8, 8), "other"))
    output = project.call_well(line)
    assert "weights of" not in output


def test_no_test_where_none_is_asked_for(project, step_2):
    line = STEP_3.format(snapshot=step_2.snapshot).replace("--num_epochs 3", "--num_epochs 1")
    run = project.run_of(project.call_well(line + " --do_train --do_eval false --label_list 1,0 --learning_rate 0"))
    assert not run.rows("test")
    assert len(run.rows("dev")) == 2
    # the order of the labels is another, so the classifier starts anew and the log says so
    assert "initialised, not in the snapshot or for other labels or domains: " + ", ".join(CLASSIFIER) in run.log
    for name, shape in ((CLASSIFIER[0], (2, 20)), (CLASSIFIER[1], (2,))):
        values, old = tiny.read_variable(run.path(run.best()), name), tiny.read_variable(project.path(step_2.snapshot), name)
        assert np.array_equal(values, initial_value(name, shape, 42, tiny.CONFIG.initializer_range, old.tobytes()).ravel())
        assert name.endswith("bias") or not np.array_equal(values, initial_value(name, shape, 42, tiny.CONFIG.initializer_range).ravel())
