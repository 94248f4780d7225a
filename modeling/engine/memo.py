"""Tensors that several places of a static graph use and the graph makes only once: constants, and variables in another shape.

Each operation of a graph costs compile time and memory. Layers and lanes (modeling/engine/lanes/plan.py) ask for the same tensors
again and again.
"""

import contextlib

_made = None  # of the graph under construction: (object, key) -> tensor


@contextlib.contextmanager
def scope():
    """A block that builds one graph: inside it `memoize` makes each tensor once."""
    global _made
    before, _made = _made, {}
    try:
        yield
    finally:
        _made = before


def memoize(key, make, of=None):
    """Returns `make()`, or the result of an earlier call with the same `key` and `of` in this scope.

    Outside a `scope` nothing is kept.

    Args:
        key: hashable; what is made.
        make: function without arguments -> tensor.
        of: the tensor that it is made from, if any.
    """
    if _made is None:
        return make()
    place = id(of), key
    if place not in _made:
        _made[place] = of, make()  # keeps `of` alive, so that no other tensor gets its id
    return _made[place][1]
