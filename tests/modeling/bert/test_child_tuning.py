"""modeling/bert/child_tuning.py: masks by draw and by Fisher information, and SOFA's golden steps on the product's own graph.

SOFA decays after the update and adds epsilon before bias correction; the product's AdamW does neither. So the golden steps pin a NumPy
reference of SOFA's rule, and the graph is compared with the same reference in the product's order.
"""

import json
import math
import os

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, ROOT, documented, golden_batch, random_samples
from tiny_model import GOLDEN as GOLDEN_BERT

from modeling.bert.child_tuning import FisherInformation, pack_masks, percentile, task_free_masks, unpack_masks
from modeling.bert.encoder import build_bert
from modeling.bert.heads import classification_logits
from modeling.bert.names import layer_of
from modeling.bert.variables import Variables
from modeling.engine.engine import Engine
from modeling.engine.global_function import GlobalFunction
from modeling.engine.gradient_masks import GradientMasks
from modeling.engine.runtime import flow
from modeling.objectives.losses import cross_entropy
from modeling.run.child_tuning import fisher_layout
from modeling.run.optimizer import CLIP_NORM, Schedule, create_optimizer
from ofrecord_util.batches import iterate_training

with open(os.path.join(ROOT, "tests", "golden", "child_tuning.json"), encoding="utf-8") as _file:
    GOLDEN = json.load(_file)
LR, DECAY, EPSILON = 0.01, 0.1, 1e-6


def steps(kind, sofa):
    """Weights after each golden step in float64: by SOFA's rule, or by that of the product's AdamW."""
    case = GOLDEN[kind]
    w, m, v, after = np.array(GOLDEN["start"]), 0.0, 0.0, []
    for t, (g, mask) in enumerate(zip(np.array(GOLDEN["gradients"]), np.array(case["masks"])), start=1):
        g = g * mask / case.get("reserve_p", 1.0)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        first, second = 1 - 0.9**t, 1 - 0.999**t
        if sofa:
            w = w - LR * math.sqrt(second) / first * m / (np.sqrt(v) + EPSILON)
            w = w - LR * DECAY * w
        else:
            w = w - LR * DECAY * w - LR * (m / first) / (np.sqrt(v / second) + EPSILON)
        after.append(w)
    return np.array(after)


@pytest.mark.parametrize("kind", ["D", "F"])
def test_golden_steps(kind):
    case, start = GOLDEN[kind], np.array(GOLDEN["start"], np.float32)
    np.testing.assert_allclose(steps(kind, sofa=True), case["after"], rtol=0, atol=1e-9)
    assert max(map(np.linalg.norm, GOLDEN["gradients"])) < CLIP_NORM  # nothing is clipped
    variables = Variables({"w": start})
    constant = Schedule(LR, 10**9, 0)
    optimizer, rates = create_optimizer(variables, constant, DECAY, clip_norm=None)
    masks = GradientMasks(variables, "cpu", CLIP_NORM)

    def loss(variables, gradient):
        return (variables.get("w").reshape(1, 4) * gradient).sum()

    job = GlobalFunction(loss, "train", variables, optimizer, rates, masks=masks)
    for gradient, mask, expected, sofas in zip(GOLDEN["gradients"], case["masks"], steps(kind, sofa=False), case["after"]):
        masks.set("w", np.array(mask, np.float32) / np.float32(case.get("reserve_p", 1.0)))
        job({"gradient": np.array([gradient], np.float32)})
        np.testing.assert_allclose(variables.get("w").numpy(), expected, rtol=0, atol=3e-7)
        np.testing.assert_allclose(variables.get("w").numpy(), sofas, rtol=0, atol=4e-5)  # the orders of the two AdamWs


def test_the_percentile_is_numpys():
    case = GOLDEN["percentile"]
    limit = percentile(np.array(case["values"]), 1 - case["reserve_p"])
    assert limit == pytest.approx(case["threshold"], abs=1e-12)
    assert sum(value >= limit for value in case["values"]) == case["kept"]
    values = np.random.RandomState(5).rand(1237).astype(np.float32)
    for share in (0.0, 0.2, 0.77, 1.0):
        assert percentile(values.copy(), share) == pytest.approx(np.percentile(values.astype(np.float64), 100 * share), rel=1e-12)


SHAPES = {"a": (70, 50), "b": (1, 1500)}


@pytest.mark.parametrize("reserve_p", [0.2, 0.4, 0.9])
def test_drawn_masks(reserve_p):
    of_step = [dict(task_free_masks(SHAPES, reserve_p, 3, step)) for step in (0, 1, 0)]
    assert {name: mask.shape for name, mask in of_step[0].items()} == SHAPES
    flat = [np.concatenate([mask.reshape(-1) for mask in masks.values()]) for masks in of_step]
    assert np.array_equal(flat[0], flat[2])
    assert not np.array_equal(flat[0], flat[1])
    for values in flat:
        assert set(np.unique(values)) == {0.0, np.float32(1.0 / (1.0 - (1.0 - reserve_p)))}
        deviation = math.sqrt(reserve_p * (1 - reserve_p) / values.size)
        assert abs((values > 0).mean() - reserve_p) < 4 * deviation
    agreement = ((flat[0] > 0) == (flat[1] > 0)).mean()  # independent draws agree with probability p^2 + (1 - p)^2
    assert abs(agreement - reserve_p**2 - (1 - reserve_p) ** 2) < 4 * 0.5 / math.sqrt(flat[0].size)


LAYER, OTHER = "bert-encoder-layer_1-", "classification-"
COLUMNS = {
    "matrix": [(LAYER + "attention-self-query-weight", slice(0, 3)), (LAYER + "attention-self-key-weight", slice(3, 5))],
    "vectors": [(OTHER + "output_bias", slice(0, 2)), (LAYER + "output-dense-bias", slice(2, 6))],
    OTHER + "output_weights": [(OTHER + "output_weights", slice(0, 5))],
}


def test_fisher_information():
    """Squares of gradients that are clipped by each variable's own norm; only the variables of encoder layers are ranked."""
    draw = np.random.RandomState(8)
    shapes = {"matrix": (4, 5), "vectors": (1, 6), OTHER + "output_weights": (2, 5)}
    batches = [{name: draw.randn(*shape).astype(np.float32) * scale for name, shape in shapes.items()} for scale in (0.1, 5.0)]
    fisher = FisherInformation(COLUMNS, 1.0)
    assert fisher.names == ("matrix", "vectors")
    expected, clipped = {}, 0
    for batch in batches:
        fisher.add(batch)
        for name in fisher.names:
            for variable, part in COLUMNS[name]:
                if variable.startswith(LAYER):
                    g = batch[name][..., part].astype(np.float64)
                    norm = math.sqrt((g**2).sum())
                    clipped += norm > 1
                    expected[variable] = expected.get(variable, 0.0) + (g * min(1.0, 1.0 / (norm + 1e-6))) ** 2 / len(batches)
    assert 0 < clipped < 6
    everything = np.concatenate([value.reshape(-1) for value in expected.values()])
    masks = fisher.masks(0.3)
    limit = np.percentile(everything, 70)
    for name in fisher.names:
        for variable, part in COLUMNS[name]:
            wanted = expected[variable] >= limit if variable in expected else np.ones_like(masks[name][..., part])
            assert np.array_equal(masks[name][..., part], wanted), variable
    count = len(everything)
    assert fisher.kept(masks) == (count - math.ceil((count - 1) * 0.7), count)
    assert fisher.kept(fisher.masks(1.0)) == (count, count)


def test_fisher_information_of_a_bert():
    """Gradients of the product's own graph, without dropout, give the masks of the golden gradients of an independent BERT."""
    factor = 40.0  # of the loss, so that some variables are clipped and some are not

    def loss(variables, word_rows, input_mask, segment_ids, label, weights):
        bert = build_bert(variables, CONFIG, KERNELS["cpu"], word_rows, input_mask, segment_ids)
        return (weights * cross_entropy(classification_logits(variables, KERNELS["cpu"], bert.pooled), label)).mean() * factor

    variables = Variables(documented("weight"))
    job = GlobalFunction(loss, "gradient", variables, engine=Engine("cpu"))
    _, gradients = job.gradients(dict(golden_batch(), label=GOLDEN_BERT["train/labels"], weights=GOLDEN_BERT["train/weights"]))
    fisher = FisherInformation(variables.columns(), 1.0)
    fisher.add(gradients)
    masks, squares, norms = fisher.masks(0.3), {}, []
    for name, gradient in documented("grad").items():
        if layer_of(name) is not None:
            norms.append(math.sqrt(float(((factor * gradient.astype(np.float64)) ** 2).sum())))
            squares[name] = (factor * gradient.astype(np.float64) * min(1.0, 1.0 / (norms[-1] + 1e-6))) ** 2
    assert min(norms) < 1 < max(norms)
    limit = np.percentile(np.concatenate([value.reshape(-1) for value in squares.values()]), 70)
    differing = total = 0
    for parameter, parts in variables.columns().items():
        for name, columns in parts:
            if name in squares:
                differing += int((masks[parameter][..., columns].reshape(squares[name].shape) != (squares[name] >= limit)).sum())
                total += squares[name].size
    assert total > 5000
    assert differing <= 0.001 * total  # elements at the threshold, to rounding


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (1, 2), (2, 2), (3, 2), (4, 2)])
def test_fisher_information_of_batches_of_another_size(size, parts):
    """The squared mean gradient of each `size` samples, also where the train function cuts a batch into parts of more samples."""
    draw, weight = np.random.RandomState(3), np.array([[0.3], [-0.2], [0.5]], np.float32)
    samples, name = random_samples([3, 3, 2, 3, 1, 3, 3]), LAYER + "output-dense-weight"
    x = draw.randn(len(samples), 3).astype(np.float32)

    def loss(variables, loss_mask, x):
        product = flow.matmul(x, variables.get(name)).reshape(-1)
        value = (product * product * loss_mask).mean() * 0.5
        return value, value

    variables = Variables({name: weight})
    job = GlobalFunction(loss, "gradient", variables, parts=parts)
    fisher, order = FisherInformation(variables.columns(), 1e9), []
    rows, counted = fisher_layout(size, 4, parts)
    for batch in iterate_training(samples, rows, (13,), 1, 5, **counted):
        order.append(batch["idxs"][batch["loss_mask"] > 0])
        fisher.add(job.gradients({"loss_mask": batch["loss_mask"], "x": x[batch["idxs"]]})[1])
    assert sorted(np.concatenate(order).tolist()) == list(range(7))
    assert {len(rows) for rows in order[:-1]} == {size}
    gradients = [np.mean([(x[row] @ weight) * x[row] for row in rows], axis=0) for rows in order]
    np.testing.assert_allclose(fisher._sums[name].reshape(-1), np.square(gradients).sum(axis=0), rtol=1e-4)
    assert fisher.batches == len(order)


def test_without_information_everything_is_kept():
    fisher = FisherInformation(COLUMNS, 1.0)
    fisher.add({"matrix": np.zeros((4, 5), np.float32), "vectors": np.zeros((1, 6), np.float32)})
    assert all((mask == 1).all() for mask in fisher.masks(0.2).values())
    assert fisher.finite
    fisher.add({"matrix": np.full((4, 5), np.nan, np.float32), "vectors": np.zeros((1, 6), np.float32)})
    assert not fisher.finite


def test_masks_in_a_state():
    masks = {name: (np.random.RandomState(1).rand(*shape) < 0.3).astype(np.float32) for name, shape in (("a", (7, 5)), ("b", (1, 6)))}
    packed = pack_masks(masks)
    assert (packed.dtype, packed.shape) == (np.float32, (3,))
    back = unpack_masks(packed, {"a": (7, 5), "b": (1, 6)})
    assert all(np.array_equal(back[name], mask) for name, mask in masks.items())
    for bad in (packed[:2], packed + 0.5, packed - 2**16):
        with pytest.raises(ValueError, match="not the masks"):
            unpack_masks(bad, {"a": (7, 5), "b": (1, 6)})


def test_the_columns_of_fused_parameters():
    values = {
        LAYER + "attention-self-query-weight": np.ones((3, 4), np.float32),
        LAYER + "attention-self-key-weight": np.ones((3, 4), np.float32),
        LAYER + "attention-self-value-weight": np.ones((3, 4), np.float32),
        LAYER + "output-dense-bias": np.ones(3, np.float32),
        OTHER + "output_bias": np.ones(2, np.float32),
    }
    columns = Variables(values).columns()
    assert columns == {
        LAYER + "attention-self-weight": [
            (LAYER + f"attention-self-{part}-weight", slice(4 * i, 4 * i + 4)) for i, part in enumerate(("query", "key", "value"))
        ],
        "bias-and-LayerNorm": [(LAYER + "output-dense-bias", slice(0, 3)), (OTHER + "output_bias", slice(3, 5))],
    }
