"""modeling/bert/config.py: sizes that a file says are checked before they take memory."""

import pytest

from modeling.bert.config import BertConfig
from ofrecord_util.errors import UserError

SIZES = {"vocab_size": 10, "hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 36}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000, at most 512"),
        ("vocab_size", 2**62, "vocab_size is"),
        ("type_vocab_size", 10**6, "type_vocab_size is"),
        ("hidden_size", "abc", "whole number"),
        ("hidden_size", 20.0, "whole number"),
        ("hidden_size", True, "whole number"),
        ("hidden_size", None, "whole number"),
        ("layer_norm_eps", float("nan"), "number of 0 or more"),
        ("initializer_range", [1], "number of 0 or more"),
        ("hidden_act", {"a": 1}, "hidden_act"),
        ("pooling", ["cls"], "pooling"),
        ("hidden_act", "x" * 10**6, "hidden_act"),
    ],
)
def test_values_of_a_file(name, value, said):
    with pytest.raises(UserError, match=f"some.json: .*{said}") as error:
        BertConfig.from_dict(dict(SIZES, **{name: value}), "some.json")
    assert len(str(error.value)) < 300


def test_the_largest_models_are_read():
    assert BertConfig.from_dict(dict(SIZES, vocab_size=501153, hidden_size=1024, num_hidden_layers=48)).num_hidden_layers == 48
