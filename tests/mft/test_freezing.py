"""--freeze_layers and --freeze_encoder: what is frozen keeps its values, and what cannot be frozen."""

import numpy as np
import pytest
import tiny
from mft_steps import STEP_2, STEP_3

from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD
from modeling.bert.variables import encoder_shapes

pytestmark = pytest.mark.slow


def check_frozen(run, start, frozen):
    """Frozen variables of a run's snapshots are those of `start` bit for bit; in the last one all others have changed."""
    for snapshot in run.snapshots():
        for name in (*encoder_shapes(tiny.CONFIG), *CLASSIFIER):
            same = np.array_equal(tiny.read_variable(run.path(snapshot), name), tiny.read_variable(start, name))
            assert same if name.startswith(frozen) else snapshot != "snapshot_last" or not same, name


def test_frozen_layers(project, step_2):
    line = STEP_3.format(snapshot=step_2.snapshot).replace("_epochs 3", "_epochs 1")
    run = project.run_of(project.call_well(line + " --weight_decay_rate 0.5 --save_last_snapshot --freeze_layers 1"))
    frozen = ("bert-embeddings-", "bert-encoder-layer_0-")
    check_frozen(run, step_2.snapshot, frozen)
    shapes = {**encoder_shapes(tiny.CONFIG), CLASSIFIER[0]: (2, 20), CLASSIFIER[1]: (2,)}
    sizes = [sum(int(np.prod(s)) for n, s in shapes.items() if n.startswith(frozen) == held) for held in (False, True)]
    assert "{:,} parameters are trained, {:,} frozen".format(*sizes) in run.log


def test_frozen_encoder(project, step_2):
    line = STEP_2.replace(" --resave_ofrecord", "").replace("_epochs 12", "_epochs 1")
    line = line.replace("uncased_L-2_H-20_A-4_oneflow", step_2.snapshot) + " --freeze_encoder --save_last_snapshot"
    run = project.run_of(project.call_well(line + " --model_save_dir output/heads"))
    check_frozen(run, step_2.snapshot, "bert-")
    for name in DOMAIN_HEAD:
        assert not np.array_equal(tiny.read_variable(run.path("snapshot_last"), name), tiny.read_variable(step_2.snapshot, name))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--freeze_layers 3", "--freeze_layers 3: the encoder has 2 layers, give 0 to 2"),
        ("--freeze_layers -1", "--freeze_layers: -1 is not 0 or more"),
        ("--freeze_encoder --freeze_layers 1", "--freeze_layers 1 only the first ones: give one of the two"),
    ],
)
def test_what_cannot_be_frozen(project, step_1, more, said):
    fails_in_one_line(project, f"{STEP_2} {more}", said)


def test_a_new_encoder_is_not_frozen(project, step_1):
    line = STEP_2.replace(" --model_load_dir uncased_L-2_H-20_A-4_oneflow", "")
    fails_in_one_line(project, f"{line} --freeze_encoder --vocab_size {len(tiny.TOKENS)}", "no snapshot is loaded")


def fails_in_one_line(project, line, said):
    code, _output, errors = project.call(line)
    assert code == 2
    assert said in errors
    assert errors.count("\n") == 1
