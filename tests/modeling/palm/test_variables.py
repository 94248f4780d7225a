"""Names, parameters and dropout masks of a PALM."""

import palm_weights

from modeling.bert.fused_parameters import VECTORS, fuse
from modeling.bert.names import is_in_layer, layer_of
from modeling.palm.dropout import PalmDropoutPlan
from modeling.palm.variables import palm_shapes

CONFIG = palm_weights.CONFIG


def test_heads_are_there_if_they_are_stored_or_trained():
    plain = palm_shapes(CONFIG)
    assert not any(name.startswith(("cls-", "bert-pooler")) for name in plain)
    assert set(palm_shapes(CONFIG, pretrains=True)) - set(plain) == {
        name for name in palm_shapes(CONFIG, pretrains=True) if "predictions" in name
    }
    stored = palm_weights.variables(heads=True)
    assert {name: value.shape for name, value in stored.items()} == palm_shapes(CONFIG, stored)


def test_parameters_of_a_decoder_layer():
    """Query, key and value are one parameter, key and value of the cross-attention another; all vectors are one."""
    parameters = fuse(palm_shapes(CONFIG))
    prefix = "palm-decoder-layer_1-"
    own = {name: parts for name, parts in parameters.items() if name.startswith(prefix)}
    three = tuple(f"{prefix}attention-self-{part}-weight" for part in ("query", "key", "value"))
    two = tuple(f"{prefix}cross_attention-{part}-weight" for part in ("key", "value"))
    assert own.pop(f"{prefix}attention-self-weight") == (three,)
    assert own.pop(f"{prefix}cross_attention-key_value-weight") == (two,)
    assert sorted(own) == [
        f"{prefix}{name}-weight"
        for name in (
            "attention-output-dense",
            "cross_attention-output-dense",
            "cross_attention-query",
            "intermediate-dense",
            "output-dense",
        )
    ]
    assert tuple(name.replace("weight", "bias") for name in two) in parameters[VECTORS]
    assert ("palm-decoder-LayerNorm-gamma",) in parameters[VECTORS]


def test_layers():
    """--freeze_layers counts encoder layers; Child-Tuning-D takes those of the decoder too."""
    name = "palm-decoder-layer_0-output-dense-weight"
    assert layer_of(name) is None
    assert is_in_layer(name)
    assert not is_in_layer("palm-decoder-LayerNorm-gamma")


def test_dropout_masks():
    plan = PalmDropoutPlan(CONFIG, 1, "cpu", target_length=5)
    width, heads = CONFIG.hidden_size, CONFIG.num_attention_heads
    encoder = [(2, heads, 7, 7), (14, width), (14, width)] * CONFIG.num_hidden_layers
    decoder = [(2, heads, 5, 5), (10, width), (2, heads, 5, 7), (10, width), (10, width)] * CONFIG.dec_hidden_layers
    assert [shape for _, shape in plan.layers(2, 7)] == [(14, width), *encoder, (10, width), *decoder]
