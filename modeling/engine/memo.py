"""Tensors that a static graph uses in several places but computes once: constants, and variables in another shape.

Each operation of a graph costs compile time and memory. Layers and lanes (modeling/engine/lanes/plan.py) need the same tensors many times.
"""

import contextlib

_made = None  # (id of a tensor, key) -> (that tensor, result), of the graph under construction


@contextlib.contextmanager
def scope():
    """Context manager for the construction of one graph. Inside it, `memoize` makes each tensor once."""
    global _made
    before, _made = _made, {}
    try:
        yield
    finally:
        _made = before


def memoize(key, make, of=None):
    """Returns `make()`, or the result of an earlier call with the same `key` and `of` in this scope.

    Outside a `scope`, no result is kept.

    Args:
        key: hashable; identifies the result.
        make: function without arguments -> tensor.
        of: the tensor that the result depends on, if any.
    """
    if _made is None:
        return make()
    place = id(of), key
    if place not in _made:
        _made[place] = of, make()  # keeps `of` alive, so that no other tensor gets its id
    return _made[place][1]
