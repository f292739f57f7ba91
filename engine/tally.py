"""Numbers that only grow, each under a name, for as many names as there is room for."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Tally(Generic[Key]):
    """The last number under each name. The name that was silent longest is forgotten; new ones start above all forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._last: dict[Key, int] = {}
        self._floor = 0

    def last(self, key: Key) -> int:
        return self._last.get(key, self._floor)

    def put(self, key: Key, number: int) -> Key | None:
        """Note the number; the name that had to be forgotten for it, if one had."""
        self._last.pop(key, None)
        self._last[key] = number
        if len(self._last) <= self._most:
            return None
        oldest = next(iter(self._last))
        self._floor = max(self._floor, self._last.pop(oldest))
        return oldest
