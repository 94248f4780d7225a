"""The objectives of Meta Fine-tuning (section 3.2) and of plain fine-tuning: what a train function minimises and reports.

Each objective builds the encoder and passes its logits to a loss, which is a function of tensors alone.
"""

from typing import NamedTuple, Optional

from modeling.bert.config import BertConfig
from modeling.bert.dropout import Dropout
from modeling.bert.encoder import build_bert
from modeling.bert.heads import classification_logits, domain_logits, domain_representation
from modeling.engine.runtime import flow
from modeling.objectives.corruption import corrupted_domain_accuracy, corrupted_domain_loss, corruption_targets
from modeling.objectives.losses import PLAIN, batch_mean, label_losses, label_measure, measure_name, stack_metrics
from modeling.objectives.smoothness import NOT_SMOOTH, Smoothness, smoothness_terms, terms_of

FINETUNING_METRICS = ("loss", "accuracy")
META_METRICS = ("loss", "classification_loss", "domain_loss", "accuracy", "domain_accuracy")


def finetuning_metrics(smoothness: Smoothness, label_loss=PLAIN) -> tuple:
    """Names of the metrics of `finetuning_objective`."""
    return terms_of(("loss", measure_name(label_loss)), smoothness)


def meta_metrics(smoothness: Smoothness) -> tuple:
    """Names of the metrics of `meta_objective`."""
    return (*META_METRICS, *smoothness.names)


class LossAndAccuracy(NamedTuple):
    """Of one classifier on a batch; scalars."""

    loss: object
    accuracy: object  # or the other measures of `label_measure`


def classification_loss(logits, label, loss_mask, sample_weights=None, label_loss=PLAIN) -> LossAndAccuracy:
    """Mean loss of the label classifier over the real samples: cross-entropy, unless `label_loss` says otherwise.

    Args:
        logits: [B, C].
        label: as for `label_losses`.
        loss_mask: float32 [B] with mean 1; 0 for the rows that only fill up the last batch.
        sample_weights: factors of the samples' losses, float32 [B]; None for 1. They multiply the class weights.
        label_loss: `LabelLoss`.
    """
    losses = label_losses(logits, label, label_loss)
    losses = losses if sample_weights is None else sample_weights * losses
    return LossAndAccuracy(batch_mean(losses, loss_mask), label_measure(logits, label, loss_mask, label_loss))


def domain_loss(of_domains, corrupted_domain, loss_mask) -> LossAndAccuracy:
    """Mean cross-entropy of the domain classifier with the corrupted domains, over layers and real samples.

    Args:
        of_domains: domain logits of n layers, layer by layer, [n * B, K].
        corrupted_domain: z, int32 [B, m]; each of the m domains has the same probability.
        loss_mask: as for `classification_loss`.
    """
    targets = corruption_targets(corrupted_domain, of_domains.shape[1])
    loss = batch_mean(corrupted_domain_loss(of_domains, targets), loss_mask)
    return LossAndAccuracy(loss, corrupted_domain_accuracy(of_domains, targets, loss_mask))


def meta_loss(classification: LossAndAccuracy, of_domain: Optional[LossAndAccuracy], domain_loss_weight: float):
    """MFT's loss, classification loss + lambda * domain loss.

    Args:
        classification: of `classification_loss`, with the prototypical scores as sample weights.
        of_domain: of `domain_loss`; None leaves the domain loss out, and it is reported as 0.
        domain_loss_weight: lambda.
    Returns:
        (loss, metrics [5]) in the order of META_METRICS.
    """
    if of_domain is None:
        zero = classification.accuracy * 0.0
        return classification.loss, stack_metrics(classification.loss, classification.loss, zero, classification.accuracy, zero)
    loss = classification.loss + of_domain.loss * domain_loss_weight
    return loss, stack_metrics(loss, classification.loss, of_domain.loss, classification.accuracy, of_domain.accuracy)


def finetuning_objective(
    variables,
    config: BertConfig,
    kernels,
    dropout: Optional[Dropout],
    word_rows,
    input_mask,
    segment_ids,
    label,
    loss_mask,
    starts=None,
    positions=None,
    embedding_noise=None,
    label_loss=PLAIN,
    smoothness=NOT_SMOOTH,
):
    """Plain fine-tuning: mean loss of the label classifier over the real samples.

    Args:
        variables: the graph's view of a `Variables`.
        config: `BertConfig`.
        kernels: from `select_kernels`.
        dropout: the `Dropout` of the step, or None.
        word_rows, input_mask, segment_ids, starts, positions: see `build_bert`.
        label, loss_mask, label_loss: see `classification_loss`.
        embedding_noise: see `with_noise`.
        smoothness: settings of the terms that compare several passes. The other terms are those of the first pass.
    Returns:
        (loss, metrics) in the order of `finetuning_metrics`.
    """
    text = word_rows, input_mask, segment_ids
    bert = build_bert(variables, config, kernels, *text, dropout, pooled_only=True, starts=starts, positions=positions)
    logits = classification_logits(variables, kernels, bert.pooled, dropout)
    classification = classification_loss(logits, label, loss_mask, label_loss=label_loss)
    again = _further_pass(config, kernels, dropout, text, starts, positions)
    terms, total = smoothness_terms(logits, again, variables, smoothness, loss_mask, input_mask, embedding_noise, kernels.device)
    if not terms:
        return classification.loss, stack_metrics(*classification)
    loss = classification.loss + total
    return loss, stack_metrics(loss, classification.loss, *terms, classification.accuracy)


def _further_pass(config, kernels, dropout, text, starts, positions):
    """The function of (variables, shift of the word embeddings) -> label logits that `smoothness_terms` takes."""

    def logits(variables, shift):
        bert = build_bert(variables, config, kernels, *text, dropout, True, starts, positions, shift)
        return classification_logits(variables, kernels, bert.pooled, dropout)

    return logits


def meta_objective(
    variables,
    config: BertConfig,
    kernels,
    dropout: Optional[Dropout],
    domain_layers: tuple,
    domain_loss_weight: float,
    word_rows,
    input_mask,
    segment_ids,
    domain,
    label,
    sample_weights,
    corrupted_domain,
    loss_mask,
    starts=None,
    positions=None,
    embedding_noise=None,
    label_loss=PLAIN,
    smoothness=NOT_SMOOTH,
):
    """MFT's objective (section 3.2), which also trains Meta-KD's meta-teacher:

        mean_i t_i CE(y_i) + lambda * mean_i mean_{l in Ls} CE(z_i; domain logits of l)

    Args:
        variables, config, kernels, dropout: as for `finetuning_objective`.
        domain_layers: Ls, encoder layers from 0.
        domain_loss_weight: lambda; with 0 the graph has no domain classifier.
        word_rows, input_mask, segment_ids, starts, positions: see `build_bert`.
        domain: true domains, int32 [B].
        label: y, int32 [B].
        sample_weights: prototypical scores t, float32 [B]; they weight the classification loss only.
        corrupted_domain: z, int32 [B, m], see `with_corrupted_domains`.
        loss_mask: float32 [B] with mean 1; 0 for the rows that only fill up the last batch.
        label_loss: `LabelLoss`, the form of CE(y_i).
        embedding_noise, smoothness: as for `finetuning_objective`.
    Returns:
        (loss, metrics) in the order of `meta_metrics`.
    """
    text = word_rows, input_mask, segment_ids
    bert = build_bert(variables, config, kernels, *text, dropout, starts=starts, positions=positions)
    logits = classification_logits(variables, kernels, bert.pooled, dropout)
    # The order of a graph's operations is that of these calls; a run's last bits depend on it
    classification, of_domain = classification_loss(logits, label, loss_mask, sample_weights, label_loss), None
    if domain_loss_weight:
        states = [bert.hidden_states[layer + 1] for layer in domain_layers]
        of_domains = domain_logits(variables, domain_representation(variables, states, input_mask, domain))
        of_domain = domain_loss(of_domains, corrupted_domain, loss_mask)
    loss, metrics = meta_loss(classification, of_domain, domain_loss_weight)
    again = _further_pass(config, kernels, dropout, text, starts, positions)
    terms, total = smoothness_terms(logits, again, variables, smoothness, loss_mask, input_mask, embedding_noise, kernels.device)
    if not terms:
        return loss, metrics
    loss = loss + total
    return loss, flow.cat([loss.reshape(1), metrics[1:], *(term.reshape(1) for term in terms)], dim=0)


def predict_logits(variables, config: BertConfig, kernels, word_rows, input_mask, segment_ids, starts=None, positions=None):
    """Label logits [B, C] of a predict function, without dropout; arguments as for `finetuning_objective`."""
    kernels = kernels.for_prediction
    text = word_rows, input_mask, segment_ids
    bert = build_bert(variables, config, kernels, *text, pooled_only=True, starts=starts, positions=positions)
    return classification_logits(variables, kernels, bert.pooled)
