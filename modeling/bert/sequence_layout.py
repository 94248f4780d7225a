"""Where the texts of a batch lie in its rows, and what the encoder needs to know of it: positions, which tokens may attend to which,
and each text's [CLS].

A row holds one text, or C of them behind each other (ofrecord_util/packing.py), which then see nothing of each other. R rows of S
tokens, B texts, B = R * C; other dimension letters: see modeling/bert/encoder.py.
"""

from modeling.engine.memo import once
from modeling.engine.runtime import flow


class OwnRows:
    """A row for each text, filled up with padding.

    Args:
        word_rows: [B, S].
        input_mask: [B, S], 1 for tokens, 0 for padding.
        kernels: from `select_kernels`.
    """

    def __init__(self, word_rows, input_mask, kernels):
        self._shape, self._mask, self._kernels = word_rows.shape, input_mask, kernels

    def add_positions(self, x, table):
        """x [T, H] plus the position embeddings of its tokens, from the table [positions, H] -> [T, H]."""
        batch, length = self._shape
        width = x.shape[1]
        first = once(("first", length), lambda: table[:length].reshape(1, length * width), of=table)
        return (x.reshape(batch, length * width) + first).reshape(batch * length, width)

    def attention_mask(self, num_heads):
        """What is added to attention scores [B, N, S, S]: 0, or -10000 where the key is padding."""
        return self._kernels.additive_mask(self._mask.to(flow.float32), num_heads)

    def first(self, x):
        """x [T, H] at each text's [CLS] -> [B, H]."""
        batch, width = self._shape[0], x.shape[1]
        return x.reshape(batch, x.shape[0] // batch, width)[:, :1].reshape(batch, width)

    def first_of_heads(self, query):
        """query [B, N, S, D] at each text's [CLS] -> [B, N, 1, D]."""
        return query[:, :, :1]

    def first_queries(self, mask, num_heads):
        """Of `attention_mask` what the queries of [CLS] need -> [B, N, 1, S]."""
        return mask[:, :, :1]

    def some(self, mask):
        """As many rows of a dropout mask, [T, H] or [B, N, S, S], as there are texts: [B, H] or [B, N, 1, S]."""
        return mask[:, :, :1] if len(mask.shape) == 4 else self.first(mask)


class SharedRows:
    """Several texts in each row.

    Args:
        word_rows: [R, S].
        input_mask: [R, C, S], 1 at the tokens of each text.
        starts: [R, C, S], 1 at its [CLS].
        positions: int32 [R, S], of each token within its text.
        kernels: from `select_kernels`.
    """

    def __init__(self, word_rows, input_mask, starts, positions, kernels):
        self._shape, self._mask, self._starts, self._positions = word_rows.shape, input_mask, starts, positions
        self._kernels = kernels

    def add_positions(self, x, table):
        """See `OwnRows`."""
        return x + flow._C.gather(table, self._positions.reshape(-1), axis=0)

    def attention_mask(self, num_heads):
        """What is added to attention scores [R, N, S, S]: 0, or -10000 where the key is not of the query's text."""
        return self._kernels.same_text_mask(self._mask, num_heads)

    def first(self, x):
        """See `OwnRows`."""
        (rows, length), width = self._shape, x.shape[1]
        return flow.matmul(self._starts, x.reshape(rows, length, width)).reshape(-1, width)  # [R, C, S] @ [R, S, H]

    def first_of_heads(self, query):
        """query [R, N, S, D] at each text's [CLS] -> [R, N, C, D]."""
        num_heads = query.shape[1]
        starts = flow.cat([self._starts] * num_heads, dim=1).reshape(query.shape[0], num_heads, *self._starts.shape[1:])
        return flow.matmul(starts, query)  # [R, N, C, S] @ [R, N, S, D]

    def first_queries(self, mask, num_heads):
        """Of `attention_mask` what the queries of [CLS] need -> [R, N, C, S]."""
        return self._kernels.text_mask(self._mask, num_heads)

    def some(self, mask):
        """As many rows of a dropout mask, [T, H] or [R, N, S, S], as there are texts: [B, H] or [R, N, C, S]."""
        texts = self._mask.shape[1]
        if len(mask.shape) == 4:
            return mask[:, :, :texts]
        (rows, length), width = self._shape, mask.shape[1]
        return mask.reshape(rows, length * width)[:, : texts * width].reshape(rows * texts, width)


def texts_of(word_rows, input_mask, kernels, starts=None, positions=None):
    """`SharedRows` where `starts` and `positions` are given, else `OwnRows`."""
    if starts is None:
        return OwnRows(word_rows, input_mask, kernels)
    return SharedRows(word_rows, input_mask, starts, positions, kernels)
