"""The losses of an encoder-decoder: the target given the source, and PALM's pre-training.

    generation     sum_t w_t [(1 - e) CE_t + e mean_c -log p_tc] / sum_t w_t      t: tokens of the targets after [CLS], up to and with [SEP]
    pre-training   that loss, plus the masked-language loss of the source on the encoder's memory (modeling/objectives/masked_lm.py)

w_t = 1 for real tokens and 0 for padding. SOFA's fine-tuning of PALM takes the mean over all positions, padding included, because its mask
is applied after the mean: there the model also learns to write [PAD] after [SEP], and short targets count less.
"""

from typing import Optional

from modeling.bert.dropout import Dropout
from modeling.engine.runtime import flow
from modeling.objectives.losses import stack_metrics
from modeling.objectives.masked_lm import sums_of_states
from modeling.palm.config import PalmConfig
from modeling.palm.model import decode, encode, next_token_logits

GENERATION_METRICS = ("loss", "token_accuracy")
PRETRAINING_METRICS = ("loss", "generation_loss", "mlm_loss", "token_accuracy")


def target_sums(
    variables,
    config: PalmConfig,
    kernels,
    dropout: Optional[Dropout],
    word_rows,
    input_mask,
    decoder_rows,
    target_ids,
    target_weights,
    smoothing: float = 0.0,
):
    """Weighted sums over the target tokens of each row.

    Args:
        variables, config, kernels, word_rows, input_mask, decoder_rows, dropout: as for `encode` and `decode`.
        target_ids: int32 [B, Y], the tokens to predict.
        target_weights: w, float32 [B, Y].
        smoothing: e, --label_smoothing.
    Returns:
        ([B]: sum_t w loss, [B]: sum_t w [the largest logit is that of the token], memory [B * S, H]).
    """
    memory = encode(variables, config, kernels, word_rows, input_mask, dropout)
    logits = next_token_logits(variables, decode(variables, config, kernels, memory, input_mask, decoder_rows, dropout))  # [B Y, V]
    wanted, shape = target_ids.reshape(-1), target_ids.shape
    losses = kernels.index_cross_entropy(logits, wanted)
    if smoothing:
        losses = losses * (1.0 - smoothing) - flow.log_softmax(logits, dim=-1).mean(dim=-1) * smoothing
    hits = (flow.argmax(logits, dim=-1) == wanted.to(flow.int64)).to(flow.float32)
    losses, hits = ((values.reshape(*shape) * target_weights).sum(dim=1) for values in (losses, hits))
    return losses, hits, memory


def generation_objective(variables, config: PalmConfig, kernels, dropout, loss_mask, smoothing=0.0, **batch):  # noqa: ARG001
    """The loss of a training step: the mean over the rows of `target_sums`. With the weights of `corpus_batches.batch_weights` it is the
    mean over all target tokens of the batch, whatever the parts, lanes and ranks.

    Returns:
        (loss, metrics [2]) in the order of GENERATION_METRICS.
    """
    losses, hits, _ = target_sums(variables, config, kernels, dropout, smoothing=smoothing, **batch)
    loss = losses.mean()
    return loss, stack_metrics(loss, hits.mean())


def pretraining_objective(
    variables,
    config: PalmConfig,
    kernels,
    dropout,
    loss_mask,  # noqa: ARG001  the weights hold it
    masked_places,
    masked_ids,
    masked_weights,
    smoothing=0.0,
    **batch,
):
    """As `generation_objective`, plus the loss of the masked tokens of the sources. The arrays of masks are those of `sums_of_states`.

    Returns:
        (loss, metrics [4]) in the order of PRETRAINING_METRICS.
    """
    losses, hits, memory = target_sums(variables, config, kernels, dropout, smoothing=smoothing, **batch)
    hidden = memory.reshape(*batch["word_rows"].shape, config.hidden_size)
    masked, _ = sums_of_states(variables, config, kernels, hidden, masked_places, masked_ids, masked_weights)
    generation, mlm = losses.mean(), masked.mean()
    loss = generation + mlm
    return loss, stack_metrics(loss, generation, mlm, hits.mean())


def predict_targets(variables, config: PalmConfig, kernels, **batch):
    """[B, 3] of a predict function: sum_t w CE, sum_t w [hit], sum_t w of each row, without dropout and smoothing."""
    losses, hits, _ = target_sums(variables, config, kernels.for_prediction, None, **batch)
    sums = losses, hits, batch["target_weights"].sum(dim=1)
    return flow.cat([column.reshape(-1, 1) for column in sums], dim=1)
