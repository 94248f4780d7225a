"""modeling/engine/memo.py: what a graph makes once."""

import pytest

from modeling.engine.memo import once, within_graph


def test_once_in_each_graph():
    first, second = object(), object()
    with within_graph():
        made = once("row", object, of=first)
        assert once("row", object, of=first) is made
        assert once("row", object, of=second) is not made
        assert once(("row", 2), object, of=first) is not made
        with within_graph():
            assert once("row", object, of=first) is not made
        assert once("row", object, of=first) is made
    with within_graph():
        assert once("row", object, of=first) is not made


def test_outside_of_a_graph_nothing_is_kept():
    assert once("row", object) is not once("row", object)


def test_a_graph_that_fails_leaves_nothing_behind():
    with pytest.raises(ValueError), within_graph():  # noqa: PT011  the test's own error
        raise ValueError
    assert once("row", object) is not once("row", object)


def test_what_it_is_made_of_stays_alive_as_long():
    """Its id names it: another object must not come to have it."""
    with within_graph():
        made = {id(once("row", object, of=[number])) for number in range(100)}
        assert len(made) == 100
