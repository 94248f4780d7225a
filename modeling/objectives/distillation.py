"""Meta-KD's distillation objective (section 4): its loss terms as graph functions, and their sum.

tests/modeling/distillation_reference.py has a NumPy reference for each term. The teacher's outputs come from
modeling/objectives/teacher.py. Dimension letters as in modeling/bert/encoder.py; M is the number of the student's encoder layers, H_S
and H_T are the hidden sizes of student and teacher, N_S and N_T their numbers of heads, D_S and D_T the sizes of their heads.
"""

import math
from typing import NamedTuple, Optional

from modeling.bert.config import BertConfig
from modeling.bert.dropout import Dropout
from modeling.bert.encoder import BertOutput, build_bert
from modeling.bert.heads import classification_logits, domain_representation
from modeling.bert.names import HIDDEN_PROJECTION, REPRESENTATION_PROJECTION
from modeling.engine import parallel
from modeling.engine.runtime import flow
from modeling.engine.workarounds import fan_out
from modeling.objectives.losses import PLAIN, LabelLoss, accuracy, batch_mean, label_losses, stack_metrics, sum_terms
from modeling.objectives.teacher import ATTENTION, HIDDEN, KEY, LOGITS, QUERY, REPRESENTATION, VALUE


class LossWeights(NamedTuple):
    """Factors of the loss terms. The graph leaves a term out if its factor is 0."""

    hidden: float
    attention: float
    prediction: float
    label: float
    knowledge: float  # gamma, of the transferable knowledge
    relation: float = 0.0  # of MiniLM's relations


class Distillation(NamedTuple):
    """Settings of `distillation_objective`."""

    loss_weights: LossWeights
    temperature: float
    mapping: tuple  # of `layer_mapping`: the teacher layer of each student layer, from 0
    use_sample_weights: bool  # whether `expertise_weights` weight the samples
    num_frozen: int = 0  # the student's first layers that are frozen; their states do not change, so they get no loss term
    label_loss: LabelLoss = PLAIN  # form of the cross-entropy with the labels
    labelled: bool = True  # whether the samples have labels; without them, the label term and the sample weights are off


def distillation_metrics(plan: Distillation) -> tuple:
    """Names of the metrics of `distillation_objective`: the loss, each term of the graph before its factor, the accuracy and, if samples
    are weighted, the mean sample weight. Without labels, the agreement takes the place of the accuracy: the share of samples for which
    the student predicts what the teacher predicts."""
    terms = tuple(f"{name}_loss" for name, weight in zip(LossWeights._fields, plan.loss_weights) if weight)
    return ("loss", *terms, "accuracy" if plan.labelled else "agreement") + (("sample_weight",) if plan.use_sample_weights else ())


def projection_shapes(
    loss_weights: LossWeights, num_student_layers: int, student_size: int, teacher_size: int, num_frozen: int = 0
) -> dict:
    """dict of name -> shape (H_S, H_T) of the learned projections P, for the student's layers from `num_frozen` on.

    Empty if the hidden sizes are equal: P is the identity then.
    """
    if student_size == teacher_size:
        return {}
    names = [HIDDEN_PROJECTION.format(m) for m in range(num_frozen, num_student_layers)] if loss_weights.hidden else []
    return dict.fromkeys(names + ([REPRESENTATION_PROJECTION] if loss_weights.knowledge else []), (student_size, teacher_size))


def expertise_weights(scores, teacher_logits, label):
    """Domain-expertise weight of each sample, w_i = (1 + t_i) / (exp((p_T(y_i | x_i) - 1)^2) + 1).

    Args:
        scores: prototypical scores t, float32 [B].
        teacher_logits: z^T, [B, C].
        label: y, int32 [B].
    Returns:
        [B].
    """
    one_hot = flow.nn.functional.one_hot(label.to(flow.int64), teacher_logits.shape[1]).to(flow.float32)
    doubt = (flow.softmax(teacher_logits, dim=-1) * one_hot).sum(dim=1) - 1.0
    return (scores + 1.0) / (flow.exp(doubt * doubt) + 1.0)


def soft_cross_entropy(student_logits, teacher_logits, temperature):
    """T^2 softCE(z^S/T, z^T/T) of each sample, -T^2 * sum over C of softmax(z^T/T) log softmax(z^S/T).

    Args:
        student_logits, teacher_logits: z^S and z^T, [B, C].
        temperature: T, above 0.
    Returns:
        [B].
    """
    target = flow.softmax(teacher_logits * (1.0 / temperature), dim=-1)
    log_probs = flow.log_softmax(student_logits * (1.0 / temperature), dim=-1)
    return (target * log_probs).sum(dim=1) * (-(temperature**2))


def _unit_mask(input_mask):
    """input_mask [B, S] / sqrt(real tokens): the squares of a row sum to 1."""
    mask = input_mask.to(flow.float32)
    return mask / flow.sqrt(flow.clamp(mask.sum(dim=1, keepdim=True), min=1.0))


def token_factors(input_mask, width, device):
    """Factors of hidden states: 0 at padding, else 1 / sqrt(real tokens * width). The squares of error * factor sum to a sample's mean.

    Errors are multiplied before they are squared, because the square of a padding key's score, -10000, overflows float16. A rank-one
    GEMM makes the factors and the layers share them, because column broadcasts are slow on a CPU.

    Args:
        input_mask: [B, S], 1 at real tokens.
        width: of the hidden states.
        device: "cpu" or "cuda".
    Returns:
        [B, S, width].
    """
    batch, length = input_mask.shape
    row = parallel.constant((1, width), 1.0 / math.sqrt(width), device)
    return flow.matmul(_unit_mask(input_mask).reshape(batch * length, 1), row).reshape(batch, length, width)


def pair_factors(input_mask, num_heads):
    """Factors of attention scores, [B, N, S, S]: 0 where query or key is padding, else 1 / (real tokens * sqrt(N)). See `token_factors`."""
    unit = _unit_mask(input_mask)
    return _pairs(unit * (1.0 / math.sqrt(num_heads)), unit, num_heads)


def _pairs(queries, keys, num_heads):
    """The products of queries [B, S] and keys [B, S], the same for all heads: [B, N, S, S]. A rank-one GEMM, as in `token_factors`."""
    batch, length = keys.shape
    queries = flow.cat([queries] * num_heads, dim=1).reshape(batch, num_heads * length, 1)
    return flow.matmul(queries, keys.reshape(batch, 1, length)).reshape(batch, num_heads, length, length)


def masked_squared_error(student, teacher, factors):
    """Mean squared error of each sample over its real positions.

    Args:
        student, teacher: hidden states [B, S, H] or attention scores [B, N, S, S].
        factors: of `token_factors` or `pair_factors`, same shape.
    Returns:
        [B].
    """
    error = (student - teacher) * factors
    return (error * error).reshape(error.shape[0], -1).sum(dim=1)


def layer_mean(losses):
    """Mean of the layers' losses, each [B]."""
    return sum_terms(losses) * (1.0 / len(losses))


def hidden_loss(variables, student_states, teacher_states, input_mask, device, first=0):
    """MSE(P_m h^S_m, h^T) of each sample: mean over real tokens, H_T and the student's layers.

    Args:
        variables: contains the projections P_m if H_S and H_T differ.
        student_states: M of [B, S, H_S].
        teacher_states: M of [B, S, H_T], of the mapped layers.
        input_mask: [B, S], 1 at real tokens.
        device: "cpu" or "cuda".
        first: the student's layer (from 0) that the first item of `student_states` belongs to.
    Returns:
        [B].
    """
    batch, length, student_size = student_states[0].shape
    teacher_size = teacher_states[0].shape[2]
    factors = token_factors(input_mask, teacher_size, device)
    losses = []
    for m, (student, teacher) in enumerate(zip(student_states, teacher_states), start=first):
        if student_size != teacher_size:
            flat = student.reshape(batch * length, student_size)
            student = flow.matmul(flat, variables.get(HIDDEN_PROJECTION.format(m))).reshape(batch, length, teacher_size)
        losses.append(masked_squared_error(student, teacher, factors))
    return layer_mean(losses)


def attention_loss(student_scores, teacher_scores, input_mask):
    """MSE(A^S, A^T) of each sample, on scores before softmax: mean over real queries and keys, heads and the student's layers.

    If N_S and N_T differ, both sides are first averaged over their heads.

    Args:
        student_scores: M of [B, N_S, S, S].
        teacher_scores: M of [B, N_T, S, S], of the mapped layers; [B, 1, S, S] if already averaged.
        input_mask: [B, S], 1 at real tokens.
    Returns:
        [B].
    """
    if student_scores[0].shape[1] != teacher_scores[0].shape[1]:
        student_scores = [scores.mean(dim=1, keepdim=True) for scores in student_scores]
        teacher_scores = [s if s.shape[1] == 1 else s.mean(dim=1, keepdim=True) for s in teacher_scores]
    factors = pair_factors(input_mask, student_scores[0].shape[1])
    return layer_mean([masked_squared_error(s, t, factors) for s, t in zip(student_scores, teacher_scores)])


def relation_scores(x, y):
    """x y^T / sqrt(D), before softmax: x, y [B, N, S, D] -> [B, N, S, S]."""
    return flow.matmul(x, y, transpose_b=True, alpha=1.0 / math.sqrt(x.shape[3]))


def relation_loss(student_scores, student_value, teacher_query, teacher_key, teacher_value, input_mask):
    """MiniLM's loss of each sample, L_AT + L_VR (Wang et al. 2020, arXiv 2002.10957, sections 3.1 and 3.2), of the last layers.

        L = 1 / (N |x|) * sum over heads and real queries of KL(R^T || R^S)

    with R the attention distributions, softmax(Q K^T / sqrt(D)), for L_AT, and the value relations, softmax(V V^T / sqrt(D)), for L_VR.
    |x| is the number of real tokens; a distribution is over the real keys only. D_S and D_T may differ.

    Args:
        student_scores: of attention, before softmax, [B, N, S, S].
        student_value: [B, N, S, D_S].
        teacher_query, teacher_key, teacher_value: [B, N, S, D_T].
        input_mask: [B, S], 1 at real tokens.
    Returns:
        [B].
    """
    batch, num_heads = student_scores.shape[:2]
    mask = input_mask.to(flow.float32)
    pairs = _pairs(mask, mask, num_heads)
    no_pairs = (pairs - 1.0) * 10000.0

    def log_probs(scores):
        return flow.log_softmax(scores * pairs + no_pairs, dim=-1)

    def divergence(teacher_scores, student_scores):
        teacher = log_probs(teacher_scores)
        terms = flow.exp(teacher) * (teacher - log_probs(student_scores)) * pairs
        return terms.reshape(batch, -1).sum(dim=1)

    _, rows, columns = fan_out(student_value, 3)  # the encoder uses the first
    attention = divergence(relation_scores(teacher_query, teacher_key), student_scores)
    values = divergence(relation_scores(teacher_value, teacher_value), relation_scores(rows, columns))
    return (attention + values) / (flow.clamp(mask.sum(dim=1), min=1.0) * num_heads)


def knowledge_loss(variables, student, teacher):
    """MSE(P r^S, r^T) of each sample, the loss of the transferable knowledge: mean over H_T.

    Args:
        variables: contains the projection P if H_S and H_T differ.
        student: r^S, [B, H_S].
        teacher: r^T, [B, H_T].
    Returns:
        [B].
    """
    if student.shape[1] != teacher.shape[1]:
        student = flow.matmul(student, variables.get(REPRESENTATION_PROJECTION))
    error = student - teacher
    return (error * error).mean(dim=1)


def distillation_loss(
    variables, plan: Distillation, device, bert: BertOutput, logits, knowledge, input_mask, domain, label, sample_weights, loss_mask
):
    """The loss of `distillation_objective` as a function of the student's outputs.

    Args:
        variables: the graph's view of the student's `Variables`: its domain embeddings and the projections P.
        plan: `Distillation`.
        device: "cpu" or "cuda".
        bert: the student's `BertOutput`; its pooled output is not used.
        logits: the student's, [B, C].
        knowledge, input_mask, domain, label, sample_weights, loss_mask: as for `distillation_objective`.
    Returns:
        (loss, metrics) in the order of `distillation_metrics(plan)`.
    """
    expertise = expertise_weights(sample_weights, knowledge[LOGITS], label) if plan.use_sample_weights else None

    def weighted(values):
        return batch_mean(values if expertise is None else values * expertise, loss_mask)

    # The order of a graph's operations is that of these calls; a run's last bits depend on it
    terms = {}
    attention_scores = bert.attention_scores
    if plan.loss_weights.relation:  # the encoder, the attention term and the relations use the last scores
        _, last, related_scores = fan_out(attention_scores[-1], 3)
        attention_scores = (*attention_scores[:-1], last)
    first, teacher_layers = plan.num_frozen, plan.mapping[plan.num_frozen :]
    if plan.loss_weights.hidden:
        teacher_states = [knowledge[HIDDEN.format(layer)] for layer in teacher_layers]
        states = bert.hidden_states[1 + first :]
        terms["hidden"] = weighted(hidden_loss(variables, states, teacher_states, input_mask, device, first))
    if plan.loss_weights.attention:
        teacher_scores = [knowledge[ATTENTION.format(layer)] for layer in teacher_layers]
        terms["attention"] = weighted(attention_loss(attention_scores[first:], teacher_scores, input_mask))
    if plan.loss_weights.prediction:
        terms["prediction"] = weighted(soft_cross_entropy(logits, knowledge[LOGITS], plan.temperature))
    if plan.loss_weights.label:
        terms["label"] = batch_mean(label_losses(logits, label, plan.label_loss), loss_mask)
    if plan.loss_weights.knowledge:
        representation = domain_representation(variables, bert.hidden_states[-1:], input_mask, domain)
        terms["knowledge"] = batch_mean(knowledge_loss(variables, representation, knowledge[REPRESENTATION]), loss_mask)
    if plan.loss_weights.relation:
        projections = (knowledge[name] for name in (QUERY, KEY, VALUE))
        terms["relation"] = weighted(relation_loss(related_scores, bert.projections[2], *projections, input_mask))
    loss = sum_terms([term * getattr(plan.loss_weights, name) for name, term in terms.items()])
    mean_weight = [] if expertise is None else [batch_mean(expertise, loss_mask)]
    hits = accuracy(logits, label if plan.labelled else flow.argmax(knowledge[LOGITS], dim=-1), loss_mask)
    return loss, stack_metrics(loss, *terms.values(), hits, *mean_weight)


def distillation_objective(
    variables,
    config: BertConfig,
    kernels,
    dropout: Optional[Dropout],
    plan: Distillation,
    knowledge: dict,
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

    with w_i of `expertise_weights`, or 1; a, b, c, d and gamma are `plan.loss_weights`. The last one is that of `relation_loss`, which
    w_i weights too; it is not part of Meta-KD.

    Args:
        variables: the graph's view of the student's `Variables`.
        config: the student's `BertConfig`.
        kernels: from `select_kernels`.
        dropout: the `Dropout` of the step, or None.
        plan: `Distillation`.
        knowledge: dict of name -> tensor, as from `teacher_knowledge`.
        word_rows, input_mask, segment_ids: see `build_bert`.
        domain: true domains, int32 [B].
        label: y, int32 [B].
        sample_weights: prototypical scores t, float32 [B].
        loss_mask: float32 [B] with mean 1; 0 for the rows that only fill up the last batch.
    Returns:
        (loss, metrics) in the order of `distillation_metrics(plan)`.
    """
    bert = build_bert(variables, config, kernels, word_rows, input_mask, segment_ids, dropout)
    logits = classification_logits(variables, kernels, bert.pooled, dropout)
    sample = input_mask, domain, label, sample_weights, loss_mask
    return distillation_loss(variables, plan, kernels.device, bert, logits, knowledge, *sample)
