"""Pools the hidden states of a text into one vector: the state at [CLS], the mean, or the maximum. Padding contributes nothing.

Dimension letters: see modeling/bert/encoder.py.
"""

from modeling.bert.config import CLS, MEAN
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
    away = (input_mask.to(flow.float32) - 1.0) * 10000.0  # 0 at tokens; at padding far below any output of a layer norm
    away = flow.matmul(away.reshape(batch * length, 1), parallel.constant((1, hidden_size), 1.0, device))  # [T, H]
    places = flow.argmax(hidden + away.reshape(batch, length, hidden_size), dim=1, keepdim=True)  # [B, 1, H]
    return flow._C.dim_gather(hidden, 1, places).reshape(batch, hidden_size)


def pool(hidden, input_mask, pooling, device, starts=None):
    """Pools hidden [B, S, H] with input_mask [B, S] -> [B, H].

    Args:
        pooling: one of `modeling.bert.config.POOLINGS`.
        starts: [R, C, S] of a packed batch (modeling/bert/sequence_layout.py), with hidden [R, S, H] and input_mask [R, C, S]; not for
            MAX.
    """
    if pooling == CLS:
        return hidden[:, 0] if starts is None else flow.matmul(starts, hidden).reshape(-1, hidden.shape[2])
    return masked_mean(hidden, input_mask) if pooling == MEAN else masked_max(hidden, input_mask, device)
