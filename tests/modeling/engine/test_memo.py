"""modeling/engine/memo.py: what a graph makes once."""

import pytest

from modeling.engine import memo


def test_once_per_graph():
    first, second = object(), object()
    with memo.scope():
        made = memo.memoize("row", object, of=first)
        assert memo.memoize("row", object, of=first) is made
        assert memo.memoize("row", object, of=second) is not made
        assert memo.memoize(("row", 2), object, of=first) is not made
        with memo.scope():
            assert memo.memoize("row", object, of=first) is not made
        assert memo.memoize("row", object, of=first) is made
    with memo.scope():
        assert memo.memoize("row", object, of=first) is not made


def test_outside_a_scope_nothing_is_kept():
    assert memo.memoize("row", object) is not memo.memoize("row", object)


def test_a_graph_that_fails_leaves_nothing():
    with pytest.raises(ValueError), memo.scope():  # noqa: PT011
        raise ValueError
    assert memo.memoize("row", object) is not memo.memoize("row", object)


def test_the_source_tensor_stays_alive():
    """Its id is the key: another object must not get the same id."""
    with memo.scope():
        made = {id(memo.memoize("row", object, of=[number])) for number in range(100)}
        assert len(made) == 100
