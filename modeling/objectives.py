"""The objectives of the phases, built of losses and heads: what a train function minimises and what it reports."""

from modeling.bert import build_bert
from modeling.heads import classification_logits, domain_logits, domain_representation
from modeling.losses import accuracy, corrupted_domain_loss, cross_entropy, masked_batch_mean
from modeling.prototypes import corrupted_domains
from modeling.runtime import flow

FINETUNING_METRICS = ("loss", "accuracy")
META_METRICS = ("loss", "classification_loss", "domain_loss", "accuracy", "domain_accuracy")


def stack_metrics(*values):
    """Scalars -> one tensor [M], so that a step hands the host one small array."""
    return flow.cat([value.reshape(1) for value in values], dim=0)


def finetuning_objective(variables, config, kernels, dropout, input_ids, input_mask, segment_ids, label, valid):
    """Plain fine-tuning: mean cross-entropy over the real samples.

    Returns:
        (loss, metrics [2]) in the order of FINETUNING_METRICS.
    """
    bert = build_bert(variables, config, kernels, input_ids, input_mask, segment_ids, dropout)
    logits = classification_logits(variables, kernels, bert.pooled, dropout)
    loss = masked_batch_mean(cross_entropy(logits, label), valid)
    return loss, stack_metrics(loss, accuracy(logits, label, valid))


def meta_objective(
    variables,
    config,
    kernels,
    dropout,
    domain_layers,
    domain_loss_weight,
    input_ids,
    input_mask,
    segment_ids,
    domain,
    label,
    weights,
    corrupted_domain,
    valid,
):
    """MFT's objective (section 3.2), also Meta-KD's meta-teacher:

        mean_i t_i CE(y_i) + lambda * mean_i mean_{l in Ls} CE(z_i; domain logits of l)

    Args:
        domain_layers: Ls, encoder layers from 0.
        domain_loss_weight: lambda; 0 leaves the domain head out of the graph.
        weights: prototypical scores t, float32 [B]; they weight the classification loss, sample by sample.
        corrupted_domain: z, int32 [B].
        valid: float32 [B], 0 for rows that fill the last batch up.
    Returns:
        (loss, metrics [5]) in the order of META_METRICS.
    """
    bert = build_bert(variables, config, kernels, input_ids, input_mask, segment_ids, dropout)
    logits = classification_logits(variables, kernels, bert.pooled, dropout)
    classification_loss = masked_batch_mean(weights * cross_entropy(logits, label), valid)
    hits = accuracy(logits, label, valid)
    if domain_loss_weight == 0:
        zero = hits * 0.0
        return classification_loss, stack_metrics(classification_loss, classification_loss, zero, hits, zero)
    by_layer = [
        domain_logits(variables, domain_representation(variables, bert.hidden_states[layer + 1], input_mask, domain))
        for layer in domain_layers
    ]
    domain_loss = masked_batch_mean(corrupted_domain_loss(by_layer, corrupted_domain), valid)
    domain_hits = accuracy(by_layer[0], corrupted_domain, valid)
    for logits_of_layer in by_layer[1:]:
        domain_hits = domain_hits + accuracy(logits_of_layer, corrupted_domain, valid)
    domain_hits = domain_hits * (1.0 / len(by_layer))
    loss = classification_loss + domain_loss * domain_loss_weight
    return loss, stack_metrics(loss, classification_loss, domain_loss, hits, domain_hits)


def with_corrupted_domains(batches, num_domains, seed, start_step=0):
    """Adds `corrupted_domain`, drawn anew for each step, to each batch."""
    for step, batch in enumerate(batches, start=start_step):
        yield dict(batch, corrupted_domain=corrupted_domains(batch["domain"], num_domains, seed, step))


def predict_logits(variables, config, kernels, input_ids, input_mask, segment_ids):
    """Label logits [B, C] without dropout."""
    bert = build_bert(variables, config, kernels, input_ids, input_mask, segment_ids)
    return classification_logits(variables, kernels, bert.pooled)
