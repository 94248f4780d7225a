"""Metric learning: losses of text vectors that are near for texts of equal labels, as graph functions.

    contrastive    mean over pairs of (cos(a, b) - s)^2, s = 1 for equal labels, else 0
                   (Reimers and Gurevych 2019, arXiv 1908.10084; Tunstall et al. 2022, SetFit, arXiv 2209.11055)
    prototypical   mean over query rows x of -log softmax_k(-f |x - c_k|^2)[label of x], c_k the mean of the support rows of label k,
                   f a factor that is 1 in the paper (Snell et al. 2017, arXiv 1703.05175)

tests/modeling/objectives/test_metric.py has a NumPy reference for each. A nearest-mean classifier is linear: -f |x - c|^2 is
2 f c x - f |c|^2 plus a term that is the same for all labels.
"""

import numpy as np

from modeling.bert.encoder import build_bert
from modeling.engine.runtime import flow
from modeling.objectives.losses import cross_entropy, stack_metrics, symmetric_divergence

_LEAST_SQUARE = 1e-12  # of a norm in a cosine


def pair_cosines(vectors):
    """Cosines of pairs.

    Args:
        vectors: [2 P, H]; rows 2 i and 2 i + 1 are pair i.
    Returns:
        [P].
    """
    pairs = vectors.reshape(-1, 2, vectors.shape[1])
    first, second = pairs[:, 0], pairs[:, 1]  # [P, H]
    norms = flow.sqrt((first * first).sum(dim=1) * (second * second).sum(dim=1) + _LEAST_SQUARE)
    return (first * second).sum(dim=1) / norms


def contrastive_loss(vectors, target, terms=0):
    """The contrastive loss of P pairs.

    Args:
        vectors: [2 P, H], as for `pair_cosines`.
        target: s, float32 [P], 1 or 0.
        terms: number of columns of the metrics for `Smoothness`. They are 0: a pair has no label predictions.
    Returns:
        (loss, metrics) in the order of `finetuning_metrics`. The accuracy is the share of the pairs whose cosine is on the target's side
        of 1/2.
    """
    cosines = pair_cosines(vectors)
    difference = cosines - target
    loss = (difference * difference).mean()
    accuracy = ((cosines - 0.5) * (target - 0.5) > 0).to(flow.float32).mean()
    return loss, _metrics(loss, loss, (), terms, accuracy)


def _metrics(loss, label_loss, found, terms, accuracy):
    """The metrics in the order of `finetuning_metrics`: the first of its terms are `found`, the others 0."""
    if not terms:
        return stack_metrics(loss, accuracy)
    return stack_metrics(loss, label_loss, *found, *[label_loss * 0.0] * (terms - len(found)), accuracy)


def prototypical_loss(vectors, target, labels, support, scale=1.0, others=None, consistency_weight=0.0, terms=0):
    """The loss of E episodes of prototypical networks.

    Args:
        vectors: [E R, H]. The R rows of an episode are K support rows of the first label, K of the second one, …, then the query rows.
        target: positions of the query rows' labels in the episode, int32 [E, Q].
        labels, support: number of labels, and K.
        scale: f.
        others: vectors of a second pass with other dropout masks, or None.
        consistency_weight: weight of the disagreement of the predictions of the two passes.
        terms: number of columns of the metrics for `Smoothness`; at least 1 with a second pass. The others are 0.
    Returns:
        (loss, metrics) in the order of `finetuning_metrics`. The accuracy is that of the query rows.
    """
    logits, wanted = _query_logits(vectors, target.shape[0], labels, support, scale), target.reshape(-1)
    label_loss = cross_entropy(logits, wanted).mean()
    accuracy = (flow.argmax(logits, dim=-1) == wanted.to(flow.int64)).to(flow.float32).mean()
    if others is None:
        return label_loss, _metrics(label_loss, label_loss, (), terms, accuracy)
    consistency = symmetric_divergence(logits, _query_logits(others, target.shape[0], labels, support, scale)).mean()
    loss = label_loss + consistency * consistency_weight
    return loss, _metrics(loss, label_loss, (consistency,), terms, accuracy)


def _query_logits(vectors, episodes, labels, support, scale):
    """-f |x - c_k|^2 up to a term that is the same for all labels, for the query rows of E episodes: [E Q, N]."""
    width = vectors.shape[1]
    rows = vectors.reshape(episodes, -1, width)
    prototypes = rows[:, : labels * support].reshape(episodes, labels, support, width).mean(dim=2)  # [E, N, H]
    queries = rows[:, labels * support :]  # [E, Q, H]
    squares = (prototypes * prototypes).sum(dim=2).reshape(episodes, 1, labels)
    products = flow.matmul(queries, prototypes.permute(0, 2, 1))  # [E, Q, H] @ [E, H, N]
    return ((products * 2.0 - squares) * scale).reshape(-1, labels)


def text_vectors(variables, config, kernels, word_rows, input_mask, segment_ids, dropout=None, starts=None, positions=None):
    """The vector of each text that a classifier reads, [B, H] (`BertOutput.pooled`); arguments as for `build_bert`."""
    text = word_rows, input_mask, segment_ids
    return build_bert(variables, config, kernels, *text, dropout, pooled_only=True, starts=starts, positions=positions).pooled


def predict_vectors(variables, config, kernels, **text):
    """`text_vectors` of a predict function, without dropout."""
    return text_vectors(variables, config, kernels.for_prediction, **text)


def grouped_vectors(variables, config, kernels, texts, dropout, **grouped):
    """`text_vectors` of texts that a batch holds in groups, so that no group is divided among lanes, parts or ranks.

    Args:
        texts: T, texts of a group.
        dropout: `Dropout` or None.
        grouped: word_rows, input_mask, segment_ids, int32 [G, T S].
    Returns:
        [G T, H].
    """
    length = grouped["word_rows"].shape[1] // texts
    return text_vectors(variables, config, kernels, dropout=dropout, **{name: value.reshape(-1, length) for name, value in grouped.items()})


def nearest_mean_classifier(vectors, label, num_labels, scale=1.0):
    """The linear classifier with the logits -f |x - c_k|^2 up to a term common to all labels, c_k the mean vector of label k.

    Args:
        vectors: float [N, H].
        label: int [N]; each label has a row.
        num_labels: C.
        scale: f.
    Returns:
        (weights float32 [C, H], bias float32 [C]).
    """
    means = np.stack([vectors[label == number].astype(np.float64).mean(axis=0) for number in range(num_labels)])
    return (2.0 * scale * means).astype(np.float32), (-scale * np.square(means).sum(axis=1)).astype(np.float32)
