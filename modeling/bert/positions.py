"""The embeddings of a text's tokens and their positions (`Variant.positions`).

Each function takes the `GraphParts`, the word embeddings [T, H] and the segment ids int32 [B, S], and returns their sum with positions and
token types, [T, H]. Packed batches have positions of their own in each text (modeling/bert/sequence_layout.py).
"""

import math

from modeling.bert import names
from modeling.bert.variant import LEARNED, LEARNED_WITH_BIAS, NO_POSITIONS, SINUSOIDAL
from modeling.engine import parallel
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow

_LONGEST_WAVE = 10000.0


def learned(encoder, words, segment_ids):
    """BERT: a table of positions, and one of token types."""
    return encoder.layout.add_positions(_add_types(encoder, words, segment_ids), encoder.variables.get(names.POSITION_EMBEDDINGS))


def learned_with_bias(encoder, words, _segment_ids):
    """MEAD's `learned-positional-w-bias`: a table of positions, and one vector for all tokens, stored as the only token type."""
    words = encoder.kernels.add_row(words, encoder.variables.get(names.TOKEN_TYPE_EMBEDDINGS))
    return encoder.layout.add_positions(words, encoder.variables.get(names.POSITION_EMBEDDINGS))


def sinusoidal(encoder, words, segment_ids):
    """MEAD's `positional`: words * sqrt(H), and sines and cosines of Vaswani et al. 2017, which are not trained."""
    width = words.shape[1]
    table = sinusoids(encoder.layout.length, width, encoder.kernels.device)
    return encoder.layout.add_positions(_add_types(encoder, words * math.sqrt(width), segment_ids), table)


def not_embedded(encoder, words, segment_ids):
    """MEAD's `default`: no positions here, since relative ones are a part of the attention."""
    return _add_types(encoder, words, segment_ids)


EMBEDDED_POSITIONS = {LEARNED: learned, LEARNED_WITH_BIAS: learned_with_bias, SINUSOIDAL: sinusoidal, NO_POSITIONS: not_embedded}


def _add_types(encoder, words, segment_ids):
    return words + flow._C.gather(encoder.variables.get(names.TOKEN_TYPE_EMBEDDINGS), segment_ids.reshape(-1), axis=0)


def sinusoids(length, width, device):
    """P[p, 2i] = sin(p * 10000^(-2i / width)), P[p, 2i + 1] = cos of the same -> [length, width]."""

    def make():
        columns = parallel.arange(width, device).reshape(1, width)
        pairs = flow.floor(columns * 0.5)  # i
        waves = flow.exp(pairs * (-2.0 * math.log(_LONGEST_WAVE) / width))
        quarters = (columns - pairs * 2.0) * (0.5 * math.pi)  # cos(x) = sin(x + pi / 2)
        ones = parallel.constant((length, 1), 1.0, device)
        angles = flow.matmul(parallel.arange(length, device).reshape(length, 1), waves) + flow.matmul(ones, quarters)
        return flow.sin(angles)

    return memoize(("sinusoids", length, width), make)
