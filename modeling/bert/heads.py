"""The heads of the encoder: the label classifier, the corrupted-domain classifier, those of pre-training, and the dense layer on each token
that tags words or finds answers."""

from modeling.bert.names import (
    CLASSIFIER,
    DOMAIN_HEAD,
    REPLACED_DENSE,
    REPLACED_OUTPUT,
    SENTENCE_HEAD,
    TOKEN_BIAS,
    TOKEN_DENSE,
    TOKEN_NORM,
    WORD_EMBEDDINGS,
)
from modeling.bert.pooling import masked_mean
from modeling.bert.variant import PLAIN, TRANSFORMED
from modeling.engine.runtime import flow
from ofrecord_util.errors import UserError


def classification_logits(variables, kernels, pooled, dropout=None):
    """Label logits: dropout, then W [C, H] and b [C].

    Args:
        variables: the graph's view of a `Variables`.
        kernels: from `select_kernels`.
        pooled: [B, H], of `BertOutput`.
        dropout: the `Dropout` of a training step, None for prediction.
    Returns:
        [B, C].
    """
    mask = dropout.hidden() if dropout else None
    if mask is not None:
        pooled = kernels.dropout(pooled, mask)
    return flow.matmul(pooled, variables.get(CLASSIFIER[0]), transpose_b=True) + variables.fused(CLASSIFIER[1])


def domain_representation(variables, hidden_states, input_mask, domain):
    """r = masked mean of h_l + E_dom(d), of one or more layers. Meta-KD calls it transferable knowledge.

    Args:
        variables: the graph's view of a `Variables`.
        hidden_states: list of n h_l, [B, S, H].
        input_mask: see `masked_mean`.
        domain: true domains d, int32 [B].
    Returns:
        [n * B, H], layer by layer. All layers share one lookup, so that its gradient is not a sum of n terms.
    """
    means = flow.cat([masked_mean(hidden, input_mask) for hidden in hidden_states], dim=0)
    return means + flow._C.gather(variables.get(DOMAIN_HEAD[0]), flow.cat([domain] * len(hidden_states), dim=0), axis=0)


def domain_logits(variables, representation):
    """Domain logits of n layers, W_dom r + b_dom, from their representations r [n * B, H] -> [n * B, K]."""
    return flow.matmul(representation, variables.get(DOMAIN_HEAD[1]), transpose_b=True) + variables.fused(DOMAIN_HEAD[2])


def dense_logits(variables, kernels, head, hidden, mask=None):
    """Logits of each token: dropout, then W [C, H] and b [C].

    Args:
        variables: the graph's view of a `Variables`.
        kernels: from `select_kernels`.
        head: names of W and b, `names.TAG_HEAD` or `names.SPAN_HEAD`.
        hidden: states of the last layer, [T, H].
        mask: dropout mask [T, H], or None.
    Returns:
        [T, C].
    """
    hidden = hidden if mask is None else kernels.dropout(hidden, mask)
    return kernels.table_scores(hidden, variables.get(head[0]), variables.fused(head[1]))


def token_logits(variables, config, kernels, hidden):
    """Logits of all tokens of the vocabulary: E LN(gelu(W h + b)) + c, with the word embeddings E; E h + c of a plain head.

    Args:
        variables: the graph's view of a `Variables` that holds all word embeddings.
        config: `BertConfig`.
        kernels: from `select_kernels`.
        hidden: states h of the last layer, [T, H].
    Returns:
        [T, V].
    """
    return kernels.table_scores(
        _TOKEN_HEADS[config.variant.token_head](variables, config, kernels, hidden),
        variables.get(WORD_EMBEDDINGS),
        variables.fused(TOKEN_BIAS),
    )


def _transformed(variables, config, kernels, hidden):
    x = kernels.gelu_layer(hidden, variables.get(TOKEN_DENSE + "-weight"), variables.fused(TOKEN_DENSE + "-bias"))
    gamma, beta = (variables.fused(f"{TOKEN_NORM}-{part}") for part in ("gamma", "beta"))
    return kernels.layer_norm(x, gamma, beta, config.layer_norm_eps)


def _plain(_variables, _config, _kernels, hidden):
    return hidden


_TOKEN_HEADS = {TRANSFORMED: _transformed, PLAIN: _plain}


def sentence_logits(variables, pooled):
    """Logits of the classes of sentence pairs from the pooled state at [CLS], [B, H] -> [B, C]; no dropout, as in BERT."""
    return flow.matmul(pooled, variables.get(SENTENCE_HEAD[0]), transpose_b=True) + variables.fused(SENTENCE_HEAD[1])


def replaced_logits(variables, kernels, hidden):
    """Logits that a token is a replaced one: w gelu(W h + b) + c, from the states h of the last layer, [T, H] -> [T, 1]."""
    x = kernels.gelu_layer(hidden, variables.get(REPLACED_DENSE + "-weight"), variables.fused(REPLACED_DENSE + "-bias"))
    return kernels.linear(x, variables.get(REPLACED_OUTPUT + "-weight"), variables.fused(REPLACED_OUTPUT + "-bias"))


def default_domain_layers(num_hidden_layers):
    """The layers (from 0) at one third, two thirds and the end of the encoder: (3, 7, 11) of 12, (1, 3, 5) of 6."""
    return tuple(sorted({max(0, -(-num_hidden_layers * third // 3) - 1) for third in (1, 2, 3)}))


def check_domain_layers(layers, num_hidden_layers):
    """The layers of the domain loss, as a tuple.

    Args:
        layers: of --domain_layers, or None for `default_domain_layers`.
        num_hidden_layers: L.

    Raises:
        UserError: a layer does not exist or occurs twice.
    """
    if not layers:
        return default_domain_layers(num_hidden_layers)
    if len(set(layers)) != len(layers) or not all(0 <= layer < num_hidden_layers for layer in layers):
        raise UserError(
            "--domain_layers {}: the encoder has layers 0 to {}, give each at most once".format(
                ",".join(map(str, layers)), num_hidden_layers - 1
            )
        )
    return tuple(layers)
