"""What was published in the last minute, for subscribers that missed some of it. Pure.

Bounded in time and in bytes. Where the bytes do not suffice, what is worth nothing later (partial results) goes first.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from msgspec import Struct

PAGE = 256  # messages
_order, _at_s = attrgetter("order"), attrgetter("at_s")


class Entry(NamedTuple):
    order: int
    """Counts over all topics: what was sent later has more."""
    at_s: float
    topic: bytes
    seq: int
    body: bytes


class Page(Struct, frozen=True):
    """Some entries in the order they were sent; where there are more, ask again behind the last one's `order`."""

    entries: list[Entry]
    more: bool


class _Kept:
    """Entries of one sort, oldest first: all of them, and by topic."""

    def __init__(self) -> None:
        self.all: deque[Entry] = deque()
        self.topics: dict[bytes, deque[Entry]] = {}

    def put(self, entry: Entry) -> None:
        self.all.append(entry)
        self.topics.setdefault(entry.topic, deque()).append(entry)

    def drop(self) -> Entry:
        entry = self.all.popleft()
        of_topic = self.topics[entry.topic]
        of_topic.popleft()
        if not of_topic:
            del self.topics[entry.topic]
        return entry


class History:
    def __init__(self, keep_s: float, most_bytes: int) -> None:
        self._keep_s = keep_s
        self._most_bytes = most_bytes
        self._order = 0
        self._lasting, self._passing = _Kept(), _Kept()
        self.bytes = 0
        self.cut_short = 0
        """Messages that had to go before their time."""

    def put(self, at_s: float, topic: bytes, seq: int, body: bytes, lasting: bool) -> Entry:
        self._order += 1
        self.bytes += len(body)
        entry = Entry(self._order, at_s, topic, seq, body)
        (self._lasting if lasting else self._passing).put(entry)
        for kept in (self._lasting, self._passing):
            while kept.all and kept.all[0].at_s < at_s - self._keep_s:
                self.bytes -= len(kept.drop().body)
        while self.bytes > self._most_bytes:
            self.bytes -= len((self._passing if self._passing.all else self._lasting).drop().body)
            self.cut_short += 1
        return entry

    def since(
        self, at_s: float, prefixes: Iterable[bytes], *, after: int = 0, lasting: bool = False, most: int = PAGE
    ) -> Page:
        """Everything under the prefixes from `at_s` on, behind the entry `after`."""
        starts = tuple(prefixes)
        found = [
            _behind(entries, after, at_s)
            for kept in (self._lasting, self._passing)[: 1 if lasting else 2]
            for topic, entries in kept.topics.items()
            if topic.startswith(starts)
        ]
        return _page(merge(*found), most)

    def of(
        self, topic: bytes, first: int, last: int, *, after: int = 0, lasting: bool = False, most: int = PAGE
    ) -> Page:
        """A topic's messages with these numbers, behind the entry `after`."""
        sorts = [kept.topics.get(topic, deque()) for kept in (self._lasting, self._passing)][: 1 if lasting else 2]
        found = (_behind(entries, after, 0.0) for entries in sorts)
        return _page((entry for entry in merge(*found) if first <= entry.seq <= last), most)

    def known(self, topic: bytes, first: int, last: int) -> tuple[int, int]:
        """How many of a topic's messages with these numbers are kept: (lasting, passing)."""
        counts = [
            sum(first <= entry.seq <= last for entry in kept.topics.get(topic, ()))
            for kept in (self._lasting, self._passing)
        ]
        return counts[0], counts[1]


def _behind(entries: deque[Entry], after: int, at_s: float) -> Iterator[Entry]:
    """Those behind `after` and from `at_s` on, of entries that are in order of both."""
    begin = max(bisect_right(entries, after, key=_order), bisect_left(entries, at_s, key=_at_s))
    return islice(entries, begin, None)


def _page(entries: Iterator[Entry], most: int) -> Page:
    found = list(islice(entries, most + 1))
    return Page(found[:most], len(found) > most)
