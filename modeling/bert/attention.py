"""Attention with and without relative positions (`Variant.relative_distances`).

Shapes: query, key, value [B, N, S, D], probabilities [B, N, S, S]; see modeling/bert/encoder.py.
"""

import math

from modeling.bert import names
from modeling.engine import parallel
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow


class Attention:
    """BERT's.

    Args:
        encoder: `GraphParts`.
    """

    def __init__(self, encoder):
        self._kernels = encoder.kernels

    def scores(self, query, key, mask):
        """q_i k_j / sqrt(D), and a mask to add."""
        return self._kernels.attention_scores(query, key, mask)

    def context(self, probs, value):
        """sum_j p_ij v_j -> [B, N, S, D]."""
        return flow.matmul(probs, value)


class RelativeAttention(Attention):
    """With relative positions (Shaw et al. 2018), as in MEAD: each layer has a vector for each distance from -k to k, shared by its heads.

    With a = clip(j - i + k, 0, 2k), the scores are (q_i k_j + q_i RK[a]) / sqrt(D) and the context is sum_j p_ij (v_j + RV[a]), the latter
    if the variant has relative values. The distance of two tokens of a text is the same in a packed row.

    Args:
        encoder: `GraphParts`.
        prefix: of the layer's variables.
        farthest: k of the layer.
    """

    def __init__(self, encoder, prefix, farthest):
        super().__init__(encoder)
        self._variables, self._variant, self._prefix, self._farthest = encoder.variables, encoder.config.variant, prefix, farthest
        self._device = encoder.kernels.device

    def scores(self, query, key, mask):
        """As in `Attention`, with the relative positions of the keys."""
        size, length = query.shape[3], query.shape[2]
        pairs = self._vectors(names.RELATIVE_KEYS, length)  # [S, S, D]
        relative = flow.matmul(_by_position(query), pairs, transpose_b=True, alpha=1.0 / math.sqrt(size))  # [S, B * N, S]
        scores = super().scores(query, key, mask) + _by_text(relative, query.shape)
        return scores + self._window(scores.shape) if self._variant.windowed else scores

    def context(self, probs, value):
        """As in `Attention`, with the relative positions of the values."""
        context = super().context(probs, value)
        if not self._variant.relative_values:
            return context
        pairs = self._vectors(names.RELATIVE_VALUES, value.shape[2])  # [S, S, D]
        return context + _by_text(flow.matmul(_by_position(probs), pairs), value.shape)  # [S, B * N, S] @ [S, S, D]

    def _vectors(self, name, length):
        """The vector of each pair of query and key, [S, S, D]."""
        index = memoize(("relative", length, self._farthest), lambda: self._index(length).to(flow.int32))
        table = self._variables.get(self._prefix + name)  # [2k + 1, D]
        return flow._C.gather(table, index.reshape(-1), axis=0).reshape(length, length, table.shape[1])

    def _index(self, length):
        """a, [S, S]."""
        return flow.clamp(_distances(length, self._device), min=-float(self._farthest), max=float(self._farthest)) + float(self._farthest)

    def _window(self, shape):
        """Term to add to scores: 0, or -10000 where the distance is above k. Of the whole shape, as in `kernels.additive_mask`."""

        def make():
            far = flow.clamp(flow.abs(_distances(shape[3], self._device)) - float(self._farthest), min=0.0, max=1.0)
            ones = parallel.constant((shape[0] * shape[1], 1), 1.0, self._device)
            return flow.matmul(ones, far.reshape(1, -1), alpha=-10000.0).reshape(*shape)

        return memoize(("window", tuple(shape), self._farthest), make)


def attention_of(encoder, layer, prefix):
    """The `Attention` of encoder layer `layer` (from 0)."""
    distances = encoder.config.variant.relative_distances
    return RelativeAttention(encoder, prefix, distances[layer]) if distances else Attention(encoder)


def _distances(length, device):
    """j - i of query i and key j, float32 [S, S]."""
    places, ones = parallel.arange(length, device), parallel.constant((length, 1), 1.0, device)
    return flow.matmul(ones, places.reshape(1, length)) - flow.matmul(places.reshape(length, 1), ones, transpose_b=True)


def _by_position(x):
    """[B, N, S, X] -> [S, B * N, X], for products with an array of its own for each position."""
    batch, heads, length, width = x.shape
    return x.permute(2, 0, 1, 3).reshape(length, batch * heads, width)


def _by_text(x, shape):
    """The inverse of `_by_position`: [S, B * N, X] -> [B, N, S, X] with B, N and S of `shape`."""
    return x.reshape(shape[2], shape[0], shape[1], x.shape[2]).permute(1, 2, 0, 3)
