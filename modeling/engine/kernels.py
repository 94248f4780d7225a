"""How each operation of BERT is computed, chosen by device here and nowhere else.

`StockKernels` are OneFlow's own fused operations, the fast ones on CUDA. `CpuKernels` compute the same numbers from
operations that are fast on a CPU: there column broadcasts ([T, 1] against [T, H]), `layer_norm`, `gelu` and `bias_add`
run 10 to 50 times slower than their neighbours, and sums over rows (a bias's gradient) wait for threads of their own, while
GEMMs, row broadcasts and plain arithmetic run at the machine's speed. Both are exact (GELU in its erf form).

Dimension letters: see modeling/bert/encoder.py.
"""

import math

from modeling.engine import parallel
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow


class StockKernels:
    """OneFlow's own operations; also the base of the CPU's."""

    def __init__(self, device):
        self.device = device

    def linear(self, x, weight, bias):
        """x [T, in] @ weight [in, out] + bias [1, out] -> [T, out]."""
        return flow._C.bias_add(flow.matmul(x, weight), _vector(bias), axis=1)

    def feed_forward(self, x, inner_weight, inner_bias, outer_weight, outer_bias):
        """BERT's feed-forward layer, x [T, H] -> gelu(x @ inner_weight + inner_bias) @ outer_weight + outer_bias [T, H], with the exact
        GELU(z) = z * Phi(z)."""
        return self.linear(flow._C.gelu(self.linear(x, inner_weight, inner_bias)), outer_weight, outer_bias)

    def layer_norm(self, x, gamma, beta, epsilon):
        """Layer normalisation of x [T, H] over H; gamma, beta [1, H]."""
        return flow.nn.functional.layer_norm(x, (x.shape[1],), _vector(gamma), _vector(beta), epsilon)

    def additive_mask(self, input_mask, num_heads):
        """[B, S] of 1 (token) and 0 (padding) -> what is added to attention scores [B, N, S, S]: 0 or -10000."""
        batch, length = input_mask.shape
        return (input_mask.reshape(batch, 1, 1, length) - 1.0) * 10000.0

    def same_text_mask(self, input_mask, num_heads):
        """Rows of several texts, [R, C, S] of 1 at the tokens of each text -> what is added to attention scores [R, N, S, S]: 0 where
        query and key are of one text, else -10000."""
        rows, _, length = input_mask.shape
        same = flow.matmul(input_mask.permute(0, 2, 1), input_mask)  # [R, S, S]
        return (same.reshape(rows, 1, length, length) - 1.0) * 10000.0

    def text_mask(self, input_mask, num_heads):
        """The same for one query of each text: [R, C, S] -> [R, N, C, S]."""
        return (input_mask.reshape(input_mask.shape[0], 1, *input_mask.shape[1:]) - 1.0) * 10000.0

    def dropout(self, x, mask):
        """Inverted dropout of x by a mask of its shape (modeling/bert/dropout.py)."""
        return x * mask

    def heads(self, x, batch, num_heads, count):
        """Cuts x [T, count * H], several projections side by side, into heads: `count` of [B, N, S, D]."""
        length, width = x.shape[0] // batch, x.shape[1]
        by_head = x.reshape(batch, length, count * num_heads, width // (count * num_heads)).permute(0, 2, 1, 3)  # [B, count * N, S, D]
        like = parallel.constant((batch, num_heads, *by_head.shape[2:]), 0.0, self.device)
        return flow._C.split_like(by_head, [like] * count, 1)

    def attention_scores(self, query, key, mask):
        """query, key [B, N, S, D] -> scores [B, N, S, S] = q k^T / sqrt(D) + mask."""
        return flow.matmul(query, key, transpose_b=True, alpha=1.0 / math.sqrt(query.shape[3])) + mask


def _vector(row):
    """[1, N] -> [N]."""
    return memoize("vector", lambda: row.reshape(row.shape[1]), of=row)


class CpuKernels(StockKernels):
    """The same numbers by operations that are fast on a CPU."""

    def __init__(self):
        super().__init__("cpu")

    def _constant(self, value, *shape):
        return parallel.constant(shape, value, "cpu")

    def _add_row(self, x, row, factor=1.0):
        """x [T, N] + factor * row [1, N], by a rank-one GEMM: the row's gradient is a GEMM then and no sum over T."""
        return x + flow.matmul(self._constant(1.0, x.shape[0], 1), row, alpha=factor)

    def linear(self, x, weight, bias):
        return self._add_row(flow.matmul(x, weight), bias)

    def feed_forward(self, x, inner_weight, inner_bias, outer_weight, outer_bias):
        # GELU(z) = z / 2 * (1 + erf(z / sqrt 2)) with u = z / sqrt 2 is u * (1 + erf(u)) / sqrt 2: both factors go into the GEMMs,
        # which leaves three passes over the widest activation
        root = math.sqrt(0.5)
        scaled = self._add_row(flow.matmul(x, inner_weight, alpha=root), inner_bias, root)  # u [T, I]
        return self._add_row(flow.matmul(scaled * (flow.erf(scaled) + 1.0), outer_weight, alpha=root), outer_bias)

    def layer_norm(self, x, gamma, beta, epsilon):
        # Reductions over H and broadcasts back as rank-one GEMMs; gamma rides on one of them
        width = x.shape[1]
        to_mean, minus_row = self._constant(1.0 / width, width, 1), self._constant(-1.0, 1, width)
        centred = x + flow.matmul(flow.matmul(x, to_mean), minus_row)  # [T, H]
        # [T, 1]; epsilon is added by the GEMM that takes the mean
        variance = flow.matmul(flow.square(centred), to_mean) + self._constant(epsilon, x.shape[0], 1)
        return self._add_row(centred * flow.matmul(flow.rsqrt(variance), gamma), beta)

    def additive_mask(self, input_mask, num_heads):
        # Materialised once a step, shared by the layers: a plain sum is several times faster than a broadcast in each
        # layer
        batch, length = input_mask.shape
        row = ((input_mask - 1.0) * 10000.0).reshape(batch, 1, length)
        return flow.matmul(self._constant(1.0, batch, num_heads * length, 1), row).reshape(batch, num_heads, length, length)

    def same_text_mask(self, input_mask, num_heads):
        # As above: of all heads at once, by a product that brings the factor with it
        rows, _, length = input_mask.shape
        queries = flow.cat([input_mask] * num_heads, dim=2).permute(0, 2, 1)  # [R, N * S, C]
        mask = flow.matmul(queries, input_mask, alpha=10000.0) - 10000.0
        return mask.reshape(rows, num_heads, length, length)

    def text_mask(self, input_mask, num_heads):
        rows, texts, length = input_mask.shape
        mask = (input_mask - 1.0) * 10000.0
        return flow.cat([mask] * num_heads, dim=1).reshape(rows, num_heads, texts, length)


def select_kernels(device):
    """The kernels for "cpu" or "cuda"."""
    return CpuKernels() if device == "cpu" else StockKernels(device)
