"""How the texts of a prediction lie in batches on a CPU: the shapes of the predict function's graphs.

OneFlow keeps the output of every operation of a graph on a CPU, for the life of the process, and each shape is one more graph to compile.
So there are few shapes, each has only as many tokens as keep the cores busy, and texts share rows until the rows are full.
"""

import numpy as np

from modeling.bert.config import MAX
from modeling.engine import parallel
from ofrecord_util.packing import Rows, fill

_STEP = 16  # row lengths are multiples of it
_TOKENS_PER_TEXT = 8  # a row of P tokens has at most P / 8 texts
_SAMPLE = 4096  # texts whose lengths are looked at
# A graph of more tokens is a little faster, but needs memory for each of them: the outputs of a graph's operations take about this many
# bytes, or twice the bytes of the model's weights if these are more, up to a limit: beside the training of a BERT-large, which needs 11 GB
# for a single row, there is no room for more
_OUTPUT_BYTES, _MOST_OUTPUT_BYTES, _LEAST_TOKENS, _MOST_TOKENS = 3e8, 1.2e9, 128, 1024
# Rough costs. They decide between row lengths: operations per second of the cores, the cost of one attention score of a head in one layer
# in operations, and the seconds to compile a graph, per encoder layer and lane
_FLOPS_PER_SECOND, _SCORE_FLOPS, _GRAPH_SECONDS = 1.5e11, 300, 0.12
# A second shape needs as much memory as the first one. It has to save at least this share of the time
_WORTH_A_SHAPE = 0.15


def token_bytes(config, length, all_tokens=False) -> int:
    """Bytes per token that the outputs of a predict graph's operations take, in rows of `length` tokens.

    Measured for models of 6 x 384 and 12 x 768 in rows of 80 and 128 tokens, to a twentieth.

    Args:
        config: `BertConfig`.
        length: tokens per row.
        all_tokens: whether the last layer is computed for all tokens. If its output is needed at [CLS] only, it takes little memory.
    """
    layers = max(1, config.num_hidden_layers - (config.ends_at_cls and not all_tokens))
    return 4 * layers * (33 * config.hidden_size + 2 * config.intermediate_size + 3 * config.num_attention_heads * length)


def tokens_at_once(config, length=128) -> int:
    """Tokens of a prediction batch on a CPU."""
    affordable = min(max(_OUTPUT_BYTES, 8 * config.dense_weights), _MOST_OUTPUT_BYTES) // token_bytes(config, length)
    return int(min(_MOST_TOKENS, max(_LEAST_TOKENS, affordable)))


def can_pack(config, device) -> bool:
    """Whether texts of a prediction may share rows. The maximum over a text's tokens needs a row for each text, and on a GPU, or with
    several processes, each text has a row of its own."""
    return device == "cpu" and parallel.size() == 1 and config.pooling != MAX


def rows_at_once(config, length, lanes, share=1.0) -> int:
    """Rows of a batch of rows of `length` tokens, with `share` of the usual tokens: the same number for each lane."""
    return max(1, round(share * tokens_at_once(config, length) / length / lanes)) * lanes


def plan_rows(lengths, config, lanes, longest=None, passes=1):
    """The shapes of a prediction: one, or two if few texts are much longer than the others.

    Args:
        lengths: int [N], tokens of the texts.
        config: `BertConfig`.
        lanes: number of lanes of the `Engine`.
        longest: for a stream of texts that begins with these: tokens that a text can have at most. None if there are no other texts.
        passes: how often the texts are predicted.
    Returns:
        tuple of `Rows`, ascending by length. The last one has room for the longest of `lengths`.
    """
    lengths = np.asarray(lengths)
    limit = longest or -(-int(lengths.max()) // 8) * 8
    least = 2 * _STEP if longest is None else min(longest, 4 * _STEP)  # the next texts of a stream may be longer
    sample = lengths if len(lengths) <= _SAMPLE else np.sort(lengths)[:: -(-len(lengths) // _SAMPLE)]
    most = max(least, _up(int(lengths.max()), limit)) if limit > least else limit
    choices = [(most,), *((length,) for length in (64, 128) if most < length <= limit)]
    choices += [(length, most) for length in range(least, most, _STEP)]
    weight = passes * len(lengths) / len(sample)

    def cost(shapes):
        return _seconds(sample, shapes, config, lanes, weight) * (1 - _WORTH_A_SHAPE if len(shapes) == 1 else 1)

    chosen = min(choices, key=lambda shapes: (cost(shapes), shapes))
    return tuple(_shape(part, length, config, lanes, longest is None) for part, length in _split(sample, chosen))


def shape_for(length, texts, config, lanes) -> Rows:
    """The `Rows` of `length` tokens with at most `texts` texts each."""
    return Rows(rows_at_once(config, length, lanes), length, max(1, min(texts, length // _TOKENS_PER_TEXT)))


def _up(length, limit):
    """`length` rounded up to a row length, at most `limit`."""
    return min(limit, -(-length // _STEP) * _STEP)


def _split(lengths, shapes):
    """Pairs of (the lengths of the texts in rows of a shape, its length): each text has the shortest rows with room for it."""
    places = np.searchsorted(shapes, lengths)
    return [(lengths[places == place], length) for place, length in enumerate(shapes)]


def _seconds(lengths, shapes, config, lanes, weight):
    """Estimated seconds of a prediction in rows of these lengths."""
    seconds = 0.0
    for part, length in _split(lengths, shapes):
        if len(part) or len(shapes) == 1:
            rows = int(fill(part, length, max(1, length // _TOKENS_PER_TEXT)).max(initial=-1)) + 1
            at_once = rows_at_once(config, length, lanes)
            steps = -(-rows * weight // at_once)  # the last batch is filled up
            pair = config.num_hidden_layers * (4 * config.hidden_size + _SCORE_FLOPS * config.num_attention_heads)
            seconds += steps * at_once * length * (2 * config.dense_weights + length * pair) / _FLOPS_PER_SECOND
            seconds += _GRAPH_SECONDS * config.num_hidden_layers * lanes
    return seconds


def _shape(lengths, length, config, lanes, are_all):
    """The `Rows` of `length` tokens for texts of these lengths, with as few texts per row as fill the rows nearly as well as any number.

    If there are no other texts, a batch has no more rows than they need.
    """
    limit = max(1, length // _TOKENS_PER_TEXT)
    needed = {texts: int(fill(lengths, length, texts).max(initial=0)) + 1 for texts in range(1, limit + 1)}
    shape = shape_for(length, next(texts for texts in needed if needed[texts] <= 1.01 * needed[limit]), config, lanes)
    return shape._replace(number=min(shape.number, -(-needed[shape.most] // lanes) * lanes)) if are_all else shape
