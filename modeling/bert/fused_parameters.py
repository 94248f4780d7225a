"""Which variables the graphs hold as columns of one fused parameter.

A parameter costs a graph four operations (itself, its two moments and its update), and every operation costs compile time, memory and
scheduling in each step. A BERT of 12 layers has 122 biases and vectors of layer norms. So all vectors are fused into one parameter,
and so are the weights of a layer's query, key and value, which one GEMM computes, and those of a cross-attention's key and value.
Snapshots store the separate variables.
"""

from modeling.bert.names import CROSS_KEY, QUERY, TRAINING_ONLY_PREFIX, attention_names, cross_attention_names
from modeling.bert.weight_decay import has_weight_decay

VECTORS = "bias-and-LayerNorm"  # the name of the parameter of all vectors


def fuse(shapes, frozen=()):
    """The parameters that hold the variables.

    Args:
        shapes: dict of documented name -> shape, matrices as [in, out].
        frozen: names of the variables that are not trained; they are fused only with each other.
    Returns:
        dict of parameter's name -> tuple of parts. A part is a tuple of documented names, whose columns are adjacent and are used
        together. A variable that is not fused keeps its name.
    """
    together = _used_together(shapes, frozen)
    parameters = {}
    for name, shape in shapes.items():
        part = together.get(name, (name,))
        if name != part[0]:
            continue
        if len(shape) == 1 and not has_weight_decay(name):
            # a snapshot stores all of a parameter or nothing
            holder = ("frozen-" if name in frozen else TRAINING_ONLY_PREFIX if name.startswith(TRAINING_ONLY_PREFIX) else "") + VECTORS
        else:
            holder = name if len(part) == 1 else name.replace("-query", "").replace("-key", "-key_value")
        parameters[holder] = (*parameters.get(holder, ()), part)
    return parameters


def _used_together(shapes, frozen):
    """dict of name -> the part that it belongs to, for query, key and value of each layer, and key and value of each cross-attention."""
    together = {}
    for name in shapes:
        for first, names_of in ((QUERY, attention_names), (CROSS_KEY, cross_attention_names)):
            prefix, found, kind = name.partition(first + "-")
            part = names_of(prefix, kind)
            if found and all(other in shapes and (other in frozen) == (name in frozen) for other in part):
                together.update(dict.fromkeys(part, part))
    return together
