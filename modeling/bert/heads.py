"""What stands on the encoder: the label classifier and the corrupted-domain classifier."""

from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD
from modeling.bert.pooling import masked_mean
from modeling.engine.runtime import flow
from ofrecord_util.errors import UserError


def classification_logits(variables, kernels, pooled, dropout=None):
    """Label logits [B, C] from the pooled representation [B, H]: dropout, then W [C, H] and b [C]."""
    mask = dropout.hidden() if dropout else None
    if mask is not None:
        pooled = kernels.dropout(pooled, mask)
    return flow.matmul(pooled, variables.get(CLASSIFIER[0]), transpose_b=True) + variables.fused(CLASSIFIER[1])


def domain_representation(variables, hidden_states, input_mask, domain):
    """r = masked mean of h_l + E_dom(d), for one layer or several at once; what Meta-KD calls transferable knowledge.

    Args:
        hidden_states: list of n h_l, [B, S, H].
        input_mask: [B, S].
        domain: true domain ids d, int32 [B].
    Returns:
        [n * B, H], layer by layer: one product and one lookup for all layers, whose gradients are then no sums of n.
    """
    means = flow.cat([masked_mean(hidden, input_mask) for hidden in hidden_states], dim=0)
    return means + flow._C.gather(variables.get(DOMAIN_HEAD[0]), flow.cat([domain] * len(hidden_states), dim=0), axis=0)


def domain_logits(variables, representation):
    """Domain logits [n * B, K] of n layers, which share W_dom and b_dom: W_dom r + b_dom."""
    return flow.matmul(representation, variables.get(DOMAIN_HEAD[1]), transpose_b=True) + variables.fused(DOMAIN_HEAD[2])


def default_domain_layers(num_hidden_layers):
    """The layers at a third, two thirds and the end of the stack, counted from 0: (3, 7, 11) of 12, (1, 3, 5) of 6."""
    return tuple(sorted({max(0, -(-num_hidden_layers * third // 3) - 1) for third in (1, 2, 3)}))


def check_domain_layers(layers, num_hidden_layers):
    """Layers of `--domain_layers` (or the default) as a tuple.

    Raises:
        UserError: a layer that the encoder does not have, or one named twice.
    """
    if not layers:
        return default_domain_layers(num_hidden_layers)
    if len(set(layers)) != len(layers) or not all(0 <= layer < num_hidden_layers for layer in layers):
        raise UserError(
            "--domain_layers {}: the encoder has layers 0 to {}, each at most once".format(
                ",".join(map(str, layers)), num_hidden_layers - 1
            )
        )
    return tuple(layers)
