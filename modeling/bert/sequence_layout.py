"""How texts lie in the rows of a batch, and what the encoder derives from it: positions, attention masks, each text's [CLS].

A padded batch has one text per row. A packed batch has C texts per row (ofrecord_util/packing.py), which do not attend to each other.
A batch has R rows of S tokens and B texts; B = R * C. Other dimension letters: see modeling/bert/encoder.py.
"""

from modeling.engine.memo import memoize
from modeling.engine.runtime import flow


class PaddedLayout:
    """One text per row, padded to the length of the row.

    Args:
        word_rows: [B, S].
        input_mask: [B, S], 1 for tokens, 0 for padding.
        kernels: from `select_kernels`.
    """

    def __init__(self, word_rows, input_mask, kernels):
        self._shape, self._mask, self._kernels = word_rows.shape, input_mask, kernels

    @property
    def length(self):
        """Tokens per row, S."""
        return self._shape[1]

    def add_positions(self, x, table):
        """Adds to x [T, H] the position embeddings of its tokens, from the table [positions, H] -> [T, H]."""
        batch, length = self._shape
        width = x.shape[1]
        first = memoize(("first", length), lambda: table[:length].reshape(1, length * width), of=table)
        return (x.reshape(batch, length * width) + first).reshape(batch * length, width)

    def attention_mask(self, num_heads):
        """Mask to add to attention scores [B, N, S, S]: 0, or -10000 where the key is padding."""
        return self._kernels.additive_mask(self._mask.to(flow.float32), num_heads)

    def cls_states(self, x):
        """x [T, H] at each text's [CLS] -> [B, H]."""
        batch, width = self._shape[0], x.shape[1]
        return x.reshape(batch, x.shape[0] // batch, width)[:, :1].reshape(batch, width)

    def cls_queries(self, query):
        """query [B, N, S, D] at each text's [CLS] -> [B, N, 1, D]."""
        return query[:, :, :1]

    def cls_attention_mask(self, mask, num_heads):
        """The rows of `attention_mask` for the queries at [CLS] -> [B, N, 1, S]."""
        return mask[:, :, :1]

    def text_masks(self):
        """1 at the tokens of each text -> float32 [B, 1, S]."""
        batch, length = self._shape
        return self._mask.to(flow.float32).reshape(batch, 1, length)

    def cls_dropout_mask(self, mask):
        """As much of a dropout mask, [T, H] or [B, N, S, S], as one token per text needs: [B, H] or [B, N, 1, S]."""
        return mask[:, :, :1] if len(mask.shape) == 4 else self.cls_states(mask)


class PackedLayout:
    """C texts per row; same methods as `PaddedLayout`.

    Args:
        word_rows: [R, S].
        input_mask: [R, C, S], 1 at the tokens of each text.
        starts: [R, C, S], 1 at the [CLS] of each text.
        positions: int32 [R, S], the position of each token within its text.
        kernels: from `select_kernels`.
    """

    def __init__(self, word_rows, input_mask, starts, positions, kernels):
        self._shape, self._mask, self._starts, self._positions = word_rows.shape, input_mask, starts, positions
        self._kernels = kernels

    @property
    def length(self):
        """As in `PaddedLayout`."""
        return self._shape[1]

    def add_positions(self, x, table):
        """As in `PaddedLayout`."""
        return x + flow._C.gather(table, self._positions.reshape(-1), axis=0)

    def attention_mask(self, num_heads):
        """Mask to add to attention scores [R, N, S, S]: 0, or -10000 where key and query belong to different texts."""
        return self._kernels.same_text_mask(self._mask, num_heads)

    def cls_states(self, x):
        """As in `PaddedLayout`."""
        (rows, length), width = self._shape, x.shape[1]
        return flow.matmul(self._starts, x.reshape(rows, length, width)).reshape(-1, width)  # [R, C, S] @ [R, S, H]

    def cls_queries(self, query):
        """query [R, N, S, D] at each text's [CLS] -> [R, N, C, D]."""
        num_heads = query.shape[1]
        starts = flow.cat([self._starts] * num_heads, dim=1).reshape(query.shape[0], num_heads, *self._starts.shape[1:])
        return flow.matmul(starts, query)  # [R, N, C, S] @ [R, N, S, D]

    def cls_attention_mask(self, mask, num_heads):
        """The mask for the queries at [CLS] -> [R, N, C, S]."""
        return self._kernels.text_mask(self._mask, num_heads)

    def text_masks(self):
        """As in `PaddedLayout` -> [R, C, S]."""
        return self._mask

    def cls_dropout_mask(self, mask):
        """As much of a dropout mask, [T, H] or [R, N, S, S], as one token per text needs: [B, H] or [R, N, C, S]."""
        texts = self._mask.shape[1]
        if len(mask.shape) == 4:
            return mask[:, :, :texts]
        (rows, length), width = self._shape, mask.shape[1]
        return mask.reshape(rows, length * width)[:, : texts * width].reshape(rows * texts, width)


def sequence_layout(word_rows, input_mask, kernels, starts=None, positions=None):
    """A `PackedLayout` if `starts` and `positions` are given, else a `PaddedLayout`."""
    if starts is None:
        return PaddedLayout(word_rows, input_mask, kernels)
    return PackedLayout(word_rows, input_mask, starts, positions, kernels)
