"""A dict whose values are made when they are read, so that not all of them are in memory at the same time."""

import collections.abc
from typing import Any, Callable, Iterable, Iterator


class OnDemand(collections.abc.Mapping):
    """A read-only dict that keeps its names only.

    Args:
        names: the keys, in their order.
        value_of: function of a key -> its value. It is called at every access.
    """

    def __init__(self, names: Iterable[str], value_of: Callable[[str], Any]) -> None:
        self._names, self._value_of = dict.fromkeys(names), value_of

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._value_of(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
