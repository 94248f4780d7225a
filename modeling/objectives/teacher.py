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


class Knowledge(NamedTuple):
    """Which outputs of its teacher a student needs in addition to the logits."""

    layers: tuple  # teacher layers from 0, ascending, without repeats
    hidden: bool  # the hidden states of these layers
    attention: bool  # their attention scores
    representation: bool  # r^T


def knowledge_needed(loss_weights, layers) -> Knowledge:
    """The `Knowledge` that the loss terms need.

    Args:
        loss_weights: `LossWeights`.
        layers: the teacher's layers, in any order.
    """
    return Knowledge(tuple(sorted(set(layers))), loss_weights.hidden > 0, loss_weights.attention > 0, loss_weights.knowledge > 0)


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
        HIDDEN [B, S, H_T] and ATTENTION scores before softmax [B, N, S, S] of each layer.
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


def knowledge_names(needs: Knowledge) -> tuple:
    """The names of the outputs of `teacher_knowledge`, in order."""
    names = [LOGITS] + ([REPRESENTATION] if needs.representation else [])
    names += [HIDDEN.format(layer) for layer in needs.layers] if needs.hidden else []
    return tuple(names + ([ATTENTION.format(layer) for layer in needs.layers] if needs.attention else []))
