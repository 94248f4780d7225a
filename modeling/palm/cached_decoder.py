"""The decoder for one token at a time. Keys and values of the tokens before are kept, so that a step computes one token per row.

The graphs have fixed shapes: the caches are as long as the longest text, and places after the current one are masked. A row may continue
any row of the step before (`parents`), as beam search needs it.

R rows (hypotheses) of B sources, Y places of the caches; other dimension letters: see modeling/palm/model.py.
"""

import numpy as np

from modeling.bert import names
from modeling.engine import parallel
from modeling.engine.engine import Engine
from modeling.engine.global_function import global_function
from modeling.engine.runtime import flow
from modeling.palm.config import PalmConfig
from modeling.palm.model import (
    add_feed_forward,
    add_term,
    attend,
    cross_attention_heads,
    cross_attention_query,
    embed_words,
    encode,
    graph_parts,
    next_token_logits,
    self_attention_heads,
)


def encode_sources(variables, config: PalmConfig, kernels, word_rows, input_mask, copies):
    """Keys and values of the cross-attentions.

    Args:
        word_rows, input_mask: int32 [B, S].
        copies: int32 [R], the source of each row.
        variables, config, kernels: as for `encode`.
    Returns:
        tuple: for each decoder layer keys and values, [R, N, S, D].
    """
    memory = encode(variables, config, kernels, word_rows, input_mask)
    parts, found = graph_parts(variables, config, kernels), []
    for layer in range(config.dec_hidden_layers):
        heads = cross_attention_heads(parts, names.decoder_prefix(layer), memory, word_rows.shape[0])
        found += [flow._C.gather(head, copies, axis=0) for head in heads]
    return tuple(found)


def decode_step(variables, config: PalmConfig, kernels, tokens, parents, positions, place, own_mask, source_mask, caches, crosses):
    """One token of each row.

    Args:
        tokens: int32 [R], the last token of each row.
        parents: int32 [R], the row of the caches that each row continues.
        positions: int32 [R], the position t of the tokens.
        place: float32 [R, N, Y, 1], 1 at position t.
        own_mask: float32 [R, N, 1, Y], 0 up to position t, then -10000.
        source_mask: float32 [R, N, 1, S], 0 at the tokens of the source, else -10000.
        caches: for each decoder layer keys and values, [R, N, Y, D], 0 from position t on.
        crosses: of `encode_sources`.
        variables, config, kernels: as for `encode`.
    Returns:
        tuple: log-probabilities of the token that follows, [R, V], then the new caches.
    """
    parts, rows, kept = graph_parts(variables, config, kernels), tokens.shape[0], []
    x = embed_words(parts, tokens) + flow._C.gather(variables.get(names.POSITION_EMBEDDINGS), positions, axis=0)  # [R, H]
    x = parts.layer_norm(x, names.EMBEDDINGS_NORM)
    for layer in range(config.dec_hidden_layers):
        prefix = names.decoder_prefix(layer)
        query, *new = self_attention_heads(parts, prefix, parts.layer_norm(x, prefix + names.SELF_NORM), rows)  # [R, N, 1, D]
        # [R, N, Y, 1] @ [R, N, 1, D]: the new key or value at place t
        own = [flow._C.gather(caches[2 * layer + k], parents, axis=0) + flow.matmul(place, head) for k, head in enumerate(new)]
        kept += own
        x = add_term(parts, x, attend(parts, query, *own, own_mask), prefix + names.ATTENTION_OUTPUT)
        query = cross_attention_query(parts, prefix, parts.layer_norm(x, prefix + names.CROSS_NORM), rows)
        cross = crosses[2 * layer : 2 * layer + 2]
        x = add_term(parts, x, attend(parts, query, *cross, source_mask), prefix + names.CROSS_OUTPUT)
        x = add_feed_forward(parts, x, prefix, names.FEED_FORWARD_NORM)
    logits = next_token_logits(variables, parts.layer_norm(x, names.DECODER_NORM))
    return (flow.log_softmax(logits, dim=-1), *kept)


class CachedDecoder:
    """Static graphs of `encode_sources` and `decode_step` for batches of one size.

    Args:
        variables: `Variables` of a PALM.
        config: `PalmConfig`.
        device: "cpu" or "cuda".
        sources: B.
        beam: rows per source; R = B * beam.
        longest: Y, tokens of the longest text.
    """

    def __init__(self, variables, config, device, sources, beam, longest):
        self._config, self._device, self._beam, self._longest = config, device, beam, longest
        self.sources, self.rows = sources, sources * beam
        engine = Engine(device)
        kernels = engine.kernels.for_prediction
        layers = range(2 * config.dec_hidden_layers)
        self._names = [f"cache_{number}" for number in layers], [f"cross_{number}" for number in layers]

        @global_function(type="predict", variables=variables, engine=engine)
        def encode_job(variables, word_rows, input_mask, copies):
            return encode_sources(variables, config, kernels, word_rows, input_mask, copies)

        @global_function(type="predict", variables=variables, engine=engine)
        def step_job(variables, **batch):
            caches, crosses = ([batch.pop(name) for name in part] for part in self._names)
            return decode_step(variables, config, kernels, caches=caches, crosses=crosses, **batch)

        self._encode_job, self._step_job = encode_job, step_job

    def start(self, word_rows, input_mask):
        """The step function for a batch of sources, int32 [B, S], as `beam_search` takes it."""
        heads, size = self._config.num_attention_heads, self._config.head_size
        copies = np.repeat(np.arange(self.sources, dtype=np.int32), self._beam)
        crosses = self._encode_job({"word_rows": word_rows, "input_mask": input_mask, "copies": copies})
        source_mask = (input_mask[copies, None, None, :].astype(np.float32) - 1) * 10000
        source_mask = np.ascontiguousarray(np.repeat(source_mask, heads, axis=1))
        empty = np.zeros((self.rows, heads, self._longest, size), np.float32)
        caches = [parallel.replicate(empty, self._device) for _ in self._names[0]]

        def step(tokens, parents, number):
            nonlocal caches
            place = np.zeros((self.rows, heads, self._longest, 1), np.float32)
            place[:, :, number] = 1
            own_mask = np.zeros((self.rows, heads, 1, self._longest), np.float32)
            own_mask[..., number + 1 :] = -10000
            batch = {
                "tokens": tokens.copy(),
                "parents": parents.copy(),
                "positions": np.full(self.rows, number, np.int32),
                "place": place,
                "own_mask": own_mask,
                "source_mask": source_mask,
                **dict(zip(self._names[0], caches)),
                **dict(zip(self._names[1], crosses)),
            }
            log_probs, *caches = self._step_job(batch)
            return parallel.to_numpy(log_probs)

        return step
