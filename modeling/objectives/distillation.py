"""Meta-distillation (Meta-KD, section 4): which of the teacher's layers a student learns from, how it starts, how samples
are weighted, and each loss term as a graph function with a NumPy reference in tests/modeling/objectives/test_distillation.py.

Dimension letters as in modeling/bert/encoder.py; M is the number of the student's encoder layers, H_S and H_T are hidden sizes
of student and teacher.
"""

import math
import os
from typing import NamedTuple

from modeling.bert.encoder import build_bert
from modeling.bert.heads import classification_logits, domain_representation
from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD, TRAINING_ONLY_PREFIX
from modeling.checkpoints.snapshot import TASK_FILE
from modeling.cli.errors import UserError
from modeling.engine import parallel
from modeling.engine.runtime import flow

DEFAULT_STUDENT_LAYERS = 6
LOGITS, REPRESENTATION = "teacher_logits", "teacher_representation"
HIDDEN, ATTENTION = "teacher_hidden_{}", "teacher_attention_{}"  # filled with the teacher's layer, from 0
HIDDEN_PROJECTION = TRAINING_ONLY_PREFIX + "hidden_projection_{}"  # filled with the student's layer, from 0
REPRESENTATION_PROJECTION = TRAINING_ONLY_PREFIX + "representation_projection"


class LossWeights(NamedTuple):
    """Factors of the loss terms; a term of weight 0 is not built."""

    hidden: float
    attention: float
    prediction: float
    label: float
    knowledge: float  # gamma, of the transferable-knowledge term


class Knowledge(NamedTuple):
    """What a student needs of its teacher, beside the logits."""

    layers: tuple  # teacher layers from 0, ascending, each once
    hidden: bool
    attention: bool
    representation: bool  # r^T


def loss_weights(flags):
    """`LossWeights` that the flags mean (meta_teacher_eval.py has those that decide what is written).

    Raises:
        UserError: no term is left.
    """
    label, prediction = getattr(flags, "label_loss_weight", 1.0), getattr(flags, "prediction_loss_weight", 1.0)
    if flags.pred_distill:
        weights = LossWeights(0.0, 0.0, prediction, 0.0, 0.0)
    else:
        knowledge = flags.domain_loss_weight if flags.use_domain_loss else 0.0
        weights = LossWeights(flags.hidden_loss_weight, flags.attention_loss_weight, prediction, label, knowledge)
    if not any(weights):
        raise UserError("the weights of all loss terms are 0: nothing is left to learn from")
    return weights


def knowledge_needed(weights, layers):
    """The `Knowledge` that the terms of `LossWeights` take, of the teacher layers in any order."""
    return Knowledge(tuple(sorted(set(layers))), weights.hidden > 0, weights.attention > 0, weights.knowledge > 0)


def without_constant_terms(weights, num_frozen, num_student_layers, log):
    """`LossWeights` without the terms of hidden states and attention scores where every layer of the student is frozen; says over which
    layers they run where some are.

    Raises:
        UserError: no other term is left.
    """
    if not num_frozen or not (weights.hidden or weights.attention):
        return weights
    terms = "the terms of hidden states and attention scores"
    if num_frozen < num_student_layers:
        log(f"student layers below {num_frozen} are frozen: {terms} run over the others")
        return weights
    log(f"all layers of the student are frozen: {terms} are left out")
    weights = weights._replace(hidden=0.0, attention=0.0)
    if not any(weights):
        raise UserError("all layers of the student are frozen (--freeze_encoder, --freeze_layers) and no other loss term has a weight")
    return weights


def student_depth(wanted, available, path):
    """M: `--student_num_hidden_layers`, or 6, or the student snapshot's own where it has fewer.

    Raises:
        UserError: more layers are asked for than the snapshot has.
    """
    if wanted is None:
        return min(DEFAULT_STUDENT_LAYERS, available)
    if wanted > available:
        raise UserError(f"--student_num_hidden_layers {wanted}: {path} has {available} encoder layers")
    return wanted


def layer_mapping(num_student_layers, num_teacher_layers):
    """The teacher layer (from 0) of each student layer: (m + 1) N / M - 1, rounded to the nearest where M does not divide
    N (halves up).

    Returns:
        tuple of M ints; the last is the teacher's last layer.
    """
    twice = 2 * num_student_layers
    return tuple(max(0, (2 * (m + 1) * num_teacher_layers - num_student_layers) // twice) for m in range(num_student_layers))


def describe_mapping(mapping, num_layers, owner):
    """One line for the log, "student layers 0 to 2: layers 1, 3, 5 of the teacher's 6"; says so where they are not evenly
    spaced."""
    nearest = "" if num_layers % len(mapping) == 0 else f" (the nearest ones: {len(mapping)} does not divide {num_layers})"
    listed = ", ".join(map(str, mapping))
    return f"student layers 0 to {len(mapping) - 1}: layers {listed} of the {owner}'s {num_layers}{nearest}"


class LayerSelection:
    """A `Snapshot` seen through some of its encoder layers: layer m is layer `layers[m]` of the snapshot.

    Args:
        snapshot: a `Snapshot`.
        layers: tuple of ints.
    """

    def __init__(self, snapshot, layers):
        self._snapshot, self.path = snapshot, snapshot.path
        self._names = {name: name for name in snapshot.sizes if "-encoder-layer_" not in name}
        for student, own in enumerate(layers):
            old, new = f"bert-encoder-layer_{own}-", f"bert-encoder-layer_{student}-"
            self._names.update({new + n[len(old) :]: n for n in snapshot.sizes if n.startswith(old)})
        self.sizes = {name: snapshot.sizes[own] for name, own in self._names.items()}
        self.task = snapshot.task

    def read(self, name, shape):
        """As in `Snapshot`, `name` counted in the selected layers."""
        return self._snapshot.read(self._names[name], shape)


def check_teacher(phase, snapshot, config, flag, needs_representation):
    """Raises a UserError where a snapshot cannot be the teacher of the phase's task and records.

    Args:
        phase: `Phase` (task, tokenizer, flags).
        snapshot, config: the teacher's.
        flag: the flag that named it, for messages.
        needs_representation: whether its domain head is needed.
    """
    at = f"{flag} {snapshot.path}"
    stored = phase.stored_task(snapshot)
    if stored is None or not set(CLASSIFIER) <= set(snapshot.sizes):
        lacks = f"holds no {TASK_FILE}" if stored is None else "holds no classifier"
        raise UserError(f"{at}: {lacks}, so it is no teacher: run meta_teacher.py and give its snapshot_best_mft_model_…")
    if not stored.same_ids(phase.task):
        raise UserError(
            "{}: was trained for domains {} and labels {}, this run has {} and {}: run meta_teacher.py on this data".format(
                at, *(",".join(names) for task in (stored, phase.task) for names in (task.domains, task.labels))
            )
        )
    if needs_representation and DOMAIN_HEAD[0] not in snapshot.sizes:
        raise UserError(
            f"{at}: holds no domain head, which the transferable-knowledge term needs: run meta_teacher.py, or give --use_domain_loss false"
        )
    if phase.flags.seq_length > config.max_position_embeddings:
        raise UserError(f"--seq_length {phase.flags.seq_length}: {at} has {config.max_position_embeddings} positions")
    tokenizer, vocab_file = phase.tokenizer, snapshot.vocab_file()
    own = type(tokenizer)(vocab_file, tokenizer.do_lower_case) if vocab_file else None
    if config.vocab_size != tokenizer.vocab_size or (own and own.digest != tokenizer.digest):
        raise UserError(
            "{}: its vocabulary{} is not {}: teacher and student need one vocabulary".format(
                at, f" ({vocab_file}, {own.digest[:16]})" if own else "", f"{phase.vocab_file} ({tokenizer.digest[:16]})"
            )
        )


def teacher_folder(path, flag):
    """The path of the teacher's snapshot.

    Raises:
        UserError: not given or not there; names the step to run.
    """
    if not path or not os.path.isdir(path):
        problem = f"{flag} {path}: no such snapshot folder" if path else f"{flag} is needed, the teacher's snapshot"
        raise UserError(f"{problem}: run meta_teacher.py and give its snapshot_best_mft_model_…")
    return path


def projection_shapes(weights, num_student_layers, student_size, teacher_size, num_frozen=0):
    """dict of name -> shape [H_S, H_T] of the learned projections P, for the layers behind the first `num_frozen` ones; empty where
    the widths agree (P is the identity)."""
    if student_size == teacher_size:
        return {}
    names = [HIDDEN_PROJECTION.format(m) for m in range(num_frozen, num_student_layers)] if weights.hidden else []
    return dict.fromkeys(names + ([REPRESENTATION_PROJECTION] if weights.knowledge else []), (student_size, teacher_size))


def teacher_knowledge(variables, config, kernels, needs, word_rows, input_mask, segment_ids, domain):
    """Builds the teacher into the current graph, without dropout.

    Args:
        variables: view of the teacher's `Variables`.
        config: its `BertConfig`.
        needs: `Knowledge`.
        domain: true domain ids, int32 [B].
    Returns:
        dict of name -> tensor: LOGITS [B, C]; as `needs` says REPRESENTATION r^T [B, H_T], HIDDEN [B, S, H_T] and
        ATTENTION scores before softmax [B, N, S, S] of each layer. Files and batches use the same names and order.
    """
    bert = build_bert(variables, config, kernels, word_rows, input_mask, segment_ids)
    knowledge = {LOGITS: classification_logits(variables, kernels, bert.pooled)}
    if needs.representation:
        knowledge[REPRESENTATION] = domain_representation(variables, bert.hidden_states[-1:], input_mask, domain)
    if needs.hidden:
        knowledge.update({HIDDEN.format(layer): bert.hidden_states[layer + 1] for layer in needs.layers})
    if needs.attention:
        knowledge.update({ATTENTION.format(layer): bert.attention_scores[layer] for layer in needs.layers})
    return knowledge


def knowledge_names(needs):
    """Names of what `teacher_knowledge` returns, in its order."""
    names = [LOGITS] + ([REPRESENTATION] if needs.representation else [])
    names += [HIDDEN.format(layer) for layer in needs.layers] if needs.hidden else []
    return tuple(names + ([ATTENTION.format(layer) for layer in needs.layers] if needs.attention else []))


def expertise_weights(score, teacher_logits, label):
    """Domain-expertise weight w_i = (1 + t_i) / (exp((p_T(y_i | x_i) - 1)^2) + 1) -> [B].

    Args:
        score: t, float32 [B].
        teacher_logits: z^T, [B, C].
        label: y, int32 [B].
    """
    classes = teacher_logits.shape[1]
    chosen = flow.nn.functional.one_hot(label.to(flow.int64), classes).to(flow.float32)
    doubt = (flow.softmax(teacher_logits, dim=-1) * chosen).sum(dim=1) - 1.0
    return (score + 1.0) / (flow.exp(doubt * doubt) + 1.0)


def soft_cross_entropy(student_logits, teacher_logits, temperature):
    """T^2 softCE(z^S/T, z^T/T) of each sample, -sum softmax(z^T/T) log softmax(z^S/T) -> [B]; logits [B, C]."""
    target = flow.softmax(teacher_logits * (1.0 / temperature), dim=-1)
    log_probs = flow.log_softmax(student_logits * (1.0 / temperature), dim=-1)
    return (target * log_probs).sum(dim=1) * (-(temperature**2))


def _unit_mask(input_mask):
    """input_mask [B, S] / sqrt(real tokens), so that squares of a row sum to 1."""
    mask = input_mask.to(flow.float32)
    return mask / flow.sqrt(flow.clamp(mask.sum(dim=1, keepdim=True), min=1.0))


def token_factors(input_mask, width, device):
    """[B, S, width]: 0 at padding, else 1 / sqrt(real tokens * width), so that squared differences times squared factors
    sum to a sample's mean.

    Errors are multiplied by factors before they are squared: a padding key's score of -10000 would overflow float16.
    Made by a rank-one GEMM and shared by the layers, since column broadcasts are slow on a CPU.
    """
    batch, length = input_mask.shape
    row = parallel.constant((1, width), 1.0 / math.sqrt(width), device)
    return flow.matmul(_unit_mask(input_mask).reshape(batch * length, 1), row).reshape(batch, length, width)


def pair_factors(input_mask, num_heads):
    """[B, N, S, S]: 0 where query or key is padding, else 1 / (real tokens * sqrt(N)); as `token_factors`."""
    batch, length = input_mask.shape
    unit = _unit_mask(input_mask)
    queries = flow.cat([unit * (1.0 / math.sqrt(num_heads))] * num_heads, dim=1).reshape(batch, num_heads * length, 1)
    return flow.matmul(queries, unit.reshape(batch, 1, length)).reshape(batch, num_heads, length, length)


def masked_squared_error(student, teacher, factors):
    """Mean squared error of each sample over its real positions -> [B].

    Args:
        student, teacher: hidden states [B, S, H] or attention scores [B, N, S, S].
        factors: of `token_factors` or `pair_factors`, the same shape.
    """
    error = (student - teacher) * factors
    return (error * error).reshape(error.shape[0], -1).sum(dim=1)


def sum_terms(terms):
    """Sum of one or more tensors, without the 0 that Python's sum begins with."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def layer_mean(losses):
    """Mean of the layers' losses, each [B]."""
    return sum_terms(losses) * (1.0 / len(losses))


def hidden_loss(variables, student_states, teacher_states, input_mask, device, first=0):
    """MSE(P_m h^S_m, h^T) of each sample: mean over real tokens, H_T and the student's layers -> [B].

    Args:
        variables: holds the projections P_m where the widths differ.
        student_states: M of [B, S, H_S].
        teacher_states: M of [B, S, H_T], those of the mapped layers.
        first: the student's layer whose state comes first, where those before it are left out.
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
    """MSE(A^S, A^T) of each sample, on scores before softmax: mean over real queries and keys, heads and the student's
    layers -> [B]. Where the numbers of heads differ, both sides are averaged over their heads first.

    Args:
        student_scores: M of [B, N_S, S, S].
        teacher_scores: M of [B, N_T, S, S], or [B, 1, S, S] averaged already.
    """
    if student_scores[0].shape[1] != teacher_scores[0].shape[1]:
        student_scores = [scores.mean(dim=1, keepdim=True) for scores in student_scores]
        teacher_scores = [s if s.shape[1] == 1 else s.mean(dim=1, keepdim=True) for s in teacher_scores]
    factors = pair_factors(input_mask, student_scores[0].shape[1])
    return layer_mean([masked_squared_error(s, t, factors) for s, t in zip(student_scores, teacher_scores)])


def knowledge_loss(variables, student, teacher):
    """Transferable knowledge: MSE(P r^S, r^T) of each sample, mean over H_T -> [B]; r^S [B, H_S], r^T [B, H_T]."""
    if student.shape[1] != teacher.shape[1]:
        student = flow.matmul(student, variables.get(REPRESENTATION_PROJECTION))
    error = student - teacher
    return (error * error).mean(dim=1)
