"""The losses of a dual encoder on the pairs of a group, as graph functions (ConveRT, arXiv 1911.03688, as in MEAD's pretrain_paired).

With unit vectors q_i and r_i of the two texts of pair i, S_ij = q_i r_j, CE the mean cross-entropy of the rows with the diagonal as labels:

    contrastive    CE(e^t S), t learnt, 1 at the start
    symmetric      (CE(e^t S) + CE(e^t S')) / 2, S' the transpose
    all            P CE(c S), c from 1 to the root of H linearly in 10,000 steps
    triplet        sum over i of max(0, S_ij - S_ii), j = P - 1 - i

Each group of a batch has its own loss; that of a step is their mean.
"""

import math

import numpy as np

from modeling.bert.names import TEMPERATURE
from modeling.cli.choices import ALL_PAIRS, CONTRASTIVE_PAIRS, SYMMETRIC, TRIPLET
from modeling.engine.runtime import flow
from modeling.objectives.losses import cross_entropy, stack_metrics

TEMPERATURE_START = 1.0  # t
SCALE_STEPS = 10_000
_LEAST_SQUARE = 1e-12  # of a norm


def learns_temperature(loss):
    """Whether a loss has a learnt temperature."""
    return loss in (CONTRASTIVE_PAIRS, SYMMETRIC)


def pair_metrics(loss):
    """Names of the metrics of `pair_loss`, the loss first."""
    return ("loss", "pair_accuracy", "temperature") if learns_temperature(loss) else ("loss", "pair_accuracy")


def temperature_shapes(loss):
    """dict of name -> shape of the variables of a loss. No snapshot stores them."""
    return {TEMPERATURE: (1, 1)} if learns_temperature(loss) else {}


def scale_of(step, width):
    """c of the loss `all` in a step (from 0), for vectors of `width` numbers."""
    return 1.0 + (math.sqrt(width) - 1.0) * min(1.0, step / SCALE_STEPS)


def pair_loss(vectors, target, loss, temperature=None, scale=None):
    """The loss of G groups of P pairs.

    Args:
        vectors: [2 G P, H]; rows 2 i and 2 i + 1 are pair i.
        target: int32 [G, P], 0 to P - 1 in each group.
        loss: of `choices.PAIR_LOSSES`.
        temperature: t minus its start, [1, 1], for losses with a learnt one.
        scale: c, float32 [G, 1], for `all`.
    Returns:
        (loss, metrics) in the order of `pair_metrics`. The accuracy is the share of the pairs whose second text is the nearest one of its
        group.
    """
    (groups, pairs), width = target.shape, vectors.shape[1]
    norms = flow.sqrt((vectors * vectors).sum(dim=1, keepdim=True) + _LEAST_SQUARE)
    units = (vectors / norms).reshape(groups, pairs, 2, width)
    products = flow.matmul(units[:, :, 0], units[:, :, 1].permute(0, 2, 1))  # S, [G, P, H] @ [G, H, P]
    wanted = target.reshape(-1)
    nearest = flow.argmax(products.reshape(-1, pairs), dim=-1) == wanted.to(flow.int64)
    accuracy = nearest.to(flow.float32).mean()
    if loss == TRIPLET:
        places = target.to(flow.int64).reshape(groups, pairs, 1)
        own, other = (flow._C.dim_gather(products, 2, place) for place in (places, places * -1 + (pairs - 1)))  # [G, P, 1]
        value = flow.relu(other - own).sum() * (1.0 / groups)
        return value, stack_metrics(value, accuracy)
    if loss == ALL_PAIRS:
        value = _mean_loss(products * scale.reshape(groups, 1, 1), wanted) * float(pairs)
        return value, stack_metrics(value, accuracy)
    temperature = temperature + TEMPERATURE_START
    logits = products * flow.exp(temperature).reshape(1, 1, 1)
    value = _mean_loss(logits, wanted)
    if loss == SYMMETRIC:
        value = (value + _mean_loss(logits.permute(0, 2, 1), wanted)) * 0.5
    return value, stack_metrics(value, accuracy, temperature)


def _mean_loss(logits, wanted):
    """The mean cross-entropy of the rows of [G, P, P]."""
    return cross_entropy(logits.reshape(-1, logits.shape[2]), wanted).mean()


def compare_pairs(vectors, blocks):
    """Which second texts are found among those of a block.

    Args:
        vectors: float [2 N, H]; rows 2 i and 2 i + 1 are pair i.
        blocks: list of (int array [C] of pairs, number of those that are counted, from the first one), which count each of 0 to N - 1 once.
    Returns:
        (hits bool [N]: the second text of the pair is nearer to its first one than all others of the block are; losses float64 [N]: the
        cross-entropy of the row of the loss `contrastive`, with t at its start so that the losses of several runs compare).
    """
    vectors = np.asarray(vectors, np.float64)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), math.sqrt(_LEAST_SQUARE))
    hits, losses = np.zeros(len(units) // 2, bool), np.zeros(len(units) // 2)
    for block, number in blocks:
        counted = block[:number]
        products = units[2 * counted] @ units[2 * block + 1].T  # [number, C]
        own = np.diag(products).copy()
        logits = products * math.exp(TEMPERATURE_START)
        losses[counted] = np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)
        np.fill_diagonal(products, -np.inf)
        hits[counted] = own > products.max(axis=1)
    return hits, losses
