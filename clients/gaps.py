"""What of each topic has come, what is missing, and what to ask for. Pure: no socket, no clock.

An engine numbers the messages of each topic. What was here lies between a topic's `oldest` and `newest` and outside its holes;
so each message is new exactly once, by whichever way and however often it comes.
"""

from collections import deque
from typing import NamedTuple

MOST_TOPICS = 8192  # more than an engine keeps apart
MOST_HOLES = 32  # a topic's
MOST_ASKS = 4096
EPOCHS_KEPT = 16


class Hole(NamedTuple):
    """Numbers of a topic that were jumped over, to be asked for."""

    topic: bytes
    epoch: int
    first: int
    last: int
    certain: bool
    """Surely sent and not received. Otherwise it may well have been sent before we came, and is not counted as missed."""


class _Open(NamedTuple):
    """What is still open of a hole."""

    first: int
    last: int
    certain: bool
    lost: bool = False
    """Given up, and counted as missed; should it come all the same, it is welcome."""

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class _Topic:
    def __init__(self, oldest: int, newest: int, on_final: bool) -> None:
        self.oldest = oldest
        self.newest = newest
        self.on_final = on_final
        """Nothing but a final is known of it yet: whoever joins gets the last final, then the last message of all."""
        self.holes: list[_Open] = []


class Gaps:
    """The books of one subscriber."""

    def __init__(self) -> None:
        self.missed = 0
        self.recovered = 0
        self.passed = 0
        """Missing, but worth nothing any more."""
        self.restarts = 0
        self.settled = False
        """All topics that there are have been heard of; so a topic that is new to us has just begun."""
        self._forgot = False
        self._epoch: int | None = None
        self._past: deque[int] = deque(maxlen=EPOCHS_KEPT)
        self._topics: dict[bytes, _Topic] = {}
        self._asks: deque[Hole] = deque()

    # --- what comes -----------------------------------------------------------------------------------------------

    def live(self, topic: bytes, epoch: int, seq: int, final: bool) -> bool:
        """Note a message that came by itself; whether it is new."""
        if not self._same_engine(epoch):
            return False
        known = self._topics.pop(topic, None)
        if known is None:
            self._begin(topic, seq, final)
            return True
        self._topics[topic] = known
        if seq > known.newest:
            if seq > known.newest + 1:
                certain = final or not known.on_final
                self._jumped(topic, known, Hole(topic, epoch, known.newest + 1, seq - 1, certain))
            known.newest, known.on_final = seq, False
            return True
        if seq < known.oldest and final:  # the last final, sent again for us, may come behind something newer
            known.oldest = seq
            return True
        return self._fills(known, seq)

    def late(self, topic: bytes, epoch: int, seq: int) -> bool:
        """Note a message that was asked for; whether it is new."""
        known = self._topics.get(topic)
        return known is not None and epoch == self._epoch and self._fills(known, seq)

    def replayed(self, topic: bytes, epoch: int, seq: int, final: bool) -> bool:
        """Note a message from before we came, in the order of sending; whether it is new. What it jumps over is not missing."""
        if not self._same_engine(epoch):
            return False
        known = self._topics.get(topic)
        if known is None:
            self._begin(topic, seq, final, whole=False)
            return True
        if seq <= known.newest:
            return self._fills(known, seq)
        known.newest, known.on_final = seq, final
        return True

    # --- what to ask for ------------------------------------------------------------------------------------------

    def next(self) -> Hole | None:
        """The hole to ask for now."""
        return self._asks.popleft() if self._asks else None

    @property
    def asks(self) -> int:
        return len(self._asks)

    def settle(self, hole: Hole, gone: int | None = None) -> int:
        """Nothing more comes of the hole. Of what is still open the oldest `gone` are lost, or all; the rest had no worth left.

        Returns how many that were.
        """
        known = self._topics.get(hole.topic)
        if known is None or hole.epoch != self._epoch:
            return 0
        kept: list[_Open] = []
        before = self.missed
        for each in known.holes:
            within = each._replace(first=max(each.first, hole.first), last=min(each.last, hole.last))
            if within.size <= 0 or each.lost or (gone is None and not each.certain):
                kept.append(each)
                continue
            lost = within.size if gone is None else min(max(gone, 0), within.size)
            gone = None if gone is None else gone - lost
            parts = [each._replace(last=within.first - 1), each._replace(first=within.last + 1)]
            if each.certain:
                self.missed += lost
                self.passed += within.size - lost
                parts.insert(1, within._replace(last=within.first + lost - 1, lost=True))
            kept += [part for part in parts if part.size > 0]
        known.holes = kept
        self._trim(known)
        return self.missed - before

    def give_up(self) -> None:
        """Nobody answers: all that was to be asked for is lost."""
        while (hole := self.next()) is not None:
            self.settle(hole)

    # --- the books ------------------------------------------------------------------------------------------------

    def _same_engine(self, epoch: int) -> bool:
        """Whether it is of the engine that runs now; one with a new epoch is another engine, and everything starts anew."""
        if epoch == self._epoch:
            return True
        if epoch in self._past:
            return False
        if self._epoch is not None:
            self._past.append(self._epoch)
            self.restarts += 1
            for known in self._topics.values():
                self.missed += sum(hole.size for hole in known.holes if hole.certain and not hole.lost)
            self._topics.clear()
            self._asks.clear()
            self.settled, self._forgot = True, False  # we were here before it
        self._epoch = epoch
        return True

    def _begin(self, topic: bytes, seq: int, final: bool, whole: bool = True) -> None:
        from_start = whole and self.settled and not self._forgot
        known = self._topics[topic] = _Topic(1 if from_start else seq, seq, final and not from_start)
        if from_start and seq > 1:
            assert self._epoch is not None
            self._jumped(topic, known, Hole(topic, self._epoch, 1, seq - 1, False))
        if len(self._topics) > MOST_TOPICS:
            oldest = next(iter(self._topics))
            self.missed += sum(hole.size for hole in self._topics.pop(oldest).holes if hole.certain and not hole.lost)
            self._forgot = True

    def _jumped(self, topic: bytes, known: _Topic, hole: Hole) -> None:
        known.holes.append(_Open(hole.first, hole.last, hole.certain))
        self._trim(known)
        if len(self._asks) >= MOST_ASKS:
            self.settle(self._asks.popleft())
        self._asks.append(hole)

    def _fills(self, known: _Topic, seq: int) -> bool:
        for at, hole in enumerate(known.holes):
            if hole.first <= seq <= hole.last:
                parts = (hole._replace(last=seq - 1), hole._replace(first=seq + 1))
                known.holes[at : at + 1] = [part for part in parts if part.size]
                self._trim(known)
                self.recovered += 1
                self.missed -= hole.lost
                return True
        return False

    def _trim(self, known: _Topic) -> None:
        while len(known.holes) > MOST_HOLES:
            hole = known.holes.pop(0)
            self.missed += hole.size if hole.certain and not hole.lost else 0
