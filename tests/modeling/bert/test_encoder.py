"""modeling/bert/encoder.py against an independent implementation (tests/golden): outputs, gradients, padding."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_model import CONFIG, GOLDEN, KERNELS, LENGTH, NO_DROPOUT, documented, golden_batch, gradients, run_graph

from modeling.bert import variables as variables_module
from modeling.bert.config import CLS, MEAN, POOLINGS
from modeling.bert.dropout import DropoutPlan
from modeling.bert.encoder import build_bert
from modeling.bert.heads import classification_logits
from modeling.bert.names import KEY, QUERY, VALUE, layer_prefix
from modeling.engine.runtime import oneflow_version
from modeling.objectives.losses import cross_entropy
from modeling.objectives.mft import predict_logits

TOLERANCE = 5e-6  # the issue asks for 1e-4; the same model in float32 is 1e-6 off
LAYERS = CONFIG.num_hidden_layers


def test_the_tolerance_is_that_of_float32():
    assert json.loads(str(GOLDEN["float32_deviation"]))["output/"] < TOLERANCE < 1e-4


@pytest.fixture(scope="module", params=sorted(KERNELS))
def output(request):
    """dict of golden key -> what the builder gives, for either set of kernels."""
    kernels = KERNELS[request.param]

    def everything(variables, word_rows, input_mask, segment_ids):
        bert = build_bert(variables, CONFIG, kernels, word_rows, input_mask, segment_ids)
        logits = classification_logits(variables, kernels, bert.pooled)
        return bert.hidden_states[:], bert.attention_scores, bert.attention_probs, bert.projections, bert.pooled, logits

    hidden, scores, probs, projections, pooled, logits = run_graph(everything, golden_batch(), documented("weight"))
    found = {"embeddings": hidden[0], "pooled": pooled, "logits": logits, "scores": scores, "projections": projections}
    found.update({f"hidden_{layer}": hidden[layer + 1] for layer in range(LAYERS)})
    found.update({f"attention_probs_{layer}": probs[layer] for layer in range(LAYERS)})
    assert len(hidden) == LAYERS + 1
    assert len(scores) == len(probs) == LAYERS
    return found


@pytest.mark.parametrize(
    "name",
    ["embeddings", "pooled", "logits"] + [f"{kind}_{layer}" for kind in ("hidden", "attention_probs") for layer in range(LAYERS)],
)
def test_golden_outputs(output, name):
    np.testing.assert_allclose(output[name], GOLDEN["output/" + name], rtol=0, atol=TOLERANCE)


def test_attention_scores_are_what_softmax_takes(output):
    padding = golden_batch()["input_mask"] == 0
    for layer, scores in enumerate(output["scores"]):
        exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True), dtype=np.float64)
        probs = exponentials / exponentials.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(probs, output[f"attention_probs_{layer}"], rtol=0, atol=1e-6)
        by_key = scores.transpose(0, 3, 1, 2)  # [B, S (key), N, S (query)]
        assert by_key[padding].max() < -9900
        assert np.abs(by_key[~padding]).max() < 100


def test_projections_of_the_last_layer(output):
    """x W + b of each head, with x the output of the layer before."""
    values, x = documented("weight"), GOLDEN[f"output/hidden_{LAYERS - 2}"]
    heads, size = CONFIG.num_attention_heads, CONFIG.hidden_size // CONFIG.num_attention_heads
    for found, name in zip(output["projections"], (QUERY, KEY, VALUE)):
        weight, bias = (values[f"{layer_prefix(LAYERS - 1)}{name}-{kind}"] for kind in ("weight", "bias"))
        expected = (x @ weight + bias).reshape(*x.shape[:2], heads, size).transpose(0, 2, 1, 3)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("kernels", "pooled_only", "most_parts"),
    [("cpu", False, 128), ("cpu", True, 128), ("stock", False, 128), ("stock", True, 128), ("cpu", False, 7)],
)
def test_golden_gradients(kernels, pooled_only, most_parts, monkeypatch):
    """The weighted loss of the golden file, mean_i w_i CE(y_i), differentiated with respect to every variable. One operation cuts at most
    `most_parts` variables out of their parameter: an encoder of 16 layers or more has more than one can cut."""
    monkeypatch.setattr(variables_module, "_MOST_PARTS", most_parts)
    if kernels == "stock" and oneflow_version() < (0, 9, 0):
        pytest.skip("OneFlow 0.8.0 has no gradient of its layer norm on the CPU, where nothing but this test uses it")

    def weighted_loss(variables, word_rows, input_mask, segment_ids, label, weights):
        bert = build_bert(variables, CONFIG, KERNELS[kernels], word_rows, input_mask, segment_ids, pooled_only=pooled_only)
        assert len(bert.attention_scores) == LAYERS - pooled_only
        assert len(bert.projections) == (0 if pooled_only else 3)
        logits = classification_logits(variables, KERNELS[kernels], bert.pooled)
        losses = cross_entropy(logits, label)
        return (weights * losses).mean(), losses

    arrays = dict(golden_batch(), label=GOLDEN["train/labels"], weights=GOLDEN["train/weights"])
    (loss, losses), found = gradients(weighted_loss, documented("weight"), arrays)
    np.testing.assert_allclose(losses, GOLDEN["output/cross_entropy"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(loss, GOLDEN["output/loss"], rtol=0, atol=TOLERANCE)
    expected = documented("grad")
    # Hugging Face drops the gradient of id 0 even at real positions, BERT does not
    words = "bert-embeddings-word_embeddings"
    expected[words] = GOLDEN["grad_without_padding_idx/bert.embeddings.word_embeddings.weight"]
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        # parameters near 1 hold their change to 6e-8
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=2e-6, err_msg=name)
        if not name.endswith("key-bias"):  # softmax does not see a constant added to all keys
            assert np.abs(gradient).max() > 2e-4, name


def logits_of(arrays, kernels="cpu"):
    def logits(variables, word_rows, input_mask, segment_ids):
        return predict_logits(variables, CONFIG, KERNELS[kernels], word_rows, input_mask, segment_ids)

    return run_graph(logits, arrays, documented("weight"))


def test_ids_at_padding_do_not_matter():
    arrays = golden_batch()
    padding = arrays["input_mask"] == 0
    draw = np.random.RandomState(0)
    for name, largest in (("word_rows", CONFIG.vocab_size), ("segment_ids", 2)):
        other = draw.randint(0, largest, arrays[name].shape).astype(np.int32)
        arrays[name] = np.where(padding, other, arrays[name]).astype(np.int32)
    assert (arrays["word_rows"] != golden_batch()["word_rows"]).sum() > 10
    np.testing.assert_allclose(logits_of(arrays), GOLDEN["output/logits"], rtol=0, atol=TOLERANCE)


def test_a_token_does_matter():
    arrays = golden_batch()
    arrays["word_rows"] = arrays["word_rows"].copy()
    arrays["word_rows"][1, 6] += 1  # the last real token of row 1
    change = np.abs(logits_of(arrays) - GOLDEN["output/logits"]).max(axis=1)
    assert change[1] > 1e-3
    assert change[0] < TOLERANCE
    assert change[2] < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "length"), [([0, 1, 2], 17), ([1, 2], 7)])
def test_logits_do_not_depend_on_the_padded_length(rows, length):
    arrays = {}
    for name, array in golden_batch().items():
        padded = np.zeros((len(rows), length), np.int32)
        padded[:, : min(length, LENGTH)] = array[rows, :length]
        arrays[name] = padded
    np.testing.assert_allclose(logits_of(arrays), GOLDEN["output/logits"][rows], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "dropped"), [(CONFIG, True), (NO_DROPOUT, False)])
def test_dropout_follows_the_plan(config, dropped):
    """Without a plan the rates of the config do nothing (the golden outputs above); with one they do."""
    plan, batch = DropoutPlan(config, 1, "cpu"), golden_batch()

    def logits(variables, **features):
        dropout = plan.take(features)
        bert = build_bert(variables, config, KERNELS["cpu"], dropout=dropout, **features)
        return classification_logits(variables, KERNELS["cpu"], bert.pooled, dropout)

    masks = plan.masks(0, *batch["word_rows"].shape)
    deviation = np.abs(run_graph(logits, {**batch, **masks}, documented("weight")) - GOLDEN["output/logits"]).max()
    assert deviation > 0.01 if dropped else deviation < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kernels", sorted(KERNELS))
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_last_layer_where_only_its_pooled_output_is_asked_for(kernels, pooling):
    """The same numbers, with the same dropout masks; mean and max need the whole layer."""
    config = dataclasses.replace(CONFIG, pooling=pooling)
    plan, batch = DropoutPlan(config, 1, "cpu"), golden_batch()

    def pooled(variables, **features):
        masks = {name: features.pop(name) for name in list(features) if name not in batch}
        both = ({"dropout": plan.take(dict(masks)), "pooled_only": only} for only in (False, True))
        berts = [build_bert(variables, config, KERNELS[kernels], **features, **how) for how in both]
        assert len(berts[1].hidden_states) == LAYERS + 1 - (pooling == CLS)
        return tuple(bert.pooled for bert in berts)

    whole, alone = run_graph(pooled, {**batch, **plan.masks(0, *batch["word_rows"].shape)}, documented("weight"))
    assert whole.shape == alone.shape
    assert whole.std() > 0.1
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooled_only", [False, True])
def test_dropout_before_the_pooler(pooled_only):
    """As in RoBERTa's classifier: tanh(W dropout(h[CLS]) + b)."""
    config = dataclasses.replace(NO_DROPOUT, pooler_input_dropout_prob=0.5)
    plan = DropoutPlan(config, 3, "cpu")
    ((name, mask),) = plan.masks(0, *GOLDEN["input/input_ids"].shape).items()
    assert sorted(set(mask.ravel().tolist())) == [0.0, 2.0]

    def pooled(variables, word_rows, input_mask, segment_ids, **masks):
        arguments = (word_rows, input_mask, segment_ids, plan.take(masks), pooled_only)
        return build_bert(variables, config, KERNELS["stock"], *arguments).pooled

    weights = documented("weight")
    found = run_graph(pooled, {**golden_batch(), name: mask}, weights)
    cls = GOLDEN[f"output/hidden_{LAYERS - 1}"][:, 0] * mask
    expected = np.tanh(cls @ weights["bert-pooler-dense-weight"] + weights["bert-pooler-dense-bias"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    mean = dataclasses.replace(config, pooling=MEAN)  # bypasses the pooler
    assert not DropoutPlan(mean, 3, "cpu").layers(3, LENGTH)
