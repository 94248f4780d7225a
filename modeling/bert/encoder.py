"""The BERT builder: the one encoder that the graphs of all phases reuse (Devlin et al. 2019; Google's variable names
and exact GELU).

Dimension letters, used in every shape comment of this project:
    B batch, S sequence length, T tokens = B * S, H hidden size, N attention heads, D head size = H / N, I intermediate
    size, L encoder layers, V vocabulary, C labels (classes), K domains
"""

import collections.abc
from typing import NamedTuple

from modeling.bert.config import CLS
from modeling.bert.fused_parameters import attention_names
from modeling.bert.pooling import pool
from modeling.bert.sequence_layout import texts_of
from modeling.engine.runtime import flow, oneflow_version


class BertOutput(NamedTuple):
    """What the builder returns; layer l of L is hidden_states[l + 1]."""

    hidden_states: collections.abc.Sequence  # L + 1 of [B, S, H]: embeddings, then each encoder layer
    attention_scores: tuple  # L of [B, N, S, S], before softmax, padding keys at -10000
    attention_probs: tuple  # L of [B, N, S, S], before dropout
    pooled: object  # [B, H], what a classifier stands on: tanh(W h_L[CLS] + b), or by config.pooling mean or max of h_L


class _HiddenStates(collections.abc.Sequence):
    """Sequence of [B, S, H], each made of its [T, H] where it is asked for: a shape is a copy in a graph on the CPU."""

    def __init__(self, flat, shape):
        self._flat, self._shape = flat, shape

    def __len__(self):
        return len(self._flat)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return tuple(self[place] for place in range(*position.indices(len(self))))
        return self._flat[position].reshape(*self._shape)


def fan_out(x, count):
    """`count` times x, for as many uses of which each gets a gradient.

    OneFlow 0.8.0 adds three and more gradients of a tensor in an order that differs from process to process, and with it
    the last bits of a run; there the uses hang on a chain of copies, so that every sum has two summands.
    """
    if oneflow_version() >= (0, 9, 0):
        return (x,) * count
    uses = [x]
    while len(uses) < count:
        uses.append(flow._C.identity(uses[-1]))
    return tuple(uses)


def build_bert(
    variables, config, kernels, word_rows, input_mask, segment_ids, dropout=None, pooled_only=False, starts=None, positions=None
):
    """Builds the encoder into the current graph.

    Args:
        variables: the graph's view of a `Variables`.
        config: `BertConfig`.
        kernels: from `select_kernels`.
        word_rows, segment_ids: int32 [B, S].
        input_mask: int32 [B, S], 1 for tokens, 0 for padding.
        dropout: the `Dropout` of a training step, None for prediction.
        pooled_only: whether only `pooled` is asked for. Where that is made of [CLS], the last layer computes nothing else then, and
            what is returned has neither its hidden states nor its attention.
        starts, positions: given where several texts share a row, see `modeling.bert.sequence_layout.SharedRows`; input_mask is [R, C, S]
            then, and where `BertOutput` says B all but `pooled` have the R rows.
    Returns:
        `BertOutput`.
    """
    batch, length = word_rows.shape
    texts = texts_of(word_rows, input_mask, kernels, starts, positions)
    hidden_size = config.hidden_size
    pooled_only = pooled_only and config.pooling == CLS

    def drop(x, mask):
        return x if mask is None else kernels.dropout(x, mask)

    def linear(x, name):
        return kernels.linear(x, variables.get(name + "-weight"), variables.joined(name + "-bias"))

    def layer_norm(x, name):
        return kernels.layer_norm(x, variables.joined(name + "-gamma"), variables.joined(name + "-beta"), config.layer_norm_eps)

    words = flow._C.gather(variables.get("bert-embeddings-word_embeddings"), word_rows.reshape(-1), axis=0)  # [T, H]
    types = flow._C.gather(variables.get("bert-embeddings-token_type_embeddings"), segment_ids.reshape(-1), axis=0)  # [T, H]
    x = texts.add_positions(words + types, variables.get("bert-embeddings-position_embeddings"))
    x = layer_norm(x, "bert-embeddings-LayerNorm")  # [T, H]
    x = drop(x, dropout and dropout.hidden())

    mask = texts.attention_mask(config.num_attention_heads)
    hidden_states, all_scores, all_probs = [x], [], []
    for layer in range(config.num_hidden_layers):
        prefix = f"bert-encoder-layer_{layer}-"
        whole = not pooled_only or layer < config.num_hidden_layers - 1

        def some(drawn, whole=whole):  # of a dropout mask what the layer computes
            return drawn if whole or drawn is None else texts.some(drawn)

        to_heads, x = fan_out(x, 2)
        weight, bias = (variables.joined(*attention_names(prefix, kind)) for kind in ("weight", "bias"))
        query, key, value = kernels.heads(kernels.linear(to_heads, weight, bias), batch, config.num_attention_heads, 3)  # [B, N, S, D]
        if not whole:
            x, query = texts.first(x), texts.first_of_heads(query)
            mask = texts.first_queries(mask, config.num_attention_heads)
        scores = kernels.attention_scores(query, key, mask)  # [B, N, S, S]
        probs = flow.softmax(scores, dim=-1)
        context = flow.matmul(drop(probs, some(dropout and dropout.attention())), value)  # [B, N, S, D]
        context = context.permute(0, 2, 1, 3).reshape(x.shape[0], hidden_size)  # [T, H]
        attended = drop(linear(context, prefix + "attention-output-dense"), some(dropout and dropout.hidden()))
        x = layer_norm(x + attended, prefix + "attention-output-LayerNorm")
        inner, outer = prefix + "intermediate-dense", prefix + "output-dense"
        inner, outer = ((variables.get(name + "-weight"), variables.joined(name + "-bias")) for name in (inner, outer))
        outer = drop(kernels.feed_forward(x, *inner, *outer), some(dropout and dropout.hidden()))
        x = layer_norm(x + outer, prefix + "output-LayerNorm")
        if whole:
            hidden, x = fan_out(x, 2)
            hidden_states.append(hidden)
            all_scores.append(scores)
            all_probs.append(probs)

    if config.pooling == CLS:
        pooled = flow.tanh(linear(x if pooled_only else texts.first(x), "bert-pooler-dense"))  # [B, H]
    else:  # the pooler has learned to read [CLS]: mean and max of the last layer are taken as they are
        pooled = pool(x.reshape(batch, length, hidden_size), input_mask, config.pooling, kernels.device)
    return BertOutput(_HiddenStates(hidden_states, (batch, length, hidden_size)), tuple(all_scores), tuple(all_probs), pooled)
