"""The pre-training of StructBERT (arXiv 1908.04577): masked language modelling, word structure and sentence structure with equal weight.

    mean CE of masked tokens  +  mean CE of shuffled tokens  +  mean CE of the classes of sentence pairs

Each mean is over the whole batch (see modeling/objectives/masked_lm.py). ofrecord_util/structure.py makes the batches. One head predicts
masked and shuffled tokens; the head of sentence pairs is linear in the pooled state at [CLS].
"""

import dataclasses

from modeling.bert.config import CLS, BertConfig
from modeling.bert.encoder import build_bert
from modeling.bert.heads import sentence_logits
from modeling.engine.runtime import flow
from modeling.objectives.losses import cross_entropy, stack_metrics
from modeling.objectives.masked_lm import predicted_tokens

STRUCTURAL_METRICS = (
    "loss",
    "mlm_loss",
    "word_structure_loss",
    "sentence_structure_loss",
    "mlm_accuracy",
    "word_structure_accuracy",
    "sentence_structure_accuracy",
)


def structural_objective(
    variables,
    config: BertConfig,
    kernels,
    dropout,
    word_rows,
    input_mask,
    segment_ids,
    masked_places,
    masked_ids,
    masked_weights,
    shuffled_weights,
    sentence,
    sentence_weights,
    loss_mask,  # noqa: ARG001  the weights hold it
):
    """The loss of a training step.

    Args:
        variables: the graph's view of a `Variables` that holds all word embeddings, the pooler and both heads.
        config, kernels, dropout, word_rows, input_mask, segment_ids: see `build_bert`.
        masked_places, masked_ids: as for `predicted_tokens`, the masked and the shuffled tokens.
        masked_weights, shuffled_weights: float32 [B, P], of `corpus_batches.batch_weights`.
        sentence: int32 [B], classes of the pairs.
        sentence_weights: float32 [B].
    Returns:
        (loss, metrics [7]) in the order of STRUCTURAL_METRICS.
    """
    config = dataclasses.replace(config, pooling=CLS)  # also if classifiers of the model take the mean
    bert = build_bert(variables, config, kernels, word_rows, input_mask, segment_ids, dropout)
    losses, hits, _ = predicted_tokens(variables, config, kernels, bert.hidden_states[-1], masked_places, masked_ids)
    logits = sentence_logits(variables, bert.pooled)  # [B, C]
    pair_losses = cross_entropy(logits, sentence) * sentence_weights
    pair_hits = (flow.argmax(logits, dim=-1) == sentence.to(flow.int64)).to(flow.float32) * sentence_weights
    loss = (losses * (masked_weights + shuffled_weights)).sum(dim=1).mean() + pair_losses.mean()
    of_tokens = [(values * weights).sum(dim=1).mean() for values in (losses, hits) for weights in (masked_weights, shuffled_weights)]
    return loss, stack_metrics(loss, *of_tokens[:2], pair_losses.mean(), *of_tokens[2:], pair_hits.mean())
