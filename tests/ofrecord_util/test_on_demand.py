"""ofrecord_util/on_demand.py: values that are made at each access."""

import pytest

from ofrecord_util.on_demand import OnDemand


def test_values_are_made_when_they_are_read():
    made = []
    values = OnDemand(("b", "a"), lambda name: made.append(name) or name * 2)
    assert (list(values), len(values), "a" in values, "c" in values) == (["b", "a"], 2, True, False)
    assert made == []
    assert values["a"] == "aa"
    assert dict(values) == {"b": "bb", "a": "aa"}
    assert made == ["a", "b", "a"]  # none is kept
    with pytest.raises(KeyError):
        values["c"]
    assert values.get("c") is None
    assert not OnDemand((), str)
