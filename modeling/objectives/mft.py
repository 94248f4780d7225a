"""The objectives of the phases, built of losses and heads: what a train function minimises and what it reports."""

from typing import NamedTuple

from modeling.bert.encoder import build_bert
from modeling.bert.heads import classification_logits, domain_logits, domain_representation
from modeling.engine.runtime import flow
from modeling.objectives.distillation import (
    ATTENTION,
    HIDDEN,
    LOGITS,
    REPRESENTATION,
    LossWeights,
    attention_loss,
    expertise_weights,
    hidden_loss,
    knowledge_loss,
    soft_cross_entropy,
    sum_terms,
)
from modeling.objectives.losses import (
    accuracy,
    batch_mean,
    corrupted_domain_accuracy,
    corrupted_domain_loss,
    corruption_targets,
    cross_entropy,
)
from modeling.objectives.prototypes import corrupted_domains, other_domains

FINETUNING_METRICS = ("loss", "accuracy")
META_METRICS = ("loss", "classification_loss", "domain_loss", "accuracy", "domain_accuracy")


def stack_metrics(*values):
    """Scalars -> one tensor [M], so that a step hands the host one small array."""
    return flow.cat([value.reshape(1) for value in values], dim=0)


def finetuning_objective(
    variables, config, kernels, dropout, word_rows, input_mask, segment_ids, label, loss_mask, starts=None, positions=None
):
    """Plain fine-tuning: mean cross-entropy over the real samples.

    Args:
        starts, positions: where several texts share a row, see `build_bert`.
    Returns:
        (loss, metrics [2]) in the order of FINETUNING_METRICS.
    """
    text = word_rows, input_mask, segment_ids
    bert = build_bert(variables, config, kernels, *text, dropout, pooled_only=True, starts=starts, positions=positions)
    logits = classification_logits(variables, kernels, bert.pooled, dropout)
    loss = batch_mean(cross_entropy(logits, label), loss_mask)
    return loss, stack_metrics(loss, accuracy(logits, label, loss_mask))


def meta_objective(
    variables,
    config,
    kernels,
    dropout,
    domain_layers,
    domain_loss_weight,
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
):
    """MFT's objective (section 3.2), also Meta-KD's meta-teacher:

        mean_i t_i CE(y_i) + lambda * mean_i mean_{l in Ls} CE(z_i; domain logits of l)

    Args:
        domain_layers: Ls, encoder layers from 0.
        domain_loss_weight: lambda; 0 leaves the domain head out of the graph.
        sample_weights: prototypical scores t, float32 [B]; they weight the classification loss, sample by sample.
        corrupted_domain: z, int32 [B, n] of n equal shares: one drawn domain, or all the others.
        loss_mask: float32 [B] of mean 1, 0 for rows that fill the last batch up.
        starts, positions: where several texts share a row, see `build_bert`.
    Returns:
        (loss, metrics [5]) in the order of META_METRICS.
    """
    text = word_rows, input_mask, segment_ids
    bert = build_bert(variables, config, kernels, *text, dropout, starts=starts, positions=positions)
    logits = classification_logits(variables, kernels, bert.pooled, dropout)
    classification_loss = batch_mean(sample_weights * cross_entropy(logits, label), loss_mask)
    hits = accuracy(logits, label, loss_mask)
    if domain_loss_weight == 0:
        zero = hits * 0.0
        return classification_loss, stack_metrics(classification_loss, classification_loss, zero, hits, zero)
    states = [bert.hidden_states[layer + 1] for layer in domain_layers]
    of_domains = domain_logits(variables, domain_representation(variables, states, input_mask, domain))
    targets = corruption_targets(corrupted_domain, of_domains.shape[1])
    domain_loss = batch_mean(corrupted_domain_loss(of_domains, targets), loss_mask)
    domain_hits = corrupted_domain_accuracy(of_domains, targets, loss_mask)
    loss = classification_loss + domain_loss * domain_loss_weight
    return loss, stack_metrics(loss, classification_loss, domain_loss, hits, domain_hits)


class Distillation(NamedTuple):
    """The settings of `distillation_objective`."""

    loss_weights: LossWeights
    temperature: float
    mapping: tuple  # the teacher layer of each student layer, from 0
    use_sample_weights: bool
    num_frozen: int = 0  # of the student's layers, the first ones: their states do not change, so no term is made of them


def distillation_metrics(plan):
    """Names of what `distillation_objective` reports: the loss, each term that is built, before its factor, and the
    batch's accuracy and mean sample weight."""
    terms = tuple(f"{name}_loss" for name, weight in zip(LossWeights._fields, plan.loss_weights) if weight)
    return ("loss", *terms, "accuracy") + (("sample_weight",) if plan.use_sample_weights else ())


def distillation_objective(
    variables,
    config,
    kernels,
    dropout,
    plan,
    knowledge,
    word_rows,
    input_mask,
    segment_ids,
    domain,
    label,
    sample_weights,
    loss_mask,
):
    """Meta-KD's objective of the student (section 4):

        mean_i w_i [a MSE(P h^S, h^T) + b MSE(A^S, A^T) + c T^2 softCE(z^S/T, z^T/T)] + d CE(y, z^S) + gamma MSE(P r^S, r^T)

    with w_i of `expertise_weights`, or 1; a, b, c, d and gamma of `plan.loss_weights`, a term of factor 0 left out.

    Args:
        config: the student's `BertConfig`.
        plan: `Distillation`.
        knowledge: dict of name -> tensor, as `teacher_knowledge` returns it.
        sample_weights: prototypical scores t, float32 [B].
        loss_mask: float32 [B] of mean 1, 0 for rows that fill the last batch up.
    Returns:
        (loss, metrics) in the order of `distillation_metrics(plan)`.
    """
    bert = build_bert(variables, config, kernels, word_rows, input_mask, segment_ids, dropout)
    logits = classification_logits(variables, kernels, bert.pooled, dropout)
    expertise = expertise_weights(sample_weights, knowledge[LOGITS], label) if plan.use_sample_weights else None

    def weighted(values):
        return batch_mean(values if expertise is None else values * expertise, loss_mask)

    terms = {}
    first, taught = plan.num_frozen, plan.mapping[plan.num_frozen :]
    if plan.loss_weights.hidden:
        states = [knowledge[HIDDEN.format(layer)] for layer in taught]
        own = bert.hidden_states[1 + first :]
        terms["hidden"] = weighted(hidden_loss(variables, own, states, input_mask, kernels.device, first))
    if plan.loss_weights.attention:
        scores = [knowledge[ATTENTION.format(layer)] for layer in taught]
        terms["attention"] = weighted(attention_loss(bert.attention_scores[first:], scores, input_mask))
    if plan.loss_weights.prediction:
        terms["prediction"] = weighted(soft_cross_entropy(logits, knowledge[LOGITS], plan.temperature))
    if plan.loss_weights.label:
        terms["label"] = batch_mean(cross_entropy(logits, label), loss_mask)
    if plan.loss_weights.knowledge:
        representation = domain_representation(variables, bert.hidden_states[-1:], input_mask, domain)
        terms["knowledge"] = batch_mean(knowledge_loss(variables, representation, knowledge[REPRESENTATION]), loss_mask)
    loss = sum_terms([term * getattr(plan.loss_weights, name) for name, term in terms.items()])
    more = [] if expertise is None else [batch_mean(expertise, loss_mask)]
    return loss, stack_metrics(loss, *terms.values(), accuracy(logits, label, loss_mask), *more)


def with_corrupted_domains(batches, num_domains, seed, start_step=0, corruption="sampled"):
    """Adds `corrupted_domain`, int32 [B, n], to each batch: one domain drawn anew for each step, or all the others."""
    for step, batch in enumerate(batches, start=start_step):
        if corruption == "sampled":
            corrupted = corrupted_domains(batch["domain"], num_domains, seed, step)[:, None]
        else:
            corrupted = other_domains(batch["domain"], num_domains)
        yield dict(batch, corrupted_domain=corrupted)


def predict_logits(variables, config, kernels, word_rows, input_mask, segment_ids):
    """Label logits [B, C] without dropout."""
    bert = build_bert(variables, config, kernels, word_rows, input_mask, segment_ids, pooled_only=True)
    return classification_logits(variables, kernels, bert.pooled)
