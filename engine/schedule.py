"""Who runs next. Pure: no clock, no loop, no socket.

A key (a stream) waits at most once, however often it is offered: newer work replaces waiting older work, since sound that
was added is computed with what waited before it. Urgent keys (finals) go first; all others in the order in which they
began to wait, which is round-robin once every taken key is offered again.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Schedule(Generic[Key]):
    def __init__(self) -> None:
        self._urgent: dict[Key, None] = {}
        self._waiting: dict[Key, None] = {}

    def __len__(self) -> int:
        return len(self._urgent) + len(self._waiting)

    def offer(self, key: Key, urgent: bool = False) -> None:
        """`key` has work. Offering it again changes nothing but, at most, its urgency."""
        if urgent:
            self._waiting.pop(key, None)
            self._urgent.setdefault(key)
        elif key not in self._urgent:
            self._waiting.setdefault(key)

    def withdraw(self, key: Key) -> None:
        self._urgent.pop(key, None)
        self._waiting.pop(key, None)

    def take(self, most: int) -> list[Key]:
        """The next `most` keys, which then wait no longer."""
        taken = [*self._urgent, *self._waiting][:most]
        for key in taken:
            self.withdraw(key)
        return taken
