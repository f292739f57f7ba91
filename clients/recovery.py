"""Brings back what a subscriber missed: asks the engine for it, one question at a time, and never waits for the answer."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from clser.clients.control import ANSWER_S, Control, Facts, Reply, next_cursor
from clser.clients.gaps import Gaps, Hole
from clser.engine import wire
from clser.engine.records import Message, Result

LOOK_S = 1.0  # between two looks at what is newest
BURST = 64  # replies in a row before others get their turn
FRAMES = wire.topic("frame")  # no engine keeps them


class _Question(NamedTuple):
    op: str
    fields: Facts
    note: Callable[[bytes, Message], bool]
    """Enters a message that came in the books; whether the reader is to have it."""
    hole: Hole | None = None
    cursor: int = 0
    again: bool = False
    """Asked for the second time: the first may have got lost with a connection."""


class Recovery:
    """`take` what has come. Without a control socket everything that is asked for is lost at once."""

    def __init__(
        self,
        control: Control | None,
        gaps: Gaps,
        prefixes: Iterable[bytes],
        *,
        lasting: bool,
        replay_s: float = 0.0,
    ) -> None:
        """With `lasting`, only what is still worth something; `replay_s` asks for so much of the past to begin with."""
        self._control = control
        self._gaps = gaps
        self._prefixes = tuple(prefixes)
        self._lasting = lasting
        self._asked: tuple[_Question, int, float] | None = None
        self._come: deque[Message] = deque()
        self._looked_s = -LOOK_S
        self._look = False
        self._next: _Question | None = None
        self._lost = 0
        """Of the hole that is asked for."""
        self._restarts = 0
        self.refused = 0
        """Messages in replies that nobody asked for."""
        self.unanswered = 0
        """Questions that nobody answered, or that could not be asked."""
        if replay_s and control is not None:
            fields = {"prefixes": self._names(), "seconds": replay_s, "lasting": lasting}
            self._next = _Question("replay", fields, self._note_past)
        self.first = self._next is not None
        """Whether the past is still coming, which goes before everything live."""

    def look(self) -> None:
        """Something may have been lost behind which nothing came: see what is newest."""
        self._look = self._control is not None and bool(self._names())

    @property
    def asking(self) -> bool:
        """Whether an answer is on its way."""
        return self._asked is not None

    @property
    def due_s(self) -> float | None:
        """How long to wait for replies at most before the next `take`; None if there is nothing to wait for."""
        now_s = time.monotonic()
        if self._asked is not None:
            return max(0.0, self._asked[2] - now_s)
        return max(0.0, self._looked_s + LOOK_S - now_s) if self._look else None

    def take(self) -> Message | None:
        """A message that came back, if one has; asks for what is due."""
        self._follow_engine()
        for _ in range(BURST):
            if self._come:
                return self._come.popleft()
            if not (self._ask() if self._asked is None else self._hear()):
                break
        return None

    def _follow_engine(self) -> None:
        """What the engine before this one was asked gets no answer any more, and must not reach this one."""
        if self._gaps.restarts == self._restarts:
            return
        self._restarts = self._gaps.restarts
        self.look()
        question = self._asked[0] if self._asked is not None else self._next
        self._asked = self._next = None
        if question is not None and self._control is not None:
            self._control.start_anew()
            self._over(question, None)

    # --- asking ---------------------------------------------------------------------------------------------------

    def _ask(self) -> bool:
        """Ask the next question; whether there was one."""
        question = self._next or self._question()
        self._next = None
        if question is None:
            return False
        number = None
        if self._control is not None:
            number = self._control.send(question.op, {**question.fields, "after": question.cursor})
        if number is None:
            self._unanswered(question)
        else:
            self._asked = (question, number, time.monotonic() + ANSWER_S / 2)
        return True

    def _question(self) -> _Question | None:
        while (hole := self._gaps.next()) is not None:
            if hole.topic.startswith(FRAMES):
                self._gaps.settle(hole, 0 if self._lasting else None)
                continue
            fields = {"topic": hole.topic.decode(), "from_seq": hole.first, "to_seq": hole.last}
            return _Question("replay", {**fields, "lasting": self._lasting or not hole.certain}, self._note_late, hole)
        if self._look and time.monotonic() >= self._looked_s + LOOK_S:
            self._look, self._looked_s = False, time.monotonic()
            return _Question("snapshot", {"prefixes": self._names()}, self._note_live)
        return None

    def _names(self) -> list[str]:
        return [prefix.decode() for prefix in self._prefixes if not prefix.startswith(FRAMES)]

    # --- answers --------------------------------------------------------------------------------------------------

    def _hear(self) -> bool:
        """Read a reply; whether something came of it."""
        assert self._control is not None and self._asked is not None
        question, number, until_s = self._asked
        reply = self._control.take()
        if reply is None:
            if time.monotonic() < until_s:
                return False
            self._control.start_anew()
            self._asked = None
            if question.again:
                self._unanswered(question)
            else:
                self._next = question._replace(again=True)
        elif reply.answers(number):
            self._asked = None
            self._answered(question, reply)
        return True

    def _answered(self, question: _Question, reply: Reply) -> None:
        assert self._control is not None
        gone = reply.facts.get("gone")
        told = reply.ok and type(gone) is int and question.fields.get("lasting") is True
        for topic, message in self._control.messages(reply):
            if not self._wanted(question.hole, topic, message):
                self.refused += 1
                continue
            if question.hole is not None:  # it answers in order: what it left out does not come any more
                self._settle(question.hole._replace(last=message.seq - 1), gone if told else None)
            if question.note(topic, message):
                self._come.append(message)
        cursor = next_cursor(reply, question.cursor) if reply.ok else None
        if cursor is not None and reply.pairs:
            self._next = question._replace(cursor=cursor, again=False)
        else:
            self._over(question, gone if told else None)

    def _unanswered(self, question: _Question) -> None:
        self.unanswered += question.note != self._note_live
        self._over(question, None)
        self._gaps.give_up()

    def _over(self, question: _Question, gone: int | None) -> None:
        self.first = False
        if question.hole is not None:
            self._settle(question.hole, gone)
            self._lost = 0

    def _settle(self, hole: Hole, gone: int | None) -> None:
        """`gone` is told of the whole hole, in each of an answer's pages."""
        self._lost += self._gaps.settle(hole, None if gone is None else gone - self._lost)

    def _wanted(self, hole: Hole | None, topic: bytes, message: Message) -> bool:
        if hole is None:
            return topic.startswith(self._prefixes)
        passing = isinstance(message, Result) and not message.final
        return topic == hole.topic and hole.first <= message.seq <= hole.last and not (passing and self._lasting)

    # --- the books ------------------------------------------------------------------------------------------------

    def _note_past(self, topic: bytes, message: Message) -> bool:
        return self._gaps.replayed(topic, message.epoch, message.seq, _final(message))

    def _note_late(self, topic: bytes, message: Message) -> bool:
        return self._gaps.late(topic, message.epoch, message.seq)

    def _note_live(self, topic: bytes, message: Message) -> bool:
        return self._gaps.live(topic, message.epoch, message.seq, _final(message))


def _final(message: Message) -> bool:
    return isinstance(message, Result) and message.final
