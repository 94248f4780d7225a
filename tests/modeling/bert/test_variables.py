"""modeling/bert/variables.py: the documented names, how variables start, how strict a snapshot is read."""

import numpy as np
import pytest
from tiny_model import CONFIG, documented

from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD
from modeling.bert.variables import Variables, classifier_shapes, domain_head_shapes, encoder_shapes, initial_value, load_values
from modeling.checkpoints.snapshot import Snapshot, write_variables
from modeling.engine.global_function import global_function
from ofrecord_util.errors import UserError


def test_documented_names_and_shapes():
    hidden, inner = 20, 52
    expected = {
        "bert-embeddings-word_embeddings": (99, hidden),
        "bert-embeddings-token_type_embeddings": (2, hidden),
        "bert-embeddings-position_embeddings": (17, hidden),
        "bert-embeddings-LayerNorm-gamma": (hidden,),
        "bert-embeddings-LayerNorm-beta": (hidden,),
        "bert-pooler-dense-weight": (hidden, hidden),
        "bert-pooler-dense-bias": (hidden,),
    }
    for layer in range(3):
        prefix = f"bert-encoder-layer_{layer}"
        for part in ("query", "key", "value"):
            expected[f"{prefix}-attention-self-{part}-weight"] = (hidden, hidden)
            expected[f"{prefix}-attention-self-{part}-bias"] = (hidden,)
        expected[f"{prefix}-attention-output-dense-weight"] = (hidden, hidden)
        expected[f"{prefix}-attention-output-dense-bias"] = (hidden,)
        expected[f"{prefix}-intermediate-dense-weight"] = (hidden, inner)
        expected[f"{prefix}-intermediate-dense-bias"] = (inner,)
        expected[f"{prefix}-output-dense-weight"] = (inner, hidden)
        expected[f"{prefix}-output-dense-bias"] = (hidden,)
        for norm in ("attention-output-LayerNorm", "output-LayerNorm"):
            expected[f"{prefix}-{norm}-gamma"] = expected[f"{prefix}-{norm}-beta"] = (hidden,)
    assert encoder_shapes(CONFIG) == expected
    assert classifier_shapes(CONFIG, 3) == {"classification-output_weights": (3, hidden), "classification-output_bias": (3,)}
    assert domain_head_shapes(CONFIG, 4) == {
        "corrupted_domain_classification-domain_projection": (4, hidden),
        "corrupted_domain_classification-domain_weights": (4, hidden),
        "corrupted_domain_classification-domain_bias": (4,),
    }


def test_initial_values():
    value = initial_value("x-weight", (70, 90), seed=3)
    assert value.dtype == np.float32
    assert abs(value).max() <= 2 * 0.02 + 1e-7
    # standard deviation of a normal cut at two: 0.8796 of it
    assert abs(value.mean()) < 0.001
    assert abs(value.std() - 0.02 * 0.8796) < 0.0005
    np.testing.assert_array_equal(value, initial_value("x-weight", (70, 90), seed=3))
    assert np.abs(value - initial_value("x-weight", (70, 90), seed=4)).max() > 0.01
    assert np.abs(value - initial_value("y-weight", (70, 90), seed=3)).max() > 0.01
    assert (initial_value("a-LayerNorm-gamma", (5,), 1) == 1).all()
    for name in ("a-LayerNorm-beta", "a-bias", DOMAIN_HEAD[2], CLASSIFIER[1]):
        assert (initial_value(name, (5,), 1) == 0).all()


SHAPES = {**encoder_shapes(CONFIG), **classifier_shapes(CONFIG, 3), **domain_head_shapes(CONFIG, 4)}


def snapshot_of(tmp_path, change=lambda arrays: None):
    arrays = documented("weight")
    change(arrays)
    write_variables(str(tmp_path / "s"), arrays)
    return Snapshot(str(tmp_path / "s"))


def test_heads_that_are_missing_start_anew_and_are_said(tmp_path):
    lines = []
    values = load_values(SHAPES, snapshot_of(tmp_path), seed=5, log=lines.append)
    assert list(values) == list(SHAPES)
    np.testing.assert_array_equal(values[CLASSIFIER[0]], documented("weight")[CLASSIFIER[0]])
    np.testing.assert_array_equal(values[DOMAIN_HEAD[0]], initial_value(DOMAIN_HEAD[0], (4, 20), 5))
    assert len(lines) == 1
    assert all(name in lines[0] for name in DOMAIN_HEAD)
    assert CLASSIFIER[0] not in lines[0]


def test_a_classifier_for_other_labels_starts_anew(tmp_path):
    shapes, lines = {**encoder_shapes(CONFIG), **classifier_shapes(CONFIG, 2)}, []
    values = load_values(shapes, snapshot_of(tmp_path), seed=5, restart=CLASSIFIER, log=lines.append)
    assert values[CLASSIFIER[0]].shape == (2, 20)
    assert CLASSIFIER[0] in lines[0]
    assert np.array_equal(values[CLASSIFIER[0]], values[CLASSIFIER[0]])


def test_a_new_classifier_does_not_repeat_the_initial_values_of_the_old_one(tmp_path):
    """The encoder of the snapshot was trained to fit a classifier that began with these values."""
    name = CLASSIFIER[0]
    shapes = {**encoder_shapes(CONFIG), **classifier_shapes(CONFIG, 3)}
    values = load_values(shapes, snapshot_of(tmp_path), seed=5, restart=CLASSIFIER)
    assert abs(np.corrcoef(values[name].ravel(), initial_value(name, (3, 20), 5).ravel())[0, 1]) < 0.5

    def trained_further(arrays):
        arrays[name] = arrays[name] + 1

    others = load_values(shapes, snapshot_of(tmp_path / "b", trained_further), seed=5, restart=CLASSIFIER)
    assert not np.array_equal(values[name], others[name])


def test_heads_that_are_not_needed_are_left_behind_and_said(tmp_path):
    lines = []
    values = load_values(encoder_shapes(CONFIG), snapshot_of(tmp_path), seed=5, log=lines.append)
    assert set(values) == set(encoder_shapes(CONFIG))
    assert len(lines) == 1
    assert "not taken from the snapshot" in lines[0]
    assert CLASSIFIER[0] in lines[0]


def test_missing_and_unknown_encoder_variables_are_all_listed(tmp_path):
    def change(arrays):
        for name in ("bert-embeddings-LayerNorm-gamma", "bert-encoder-layer_1-output-dense-bias"):
            del arrays[name]
        arrays["bert-encoder-layer_3-output-dense-bias"] = np.zeros(20, np.float32)

    with pytest.raises(UserError) as error:
        load_values(SHAPES, snapshot_of(tmp_path, change), seed=1)
    for part in (
        "missing bert-embeddings-LayerNorm-gamma, bert-encoder-layer_1-output-dense-bias",
        "unknown bert-encoder-layer_3-output-dense-bias",
        "3 encoder layers",
    ):
        assert part in str(error.value)


def test_a_missing_pooler_is_initialised(tmp_path):
    def change(arrays):
        del arrays["bert-pooler-dense-weight"], arrays["bert-pooler-dense-bias"]

    lines = []
    values = load_values(encoder_shapes(CONFIG), snapshot_of(tmp_path, change), seed=1, log=lines.append)
    assert values["bert-pooler-dense-weight"].std() > 0.01
    assert "bert-pooler-dense-weight" in lines[0]


def test_loading_reaches_graphs_that_are_compiled(tmp_path):
    values = {"w": np.array([[1.0, -2.0, 0.5]], np.float32), "b-bias": np.array([4.0], np.float32)}
    variables = Variables(values)

    @global_function(type="predict", variables=variables)
    def job(variables, x):
        return variables.get("w") * x + variables.get("b-bias")

    x = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]], np.float32)
    for factor in (1, -3):
        changed = {name: value * np.float32(factor) for name, value in values.items()}
        write_variables(str(tmp_path / "s"), changed)
        variables.load(Snapshot(str(tmp_path / "s")))
        np.testing.assert_array_equal(job({"x": x}).numpy(), changed["w"] * x + changed["b-bias"])
    write_variables(str(tmp_path / "s"), {"w": np.zeros((3, 2), np.float32), "b-bias": values["b-bias"]})
    with pytest.raises(UserError, match=r"w holds 6 values of shape \[3, 2\], but the model needs 3 of shape \[1, 3\]"):
        variables.load(Snapshot(str(tmp_path / "s")))
