"""modeling/bert/freezing.py: what the flags freeze, and that a train graph leaves it alone: no gradient, no step, no decay."""

import collections
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import CONFIG, GOLDEN, KERNELS, NO_DROPOUT, documented, golden_batch, gradients

from modeling.bert.freezing import Freezing, plan_freezing
from modeling.bert.names import WORD_EMBEDDINGS
from modeling.bert.variables import Variables
from modeling.cli.flags import parse_flags
from modeling.engine.global_function import GlobalFunction
from modeling.objectives.losses import cross_entropy
from modeling.objectives.mft import finetuning_objective, predict_logits
from modeling.run.optimizer import Schedule, create_optimizer
from modeling.run.resume import run_identity
from ofrecord_util.errors import UserError

LAYERS = CONFIG.num_hidden_layers
PARTS = {  # of which variables, by the beginning of their names
    "bert-embeddings-": 5, "bert-encoder-layer_0-": 16, "bert-encoder-layer_1-": 16, "bert-encoder-layer_2-": 16,
    "bert-pooler-": 2, "classification-": 2,
}  # fmt: skip
CASES = [  # --freeze_encoder, --freeze_layers, how many of PARTS are frozen
    (False, None, 0), (False, 0, 1), (False, 2, 3), (False, 3, 4), (True, None, 5),
]  # fmt: skip


def flags(encoder, layers):
    return SimpleNamespace(freeze_encoder=encoder, freeze_layers=layers)


def plan(encoder, layers, pooling="cls"):
    return plan_freezing(flags(encoder, layers), dataclasses.replace(CONFIG, pooling=pooling))


def frozen_names(freezing):
    return [name for name in documented("weight") if freezing.holds(name)]


@pytest.mark.parametrize(("encoder", "layers", "parts"), CASES)
def test_plan(encoder, layers, parts):
    frozen = frozen_names(plan(encoder, layers))
    counted = collections.Counter(part for part in PARTS for name in frozen if name.startswith(part))
    assert counted == dict(list(PARTS.items())[:parts])


def test_names_of_many_layers():
    freezing = Freezing(True, 2)
    assert not freezing.holds("bert-encoder-layer_10-output-dense-bias")
    assert freezing.holds("bert-encoder-layer_1-output-dense-bias")
    for name in ("distillation-hidden_projection_0", "corrupted_domain_classification-domain_bias"):
        assert not Freezing(True, 12, True).holds(name)


def test_a_run_goes_on_with_the_same_frozen_variables():
    identity = run_identity(parse_flags("finetuning", argv=["--task_name", "t", "--data_dir", "d", "--freeze_layers", "2"]))
    assert identity["--freeze_layers"] == 2
    assert identity["--freeze_encoder"] is False


def test_scripts_that_train_nothing():
    assert plan_freezing(SimpleNamespace(), CONFIG) == Freezing()


@pytest.mark.parametrize(
    ("encoder", "layers", "said"),
    [(False, 4, "--freeze_layers 4: the encoder has 3 layers, give 0 to 3"), (True, 0, "--freeze_encoder freezes every layer")],
)
def test_refusals(encoder, layers, said):
    with pytest.raises(UserError, match=said):
        plan(encoder, layers)


def test_a_pooler_that_is_left_out():
    """Mean and max stand on the last layer: the pooler has no part in the graph."""
    assert plan(False, None, "mean") == Freezing(pooler=True)
    assert plan(False, 1, "max") == Freezing(True, 1, True)


@pytest.mark.parametrize("freezing", [Freezing(True, 2), Freezing(True, 3, True)])
def test_gradients_of_the_rest(freezing):
    """They are those of the golden file, and the frozen variables have none."""

    def weighted_loss(variables, word_rows, input_mask, segment_ids, label, weights):
        logits = predict_logits(variables, CONFIG, KERNELS["cpu"], word_rows, input_mask, segment_ids)
        return (weights * cross_entropy(logits, label)).mean()

    arrays = dict(golden_batch(), label=GOLDEN["train/labels"], weights=GOLDEN["train/weights"])
    _, found = gradients(weighted_loss, documented("weight"), arrays, frozen_names(freezing))
    for name, expected in documented("grad").items():
        if freezing.holds(name):
            assert not found[name].any(), name
        else:
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(("freezing", "trained_layers"), [(Freezing(), 3), (Freezing(True, 2), 1), (Freezing(True, 3, True), 0)])
def test_a_training_graph(freezing, trained_layers):
    """AdamW with a strong decay leaves the frozen variables bit for bit, words out of use included, and the graph has neither
    an update of them nor a backward pass below the first trained layer."""
    values, batch = documented("weight"), golden_batch()
    ids = np.unique(batch["word_rows"])
    batch = dict(batch, word_rows=np.searchsorted(ids, batch["word_rows"]).astype(np.int32))
    batch.update(label=np.array([2, 0, 1], np.int32), loss_mask=np.ones(3, np.float32))
    variables = Variables(values, active_ids=ids, frozen=frozen_names(freezing))
    schedule = Schedule(0.02, 7, 0)
    optimizer, rates = create_optimizer(variables, schedule, 0.5)

    def function(variables, **features):
        return finetuning_objective(variables, NO_DROPOUT, KERNELS["cpu"], None, **features)

    job = GlobalFunction(function, "train", variables, optimizer, rates)
    for _ in range(2):
        job(batch)[0].numpy()
    after = variables.arrays(schedule.decay_factor(2, 0.5))
    for name, value in values.items():
        assert np.array_equal(after[name], value) == freezing.holds(name), name
    unused = np.setdiff1d(np.arange(CONFIG.vocab_size), ids)
    same = np.array_equal(after[WORD_EMBEDDINGS][unused], values[WORD_EMBEDDINGS][unused])
    assert len(unused)
    assert same == freezing.embeddings

    trained = sum(parameter.numel() for parameter in variables.trained().values())
    assert trained == sum(value.size for value in values.values()) - sum(values[name].size for name in frozen_names(freezing)) - len(
        unused
    ) * CONFIG.hidden_size * (not freezing.embeddings)
    sizes = {name: value.size for name, value in values.items()}
    assert variables.count() == sum(sizes.values())
    assert variables.count(frozen=True) == sum(sizes[name] for name in frozen_names(freezing))
    assert variables.count(frozen=False) == variables.count() - variables.count(frozen=True)

    (graph,) = job._graphs.values()
    ops = collections.Counter(op.user_conf.op_type_name for op in graph._compiled_graph_proto.net.op)
    assert ops["softmax"] == LAYERS
    assert ops["softmax_grad"] == ops["erf_grad"] == trained_layers
    assert ops["adam_update"] == len(variables.trained())
