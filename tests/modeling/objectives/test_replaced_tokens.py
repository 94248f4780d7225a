"""modeling/objectives/replaced_tokens.py against transformers (tests/golden/pretraining.json) and NumPy."""

import dataclasses

import numpy as np
import pytest
from golden_pretraining import (
    CONFIG,
    GOLDEN,
    IDS,
    check_gradients,
    golden_pair,
    golden_text,
    golden_values,
    masked_arrays,
    skip_without_gradients,
)
from tiny_model import KERNELS, gradients, log_softmax, run_graph

from modeling.bert.encoder import build_bert
from modeling.bert.heads import replaced_logits
from modeling.bert.names import (
    EMBEDDINGS_PREFIX,
    ENCODER_NORM,
    GENERATOR_PREFIX,
    GENERATOR_PROJECTION,
    REPLACED_HEAD,
    TOKEN_HEAD,
    WORD_EMBEDDINGS,
)
from modeling.bert.variables import encoder_shapes, initial_value, replaced_head_shapes, token_head_shapes
from modeling.bert.variant import Variant
from modeling.objectives.replaced_tokens import (
    REPLACED_METRICS,
    _View,
    binary_cross_entropy,
    generator_config,
    generator_shapes,
    predict_replaced,
    replaced_token_objective,
    with_samples,
)
from ofrecord_util.corpus_batches import batch_weights

REPLACED = GOLDEN["replaced"]
both = pytest.mark.parametrize("kernels", sorted(KERNELS))
SHAPES = {**encoder_shapes(CONFIG), **token_head_shapes(CONFIG), **replaced_head_shapes(CONFIG)}
HEADS = [
    golden_pair(f"discriminator_predictions.{name}", snapshot, name.endswith("weight"))
    for name, snapshot in zip(("dense.weight", "dense.bias", "dense_prediction.weight", "dense_prediction.bias"), REPLACED_HEAD)
]
WEIGHTS = batch_weights((IDS != 0).astype(np.float32))


def log_sigmoid(values):
    return -np.logaddexp(0, -np.asarray(values, np.float64))


@both
def test_golden_discriminator(kernels):
    """ElectraForPreTraining whose embeddings have the width of its layers."""
    skip_without_gradients(kernels)
    values, names = golden_values(SHAPES, REPLACED["names"], HEADS, "electra.")
    label = np.array(REPLACED["labels"], np.int32)

    def objective(variables, word_rows, input_mask, segment_ids, label, weights):
        kernel = KERNELS[kernels]
        states = build_bert(variables, CONFIG, kernel, word_rows, input_mask, segment_ids, pools=False).hidden_states[-1]
        logits = replaced_logits(variables, kernel, states.reshape(-1, CONFIG.hidden_size))
        losses = binary_cross_entropy(kernel, logits, label.reshape(-1)).reshape(*label.shape)
        return (losses * weights).sum(dim=1).mean(), logits.reshape(*label.shape)

    (loss, logits), found = gradients(objective, values, {**golden_text(), "label": label, "weights": WEIGHTS})
    assert loss == pytest.approx(REPLACED["loss"], abs=2e-6)
    np.testing.assert_allclose(logits, REPLACED["logits"], atol=2e-6)
    check_gradients(found, names, REPLACED)


def test_binary_cross_entropy():
    logits = np.array([-80.0, -3.0, 0.0, 0.5, 80.0] * 2, np.float32)
    arrays = {"logits": logits[:, None], "label": np.array([0] * 5 + [1] * 5, np.int32)}
    found = run_graph(lambda variables, **arrays: binary_cross_entropy(KERNELS["cpu"], **arrays), arrays)
    np.testing.assert_allclose(found, [*-log_sigmoid(-logits[:5]), *-log_sigmoid(logits[5:])], rtol=1e-5, atol=5e-6)


@both
def test_samples(kernels):
    """The first class whose cumulative probability is above the noise, also at the ends."""
    draw = np.random.RandomState(3)
    logits = (draw.randn(60, 31) * 2).astype(np.float32)
    logits[:20, 11:] -= 200.0  # classes of probability 0 at the end
    noise = draw.rand(60, 1).astype(np.float32)
    noise[[0, 20]], noise[[1, 21]] = 0.0, 1 - 2.0**-24
    found = run_graph(lambda variables, **arrays: KERNELS[kernels].sample(**arrays), {"logits": logits, "noise": noise})
    cumulative = np.exp(log_softmax(logits)).cumsum(axis=1)
    near = np.abs(cumulative - noise).min(axis=1) < 1e-6  # rounding decides
    expected = np.minimum((cumulative <= noise).sum(axis=1), 30)
    assert near.sum() < 5
    assert np.array_equal(found[~near], expected[~near])
    assert found[0] == found[20] == 0
    assert found.max() <= 30


def test_shares_of_samples():
    logits = np.tile(np.log(np.array([[0.1, 0.2, 0.4, 0.3]], np.float32)), (4000, 1))
    noise = np.random.RandomState(5).rand(4000, 1).astype(np.float32)
    found = run_graph(lambda variables, **arrays: KERNELS["cpu"].sample(**arrays), {"logits": logits, "noise": noise})
    share = np.bincount(found, minlength=4) / 4000
    assert np.abs(share - [0.1, 0.2, 0.4, 0.3]).max() < 3 * np.sqrt(0.25 / 4000)


def test_a_sample_that_hits_the_token_counts_as_original():
    """Large ids keep all digits; a place that is not used changes nothing."""
    original = np.array([[2, 1_000_003, 7, 3, 0], [2, 11, 12, 13, 3]], np.int32)
    places = np.zeros((2, 3, 5), np.float32)
    places[0, 0, 1] = places[0, 1, 2] = places[1, 0, 3] = 1.0
    sampled = np.array([[1_000_003, 999_999, 40], [14, 41, 42]], np.int64)
    arrays = {"original_rows": original, "masked_places": places, "sampled": sampled}
    rows, replaced = run_graph(lambda variables, **arrays: with_samples(**arrays), arrays)
    assert rows.tolist() == [[2, 1_000_003, 999_999, 3, 0], [2, 11, 12, 14, 3]]
    assert replaced.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]


@pytest.mark.parametrize(
    ("width", "share", "sizes"), [(384, 0.25, (96, 1)), (768, 1 / 3, (256, 4)), (20, 0.25, (5, 1)), (400, 0.5, (200, 2))]
)
def test_the_sizes_of_a_generator(width, share, sizes):
    config = dataclasses.replace(CONFIG, hidden_size=width)
    found = generator_config(config, share)
    assert (found.hidden_size, found.num_attention_heads) == sizes
    assert found.intermediate_size == 4 * found.hidden_size
    assert found.num_hidden_layers == config.num_hidden_layers


def test_a_generator_has_the_norm_after_norms_before_its_layers():
    config = dataclasses.replace(CONFIG, variant=Variant(layer_norms="before"))
    added = set(generator_shapes(config, generator_config(config, 0.5))) - set(generator_shapes(CONFIG, generator_config(CONFIG, 0.5)))
    assert added == {f"{GENERATOR_PREFIX}{ENCODER_NORM}-{part}" for part in ("gamma", "beta")}


def test_a_generator_has_bert_s_head_beside_a_plain_one():
    """Its last states have another width than the word embeddings, so it needs the layer that a plain head does not have."""
    config = dataclasses.replace(CONFIG, variant=Variant(token_head="plain", layer_norms="before"))
    generator = generator_config(config, 0.25)
    assert generator.variant == Variant(layer_norms="before")
    shapes, other = generator_shapes(config, generator), dataclasses.replace(CONFIG, variant=Variant(layer_norms="before"))
    assert shapes == generator_shapes(other, generator_config(other, 0.25))
    head = {name: shapes[GENERATOR_PREFIX + name] for name in TOKEN_HEAD}
    assert list(head.values()) == [(4, 16), (16,), (16,), (16,), (50,)]


# -------------------------------------------------------------------------------------------------------- both models


def both_models(generator=CONFIG, seed=2):
    """Values of both models. A generator of the golden sizes is the golden BertForMaskedLM, with a projection that changes nothing."""
    values, _ = golden_values({**encoder_shapes(CONFIG), **token_head_shapes(CONFIG)})
    draw = np.random.RandomState(seed)
    whole = {name: value for name, value in values.items() if name not in TOKEN_HEAD}
    whole.update({name: draw.randn(*shape).astype(np.float32) * 0.3 for name, shape in replaced_head_shapes(CONFIG).items()})
    for name, shape in generator_shapes(CONFIG, generator).items():
        own = name[len(GENERATOR_PREFIX) :]
        if generator == CONFIG and own in values:
            whole[name] = values[own]
        else:
            whole[name] = initial_value(name, shape, 4, 0.3)
    if generator == CONFIG:
        whole[f"{GENERATOR_PROJECTION}-weight"] = np.eye(CONFIG.hidden_size, dtype=np.float32)
    return whole


def batch_of(noise):
    original = IDS.copy()
    for row, place, token in GOLDEN["targets"]:
        original[row, place] = token
    arrays = masked_arrays(IDS, GOLDEN["targets"], 3)
    return {
        **golden_text(),
        **arrays,
        "masked_weights": batch_weights(arrays["masked_weights"]),
        "original_rows": original,
        "noise": np.array(noise, np.float32),
        "token_weights": WEIGHTS,
        "loss_mask": np.ones(2, np.float32),
    }


def objective(generator=CONFIG, weight=50.0, kernels="cpu"):
    return lambda variables, **batch: replaced_token_objective(variables, CONFIG, generator, KERNELS[kernels], None, weight, **batch)


NOISE = [[0.31, 0.77, 0.5], [0.12, 0.93, 0.5]]


@both
def test_loss_and_metrics(kernels):
    """The generator's part has the golden loss; the discriminator's part is that of tokens which NumPy samples from the golden logits."""
    values, batch = both_models(), batch_of(NOISE)
    tokens, rows, used = [], batch["original_rows"].copy(), [0, 0]
    logits = np.array(GOLDEN["logits"])
    for number, (row, place, _) in enumerate(GOLDEN["targets"]):
        cumulative = np.exp(log_softmax(logits))[number].cumsum()
        noise = NOISE[row][used[row]]
        used[row] += 1
        tokens.append(int((cumulative <= noise).sum()))
        if number == 1:  # a hit
            batch["original_rows"][row, place] = batch["masked_ids"][row, 1] = tokens[-1]
        rows[row, place] = tokens[-1]
    replaced = (rows != batch["original_rows"]) * 1.0
    assert replaced.sum() == 3

    def scores(variables, word_rows, input_mask, segment_ids):
        kernel = KERNELS[kernels].for_prediction
        states = build_bert(variables, CONFIG, kernel, word_rows, input_mask, segment_ids, pools=False).hidden_states[-1]
        return replaced_logits(variables, kernel, states.reshape(-1, CONFIG.hidden_size)).reshape(*word_rows.shape)

    alone = {name: value for name, value in values.items() if not name.startswith(GENERATOR_PREFIX)}
    found = run_graph(scores, {**golden_text(), "word_rows": rows}, alone)
    real, wanted = IDS != 0, [token for _, _, token in GOLDEN["targets"]]
    wanted[1] = tokens[1]
    losses = -(replaced * log_sigmoid(found) + (1 - replaced) * log_sigmoid(-found))
    of_generator = -log_softmax(logits)[np.arange(4), wanted]
    expected = [of_generator.mean(), losses[real].mean(), (logits.argmax(axis=1) == wanted).mean()]
    expected += [((found > 0) == replaced)[real].mean(), 1 - replaced[real].mean()]
    loss, metrics = run_graph(objective(kernels=kernels), batch, values)
    assert len(metrics) == len(REPLACED_METRICS)
    assert loss == metrics[0] == pytest.approx(expected[0] + 50 * expected[1], rel=1e-5)
    assert metrics[1:].tolist() == pytest.approx(expected, abs=1e-5)

    del batch["loss_mask"], batch["token_weights"]
    batch["masked_weights"] = (batch["masked_weights"] > 0).astype(np.float32)
    sums = run_graph(lambda variables, **arrays: predict_replaced(variables, CONFIG, CONFIG, KERNELS[kernels], **arrays), batch, values)
    whole = sums.sum(axis=0)
    assert whole[[2, 5, 6]].tolist() == [4, 3, real.sum()]
    assert [whole[0] / 4, whole[3] / real.sum()] == pytest.approx(expected[:2], abs=1e-5)
    assert [whole[1] / 4, whole[4] / real.sum()] == pytest.approx(expected[2:4], abs=1e-5)


def test_no_gradient_from_the_discriminator_into_the_generator():
    """Its own variables have the same gradient whatever the weight; the shared embeddings have another one."""
    generator = generator_config(CONFIG, 0.25)
    values, batch = both_models(generator), batch_of(NOISE)
    _, without = gradients(objective(generator, 0.0), values, batch)
    _, found = gradients(objective(generator, 2.0), values, batch)
    own = [name for name in values if name.startswith(GENERATOR_PREFIX)]
    assert len(own) == 2 + 5 + 2 * 16
    for name in own:
        np.testing.assert_allclose(found[name], without[name], rtol=0, atol=1e-6, err_msg=name)
    assert max(np.abs(without[name]).max() for name in own) > 1e-3
    for name in set(values) - set(own):
        if name.startswith(EMBEDDINGS_PREFIX):
            assert np.abs(without[name]).max() > 1e-4, name
            assert np.abs(found[name] - without[name]).max() > 1e-4, name
        else:
            assert not np.abs(without[name]).max() > 1e-6, name


# ------------------------------------------------------------------------------------------------- narrow embeddings

NARROW = dataclasses.replace(CONFIG, hidden_size=GOLDEN["narrow"]["embedding_size"])  # the model whose embeddings the golden ones have
PROJECT = [
    golden_pair(f"electra.embeddings_project.{part}", f"{GENERATOR_PROJECTION}-{part}"[len(GENERATOR_PREFIX) :], part == "weight")
    for part in ("weight", "bias")
]
GENERATOR_HEADS = [
    golden_pair(name, snapshot, name.endswith("dense.weight"))
    for name, snapshot in zip(
        (*(f"generator_predictions.{part}" for part in ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias")),
         "generator_lm_head.bias"), TOKEN_HEAD,
    )
]  # fmt: skip


def narrow_values(part, heads):
    """Values of a golden model of ELECTRA with narrow embeddings, and its names; its layers have the names of a generator."""
    shapes = {name[len(GENERATOR_PREFIX) :]: shape for name, shape in generator_shapes(NARROW, CONFIG).items()}
    shapes.update({name: shape for name, shape in encoder_shapes(NARROW).items() if name.startswith(EMBEDDINGS_PREFIX)})
    found = golden_values({**shapes, **replaced_head_shapes(CONFIG)}, GOLDEN["narrow"][part]["names"], [*PROJECT, *heads], "electra.")
    shared = (EMBEDDINGS_PREFIX, *REPLACED_HEAD)
    return [{name if name.startswith(shared) else GENERATOR_PREFIX + name: value for name, value in values.items()} for values in found]


def test_golden_generator_of_narrow_embeddings():
    """ElectraForMaskedLM, beside a discriminator of the width of the embeddings that has no weight in the loss."""
    golden = GOLDEN["narrow"]["generator"]
    values, names = narrow_values("generator", GENERATOR_HEADS)
    others = {**encoder_shapes(NARROW), **replaced_head_shapes(NARROW)}
    others = {name: initial_value(name, shape, 4, 0.3) for name, shape in others.items() if name not in values and "pooler" not in name}

    def loss(variables, **batch):
        return replaced_token_objective(variables, NARROW, CONFIG, KERNELS["cpu"], None, 0.0, **batch)

    (found, metrics), slopes = gradients(loss, {**values, **others}, batch_of(NOISE))
    assert found == metrics[1] == pytest.approx(golden["loss"], abs=2e-6)
    check_gradients({name: slopes[name] for name in values}, names, golden)


def test_golden_discriminator_of_narrow_embeddings():
    """ElectraForPreTraining. No script trains it, because a snapshot has no such embeddings, but the graph is that of a generator."""
    golden, kernels = GOLDEN["narrow"]["discriminator"], KERNELS["cpu"]
    values, names = narrow_values("discriminator", HEADS)
    label = np.array(REPLACED["labels"], np.int32)

    def loss(variables, word_rows, input_mask, segment_ids, label, weights):
        def project(x):
            return kernels.linear(x, variables.get(f"{GENERATOR_PROJECTION}-weight"), variables.fused(f"{GENERATOR_PROJECTION}-bias"))

        view = _View(variables, [variables.get(WORD_EMBEDDINGS)], GENERATOR_PREFIX)
        bert = build_bert(view, CONFIG, kernels, word_rows, input_mask, segment_ids, pools=False, project=project)
        logits = replaced_logits(variables, kernels, bert.hidden_states[-1].reshape(-1, CONFIG.hidden_size))
        losses = binary_cross_entropy(kernels, logits, label.reshape(-1)).reshape(*label.shape)
        return (losses * weights).sum(dim=1).mean(), logits.reshape(*label.shape)

    (found, logits), slopes = gradients(loss, values, {**golden_text(), "label": label, "weights": WEIGHTS})
    assert found == pytest.approx(golden["loss"], abs=2e-6)
    np.testing.assert_allclose(logits, golden["logits"], atol=2e-6)
    check_gradients(slopes, names, golden)


def test_padding_is_not_judged():
    values, batch = both_models(), batch_of(NOISE)
    other = {**batch, "original_rows": np.where(IDS == 0, 33, batch["original_rows"]).astype(np.int32)}
    one, two = (run_graph(objective(), arrays, values)[1] for arrays in (batch, other))
    assert one.tolist() == pytest.approx(two.tolist(), abs=1e-6)
