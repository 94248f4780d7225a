"""Hidden states of a text's tokens to one vector: at [CLS], their mean, or their largest values; padding contributes nothing.

Dimension letters: see modeling/bert/encoder.py.
"""

from modeling.bert.config import CLS, MEAN
from modeling.engine import parallel
from modeling.engine.memo import once
from modeling.engine.runtime import flow


def masked_mean(hidden, input_mask):
    """Mean of hidden [B, S, H] over the real positions of input_mask [B, S] -> [B, H]; a text without tokens gives zeros. Where C texts
    share a row: hidden [R, S, H], input_mask [R, C, S], B = R * C."""
    rows, length, hidden_size = hidden.shape

    def shares():
        mask = input_mask.to(flow.float32)
        count = flow.clamp(mask.sum(dim=-1, keepdim=True), min=1.0)
        return (mask / count).reshape(rows, -1, length)

    return flow.matmul(once("shares", shares, of=input_mask), hidden).reshape(-1, hidden_size)  # [R, C, S] @ [R, S, H]


def masked_max(hidden, input_mask, device):
    """Largest value of hidden [B, S, H] over the real positions of input_mask [B, S] -> [B, H]; each row has a token.

    The gradient goes to the first of equal values. Taken from the place of the maximum: OneFlow 0.8.0 crashes on the gradient of its
    own max over an axis on a CPU, and 0.9.0 is four times slower there. The mask is spread out by a rank-one GEMM, since column
    broadcasts are slow on a CPU.
    """
    batch, length, hidden_size = hidden.shape
    away = (input_mask.to(flow.float32) - 1.0) * 10000.0  # 0 at tokens, at padding far below what LayerNorm puts out
    away = flow.matmul(away.reshape(batch * length, 1), parallel.constant((1, hidden_size), 1.0, device))  # [T, H]
    places = flow.argmax(hidden + away.reshape(batch, length, hidden_size), dim=1, keepdim=True)  # [B, 1, H]
    return flow._C.dim_gather(hidden, 1, places).reshape(batch, hidden_size)


def pool(hidden, input_mask, pooling, device):
    """hidden [B, S, H] and input_mask [B, S] -> [B, H], by one of `modeling.bert.config.POOLINGS`."""
    if pooling == CLS:
        return hidden[:, 0]
    return masked_mean(hidden, input_mask) if pooling == MEAN else masked_max(hidden, input_mask, device)
