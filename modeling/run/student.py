"""Sets up the teacher and the student of Meta-KD (section 4): checks the teacher's snapshot, chooses the student's depth, maps its layers
to the teacher's, and reads the weights of the loss terms from the flags.

M is the number of the student's encoder layers, N the number of the teacher's.
"""

import os

from modeling.bert.config import BertConfig
from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD, layer_of, layer_prefix
from modeling.checkpoints.snapshot import TASK_FILE, stored_task
from modeling.checkpoints.snapshot_tokenizer import stored_settings
from modeling.objectives.distillation import LossWeights
from ofrecord_util.errors import UserError
from ofrecord_util.json_tokenizer import load_tokenizer

DEFAULT_STUDENT_LAYERS = 6


# Loss terms

_LEFT_OUT = ("hidden_loss_weight", "attention_loss_weight", "label_loss_weight", "relation_loss_weight")  # by --pred_distill


def prepare_unlabelled(flags) -> None:
    """Sets the flags of a run on unlabelled text: the terms that need labels are off. Call it before `RunContext`.

    Args:
        flags: flags of meta_distill.py; changed if they contain --unlabelled.
    Raises:
        UserError: a flag asks for a term that needs labels.
    """
    if not flags.unlabelled:
        return
    for name, off, spelled in (("label_loss_weight", 0.0, "0"), ("use_sample_weights", False, "false")):
        if name in flags.given and getattr(flags, name):
            raise UserError(f"--unlabelled: the text has no labels, but --{name} needs them: give --{name} {spelled}")
        setattr(flags, name, off)


def describe_unlabelled(loss_weights: LossWeights) -> str:
    """One line for the log of a run on unlabelled text: which terms of the loss it has."""
    terms = ", ".join(f"{name} {weight:g}" for name, weight in zip(LossWeights._fields, loss_weights) if weight)
    return f"--unlabelled: terms of the loss, with their weights: {terms}; no term uses labels or prototypical scores"


def check_heads(loss_weights: LossWeights, student: BertConfig, teacher: BertConfig) -> None:
    """Raises a UserError if student and teacher have other numbers of attention heads and a term compares them one by one."""
    own, theirs = student.num_attention_heads, teacher.num_attention_heads
    if loss_weights.relation and own != theirs:
        raise UserError(
            f"--relation_loss_weight {loss_weights.relation:g}: the relations are compared head by head, but the student has {own} "
            f"attention heads and the teacher {theirs}: give --relation_loss_weight 0 or a --student_model with {theirs} heads"
        )


def choose_loss_weights(flags) -> LossWeights:
    """The weights of the loss terms.

    Args:
        flags: flags of meta_distill.py or meta_teacher_eval.py. The latter has only the flags that decide what it writes.
    Raises:
        UserError: all weights are 0, or --pred_distill leaves out a term that was asked for.
    """
    label, prediction = getattr(flags, "label_loss_weight", 1.0), getattr(flags, "prediction_loss_weight", 1.0)
    if flags.pred_distill:
        for name in _LEFT_OUT:
            if name in flags.given and getattr(flags, name):
                raise UserError(
                    f"--{name} {getattr(flags, name):g}: --pred_distill leaves this term out: give --{name} 0, or leave --pred_distill out"
                )
        loss_weights = LossWeights(0.0, 0.0, prediction, 0.0, 0.0, 0.0)
    else:
        knowledge = flags.domain_loss_weight if flags.use_domain_loss else 0.0
        hidden, attention, relation = flags.hidden_loss_weight, flags.attention_loss_weight, flags.relation_loss_weight
        loss_weights = LossWeights(hidden, attention, prediction, label, knowledge, relation)
    if not any(loss_weights):
        raise UserError("the weights of all loss terms are 0, so there is no loss: give at least one a weight above 0")
    return loss_weights


def without_constant_terms(loss_weights: LossWeights, num_frozen: int, num_student_layers: int, log) -> LossWeights:
    """Removes the terms of hidden states, attention scores and relations if all layers of the student are frozen.

    Args:
        num_frozen: number of the student's first layers that are frozen.
        num_student_layers: M.
        log: called with one line if some or all layers are frozen.
    Raises:
        UserError: no other term is left.
    """
    of_layers = loss_weights.hidden or loss_weights.attention
    if not num_frozen or not (of_layers or loss_weights.relation):
        return loss_weights
    if num_frozen < num_student_layers:
        if of_layers:
            log(
                f"student layers below {num_frozen} are frozen: the terms of hidden states and attention scores cover only the other layers"
            )
        return loss_weights
    terms = "hidden states, attention scores and relations" if loss_weights.relation else "hidden states and attention scores"
    log(f"all layers of the student are frozen: the terms of {terms} are left out")
    loss_weights = loss_weights._replace(hidden=0.0, attention=0.0, relation=0.0)
    if not any(loss_weights):
        raise UserError(
            "all layers of the student are frozen (--freeze_encoder, --freeze_layers) and no other loss term has a weight above 0: "
            "freeze fewer layers, or leave --pred_distill and weights of 0 out"
        )
    return loss_weights


# Layers


def student_depth(wanted, available: int, path: str) -> int:
    """M, the number of the student's encoder layers.

    Args:
        wanted: --student_num_hidden_layers; None for 6, or for all layers of a snapshot with fewer.
        available: encoder layers of the student's snapshot, or of the teacher's where the student's is not known.
        path: path of the snapshot, for the message.
    Raises:
        UserError: `wanted` is greater than `available`.
    """
    if wanted is None:
        return min(DEFAULT_STUDENT_LAYERS, available)
    if wanted > available:
        raise UserError(f"--student_num_hidden_layers {wanted}: {path} has {available} encoder layers, give 1 to {available}")
    return wanted


def layer_mapping(num_student_layers: int, num_teacher_layers: int) -> tuple:
    """The teacher layer (from 0) of each student layer m: (m + 1) N / M - 1, rounded to the nearest integer, halves up.

    Returns:
        tuple of M ints; the last is the teacher's last layer.
    """
    twice = 2 * num_student_layers
    return tuple(max(0, (2 * (m + 1) * num_teacher_layers - num_student_layers) // twice) for m in range(num_student_layers))


def describe_mapping(mapping: tuple, num_layers: int, owner: str) -> str:
    """One line for the log, "student layers 0 to 2: layers 1, 3, 5 of the teacher's 6". It says so if the layers are not evenly spaced.

    Args:
        mapping: result of `layer_mapping`.
        num_layers: total number of layers of the model that it refers to.
        owner: name of this model for the message.
    """
    nearest = "" if num_layers % len(mapping) == 0 else f" (the nearest ones: {len(mapping)} does not divide {num_layers})"
    listed = ", ".join(map(str, mapping))
    return f"student layers 0 to {len(mapping) - 1}: layers {listed} of the {owner}'s {num_layers}{nearest}"


class LayerSelection:
    """Selected encoder layers of a `Snapshot`, renumbered: layer m is layer `layers[m]` of the snapshot. Used with `load_values`.

    Args:
        snapshot: a `Snapshot`.
        layers: tuple of ints.
    """

    def __init__(self, snapshot, layers):
        self._snapshot, self.path = snapshot, snapshot.path
        self._names = {name: name for name in snapshot.sizes if layer_of(name) is None}  # new name -> name in the snapshot
        for student, original in enumerate(layers):
            old, new = layer_prefix(original), layer_prefix(student)
            self._names.update({new + name[len(old) :]: name for name in snapshot.sizes if name.startswith(old)})
        self.sizes = {name: snapshot.sizes[original] for name, original in self._names.items()}
        self.shapes = {name: snapshot.shapes[original] for name, original in self._names.items() if original in snapshot.shapes}
        self.task = snapshot.task

    def read(self, name, shape):
        """As in `Snapshot`; `name` has the new number of the layer."""
        return self._snapshot.read(self._names[name], shape)


# The teacher


def teacher_folder(path, flag: str) -> str:
    """The path of the teacher's snapshot.

    Args:
        path: value of the flag, or None.
        flag: name of the flag, for the message.
    Raises:
        UserError: there is no path or no such folder.
    """
    if not path or not os.path.isdir(path):
        problem = f"{flag} {path}: no such snapshot folder" if path else f"{flag} is needed (the teacher's snapshot)"
        raise UserError(f"{problem}: run meta_teacher.py and give its snapshot_best_mft_model_…")
    return path


def check_teacher(context, snapshot, config: BertConfig, flag: str, needs_representation: bool):
    """Checks that a snapshot can be the teacher for the task and the records of a run.

    Args:
        context: `RunContext` (task, tokenizer, flags).
        snapshot: the teacher's `Snapshot`.
        config: its `BertConfig`.
        flag: the flag that names the snapshot, for messages.
        needs_representation: whether the student needs r^T, and so the teacher's domain head.
    Raises:
        UserError: the snapshot has no task, no classifier or no domain head; other domains, labels or vocabulary than the run; or
            fewer positions than --seq_length.
    """
    at = f"{flag} {snapshot.path}"
    stored = stored_task(snapshot)
    if stored is None or not set(CLASSIFIER) <= set(snapshot.sizes):
        missing = TASK_FILE if stored is None else "classifier"
        raise UserError(f"{at}: has no {missing}, so it cannot be a teacher: run meta_teacher.py and give its snapshot_best_mft_model_…")
    if stored.task_type != context.task.task_type:
        raise UserError(f"{at}: was trained with --task_type {stored.task_type}, and only models of classification are distilled")
    if not stored.same_ids(context.task):
        raise UserError(
            "{}: was trained for domains {} and labels {}, this run has {} and {}: run meta_teacher.py on this data".format(
                at, *(",".join(names) for task in (stored, context.task) for names in (task.domains, task.labels))
            )
        )
    if needs_representation and DOMAIN_HEAD[0] not in snapshot.sizes:
        raise UserError(
            f"{at}: has no domain head, which the transferable-knowledge term needs: run meta_teacher.py, or give --use_domain_loss false"
        )
    if context.task.pair:
        config.check_pairs(at)
    if context.flags.seq_length > config.max_position_embeddings:
        raise UserError(f"--seq_length {context.flags.seq_length}: {at} has {config.max_position_embeddings} positions")
    tokenizer, vocab_file, settings = context.tokenizer, snapshot.vocab_file(), stored_settings(snapshot)
    if settings.do_lower_case not in (None, tokenizer.do_lower_case):
        casing, own_casing = (str(value).lower() for value in (tokenizer.do_lower_case, settings.do_lower_case))
        raise UserError(f"{at}: was trained with --do_lower_case {own_casing}, this run has {casing}: teacher and student need the same")
    own = load_tokenizer(vocab_file, settings) if vocab_file else None
    if own.digest != tokenizer.digest if own else config.vocab_size != tokenizer.vocab_size:
        raise UserError(
            "{}: its vocabulary{} is not {}: teacher and student need the same --vocab_file".format(
                at, f" ({vocab_file}, {own.digest[:16]})" if own else "", f"{tokenizer.vocab_file} ({tokenizer.digest[:16]})"
            )
        )
