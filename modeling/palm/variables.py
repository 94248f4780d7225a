"""The variables of a PALM: names and shapes."""

from modeling.bert import names
from modeling.bert.variables import encoder_shapes, token_head_shapes


def palm_shapes(config, stored=None, pretrains=False):
    """dict of documented name -> shape of the encoder, the decoder and the heads in use.

    Args:
        config: `PalmConfig`.
        stored: names of the snapshot's variables, or None. Variables that nothing trains here, the pooler and the heads of pre-training,
            are there only if the snapshot has them.
        pretrains: whether the head of masked language modelling is needed.
    """
    hidden, intermediate, stored = config.hidden_size, config.intermediate_size, frozenset(stored or ())
    shapes = dict(encoder_shapes(config), **_norm(names.ENCODER_NORM, hidden))
    dense = {
        **dict.fromkeys((names.QUERY, names.KEY, names.VALUE, names.ATTENTION_OUTPUT), (hidden, hidden)),
        **dict.fromkeys((names.CROSS_QUERY, names.CROSS_KEY, names.CROSS_VALUE, names.CROSS_OUTPUT), (hidden, hidden)),
        names.INTERMEDIATE: (hidden, intermediate),
        names.OUTPUT: (intermediate, hidden),
    }
    for layer in range(config.dec_hidden_layers):
        prefix = names.decoder_prefix(layer)
        for name, shape in dense.items():
            shapes[prefix + name + "-weight"] = shape
            shapes[prefix + name + "-bias"] = shape[1:]
        for name in (names.SELF_NORM, names.CROSS_NORM, names.FEED_FORWARD_NORM):
            shapes.update(_norm(prefix + name, hidden))
    shapes.update(_norm(names.DECODER_NORM, hidden))
    heads = {**token_head_shapes(config), **dict(zip(names.PALM_SENTENCE_HEAD, ((hidden, 3), (3,))))}
    shapes.update({name: shape for name, shape in heads.items() if name in stored or (pretrains and name in names.TOKEN_HEAD)})
    return {name: shape for name, shape in shapes.items() if name in stored or not name.startswith(names.POOLER_PREFIX)}


def unused_names(pretrains=False):
    """How the names of the variables begin that `palm_shapes` keeps from a snapshot and that no graph uses."""
    return (names.POOLER_PREFIX, *names.PALM_SENTENCE_HEAD, *(() if pretrains else names.TOKEN_HEAD))


def _norm(name, width):
    return {f"{name}-gamma": (width,), f"{name}-beta": (width,)}
