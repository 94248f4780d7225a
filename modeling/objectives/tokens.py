"""Objectives of a dense layer on each token (BERT, Devlin et al. 2019, sections 4.2 and 5.3): the tags of words, and where an answer starts
and ends."""

from typing import Optional

from modeling.bert.config import BertConfig
from modeling.bert.dropout import Dropout
from modeling.bert.encoder import build_bert
from modeling.bert.heads import dense_logits
from modeling.bert.names import SPAN_HEAD, TAG_HEAD
from modeling.engine.runtime import flow
from modeling.objectives.losses import batch_mean, cross_entropy, stack_metrics, symmetric_divergence
from modeling.objectives.smoothness import NOT_SMOOTH, smoothness_terms

TAGGING_METRICS = ("loss", "tag_accuracy")
SPAN_METRICS = ("loss", "start_accuracy", "end_accuracy")
_NOWHERE = 10000.0  # taken off the logits of places where no answer may start or end


def _states(variables, config, kernels, dropout, word_rows, input_mask, segment_ids, shift=None):
    """States of the last layer, [T, H]. `shift`: of the word embeddings, see `build_bert`."""
    bert = build_bert(variables, config, kernels, word_rows, input_mask, segment_ids, dropout, shift=shift, pools=False)
    return bert.hidden_states[-1].reshape(-1, config.hidden_size)


def tagging_loss(logits, tag_ids, tag_weights):
    """Mean cross-entropy of the pieces that have a tag.

    Args:
        logits: [B * S, C].
        tag_ids: int32 [B, S].
        tag_weights: float32 [B, S] as of `ofrecord_util.tagging.with_tags`, 0 where there is no tag. A mean over rows is what the parts,
            lanes and ranks of a step compute together.
    Returns:
        (loss, metrics [2]) in the order of TAGGING_METRICS.
    """
    wanted = tag_ids.reshape(-1)
    losses = cross_entropy(logits, wanted).reshape(*tag_ids.shape)
    hits = (flow.argmax(logits, dim=-1) == wanted.to(flow.int64)).to(flow.float32).reshape(*tag_ids.shape)
    loss = (losses * tag_weights).sum(dim=1).mean()
    return loss, stack_metrics(loss, (hits * tag_weights).sum(dim=1).mean())


def _with_terms(loss, metrics, terms, total):
    """(loss, metrics) of an objective with the terms of `smoothness_terms`, in the order of `terms_of`."""
    if not terms:
        return loss, metrics
    whole = loss + total
    return whole, flow.cat([whole.reshape(1), metrics[:1], *(term.reshape(1) for term in terms), metrics[1:]], dim=0)


def tagging_objective(
    variables,
    config: BertConfig,
    kernels,
    dropout: Optional[Dropout],
    word_rows,
    input_mask,
    segment_ids,
    tag_ids,
    tag_weights,
    embedding_noise=None,
    smoothness=NOT_SMOOTH,
):
    """`tagging_loss` of the encoder's states, with dropout before the dense layer, as BertForTokenClassification of transformers. The terms
    of `smoothness` are means over the tokens that have a tag; SOFA has those of [CLS] and [SEP], too.

    Args:
        variables: the graph's view of a `Variables`.
        config: `BertConfig`.
        kernels: from `select_kernels`.
        dropout: the `Dropout` of the step, with masks for all tokens (`DropoutPlan.of_tokens`), or None.
        word_rows, input_mask, segment_ids: see `build_bert`.
        tag_ids, tag_weights: as for `tagging_loss`.
        embedding_noise, smoothness: as for `finetuning_objective`.
    Returns:
        (loss, metrics) in the order of `terms_of(TAGGING_METRICS, smoothness)`.
    """

    def again(variables, shift):
        states = _states(variables, config, kernels, dropout, word_rows, input_mask, segment_ids, shift)
        return dense_logits(variables, kernels, TAG_HEAD, states, dropout.hidden() if dropout else None)

    def compare(one, other):
        return (symmetric_divergence(one, other).reshape(*tag_ids.shape) * tag_weights).sum(dim=1)

    logits = again(variables, None)
    loss, metrics = tagging_loss(logits, tag_ids, tag_weights)
    passes = logits, again, variables, smoothness, None, input_mask, embedding_noise, kernels.device
    return _with_terms(loss, metrics, *smoothness_terms(*passes, compare))


def predict_tags(variables, config: BertConfig, kernels, word_rows, input_mask, segment_ids):
    """Logits of the tags of all tokens of a predict function, [B, S, C]."""
    kernels = kernels.for_prediction
    states = _states(variables, config, kernels, None, word_rows, input_mask, segment_ids)
    return dense_logits(variables, kernels, TAG_HEAD, states).reshape(*word_rows.shape, -1)


def span_logits(variables, config, kernels, dropout, word_rows, input_mask, segment_ids, shift=None):
    """Logits of the start and of the end of the answer at each token, ([B, S], [B, S]). At padding they are lowered by 10,000, so that the
    length to which a batch is padded does not change the softmax; transformers leaves them."""
    states = _states(variables, config, kernels, dropout, word_rows, input_mask, segment_ids, shift)
    logits = dense_logits(variables, kernels, SPAN_HEAD, states)
    by_end = logits.permute(1, 0).reshape(2, *word_rows.shape)  # [T, 2] -> [2, B, S]
    padding = (input_mask.to(flow.float32) - 1.0) * _NOWHERE
    return by_end[0] + padding, by_end[1] + padding


def span_loss(start_logits, end_logits, start, end, loss_mask):
    """Mean of the cross-entropies of the start and of the end of the answer.

    Args:
        start_logits, end_logits: [B, S].
        start, end: int32 [B], places in the row; 0, the place of [CLS], if it has no answer.
        loss_mask: see `batch_mean`.
    Returns:
        (loss, metrics [3]) in the order of SPAN_METRICS.
    """
    loss, shares = None, []
    for logits, place in ((start_logits, start), (end_logits, end)):
        own = batch_mean(cross_entropy(logits, place), loss_mask)
        loss = own if loss is None else (loss + own) * 0.5
        hit = (flow.argmax(logits, dim=-1) == place.to(flow.int64)).to(flow.float32)
        shares.append(batch_mean(hit, loss_mask))
    return loss, stack_metrics(loss, *shares)


def span_objective(
    variables,
    config: BertConfig,
    kernels,
    dropout: Optional[Dropout],
    word_rows,
    input_mask,
    segment_ids,
    start,
    end,
    loss_mask,
    embedding_noise=None,
    smoothness=NOT_SMOOTH,
    places=None,
):
    """`span_loss` of the encoder's states, without dropout before the dense layer, as BertForQuestionAnswering of transformers. Arguments
    as for `tagging_objective` and `span_loss`.

    Args:
        places: by which number a term of `smoothness` divides the sum of the divergences of start and end: --seq_length, to which SOFA
            pads, so that the padding of a batch does not matter. None for the tokens of a row of the batch.
    Returns:
        (loss, metrics) in the order of `terms_of(SPAN_METRICS, smoothness)`.
    """
    length = word_rows.shape[1]

    def again(variables, shift):
        return flow.cat(span_logits(variables, config, kernels, dropout, word_rows, input_mask, segment_ids, shift), dim=1)  # [B, 2 S]

    def compare(one, other):
        both = [symmetric_divergence(one[:, part], other[:, part]) for part in (slice(0, length), slice(length, 2 * length))]
        return (both[0] + both[1]) * (length / (places or length))

    start_logits, end_logits = span_logits(variables, config, kernels, dropout, word_rows, input_mask, segment_ids)
    loss, metrics = span_loss(start_logits, end_logits, start, end, loss_mask)
    if not smoothness.names:
        return loss, metrics
    logits = flow.cat([start_logits, end_logits], dim=1)
    passes = logits, again, variables, smoothness, loss_mask, input_mask, embedding_noise, kernels.device
    return _with_terms(loss, metrics, *smoothness_terms(*passes, compare))


def predict_spans(variables, config: BertConfig, kernels, word_rows, input_mask, segment_ids):
    """Logits of a predict function, [B, S, 2]: of the start and of the end at each token."""
    start, end = span_logits(variables, config, kernels.for_prediction, None, word_rows, input_mask, segment_ids)
    return flow.cat([logits.reshape(*logits.shape, 1) for logits in (start, end)], dim=2)
