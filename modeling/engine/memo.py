"""What several places of a static graph use and the graph makes once: constants, and variables in another shape.

Each operation of a graph costs compiling time and memory, and layers and lanes (modeling/engine/lanes/plan.py) ask for the same ones again
and again.
"""

import contextlib

_made = None  # of the graph that is being built: (object, key) -> tensor


@contextlib.contextmanager
def within_graph():
    """While the block builds a graph, `once` gives each tensor once."""
    global _made
    before, _made = _made, {}
    try:
        yield
    finally:
        _made = before


def once(key, make, of=None):
    """`make()`, or what it gave before in this graph.

    Args:
        key: hashable; what is made.
        make: function without arguments -> tensor.
        of: the tensor that it is made from, if any.
    """
    if _made is None:
        return make()
    place = id(of), key
    if place not in _made:
        _made[place] = of, make()  # with `of`, so that its id stays its own
    return _made[place][1]
