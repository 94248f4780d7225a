"""Masked language modelling (Devlin et al. 2019): the loss of the masked tokens of a batch.

    sum_i w_i CE_i / sum_i w_i      over the masked tokens i of the whole batch, w_i = 1, CE_i = -log softmax(E h'_i + c)[token i]

Only the states of masked tokens are multiplied by the word embeddings E. They are picked out by a product with zeros and ones, because the
rows of a batch are divided among parts, lanes and ranks, so that no row knows its number.
"""

from typing import Optional

from modeling.bert.config import BertConfig
from modeling.bert.dropout import Dropout
from modeling.bert.encoder import build_bert
from modeling.bert.heads import token_logits
from modeling.engine.runtime import flow
from modeling.objectives.losses import stack_metrics

LANGUAGE_METRICS = ("loss", "mlm_accuracy")


def predicted_tokens(variables, config: BertConfig, kernels, hidden, masked_places, masked_ids):
    """The predictions at some places of each row, from the states of the last layer.

    Args:
        variables: the graph's view of a `Variables` that holds all word embeddings.
        config: `BertConfig`.
        kernels: from `select_kernels`.
        hidden: [B, S, H].
        masked_places: float32 [B, P, S], 1 at the place of each token to predict.
        masked_ids: int32 [B, P], these tokens.
    Returns:
        ([B, P]: CE, [B, P]: 1 where the largest logit is that of the token, else 0; [B P, V]: the logits).
    """
    shape, wanted = masked_ids.shape, masked_ids.reshape(-1)
    states = flow.matmul(masked_places, hidden).reshape(-1, hidden.shape[2])  # [B, P, S] @ [B, S, H] -> [B P, H]
    logits = token_logits(variables, config, kernels, states)  # [B P, V]
    losses = kernels.index_cross_entropy(logits, wanted).reshape(*shape)
    hits = (flow.argmax(logits, dim=-1) == wanted.to(flow.int64)).to(flow.float32).reshape(*shape)
    return losses, hits, logits


def sums_of_states(variables, config: BertConfig, kernels, hidden, masked_places, masked_ids, masked_weights):
    """Weighted sums over the masked tokens of each row.

    Args:
        variables, config, kernels, hidden, masked_places, masked_ids: as for `predicted_tokens`.
        masked_weights: w, float32 [B, P].
    Returns:
        ([B]: sum_p w CE, [B]: sum_p w [the largest logit is that of the token]).
    """
    losses, hits, _ = predicted_tokens(variables, config, kernels, hidden, masked_places, masked_ids)
    return (losses * masked_weights).sum(dim=1), (hits * masked_weights).sum(dim=1)


def masked_sums(variables, config: BertConfig, kernels, dropout: Optional[Dropout], word_rows, input_mask, segment_ids, **masked):
    """`sums_of_states` of the encoder's states.

    Args:
        variables, config, kernels: as for `sums_of_states`.
        dropout: the `Dropout` of the step, or None.
        word_rows, input_mask, segment_ids: see `build_bert`; word_rows with masks.
        masked: masked_places, masked_ids, masked_weights, as for `sums_of_states`.
    """
    bert = build_bert(variables, config, kernels, word_rows, input_mask, segment_ids, dropout, pools=False)
    return sums_of_states(variables, config, kernels, bert.hidden_states[-1], **masked)


def masked_lm_objective(variables, config: BertConfig, kernels, dropout, loss_mask, **batch):  # noqa: ARG001  the weights hold it
    """The loss of a training step: the mean over the rows of `masked_sums`. With the weights of `corpus_batches.batch_weights` it is the
    weighted mean over all masked tokens of the batch, whatever the parts, lanes and ranks.

    Returns:
        (loss, metrics [2]) in the order of LANGUAGE_METRICS.
    """
    losses, hits = masked_sums(variables, config, kernels, dropout, **batch)
    loss = losses.mean()
    return loss, stack_metrics(loss, hits.mean())


def predict_masked(variables, config: BertConfig, kernels, **batch):
    """[B, 3] of a predict function: the two sums of `masked_sums`, without dropout, and the sum of the weights."""
    sums = *masked_sums(variables, config, kernels.for_prediction, None, **batch), batch["masked_weights"].sum(dim=1)
    return flow.cat([column.reshape(-1, 1) for column in sums], dim=1)
