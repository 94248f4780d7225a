"""PALM (Bi et al. 2020, arXiv 2004.07159) as SOFA has it for Chinese, palm.ch.base: an encoder-decoder with the norms before the layers.

    emb(ids) = LN(word[ids] + position + type[0])                      one table for both sides
    encoder:   x += att(LN(x));  x += ffn(LN(x))                       then the final norm, once or twice (PalmConfig)
    decoder:   x += selfatt(LN(x));  x += crossatt(LN(x), memory);  x += ffn(LN(x))
    logits   = LN(x) word^T                                            no bias

Dropout follows the embeddings, the attention probabilities, and each term that is added to x. The builder of BERT's encoder
(modeling/bert/encoder.py) normalises after each sum, and returns scores and states that distillation needs. Another order, and layers with
a second input, would make it two builders in one. So this is a builder beside it, from the same variables, kernels, dropout and layout.

Dimension letters: see modeling/bert/encoder.py; S is the length of the source, Y that of the target.
"""

from typing import Optional

from modeling.bert import names
from modeling.bert.dropout import Dropout
from modeling.bert.encoder import GraphParts
from modeling.bert.sequence_layout import PaddedLayout
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow
from modeling.engine.workarounds import fan_out
from modeling.palm.config import PalmConfig


def graph_parts(variables, config: PalmConfig, kernels, dropout: Optional[Dropout] = None, layout=None) -> GraphParts:
    """The `GraphParts` of a graph, or of one side of it."""
    return GraphParts(variables, config, kernels, layout, dropout)


def embed_words(parts, rows):
    """Word and type embeddings of int32 [B, S] -> [T, H], without positions."""
    variables = parts.variables
    types = variables.get(names.TOKEN_TYPE_EMBEDDINGS)
    words = flow._C.gather(variables.get(names.WORD_EMBEDDINGS), rows.reshape(-1), axis=0)
    return parts.kernels.add_row(words, memoize("first type", lambda: types[:1], of=types))


def _embed(parts, rows):
    """The embeddings of int32 [B, S] -> [T, H]."""
    x = parts.layout.add_positions(embed_words(parts, rows), parts.variables.get(names.POSITION_EMBEDDINGS))
    return parts.drop(parts.layer_norm(x, names.EMBEDDINGS_NORM), parts.hidden_mask())


def self_attention_heads(parts, prefix, x, batch):
    """Queries, keys and values of x [T, H] by one GEMM, each [B, N, S, D]."""
    weight, bias = (parts.variables.fused(*names.attention_names(prefix, kind)) for kind in ("weight", "bias"))
    return parts.kernels.heads(parts.kernels.linear(x, weight, bias), batch, parts.config.num_attention_heads, 3)


def cross_attention_heads(parts, prefix, memory, batch):
    """Keys and values of a decoder layer for the encoder's memory [B * S, H], each [B, N, S, D]."""
    weight, bias = (parts.variables.fused(*names.cross_attention_names(prefix, kind)) for kind in ("weight", "bias"))
    return parts.kernels.heads(parts.kernels.linear(memory, weight, bias), batch, parts.config.num_attention_heads, 2)


def cross_attention_query(parts, prefix, x, batch):
    """Queries of a decoder layer for x [B * Y, H] -> [B, N, Y, D]."""
    heads, width = parts.config.num_attention_heads, parts.config.hidden_size
    query = parts.linear(x, prefix + names.CROSS_QUERY)
    return query.reshape(batch, x.shape[0] // batch, heads, width // heads).permute(0, 2, 1, 3)


def attend(parts, query, key, value, mask):
    """Attention of query [B, N, Y, D] over key and value [B, N, S, D], with a mask to add to the scores -> [B * Y, H]."""
    probs = flow.softmax(parts.kernels.attention_scores(query, key, mask), dim=-1)
    context = flow.matmul(parts.drop(probs, parts.attention_mask()), value)  # [B, N, Y, D]
    return context.permute(0, 2, 1, 3).reshape(query.shape[0] * query.shape[2], parts.config.hidden_size)


def add_term(parts, x, context, name):
    """x [T, H] plus the dense layer `name` of an attention's context [T, H]."""
    return x + parts.drop(parts.linear(context, name), parts.hidden_mask())


def add_feed_forward(parts, x, prefix, norm):
    """x [T, H] plus the feed-forward layer of LN(x)."""
    x, residual = fan_out(x, 2)
    variables = parts.variables
    dense = [
        (variables.get(f"{prefix}{name}-weight"), variables.fused(f"{prefix}{name}-bias")) for name in (names.INTERMEDIATE, names.OUTPUT)
    ]
    term = parts.kernels.feed_forward(parts.layer_norm(x, prefix + norm), *dense[0], *dense[1])
    return residual + parts.drop(term, parts.hidden_mask())


def encode(variables, config: PalmConfig, kernels, word_rows, input_mask, dropout: Optional[Dropout] = None):
    """The encoder.

    Args:
        variables: the graph's view of a `Variables`.
        config: `PalmConfig`.
        kernels: from `select_kernels`.
        word_rows: int32 [B, S].
        input_mask: int32 [B, S], 1 for tokens, 0 for padding.
        dropout: the `Dropout` of a training step, None for prediction.
    Returns:
        the memory, [B * S, H].
    """
    batch = word_rows.shape[0]
    layout = PaddedLayout(word_rows, input_mask, kernels)
    parts = graph_parts(variables, config, kernels, dropout, layout)
    x, mask = _embed(parts, word_rows), layout.attention_mask(config.num_attention_heads)
    for layer in range(config.num_hidden_layers):
        prefix = names.layer_prefix(layer)
        x, residual = fan_out(x, 2)
        heads = self_attention_heads(parts, prefix, parts.layer_norm(x, prefix + names.ATTENTION_NORM), batch)
        x = add_term(parts, residual, attend(parts, *heads, mask), prefix + names.ATTENTION_OUTPUT)
        x = add_feed_forward(parts, x, prefix, names.OUTPUT_NORM)
    for _ in range(config.encoder_final_layer_norms):
        x = parts.layer_norm(x, names.ENCODER_NORM)
    return x


def decode(variables, config: PalmConfig, kernels, memory, input_mask, decoder_rows, dropout: Optional[Dropout] = None):
    """The decoder for whole targets.

    Args:
        memory: of `encode`, [B * S, H].
        decoder_rows: int32 [B, Y], the target without its last token. Padding after it changes nothing before it.
        variables, config, kernels, input_mask, dropout: as for `encode`.
    Returns:
        states [B * Y, H], the input of `next_token_logits`.
    """
    (batch, length), heads = decoder_rows.shape, config.num_attention_heads
    parts = graph_parts(variables, config, kernels, dropout, PaddedLayout(decoder_rows, None, kernels))
    own_mask = kernels.causal_mask(batch, heads, length)
    cross_mask = kernels.additive_mask(input_mask.to(flow.float32), heads, length)
    x, memories = _embed(parts, decoder_rows), fan_out(memory, config.dec_hidden_layers)
    for layer in range(config.dec_hidden_layers):
        prefix = names.decoder_prefix(layer)
        x, residual = fan_out(x, 2)
        own = self_attention_heads(parts, prefix, parts.layer_norm(x, prefix + names.SELF_NORM), batch)
        x = add_term(parts, residual, attend(parts, *own, own_mask), prefix + names.ATTENTION_OUTPUT)
        x, residual = fan_out(x, 2)
        query = cross_attention_query(parts, prefix, parts.layer_norm(x, prefix + names.CROSS_NORM), batch)
        key_value = cross_attention_heads(parts, prefix, memories[layer], batch)
        x = add_term(parts, residual, attend(parts, query, *key_value, cross_mask), prefix + names.CROSS_OUTPUT)
        x = add_feed_forward(parts, x, prefix, names.FEED_FORWARD_NORM)
    return parts.layer_norm(x, names.DECODER_NORM)


def next_token_logits(variables, states):
    """Logits of the tokens that follow, from states [T, H] -> [T, V]."""
    return flow.matmul(states, variables.get(names.WORD_EMBEDDINGS), transpose_b=True)
