"""Which variables the graphs hold side by side in one parameter.

A parameter costs a graph four operations, itself, its two moments and its update, and every operation costs compiling, memory and the
engine's bookkeeping in each step; a BERT of 12 layers has 122 biases and vectors of layer norms. So all vectors are columns of one
parameter, and so are the weights of query, key and value, which one GEMM then computes. Snapshots hold the documented variables.
"""

NO_DECAY = ("LayerNorm", "bias")  # weight decay is off for variables, and parameters, whose names hold one of these
VECTORS = "bias-and-LayerNorm"
_ATTENTION = ("query", "key", "value")


def attention_names(prefix, kind):
    """Names of the three variables of a layer that one GEMM takes: kind "weight" or "bias"."""
    return tuple(f"{prefix}attention-self-{part}-{kind}" for part in _ATTENTION)


def join(shapes, frozen=()):
    """The parameters that hold variables.

    Args:
        shapes: dict of documented name -> shape, matrices as [in, out].
        frozen: names of variables that are not trained; they share a parameter with each other only.
    Returns:
        dict of parameter's name -> tuple of parts; a part is a tuple of documented names, whose columns lie side by side and are asked
        for at once. A variable that is alone keeps its name.
    """
    together = _asked_for_together(shapes, frozen)
    parameters = {}
    for name, shape in shapes.items():
        part = together.get(name, (name,))
        if name != part[0]:
            continue
        if len(shape) == 1 and any(pattern in name for pattern in NO_DECAY):
            holder = ("frozen-" if name in frozen else "") + VECTORS
        else:
            holder = name if len(part) == 1 else name.replace("-query", "")
        parameters[holder] = (*parameters.get(holder, ()), part)
    return parameters


def _asked_for_together(shapes, frozen):
    """dict of name -> the part that it belongs to, for query, key and value of each layer."""
    together = {}
    for name in shapes:
        prefix, found, kind = name.partition("attention-self-query-")
        part = attention_names(prefix, kind)
        if found and all(other in shapes and (other in frozen) == (name in frozen) for other in part):
            together.update(dict.fromkeys(part, part))
    return together
