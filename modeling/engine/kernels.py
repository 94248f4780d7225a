"""Kernels: how each operation of BERT is computed on a device. No other module decides this.

`StockKernels` are OneFlow's own fused operations, which are fast on CUDA. `CpuKernels` compute the same numbers from operations that are
fast on a CPU. There, column broadcasts ([T, 1] against [T, H]), `layer_norm`, `gelu` and `bias_add` run 10 to 50 times slower than other
operations of their size, and sums over rows (the gradient of a bias) wait for separate threads. GEMMs, row broadcasts and plain arithmetic
run at the speed of the machine. Both kinds are exact (GELU in its erf form).

Dimension letters: see modeling/bert/encoder.py.
"""

import math

from modeling.engine import parallel
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow
from modeling.engine.workarounds import has_cumulative_sums


class StockKernels:
    """OneFlow's own operations; the base class of `CpuKernels`."""

    predicts = False  # whether these kernels are for graphs without a backward pass, as those of `for_prediction` may be

    def __init__(self, device):
        self.device = device

    @property
    def for_prediction(self):
        """The kernels for graphs without a backward pass."""
        return self

    def linear(self, x, weight, bias):
        """x [T, in] @ weight [in, out] + bias [1, out] -> [T, out]."""
        return flow._C.bias_add(flow.matmul(x, weight), _vector(bias), axis=1)

    def feed_forward(self, x, inner_weight, inner_bias, outer_weight, outer_bias):
        """BERT's feed-forward layer, x [T, H] -> gelu(x @ inner_weight + inner_bias) @ outer_weight + outer_bias [T, H], with the exact
        GELU(z) = z * Phi(z)."""
        return self.linear(flow._C.gelu(self.linear(x, inner_weight, inner_bias)), outer_weight, outer_bias)

    def gelu_layer(self, x, weight, bias):
        """A dense layer with exact GELU, x [T, in] -> gelu(x @ weight + bias) [T, out]."""
        return flow._C.gelu(self.linear(x, weight, bias))

    def table_scores(self, x, table, bias):
        """Scores of the V rows of a table: x [T, H] @ table [V, H]^T + bias [1, V] -> [T, V]."""
        return flow._C.bias_add(flow.matmul(x, table, transpose_b=True), _vector(bias), axis=1)

    def index_cross_entropy(self, logits, index):
        """-log softmax(logits)[index] of logits [T, V] and index int32 [T] -> [T], for many classes: one pass over the logits, and no
        array of zeros and ones."""
        return flow._C.sparse_softmax_cross_entropy(logits, index)

    def sample(self, logits, noise):
        """One class per row from the softmax of logits [T, V]: the first one whose cumulative probability is above the noise [T, 1], which
        is uniform in [0, 1). Without a gradient -> int64 [T]."""
        below = self._cumulative_below(flow.softmax(logits.detach().to(flow.float32), dim=-1), noise)
        last = float(logits.shape[1] - 1)  # for a sum that ends below the noise
        return flow.clamp(below.sum(dim=1), max=last).to(flow.int64)

    def _cumulative_below(self, x, limit):
        """1 where the cumulative sum of a row of x [T, V] is at most the limit [T, 1], else 0: [T, V or more]."""
        if has_cumulative_sums():
            return (flow.cumsum(x, dim=1) <= limit).to(flow.float32)
        return self._cumulative_below_by_products(x, limit)

    def _cumulative_below_by_products(self, x, limit):
        # Rows are cut into K blocks of M columns. One product adds up within the blocks, another one the blocks before each of them
        rows, columns = x.shape
        size = math.ceil(math.sqrt(columns))  # M
        blocks = -(-columns // size)  # K
        if blocks * size > columns:
            x = flow.cat([x, parallel.constant((rows, blocks * size - columns), 0.0, self.device)], dim=1)
        upper = flow.triu(parallel.constant((size, size), 1.0, self.device))
        within = flow.matmul(x.reshape(rows * blocks, size), upper)  # [T K, M]
        totals = flow.matmul(within, self._last_row(size)).reshape(rows, blocks)
        before = flow.matmul(totals, flow.triu(parallel.constant((blocks, blocks), 1.0, self.device), diagonal=1))  # [T, K]
        limits = (self._columns(limit, blocks) - before).reshape(rows * blocks, 1)
        return (within <= self._columns(limits, size)).to(flow.float32).reshape(rows, blocks * size)

    def _last_row(self, size):
        """A column [size, 1] with 1 in the last row, else 0."""
        zeros, one = parallel.constant((size - 1, 1), 0.0, self.device), parallel.constant((1, 1), 1.0, self.device)
        return flow.cat([zeros, one], dim=0)

    def _columns(self, column, count):
        """A column [T, 1] in a form that operations combine with [T, count]."""
        return column

    def layer_norm(self, x, gamma, beta, epsilon):
        """Layer normalisation of x [T, H] over H; gamma, beta [1, H]."""
        return flow.nn.functional.layer_norm(x, (x.shape[1],), _vector(gamma), _vector(beta), epsilon)

    def add_row(self, x, row):
        """x [T, N] + row [1, N] -> [T, N]."""
        return flow._C.bias_add(x, _vector(row), axis=1)

    def additive_mask(self, input_mask, num_heads, queries=None):
        """Padding mask [B, S], 1 for tokens and 0 for padding -> term to add to attention scores [B, N, Q, S]: 0 or -10000.

        Args:
            queries: Q; None for S.
        """
        batch, length = input_mask.shape
        return (input_mask.reshape(batch, 1, 1, length) - 1.0) * 10000.0

    def causal_mask(self, batch, num_heads, length):
        """Term to add to attention scores [B, N, S, S]: 0 if the key is not after the query, else -10000."""
        return (flow.tril(parallel.constant((1, 1, length, length), 1.0, self.device)) - 1.0) * 10000.0

    def same_text_mask(self, input_mask, num_heads):
        """Mask [R, C, S] of rows with several texts, 1 at the tokens of each text -> term to add to attention scores [R, N, S, S]: 0 if
        query and key belong to the same text, else -10000."""
        rows, _, length = input_mask.shape
        same = flow.matmul(input_mask.permute(0, 2, 1), input_mask)  # [R, S, S]
        return (same.reshape(rows, 1, length, length) - 1.0) * 10000.0

    def text_mask(self, input_mask, num_heads):
        """The term of `same_text_mask` for one query per text: [R, C, S] -> [R, N, C, S]."""
        return (input_mask.reshape(input_mask.shape[0], 1, *input_mask.shape[1:]) - 1.0) * 10000.0

    def dropout(self, x, mask):
        """Inverted dropout of x by a mask of its shape (modeling/bert/dropout.py)."""
        return x * mask

    def heads(self, x, batch, num_heads, count):
        """Splits x [T, count * H], which holds `count` projections, into heads: tuple of `count` tensors [B, N, S, D]."""
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
    """The same numbers, computed by operations that are fast on a CPU."""

    def __init__(self):
        super().__init__("cpu")

    @property
    def for_prediction(self):
        return CpuPredictionKernels()

    def _constant(self, value, *shape):
        return parallel.constant(shape, value, "cpu")

    def _add_row(self, x, row, factor=1.0):
        """x [T, N] + factor * row [1, N], by a rank-one GEMM. The gradient of the row is then a GEMM instead of a sum over T."""
        return x + flow.matmul(self._constant(1.0, x.shape[0], 1), row, alpha=factor)

    def linear(self, x, weight, bias):
        return self._add_row(flow.matmul(x, weight), bias)

    def feed_forward(self, x, inner_weight, inner_bias, outer_weight, outer_bias):
        # With u = z / sqrt 2, GELU(z) = z / 2 * (1 + erf(z / sqrt 2)) = u * (1 + erf(u)) / sqrt 2. Both factors 1 / sqrt 2 are part of the
        # GEMMs, which leaves three passes over the widest activation
        root = math.sqrt(0.5)
        scaled = self._add_row(flow.matmul(x, inner_weight, alpha=root), inner_bias, root)  # u [T, I]
        return self._add_row(flow.matmul(scaled * (flow.erf(scaled) + 1.0), outer_weight, alpha=root), outer_bias)

    def gelu_layer(self, x, weight, bias):
        # see `feed_forward`
        root = math.sqrt(0.5)
        scaled = self._add_row(flow.matmul(x, weight, alpha=root), bias, root)
        return scaled * (flow.erf(scaled) + 1.0) * root

    def _columns(self, column, count):
        return flow.matmul(column, self._constant(1.0, 1, count))

    def _cumulative_below(self, x, limit):
        return self._cumulative_below_by_products(x, limit)  # the comparison is elementwise then

    def table_scores(self, x, table, bias):
        return self._add_row(flow.matmul(x, table, transpose_b=True), bias)

    def layer_norm(self, x, gamma, beta, epsilon):
        # Reductions over H, and the broadcasts back, are rank-one GEMMs. One of them also multiplies by gamma
        width = x.shape[1]
        to_mean, minus_row = self._constant(1.0 / width, width, 1), self._constant(-1.0, 1, width)
        centred = x + flow.matmul(flow.matmul(x, to_mean), minus_row)  # [T, H]
        # [T, 1]; the GEMM that computes the mean also adds epsilon
        variance = flow.matmul(flow.square(centred), to_mean) + self._constant(epsilon, x.shape[0], 1)
        return self._add_row(centred * flow.matmul(flow.rsqrt(variance), gamma), beta)

    def add_row(self, x, row):
        return self._add_row(x, row)

    def causal_mask(self, batch, num_heads, length):
        # Materialised as in `additive_mask`
        return (flow.tril(self._constant(1.0, batch, num_heads, length, length)) - 1.0) * 10000.0

    def additive_mask(self, input_mask, num_heads, queries=None):
        # Materialised once per step and shared by the layers, since a plain sum is several times faster than a broadcast in each
        # layer
        batch, length = input_mask.shape
        queries = length if queries is None else queries
        row = ((input_mask - 1.0) * 10000.0).reshape(batch, 1, length)
        return flow.matmul(self._constant(1.0, batch, num_heads * queries, 1), row).reshape(batch, num_heads, queries, length)

    def same_text_mask(self, input_mask, num_heads):
        # Materialised for all heads as in `additive_mask`, by a GEMM that also multiplies by 10000
        rows, _, length = input_mask.shape
        queries = flow.cat([input_mask] * num_heads, dim=2).permute(0, 2, 1)  # [R, N * S, C]
        mask = flow.matmul(queries, input_mask, alpha=10000.0) - 10000.0
        return mask.reshape(rows, num_heads, length, length)

    def text_mask(self, input_mask, num_heads):
        rows, texts, length = input_mask.shape
        mask = (input_mask - 1.0) * 10000.0
        return flow.cat([mask] * num_heads, dim=1).reshape(rows, num_heads, texts, length)


class CpuPredictionKernels(CpuKernels):
    """The same numbers, except for the last digits, for graphs without a backward pass: fewer operations, so less memory."""

    predicts = True

    def feed_forward(self, x, inner_weight, inner_bias, outer_weight, outer_bias):
        # The forward pass of OneFlow's GELU is faster than `erf`, which OneFlow computes in float64; its backward pass is slow
        return self.linear(flow._C.gelu(self.linear(x, inner_weight, inner_bias)), outer_weight, outer_bias)

    def cls_mask(self, input_mask, num_heads):
        """Mask [R, C, S] of rows with C texts, 1 at the tokens of each text -> term to add to the scores of one query per text and head,
        [R, C * N, S]: 0 or -10000."""
        rows, texts, length = input_mask.shape
        return flow.cat([(input_mask - 1.0) * 10000.0] * num_heads, dim=2).reshape(rows, texts * num_heads, length)


def select_kernels(device):
    """The kernels for "cpu" or "cuda"."""
    return CpuKernels() if device == "cpu" else StockKernels(device)
