"""tools/checkpoint_names.py: the table covers what the model builder makes, once each in every format."""

from modeling.bert.config import BertConfig
from modeling.bert.variables import encoder_shapes, token_head_shapes
from tools import checkpoint_names


def test_names_are_those_of_the_model_builder():
    pairs = checkpoint_names.encoder_pairs(2) + list(checkpoint_names.POOLER)
    assert {pair.snapshot for pair in pairs} == set(encoder_shapes(BertConfig(num_hidden_layers=2)))
    for form in ("hugging_face", "snapshot", "google"):
        assert len({getattr(pair, form) for pair in pairs}) == len(pairs)
    encoder = checkpoint_names.encoder_pairs(2)
    assert len({pair.mead for pair in encoder}) == len(encoder)
    assert all(pair.transposed == pair.snapshot.endswith("-dense-weight") or "-self-" in pair.snapshot for pair in pairs)


def test_names_of_the_head_of_masked_language_modelling():
    assert {pair.snapshot for pair in checkpoint_names.TOKEN_HEAD} == set(token_head_shapes(BertConfig()))
    names = [pair.hugging_face for pair in checkpoint_names.TOKEN_HEAD]
    assert checkpoint_names.whole_token_head([*names, "x"], "hugging_face") == tuple(names)
    assert checkpoint_names.whole_token_head(names[1:], "hugging_face") == ()


def test_only_linear_layers_of_torch_are_stored_the_other_way_round():
    for pair in checkpoint_names.encoder_pairs(1) + list(checkpoint_names.POOLER):
        dense = pair.google.endswith("/kernel")
        assert checkpoint_names.is_transposed(pair, "hugging_face") == checkpoint_names.is_transposed(pair, "mead") == dense
        assert not checkpoint_names.is_transposed(pair, "google")
        assert not checkpoint_names.is_transposed(pair, "snapshot")
