"""modeling/bert/sequence_layout.py: texts that share a row give what each gives in a row of its own, and see nothing of each other."""

import dataclasses

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, NO_DROPOUT, NUM_DOMAINS, documented, domain_head, gradients, random_samples, run_graph

from modeling.bert.dropout import Dropout, DropoutPlan, with_dropout
from modeling.bert.encoder import build_bert
from modeling.bert.heads import domain_representation
from modeling.bert.pooling import masked_mean
from modeling.bert.variables import Variables
from modeling.engine import parallel
from modeling.engine.engine import Engine
from modeling.engine.global_function import global_function
from modeling.engine.lanes.plan import Lanes
from modeling.engine.runtime import flow, oneflow_version
from modeling.objectives.corruption import with_corrupted_domains
from modeling.objectives.mft import META_METRICS, finetuning_objective, meta_objective
from modeling.run.optimizer import Schedule, create_optimizer
from ofrecord_util.batches import iterate_training

LENGTHS = [3, 13, 7, 2, 5, 11]
RECORDS = random_samples(LENGTHS)
VALUES = {**documented("weight"), **domain_head()}
both = pytest.mark.parametrize("kernels", sorted(KERNELS))
shared = pytest.mark.parametrize("per_row", [2, 3, 6])


def batch_of(per_row, length=None):
    """A batch of the records, and the order in which it has the samples."""
    length = length or (13 if per_row == 1 else 13 * per_row)
    batch = next(iterate_training(RECORDS, len(LENGTHS), (length,), 3, 5, per_row=per_row))
    return {name: value for name, value in batch.items() if name != "idxs"}, batch["idxs"]


def text_of(batch):
    return {name: batch[name] for name in ("word_rows", "input_mask", "segment_ids", "starts", "positions") if name in batch}


@both
@shared
def test_each_text_has_the_states_of_a_row_of_its_own(kernels, per_row):
    def outputs(variables, **text):
        bert = build_bert(variables, NO_DROPOUT, KERNELS[kernels], **text)
        domain = flow._C.constant((len(LENGTHS),), 0, dtype=flow.int32, device=flow.device("cpu"))
        means = domain_representation(variables, bert.hidden_states[-1:], text["input_mask"], domain)
        return (bert.pooled, *bert.hidden_states, means)

    own, order = batch_of(1)
    expected = run_graph(outputs, text_of(own), VALUES)
    batch, dealt = batch_of(per_row, 13 * per_row + 3)
    found = run_graph(outputs, text_of(batch), VALUES)
    place = [list(order).index(number) for number in dealt]
    for one, other in ((found[0], expected[0]), (found[-1], expected[-1])):
        np.testing.assert_allclose(one, other[place], rtol=0, atol=2e-6)
    for states, wanted in zip(found[1:-1], expected[1:-1]):
        for number, here in enumerate(batch["input_mask"].reshape(len(LENGTHS), -1)):
            mine = states[number // per_row][here == 1]
            assert len(mine) == LENGTHS[dealt[number]]
            np.testing.assert_allclose(mine, wanted[place[number]][: len(mine)], rtol=0, atol=4e-6)


@both
@pytest.mark.parametrize("queries", ["all", "first"])
def test_texts_of_a_row_do_not_see_each_other(kernels, queries):
    draw, heads = np.random.RandomState(4), 3
    mask = (draw.randint(0, 3, (2, 1, 7)) == np.arange(2)[:, None]).astype(np.float32)  # [R, C, S], some of neither text
    found = run_graph(
        lambda variables, mask: (KERNELS[kernels].same_text_mask if queries == "all" else KERNELS[kernels].text_mask)(mask, heads),
        {"mask": mask},
    )
    found = np.broadcast_to(found, (2, heads, 7 if queries == "all" else 2, 7))
    for row, head, query, key in np.ndindex(*found.shape):
        seen = (mask[row, :, query] * mask[row, :, key]).any() if queries == "all" else mask[row, query, key]
        assert found[row, head, query, key] == (0 if seen else -10000)


@pytest.mark.parametrize(
    ("kernels", "per_row", "pooling"), [("cpu", 2, "cls"), ("cpu", 3, "mean"), ("stock", 6, "cls"), ("stock", 2, "mean")]
)
def test_objectives_and_their_gradients(kernels, per_row, pooling):
    """Of plain fine-tuning (in the last layer [CLS] alone) and of the meta objective."""
    if kernels == "stock" and oneflow_version() < (0, 9, 0):
        pytest.skip("OneFlow 0.8.0 has no gradient of its layer norm on the CPU, where nothing but this test uses it")
    config = dataclasses.replace(NO_DROPOUT, pooling=pooling, num_hidden_layers=2)
    kept = {name: value for name, value in VALUES.items() if "layer_2" not in name and (pooling == "cls" or "pooler" not in name)}

    def plain(variables, domain, sample_weights, **batch):
        return finetuning_objective(variables, config, KERNELS[kernels], None, **batch)

    def meta(variables, **batch):
        # drawn for each sample by its domain, so that the order does not matter
        targets = (batch["domain"].reshape(-1, 1) + 1) % NUM_DOMAINS
        return meta_objective(variables, config, KERNELS[kernels], None, (0, 1), 0.7, **batch, corrupted_domain=targets)

    own, _ = batch_of(1)
    batch, _ = batch_of(per_row)
    for objective in (plain, meta):
        values = {name: value for name, value in kept.items() if objective is meta or not name.startswith("corrupted")}
        (loss, metrics), expected = gradients(objective, values, own)
        (same, others), found = gradients(objective, values, batch)
        assert same == pytest.approx(float(loss), abs=2e-6)
        np.testing.assert_allclose(others, metrics, rtol=0, atol=2e-6)
        for name, gradient in expected.items():
            np.testing.assert_allclose(found[name], gradient, rtol=0, atol=3e-6, err_msg=name)
        assert sum(np.abs(gradient).max() > 1e-4 for gradient in expected.values()) > 0.8 * len(expected)


def test_training_with_dropout_is_the_same_in_any_number_of_lanes():
    """Six texts in three rows, lanes of one and of two; dropout's masks are those of rows and texts."""

    def trained(number):
        plan, variables = DropoutPlan(CONFIG, 7, "cpu"), Variables(VALUES)
        optimizer, rates = create_optimizer(variables, Schedule(1e-3, 20, 2))

        @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates, engine=Engine("cpu", Lanes(number)))
        def job(variables, **batch):
            return meta_objective(variables, CONFIG, KERNELS["cpu"], plan.take(batch), (0, 2), 0.7, **batch)

        batches = with_corrupted_domains(with_dropout(iterate_training(RECORDS, 6, (26,), 4, 5, 0, 2), plan), NUM_DOMAINS, 3)
        metrics = []
        for batch in batches:
            batch.pop("idxs")
            metrics.append(job(batch)[1].numpy())
        return np.array(metrics)

    found, expected = trained(2), trained(1)
    assert found.shape == (4, len(META_METRICS))
    assert expected[0, 0] != expected[-1, 0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5)


def test_masks_of_dropout_have_the_shapes_of_rows_and_texts():
    plan = DropoutPlan(CONFIG, 7, "cpu")
    shapes = [mask.shape for mask in plan.masks(0, 3, 26, 6).values()]
    width, heads = CONFIG.hidden_size, CONFIG.num_attention_heads
    layer = [(3, heads, 26, 26), (78, width), (78, width)]
    assert shapes == [(78, width), *layer * CONFIG.num_hidden_layers, (6, width)]


@pytest.mark.parametrize("pooled_only", [False, True])
def test_dropout_falls_on_what_is_computed(pooled_only):
    """With masks of one value v everywhere, dropout is a product by v, whatever shares a row."""

    def pooled(variables, scale, **text):
        masks = DropoutPlan(CONFIG, 7, "cpu").layers(*text["word_rows"].shape, len(LENGTHS))
        given = [parallel.constant(shape, 1.0, "cpu") * scale for _, shape in masks]
        return build_bert(variables, CONFIG, KERNELS["cpu"], **text, dropout=Dropout(CONFIG, given), pooled_only=pooled_only).pooled

    scale = {"scale": np.array([0.7], np.float32)}
    own, order = batch_of(1)
    batch, dealt = batch_of(3)
    expected = run_graph(pooled, {**text_of(own), **scale}, VALUES)
    found = run_graph(pooled, {**text_of(batch), **scale}, VALUES)
    np.testing.assert_allclose(found, expected[[list(order).index(number) for number in dealt]], rtol=0, atol=4e-6)


def test_the_mean_of_a_text_without_tokens():
    hidden, mask = np.ones((2, 5, 4), np.float32), np.zeros((2, 3, 5), np.float32)
    mask[1, 2, :3] = 1
    found = run_graph(lambda variables, hidden, mask: masked_mean(hidden, mask), {"hidden": hidden, "mask": mask})
    assert np.array_equal(found, np.repeat([[0], [0], [0], [0], [0], [1]], 4, axis=1))
