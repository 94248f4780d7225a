"""Pools the hidden states of a text into one vector: the state at [CLS], the mean, the maximum, or one of MEAD's poolings. Padding
contributes nothing.

Dimension letters: see modeling/bert/encoder.py.
"""

from modeling.bert import names
from modeling.bert.config import CLS, MEAN
from modeling.cli.choices import RAW_CLS, SQRT_LENGTH
from modeling.engine import parallel
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow


def masked_mean(hidden, input_mask):
    """Mean of the hidden states over the real tokens of each text; zeros for a text without tokens.

    Args:
        hidden: [B, S, H], or [R, S, H] in a packed batch of C texts per row, B = R * C.
        input_mask: [B, S], or [R, C, S] in a packed batch; 1 at real tokens.
    Returns:
        [B, H].
    """
    rows, length, hidden_size = hidden.shape

    def token_weights():  # [R, C, S]: 1 / (tokens of the text) at its tokens
        mask = input_mask.to(flow.float32)
        count = flow.clamp(mask.sum(dim=-1, keepdim=True), min=1.0)
        return (mask / count).reshape(rows, -1, length)

    weights = memoize("token_weights", token_weights, of=input_mask)
    return flow.matmul(weights, hidden).reshape(-1, hidden_size)  # [R, C, S] @ [R, S, H]


def _root_weights(input_mask, rows, length):
    """The root of the number of a text's tokens, at its tokens -> [R, C, S]."""

    def make():
        mask = input_mask.to(flow.float32)
        return (mask * flow.sqrt(mask.sum(dim=-1, keepdim=True))).reshape(rows, -1, length)

    return memoize("root_weights", make, of=input_mask)


def sqrt_length_pool(hidden, input_mask):
    """MEAD's `sqrt_length`: the sum of the hidden states times the root of their number n. Others divide by this root; the direction of
    the vector is the same. Arguments and return value as for `masked_mean`."""
    rows, length, hidden_size = hidden.shape
    return flow.matmul(_root_weights(input_mask, rows, length), hidden).reshape(-1, hidden_size)


def attention_pool(encoder, x, input_mask):
    """MEAD's `sha` and `2ha`: self-attention of heads that do not scale their scores, with the states themselves as values, then
    `sqrt_length_pool`. The vectors of two heads are concatenated.

    Args:
        encoder: `GraphParts`.
        x: states of the last layer, [T, H].
        input_mask: see `masked_mean`.
    Returns:
        [B, heads * H].
    """
    rows, length, width = x.shape[0] // encoder.layout.length, encoder.layout.length, x.shape[1]
    hidden, weights = x.reshape(rows, length, width), _root_weights(input_mask, rows, length)
    mask = encoder.layout.attention_mask(1)  # [R, 1, S, S], or [R, 1, 1, S]
    mask = mask.reshape(rows, mask.shape[2], length)
    tokens = memoize("is_token", lambda: encoder.layout.text_masks().sum(dim=1).reshape(rows, length, 1), of=input_mask)
    vectors = []
    for head in map(names.POOLING_HEAD.format, range(encoder.config.pooling_heads)):
        query, key = (encoder.linear(x, head + dense).reshape(rows, length, -1) for dense in (names.POOLING_QUERY, names.POOLING_KEY))
        key = key * tokens  # whatever the state at padding is, the mask is enough
        probs = flow.softmax(flow.matmul(query, key, transpose_b=True) + mask, dim=-1)  # [R, S, S]
        vectors.append(flow.matmul(flow.matmul(weights, probs), hidden).reshape(-1, width))  # the sum over queries first: [R, C, S]
    return vectors[0] if len(vectors) == 1 else flow.cat(vectors, dim=1)


def masked_max(hidden, input_mask, device):
    """Maximum of the hidden states over the real tokens of each text. Of equal values the first gets the gradient.

    The value is gathered at the argmax: OneFlow 0.8.0 crashes on the CPU in the gradient of its own max over an axis, and 0.9.0 is
    four times slower there. A rank-one GEMM spreads the mask out, because column broadcasts are slow on a CPU.

    Args:
        hidden: [B, S, H].
        input_mask: [B, S], 1 at real tokens; every row has at least one.
        device: "cpu" or "cuda".
    Returns:
        [B, H].
    """
    batch, length, hidden_size = hidden.shape
    away = (input_mask.to(flow.float32) - 1.0) * 1e8  # as in MEAD: 0 at tokens; at padding far below any state
    away = flow.matmul(away.reshape(batch * length, 1), parallel.constant((1, hidden_size), 1.0, device))  # [T, H]
    places = flow.argmax(hidden + away.reshape(batch, length, hidden_size), dim=1, keepdim=True)  # [B, 1, H]
    return flow._C.dim_gather(hidden, 1, places).reshape(batch, hidden_size)


def pool(hidden, input_mask, pooling, device, starts=None):
    """Pools hidden [B, S, H] with input_mask [B, S] -> [B, H].

    Args:
        pooling: one of `modeling.cli.choices.CLASSIFIER_POOLINGS` without heads; CLS is the state without a dense layer, as RAW_CLS.
        starts: [R, C, S] of a packed batch (modeling/bert/sequence_layout.py), with hidden [R, S, H] and input_mask [R, C, S]; not for
            MAX.
    """
    if pooling in (CLS, RAW_CLS):
        return hidden[:, 0] if starts is None else flow.matmul(starts, hidden).reshape(-1, hidden.shape[2])
    reductions = {MEAN: masked_mean, SQRT_LENGTH: sqrt_length_pool}
    return reductions[pooling](hidden, input_mask) if pooling in reductions else masked_max(hidden, input_mask, device)
