"""The forms of MEAD's Transformers (modeling/bert/variant.py): states and gradients against NumPy, packed rows, bert_config.json."""

import dataclasses
import json

import numpy as np
import pytest
from reference_encoder import encode, sinusoids, text_vector
from tiny_model import CONFIG, KERNELS, NO_DROPOUT, gradients, run_graph

from modeling.bert import names
from modeling.bert.attention import RelativeAttention
from modeling.bert.config import MEAN, BertConfig
from modeling.bert.encoder import GraphParts, build_bert
from modeling.bert.heads import token_logits
from modeling.bert.pooling import pool
from modeling.bert.positions import sinusoids as sinusoids_in_graph
from modeling.bert.variables import classifier_shapes, encoder_shapes, token_head_shapes
from modeling.bert.variant import BERT_FORM, Variant
from modeling.objectives.mft import predict_logits
from modeling.palm.config import PalmConfig
from ofrecord_util.errors import UserError

LENGTHS = (11, 3, 6)
WIDEST = max(LENGTHS)
FORMS = {
    "before": {"layer_norms": "before"},
    "before, no norm of the embeddings": {"layer_norms": "before", "embeddings_norm": False},
    "with bias": {"positions": "learned_with_bias"},
    "sinusoidal": {"positions": "sinusoidal", "embeddings_norm": False},
    "relative keys": {"positions": "none", "relative_distances": (2, 4)},
    "relative keys and values": {"positions": "none", "relative_distances": (2, 20), "relative_values": True},
    "windowed": {"relative_distances": (1, 3), "relative_values": True, "windowed": True, "layer_norms": "before"},
}


def config_of(form, **more):
    variant = Variant(**FORMS[form])
    types = 1 if variant.positions == "learned_with_bias" else 2
    return dataclasses.replace(NO_DROPOUT, num_hidden_layers=2, variant=variant, type_vocab_size=types, **more)


def values_of(config, seed=4, shapes=None):
    """Values of which each matters: gammas are not 1, and biases not 0."""
    draw = np.random.RandomState(seed)
    return {
        name: (draw.randn(*shape) * 0.4 + name.endswith("gamma")).astype(np.float32)
        for name, shape in (shapes or encoder_shapes(config)).items()
    }


def texts(seed=5):
    draw = np.random.RandomState(seed)
    return [(draw.randint(1, CONFIG.vocab_size, length), draw.randint(0, 2, length)) for length in LENGTHS]


def padded(seed=5):
    """The texts one per row; padding holds other tokens, which must not matter."""
    arrays = {
        name: np.full((len(LENGTHS), WIDEST), fill, np.int32) for name, fill in (("word_rows", 7), ("input_mask", 0), ("segment_ids", 1))
    }
    for row, (ids, types) in enumerate(texts(seed)):
        arrays["word_rows"][row, : len(ids)], arrays["segment_ids"][row, : len(ids)] = ids, types
        arrays["input_mask"][row, : len(ids)] = 1
    return arrays


def packed():
    """All texts in one row, the last ones first, with padding at the end."""
    total = sum(LENGTHS) + 2
    word_rows, segment_ids, positions = (np.zeros((1, total), np.int32) for _ in range(3))
    mask, starts = (np.zeros((1, len(LENGTHS), total), np.float32) for _ in range(2))
    place = 0
    for number, (ids, types) in reversed(list(enumerate(texts()))):
        part = slice(place, place + len(ids))
        word_rows[0, part], segment_ids[0, part], positions[0, part] = ids, types, np.arange(len(ids))
        mask[0, number, part], starts[0, number, place] = 1, 1
        place += len(ids)
    return {"word_rows": word_rows, "input_mask": mask, "segment_ids": segment_ids, "starts": starts, "positions": positions}


def wanted(values, config):
    values = {name: value.astype(np.float64) for name, value in values.items()}
    return [encode(values, config, *text) for text in texts()]


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("kernels", sorted(KERNELS))
def test_states(form, kernels):
    config = config_of(form)
    values = values_of(config)

    def states(variables, **features):
        bert = build_bert(variables, config, KERNELS[kernels], **features)
        only = build_bert(variables, config, KERNELS[kernels].for_prediction, **features, pooled_only=True)
        return bert.hidden_states[-1], bert.pooled, only.pooled

    found, pooled, only = run_graph(states, padded(), values)
    for row, state in enumerate(wanted(values, config)):
        np.testing.assert_allclose(found[row, : len(state)], state, rtol=0, atol=2e-5)
        first = np.tanh(state[0] @ values[names.POOLER + "-weight"] + values[names.POOLER + "-bias"])
        np.testing.assert_allclose(pooled[row], first, rtol=0, atol=2e-5)
    np.testing.assert_allclose(only, pooled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_texts_that_share_a_row(form):
    config = config_of(form, pooling=MEAN)
    values = values_of(config)
    found = run_graph(lambda variables, **text: build_bert(variables, config, KERNELS["cpu"], **text).pooled, packed(), values)
    for vector, state in zip(found, wanted(values, config)):
        np.testing.assert_allclose(vector, state.mean(axis=0), rtol=0, atol=2e-5)


@pytest.mark.parametrize("form", ["before, no norm of the embeddings", "with bias", "sinusoidal", "windowed"])
def test_gradients(form):
    """Of a weighted sum of the states, along one direction of each variable, against differences of the reference."""
    config = config_of(form, pooling=MEAN)
    values, draw = values_of(config), np.random.RandomState(6)
    weights = draw.randn(len(LENGTHS), WIDEST, CONFIG.hidden_size).astype(np.float32) * padded()["input_mask"][:, :, None] * 0.01

    def weighted(variables, weights, **features):
        return (build_bert(variables, config, KERNELS["cpu"], **features).hidden_states[-1] * weights).sum()

    _, found = gradients(weighted, values, dict(padded(), weights=weights))

    def at(changed):
        return sum((state * part[: len(state)]).sum() for state, part in zip(wanted(changed, config), weights.astype(np.float64)))

    exact, step, used = {name: value.astype(np.float64) for name, value in values.items()}, 1e-5, 0
    for name, gradient in found.items():
        direction = draw.randn(*gradient.shape)
        slope = (at({**exact, name: exact[name] + step * direction}) - at({**exact, name: exact[name] - step * direction})) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-3, atol=2e-5, err_msg=name)
        used += abs(slope) > 1e-4
    assert used > 0.8 * len(found)


@pytest.mark.parametrize("kernels", sorted(KERNELS))
@pytest.mark.parametrize("pooling", ["raw_cls", "sqrt_length", "sha", "2ha"])
def test_poolings(pooling, kernels):
    """By the logits of a classifier, of texts with a row of their own and of texts that share one."""
    config = dataclasses.replace(NO_DROPOUT, num_hidden_layers=1, pooling=pooling, variant=Variant(pooling_head_size=3))
    shapes = {**encoder_shapes(config), **classifier_shapes(config, 3)}
    assert shapes[names.CLASSIFIER[0]] == (3, 40 if pooling == "2ha" else 20)
    values = values_of(config, shapes=shapes)

    def logits(variables, **text):
        return predict_logits(variables, config, KERNELS[kernels], **text)

    weights, bias = (values[name] for name in names.CLASSIFIER)
    for text in (padded(), packed()):
        for row, state in zip(run_graph(logits, text, values), wanted(values, config)):
            np.testing.assert_allclose(row, text_vector(values, config, state) @ weights.T + bias, rtol=2e-5, atol=5e-4)


def test_four_tokens_of_ones():
    ones, mask = np.ones((1, 6, 5), np.float32), np.array([[1, 1, 1, 1, 0, 0]], np.int32)
    found = run_graph(lambda variables, hidden, mask: pool(hidden, mask, "sqrt_length", "cpu"), {"hidden": ones, "mask": mask})
    np.testing.assert_allclose(found, np.full((1, 5), 8), rtol=1e-6)


def test_gradients_of_pooling_heads():
    config = dataclasses.replace(NO_DROPOUT, num_hidden_layers=1, pooling="2ha", variant=Variant(pooling_head_size=3))
    values, draw = values_of(config), np.random.RandomState(6)
    weights = draw.randn(len(LENGTHS), config.pooled_size).astype(np.float32) * 0.01

    def weighted(variables, weights, **features):
        return (build_bert(variables, config, KERNELS["cpu"], **features).pooled * weights).sum()

    _, found = gradients(weighted, values, dict(padded(), weights=weights), frozen=[names.POOLER + "-weight"])
    states = wanted(values, config)

    def at(changed):
        return sum((text_vector(changed, config, state) * part).sum() for state, part in zip(states, weights.astype(np.float64)))

    exact, step = {name: value.astype(np.float64) for name, value in values.items()}, 1e-5
    for name in names.POOLING_HEADS:
        direction = draw.randn(*values[name].shape)
        slope = (at({**exact, name: exact[name] + step * direction}) - at({**exact, name: exact[name] - step * direction})) / (2 * step)
        np.testing.assert_allclose((found[name] * direction).sum(), slope, rtol=1e-3, atol=2e-5, err_msg=name)
        assert abs(slope) > 1e-3 or name.endswith("key-bias")  # softmax does not see a constant added to all keys


def test_golden_relative_attention():
    """Numbers of an implementation of its own: 5 tokens, k = 2, heads of 3; the last key is padding."""

    def wave(count, phase, *shape):
        return np.sin(0.7 * np.arange(count) + phase).reshape(shape).astype(np.float32)

    query, key, value = (wave(30, phase, 1, 2, 5, 3) for phase in (0.1, 0.5, 0.9))
    tables = {"x-" + names.RELATIVE_KEYS: wave(15, 1.3, 5, 3), "x-" + names.RELATIVE_VALUES: wave(15, 1.7, 5, 3)}
    mask = np.zeros((1, 2, 5, 5), np.float32)
    mask[..., 4] = -10000
    found = {}
    for more in ({}, {"relative_values": True}, {"windowed": True}):
        config = BertConfig(hidden_size=6, num_attention_heads=2, num_hidden_layers=1, variant=Variant(relative_distances=(2,), **more))

        def attend(variables, query, key, value, mask, config=config):
            attention = RelativeAttention(GraphParts(variables, config, KERNELS["cpu"], None, None), "x-", 2)
            scores = attention.scores(query, key, mask)
            probs = scores.softmax(dim=-1)
            return probs, attention.context(probs, value)

        found[tuple(more)] = run_graph(attend, {"query": query, "key": key, "value": value, "mask": mask}, tables)
    probs, keys_only = found[()]
    first = [0.57583835, 0.20736155, 0.04148231, 0.17531779, 0]
    np.testing.assert_allclose(probs[0, 0, 0], first, rtol=0, atol=1e-6)
    np.testing.assert_allclose(keys_only[0, 0, 0], [0.5810717, 0.6215846, 0.3697565], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[("relative_values",)][1][0, 0, 0], [0.4354187, 0.7257893, 0.6748099], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[("windowed",)][0][0, 0, 0], [0.69825484, 0.25144419, 0.05030096, 0, 0], rtol=0, atol=1e-6)


def last_states(values, config, features):
    """The states of the last layer, [B, S, H]."""

    def states(variables, **features):
        return build_bert(variables, config, KERNELS["cpu"], **features, pools=False).hidden_states[-1]

    return run_graph(states, features, {name: value for name, value in values.items() if not name.startswith(names.POOLER)})


def relative(distances, **more):
    return dataclasses.replace(NO_DROPOUT, num_hidden_layers=2, variant=Variant(relative_distances=distances, **more))


def test_relative_tables_of_zeros_are_plain_attention():
    config = relative((2, 4), relative_values=True)
    values, real = values_of(config), padded()["input_mask"] == 1
    tables = [name for name in values if name.endswith((names.RELATIVE_KEYS, names.RELATIVE_VALUES))]
    assert len(tables) == 4
    values.update({name: 0 * values[name] for name in tables})
    plain = {name: value for name, value in values.items() if name not in tables}
    found = last_states(values, config, padded())
    wanted = last_states(plain, dataclasses.replace(config, variant=BERT_FORM), padded())
    np.testing.assert_allclose(found[real], wanted[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("distance", "same"), [(WIDEST - 1, True), (WIDEST + 4, True), (WIDEST - 2, False)])
def test_a_window_as_wide_as_the_text(distance, same):
    """Windowed attention is that of all tokens from k = T - 1 on; with one less, the first token does not see the last one."""
    config = relative((distance, distance), relative_values=True, positions="none")
    values, real = values_of(config), padded()["input_mask"] == 1
    windowed = dataclasses.replace(config, variant=dataclasses.replace(config.variant, windowed=True))
    change = np.abs(last_states(values, windowed, padded()) - last_states(values, config, padded()))[real].max()
    assert change < 1e-5 if same else change > 1e-2


@pytest.mark.parametrize("more", [{}, {"windowed": True}, {"positions": "learned"}])
def test_padding_in_front_moves_the_states(more):
    """With relative positions alone, the states of a text depend on no place in its row; with a table of positions they do."""
    config = relative((2, 3), **{"relative_values": True, "positions": "none", **more})
    values, front = values_of(config), 4
    ids, types = texts()[2]
    text = {"word_rows": ids, "segment_ids": types, "input_mask": np.ones_like(ids)}
    alone = {name: array[None].astype(np.int32) for name, array in text.items()}
    moved = {name: np.pad(array, ((0, 0), (front, 0)), constant_values=7 * (name == "word_rows")) for name, array in alone.items()}
    found, wanted = last_states(values, config, moved)[0, front:], last_states(values, config, alone)[0]
    change = np.abs(found - wanted).max()
    assert change > 1e-2 if "positions" in more else change < 2e-5


def test_plain_head_of_language_modelling():
    config, draw = dataclasses.replace(CONFIG, variant=Variant(token_head="plain")), np.random.RandomState(8)
    assert token_head_shapes(config) == {names.TOKEN_BIAS: (99,)}
    words, bias, hidden = (draw.randn(*shape).astype(np.float32) for shape in ((99, 20), (99,), (7, 20)))
    values = {names.WORD_EMBEDDINGS: words, names.TOKEN_BIAS: bias}
    found = run_graph(lambda variables, hidden: token_logits(variables, config, KERNELS["cpu"], hidden), {"hidden": hidden}, values)
    np.testing.assert_allclose(found, hidden @ words.T + bias, rtol=0, atol=1e-5)


def test_sinusoids_of_many_positions():
    found = run_graph(lambda variables, unused: sinusoids_in_graph(300, 20, "cpu"), {"unused": np.zeros(1, np.float32)})
    np.testing.assert_allclose(found, sinusoids(300, 20), rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer_norms": "between"}, "layer_norms 'between' is none of after, before"),
        ({"positions": ["learned"]}, "positions .'learned'. is none of learned, learned_with_bias, sinusoidal, none"),
        ({"token_head": "deep"}, "token_head 'deep' is none of transformed, plain"),
        ({"layer_norm": "after"}, "'layer_norm' is none of layer_norms, embeddings_norm, positions"),
        ({"embeddings_norm": 1}, "embeddings_norm must be true or false, not 1"),
        ({"relative_distances": [3, 0]}, "relative_distances must be a list of numbers"),
        ({"relative_distances": 3}, "relative_distances must be a list of numbers"),
        ({"relative_distances": [3]}, "relative_distances has 1 numbers, but num_hidden_layers is 3"),
        ({"windowed": True}, "need relative_distances"),
        ({"positions": "learned_with_bias"}, "type_vocab_size must be 1, not 2"),
        ([], " must be an object"),
    ],
)
def test_values_of_bert_config(values, message):
    with pytest.raises(UserError, match="here.json: variant.*" + message):
        BertConfig.from_dict(dict(CONFIG.as_dict(), variant=values), "here.json")


def test_bert_config_has_what_differs():
    assert "variant" not in json.loads(CONFIG.to_json())
    config = dataclasses.replace(CONFIG, variant=Variant(layer_norms="before", relative_distances=(4, 5, 6)))
    stored = json.loads(config.to_json())
    assert stored["variant"] == {"layer_norms": "before", "relative_distances": [4, 5, 6]}
    assert BertConfig.from_dict(stored) == config
    assert config.of_layers((2, 0)).variant.relative_distances == (6, 4)
    assert CONFIG.of_layers((2, 0)).variant == BERT_FORM
    assert config.description.endswith('(layer_norms "before", relative_distances [4, 5, 6])')


def test_a_palm_has_no_variant():
    with pytest.raises(UserError, match="a model of type palm has none"):
        PalmConfig(variant=Variant(layer_norms="before"))
