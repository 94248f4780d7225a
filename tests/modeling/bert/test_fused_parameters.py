"""modeling/bert/fused_parameters.py: which variables share a parameter, and that a graph sees them, a snapshot gets them and a step
changes them as if each were alone."""

import numpy as np
import pytest
from tiny_model import CONFIG, documented, gradients, run_graph

from modeling.bert.fused_parameters import VECTORS, fuse
from modeling.bert.names import GENERATOR_PREFIX, TRAINING_ONLY_PREFIX, attention_names
from modeling.bert.variables import Variables, classifier_shapes, encoder_shapes
from modeling.bert.weight_decay import has_weight_decay
from modeling.checkpoints.snapshot import Snapshot, write_variables

LAYERS = CONFIG.num_hidden_layers
SHAPES = {**encoder_shapes(CONFIG), **classifier_shapes(CONFIG, 3)}
FIRST, LAST = "bert-encoder-layer_0-", f"bert-encoder-layer_{LAYERS - 1}-"


def test_every_variable_has_one_place():
    parameters = fuse(SHAPES)
    names = [name for parts in parameters.values() for part in parts for name in part]
    assert sorted(names) == sorted(SHAPES)
    assert len(set(names)) == len(names)
    # 3 embeddings; 4 of a layer: query, key and value, attention output, intermediate, output; pooler; classifier; all vectors
    assert len(parameters) == 3 + 4 * LAYERS + 1 + 1 + 1


def test_vectors_share_one_parameter_and_attention_weights_one_in_each_layer():
    parameters = fuse(SHAPES)
    vectors = [name for part in parameters[VECTORS] for name in part]
    assert sorted(vectors) == sorted(name for name, shape in SHAPES.items() if len(shape) == 1)
    assert attention_names(LAST, "bias") in parameters[VECTORS]
    assert parameters[LAST + "attention-self-weight"] == (attention_names(LAST, "weight"),)
    assert parameters[LAST + "output-dense-weight"] == ((LAST + "output-dense-weight",),)


def test_weight_decay_goes_by_names():
    """A parameter's name says what those of its variables say."""
    for parameter, parts in fuse(SHAPES, [name for name in SHAPES if name.startswith(FIRST)]).items():
        assert {has_weight_decay(name) for part in parts for name in part} == {has_weight_decay(parameter)}, parameter


def test_frozen_variables_share_with_frozen_ones_only():
    frozen = [name for name in SHAPES if name.startswith(FIRST)]
    for parameter, parts in fuse(SHAPES, frozen).items():
        assert len({name in frozen for part in parts for name in part}) == 1, parameter
    odd = fuse(SHAPES, [FIRST + "attention-self-key-weight"])
    assert odd[FIRST + "attention-self-key-weight"] == ((FIRST + "attention-self-key-weight",),)


def test_variables_of_a_loss_share_with_no_others():
    """A snapshot stores all variables of a parameter or none."""
    shapes = {**SHAPES, **{GENERATOR_PREFIX + name: shape for name, shape in SHAPES.items()}}
    for parameter, parts in fuse(shapes).items():
        assert len({name.startswith(TRAINING_ONLY_PREFIX) for part in parts for name in part}) == 1, parameter
    assert len(fuse(shapes)) == 2 * len(fuse(SHAPES))


VALUES = {
    **{name: np.random.RandomState(place).randn(3, 2).astype(np.float32) for place, name in enumerate(attention_names("a-", "weight"))},
    "norm-LayerNorm-gamma": np.array([3.0, -1.0, 0.5], np.float32),
    **{name: np.array([place, 7.0], np.float32) for place, name in enumerate(attention_names("a-", "bias"))},
    "w": np.array([[1.0, -2.0]], np.float32),
}
WEIGHTS, BIASES = attention_names("a-", "weight"), attention_names("a-", "bias")


@pytest.mark.parametrize("frozen", [(), ("norm-LayerNorm-gamma",), tuple(VALUES)])
def test_graphs_see_the_variables(frozen):
    def everything(variables):
        return (
            variables.fused(*WEIGHTS), variables.fused(*BIASES), variables.fused("norm-LayerNorm-gamma"), variables.fused("w"),
            variables.fused(BIASES[1]), variables.fused(*WEIGHTS[1:]), tuple(variables.get(name) for name in VALUES),
        )  # fmt: skip

    seen = [everything(Variables(VALUES, frozen=frozen))]
    if not frozen:
        seen.append(run_graph(lambda variables, x: everything(variables), {"x": np.zeros(1, np.float32)}, VALUES))
    for found in seen:
        weights, biases, gamma, alone, bias, some, each = map(to_numpy, found)
        np.testing.assert_array_equal(weights, np.concatenate([VALUES[name] for name in WEIGHTS], axis=1))
        np.testing.assert_array_equal(biases, [np.concatenate([VALUES[name] for name in BIASES])])
        np.testing.assert_array_equal(gamma, VALUES["norm-LayerNorm-gamma"][None])
        np.testing.assert_array_equal(alone, VALUES["w"])
        np.testing.assert_array_equal(bias, VALUES[BIASES[1]][None])
        np.testing.assert_array_equal(some, np.concatenate([VALUES[name] for name in WEIGHTS[1:]], axis=1))
        for name, value in zip(VALUES, each):
            np.testing.assert_array_equal(value, VALUES[name])


def to_numpy(value):
    if isinstance(value, tuple):
        return tuple(map(to_numpy, value))
    return value if isinstance(value, np.ndarray) else value.numpy()


def test_each_variable_gets_its_own_gradient():
    """Some of them are not used at all, and one twice."""

    def loss(variables, x):
        rows = variables.fused(*BIASES) * x + variables.fused("norm-LayerNorm-gamma").sum()
        return rows.sum() + (variables.fused(*WEIGHTS) * variables.fused(*BIASES)).sum() * 2.0

    x = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], np.float32)
    _, found = gradients(loss, VALUES, {"x": x})
    for place, (weight, bias) in enumerate(zip(WEIGHTS, BIASES)):
        np.testing.assert_allclose(found[weight], np.tile(2 * VALUES[bias], (3, 1)), rtol=0, atol=1e-5)
        expected = x[0, 2 * place : 2 * place + 2] + 2 * VALUES[weight].sum(axis=0)
        np.testing.assert_allclose(found[bias], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["norm-LayerNorm-gamma"], [6.0, 6.0, 6.0], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found["w"], np.zeros((1, 2)))


def test_a_snapshot_holds_the_documented_variables(tmp_path):
    values = documented("weight")
    variables = Variables(values, frozen=[name for name in values if name.startswith(FIRST)])
    found = variables.arrays()
    assert list(found) == list(values)
    for name, value in values.items():
        assert found[name].shape == value.shape, name
        assert np.array_equal(found[name], value), name
    write_variables(str(tmp_path / "s"), {name: value * np.float32(-2) for name, value in values.items()})
    variables.load(Snapshot(str(tmp_path / "s")))
    for name, value in variables.arrays().items():
        np.testing.assert_array_equal(value, values[name] * np.float32(-2), err_msg=name)
