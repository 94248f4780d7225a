"""The BERT encoder (Devlin et al. 2019), which the graphs of all phases share: Google's variable names and exact GELU.

Dimension letters, used in the shape comments of this project:
    B batch, S sequence length, T tokens = B * S, H hidden size, N attention heads, D head size = H / N, I intermediate
    size, L encoder layers, V vocabulary, C labels (classes), K domains
"""

import collections.abc
import math
from typing import NamedTuple, Optional

from modeling.bert import names
from modeling.bert.attention import attention_of
from modeling.bert.config import CLS, BertConfig
from modeling.bert.dropout import Dropout
from modeling.bert.names import layer_prefix
from modeling.bert.norm_placement import NORM_PLACEMENTS
from modeling.bert.pooling import attention_pool, pool
from modeling.bert.positions import EMBEDDED_POSITIONS
from modeling.bert.sequence_layout import sequence_layout
from modeling.cli.choices import RAW_CLS
from modeling.engine.runtime import flow
from modeling.engine.workarounds import fan_out


class BertOutput(NamedTuple):
    """Output of `build_bert`; the output of layer l is hidden_states[l + 1]."""

    hidden_states: collections.abc.Sequence  # L + 1 of [B, S, H]: the embeddings, then each encoder layer
    attention_scores: tuple  # L of [B, N, S, S], before softmax, -10000 added at padding keys
    attention_probs: tuple  # L of [B, N, S, S], before dropout
    # [B, H], the input of a classifier: tanh(W h_L[CLS] + b), or another pooling of h_L (config.pooling); None without `pools`
    pooled: object
    projections: tuple = ()  # queries, keys and values of the last layer, each [B, N, S, D]; () if that layer computes [CLS] only


class LayerOutput(NamedTuple):
    """What one encoder layer computes."""

    hidden: object  # [T, H]
    scores: object  # [B, N, S, S], before softmax
    probs: object  # [B, N, S, S], before dropout
    projections: tuple  # queries, keys, values, each [B, N, S, D]


class _HiddenStates(collections.abc.Sequence):
    """Sequence of [B, S, H]. Each item is reshaped from its [T, H] on access, because a reshape is a copy in a graph on the CPU."""

    def __init__(self, flat, shape):
        self._flat, self._shape = flat, shape

    def __len__(self):
        return len(self._flat)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return tuple(self[place] for place in range(*position.indices(len(self))))
        return self._flat[position].reshape(*self._shape)


class GraphParts(NamedTuple):
    """The parts of one graph that all layers use."""

    variables: object  # the graph's view of a `Variables`
    config: BertConfig
    kernels: object
    layout: object  # of `sequence_layout`
    dropout: Optional[Dropout]

    @property
    def norms(self):
        """Where the layer norms are, a class of modeling/bert/norm_placement.py."""
        return NORM_PLACEMENTS[self.config.variant.layer_norms]

    def linear(self, x, name):
        """x [T, in] -> [T, out]."""
        return self.kernels.linear(x, self.variables.get(name + "-weight"), self.variables.fused(name + "-bias"))

    def layer_norm(self, x, name):
        """x [T, H] -> [T, H]."""
        gamma, beta = (self.variables.fused(f"{name}-{part}") for part in ("gamma", "beta"))
        return self.kernels.layer_norm(x, gamma, beta, self.config.layer_norm_eps)

    def drop(self, x, mask):
        """x with a mask of `Dropout`, or as it is if there is none."""
        return x if mask is None else self.kernels.dropout(x, mask)

    def hidden_mask(self, cls_only=False):
        """The next dropout mask for hidden states."""
        return self._part(self.dropout and self.dropout.hidden(), cls_only)

    def attention_mask(self, cls_only=False):
        """The next dropout mask for attention probabilities."""
        return self._part(self.dropout and self.dropout.attention(), cls_only)

    def _part(self, mask, cls_only):
        return self.layout.cls_dropout_mask(mask) if cls_only and mask is not None else mask


def _embeddings(encoder, word_rows, segment_ids, shift):
    """The sum of word, segment and position embeddings, and of a shift [T, H] if there is one, normalised -> [T, H]."""
    variant = encoder.config.variant
    words = flow._C.gather(encoder.variables.get(names.WORD_EMBEDDINGS), word_rows.reshape(-1), axis=0)  # [T, H]
    words = words if shift is None else words + shift
    x = EMBEDDED_POSITIONS[variant.positions](encoder, words, segment_ids)
    x = encoder.layer_norm(x, names.EMBEDDINGS_NORM) if variant.embeddings_norm else x
    return encoder.drop(x, encoder.hidden_mask())


def _queries_keys_values(encoder, prefix, x, batch):
    """The projections of x [T, H] by one GEMM: (x for the residual connection, query, key, value [B, N, S, D])."""
    to_heads, x = encoder.norms.inputs(encoder, x, prefix + names.ATTENTION_NORM)
    weight, bias = (encoder.variables.fused(*names.attention_names(prefix, kind)) for kind in ("weight", "bias"))
    query, key, value = encoder.kernels.heads(encoder.kernels.linear(to_heads, weight, bias), batch, encoder.config.num_attention_heads, 3)
    return x, query, key, value


def _attend_and_feed_forward(encoder, layer, x, query, key, value, mask, cls_only=False):
    """A layer from its projections on, for all tokens or for those at [CLS] alone.

    Args:
        layer: its number, from 0.
        x: the layer's input, [T, H] or [B, H].
        query, key, value: [B, N, S, D]; query [B, N, 1, D] for [CLS] alone.
        mask: added to the scores, [B, N, S, S] or [B, N, 1, S].
        cls_only: whether x, query and mask are those of [CLS] alone.
    Returns:
        `LayerOutput`.
    """
    prefix = layer_prefix(layer)
    attention = attention_of(encoder, layer, prefix)
    scores = attention.scores(query, key, mask)  # [B, N, S, S]
    probs = flow.softmax(scores, dim=-1)
    context = attention.context(encoder.drop(probs, encoder.attention_mask(cls_only)), value)  # [B, N, S, D]
    context = context.permute(0, 2, 1, 3).reshape(x.shape[0], encoder.config.hidden_size)  # [T, H]
    return LayerOutput(_feed_forward(encoder, prefix, x, context, cls_only), scores, probs, (query, key, value))


def _feed_forward(encoder, prefix, x, context, cls_only=False):
    """A layer from its attention's context on: x, context [T, H] -> [T, H], or [B, H] -> [B, H]."""
    attended = encoder.linear(context, prefix + names.ATTENTION_OUTPUT)
    attended = encoder.drop(attended, encoder.hidden_mask(cls_only))
    x = encoder.norms.add(encoder, x, attended, prefix + names.ATTENTION_NORM)
    normed, x = encoder.norms.inputs(encoder, x, prefix + names.OUTPUT_NORM)
    inner, outer = (
        (encoder.variables.get(f"{prefix}{dense}-weight"), encoder.variables.fused(f"{prefix}{dense}-bias"))
        for dense in (names.INTERMEDIATE, names.OUTPUT)
    )
    outer = encoder.kernels.feed_forward(normed, *inner, *outer)
    outer = encoder.drop(outer, encoder.hidden_mask(cls_only))
    return encoder.norms.add(encoder, x, outer, prefix + names.OUTPUT_NORM)


def encoder_layer(encoder, layer, x, mask, batch):
    """Encoder layer `layer` for all tokens.

    Args:
        x: its input, [T, H].
        mask: of `attention_mask`, [B, N, S, S].
        batch: number of rows.
    Returns:
        `LayerOutput`.
    """
    prefix = layer_prefix(layer)
    x, query, key, value = _queries_keys_values(encoder, prefix, x, batch)
    return _attend_and_feed_forward(encoder, layer, x, query, key, value, mask)


def cls_layer(encoder, layer, x, mask, batch):
    """Encoder layer `layer` for the tokens at [CLS] alone; keys and values are still those of all tokens.

    Enough for the last layer where only the state at [CLS] is used. Arguments as for `encoder_layer`.

    Returns:
        [B, H].
    """
    prefix, layout = layer_prefix(layer), encoder.layout
    x, query, key, value = _queries_keys_values(encoder, prefix, x, batch)
    x, query = layout.cls_states(x), layout.cls_queries(query)
    mask = layout.cls_attention_mask(mask, encoder.config.num_attention_heads)
    return _attend_and_feed_forward(encoder, layer, x, query, key, value, mask, cls_only=True).hidden


def cls_prediction_layer(encoder, layer, x, batch):
    """`cls_layer` for a graph without a backward pass, without the keys and values of all tokens.

    With query q of a text, and a head's part of W_k, b_k, W_v, b_v, the scores are q (W_k x + b_k) = (q W_k) x + q b_k. The last term is
    the same for all tokens, so the softmax is not changed without it. The context is W_v (sum of p x) + b_v. So the two widest products of
    the layer are computed per text, not per token.

    Arguments and return value as for `cls_layer`.
    """
    prefix, layout, variables = layer_prefix(layer), encoder.layout, encoder.variables
    heads, width = encoder.config.num_attention_heads, encoder.config.hidden_size
    size = width // heads
    key, value = (variables.get(f"{prefix}{name}-weight").reshape(width, heads, size) for name in (names.KEY, names.VALUE))
    cls = layout.cls_states(x)  # [B, H]
    query = encoder.linear(cls, prefix + names.QUERY).reshape(-1, heads, size).permute(1, 0, 2)  # [N, B, D]
    query = flow.matmul(query, key.permute(1, 2, 0)).permute(1, 0, 2)  # [N, B, D] @ [N, D, H] -> [B, N, H]
    tokens, masks = x.reshape(batch, -1, width), layout.text_masks()  # [R, S, H], [R, C, S]
    query = query.reshape(batch, -1, width)  # [R, C * N, H]
    scores = flow.matmul(query, tokens, transpose_b=True, alpha=1.0 / math.sqrt(size)) + encoder.kernels.cls_mask(masks, heads)
    means = flow.matmul(flow.softmax(scores, dim=-1), tokens)  # [R, C * N, S] @ [R, S, H]
    means = means.reshape(-1, heads, width).permute(1, 0, 2)  # [N, B, H]
    context = flow.matmul(means, value.permute(1, 0, 2)).permute(1, 0, 2)  # [N, B, H] @ [N, H, D] -> [B, N, D]
    context = context.reshape(-1, width) + variables.get(f"{prefix}{names.VALUE}-bias").reshape(1, width)
    return _feed_forward(encoder, prefix, cls, context, cls_only=True)


def _pooled(encoder, x, input_mask, is_cls):
    """The vector of each text that a classifier reads, from the output of the last layer.

    Args:
        x: [T, H], or if `is_cls` that at [CLS] alone, [B, H].
        input_mask: as for `build_bert`.
    Returns:
        [B, H], of two pooling heads [B, 2 * H].
    """
    config, dropout = encoder.config, encoder.dropout
    if config.pooling in (CLS, RAW_CLS):
        cls = x if is_cls else encoder.layout.cls_states(x)
        if config.pooling == RAW_CLS:
            return cls
        return flow.tanh(encoder.linear(encoder.drop(cls, dropout and dropout.pooler_input()), names.POOLER))
    # The pooler was trained on [CLS], so that the other poolings of the last layer bypass it
    if config.pooling_heads:
        return attention_pool(encoder, x, input_mask)
    length = encoder.layout.length
    return pool(x.reshape(x.shape[0] // length, length, x.shape[1]), input_mask, config.pooling, encoder.kernels.device)


def build_bert(
    variables,
    config: BertConfig,
    kernels,
    word_rows,
    input_mask,
    segment_ids,
    dropout: Optional[Dropout] = None,
    pooled_only: bool = False,
    starts=None,
    positions=None,
    shift=None,
    pools: bool = True,
    project=None,
) -> BertOutput:
    """Builds the encoder into the current graph.

    Args:
        variables: the graph's view of a `Variables`.
        config: `BertConfig`.
        kernels: from `select_kernels`.
        word_rows: int32 [B, S], rows of the word embeddings.
        input_mask: int32 [B, S], 1 for tokens, 0 for padding.
        segment_ids: int32 [B, S].
        dropout: the `Dropout` of a training step, None for prediction.
        pooled_only: whether only `pooled` is used. If `config.ends_at_cls`, the last layer then computes only the states at [CLS], and the
            output contains neither its hidden states nor its attention nor its projections.
        starts, positions: of a packed batch, see `modeling.bert.sequence_layout.PackedLayout`; input_mask is [R, C, S] then, and all of
            `BertOutput` except `pooled` has R rows in place of B.
        shift: added to the word embeddings, [T, H], or None.
        pools: whether `pooled` is computed. Otherwise the pooler is not needed.
        project: function of the embeddings [T, E] -> [T, H], where they have another width than the layers; None where not.
    Returns:
        `BertOutput`.
    """
    batch, length = word_rows.shape
    layout = sequence_layout(word_rows, input_mask, kernels, starts, positions)
    encoder = GraphParts(variables, config, kernels, layout, dropout)
    pooled_only = pooled_only and config.ends_at_cls

    x = _embeddings(encoder, word_rows, segment_ids, shift)
    x = x if project is None else project(x)
    mask = layout.attention_mask(config.num_attention_heads)
    embeddings, outputs = x, []
    for layer in range(config.num_hidden_layers - pooled_only):
        output = encoder_layer(encoder, layer, x, mask, batch)
        if layer == config.num_hidden_layers - 1:
            output = output._replace(hidden=encoder.norms.final(encoder, output.hidden))
        hidden, x = fan_out(output.hidden, 2)
        outputs.append(output._replace(hidden=hidden))
    if pooled_only and kernels.predicts:
        x = cls_prediction_layer(encoder, config.num_hidden_layers - 1, x, batch)
    elif pooled_only:
        x = cls_layer(encoder, config.num_hidden_layers - 1, x, mask, batch)

    pooled = _pooled(encoder, x, input_mask, pooled_only) if pools else None
    hidden_states = _HiddenStates([embeddings, *(output.hidden for output in outputs)], (batch, length, config.hidden_size))
    scores, probs = (tuple(getattr(output, name) for output in outputs) for name in ("scores", "probs"))
    return BertOutput(hidden_states, scores, probs, pooled, () if pooled_only else outputs[-1].projections)
