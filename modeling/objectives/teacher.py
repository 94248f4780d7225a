"""The teacher's side of Meta-KD (section 4): which of its outputs a student needs, how a graph computes them, and their names.

The names are shared by graphs, batches and the arrays of modeling/checkpoints/teacher_outputs.py. Dimension letters as in
modeling/bert/encoder.py; H_T is the teacher's hidden size.
"""

from typing import NamedTuple

from modeling.bert.config import BertConfig
from modeling.bert.encoder import build_bert
from modeling.bert.heads import classification_logits, domain_representation

LOGITS, REPRESENTATION = "teacher_logits", "teacher_representation"
HIDDEN, ATTENTION = "teacher_hidden_{}", "teacher_attention_{}"  # formatted with the teacher's layer, from 0
PROJECTIONS = QUERY, KEY, VALUE = ("teacher_query", "teacher_key", "teacher_value")  # of the teacher's last layer


class Knowledge(NamedTuple):
    """Which outputs of its teacher a student needs in addition to the logits."""

    layers: tuple  # teacher layers from 0, ascending, without repeats
    hidden: bool  # the hidden states of these layers
    attention: bool  # their attention scores
    representation: bool  # r^T
    projections: bool = False  # queries, keys and values of the last layer


def knowledge_needed(loss_weights, layers) -> Knowledge:
    """The `Knowledge` that the loss terms need.

    Args:
        loss_weights: `LossWeights`.
        layers: the teacher's layers, in any order.
    """
    needed = (weight > 0 for weight in (loss_weights.hidden, loss_weights.attention, loss_weights.knowledge, loss_weights.relation))
    return Knowledge(tuple(sorted(set(layers))), *needed)


def teacher_knowledge(variables, config: BertConfig, kernels, needs: Knowledge, word_rows, input_mask, segment_ids, domain) -> dict:
    """Builds the teacher into the current graph, without dropout.

    Args:
        variables: the graph's view of the teacher's `Variables`.
        config: its `BertConfig`.
        kernels: from `select_kernels`.
        needs: `Knowledge`.
        word_rows, input_mask, segment_ids: see `build_bert`.
        domain: true domains, int32 [B].
    Returns:
        dict of name -> tensor in the order of `knowledge_names`: LOGITS [B, C]; according to `needs` REPRESENTATION r^T [B, H_T],
        HIDDEN [B, S, H_T] and ATTENTION scores before softmax [B, N, S, S] of each layer, and the PROJECTIONS, each [B, N, S, D].
    """
    bert = build_bert(variables, config, kernels, word_rows, input_mask, segment_ids)
    knowledge = {LOGITS: classification_logits(variables, kernels, bert.pooled)}
    if needs.representation:
        knowledge[REPRESENTATION] = domain_representation(variables, bert.hidden_states[-1:], input_mask, domain)
    if needs.hidden:
        knowledge.update({HIDDEN.format(layer): bert.hidden_states[layer + 1] for layer in needs.layers})
    if needs.attention:
        knowledge.update({ATTENTION.format(layer): bert.attention_scores[layer] for layer in needs.layers})
    if needs.projections:
        knowledge.update(zip(PROJECTIONS, bert.projections))
    return knowledge


def knowledge_names(needs: Knowledge) -> tuple:
    """The names of the outputs of `teacher_knowledge`, in order."""
    names = [LOGITS] + ([REPRESENTATION] if needs.representation else [])
    names += [HIDDEN.format(layer) for layer in needs.layers] if needs.hidden else []
    names += [ATTENTION.format(layer) for layer in needs.layers] if needs.attention else []
    return (*names, *(PROJECTIONS if needs.projections else ()))
