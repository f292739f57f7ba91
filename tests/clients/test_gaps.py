"""The books of a subscriber, against a simulated engine whose messages get lost, come again, and come late."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clser.clients import gaps
from clser.clients.gaps import Gaps, Hole

A, B = b"clser/1/result/a/", b"clser/1/result/b/"
Sent = tuple[bytes, int, int, bool]
"""Topic, epoch, seq, whether it is a final."""


@dataclass
class World:
    """An engine, a subscriber's books, and all that happens between them."""

    books: Gaps = field(default_factory=Gaps)
    epoch: int = 1
    history: dict[tuple[bytes, int], list[Sent]] = field(default_factory=dict)
    delivered: Counter[Sent] = field(default_factory=Counter)
    oldest: dict[tuple[bytes, int], int] = field(default_factory=dict)
    asked: list[Hole] = field(default_factory=list)

    def arrive(self, sent: Sent, way: str = "live") -> None:
        topic, epoch, seq, final = sent
        new = self.books.late(topic, epoch, seq) if way == "late" else self.books.live(topic, epoch, seq, final)
        self.delivered[sent] += new
        if new:
            self.oldest[topic, epoch] = min(seq, self.oldest.get((topic, epoch), seq))
        while (hole := self.books.next()) is not None:
            self.asked.append(hole)

    def send(self, topic: bytes, final: bool, lost: bool) -> None:
        before = self.history.setdefault((topic, self.epoch), [])
        sent = (topic, self.epoch, len(before) + 1, final)
        before.append(sent)
        if not lost:
            self.arrive(sent)

    def resend(self) -> None:
        """Somebody joined: the last final and the last message of each topic go to everybody."""
        for (_, epoch), sent in self.history.items():
            if epoch == self.epoch:
                for each in dict.fromkeys((*[s for s in sent if s[3]][-1:], sent[-1])):
                    self.arrive(each)

    def answer(self, lasting: bool) -> None:
        """What the engine sends for all that was asked; it knows only what it sent itself."""
        asked, self.asked = self.asked, []
        for hole in asked:
            for sent in self.history.get((hole.topic, hole.epoch), []):
                if hole.epoch == self.epoch and hole.first <= sent[2] <= hole.last and (sent[3] or not lasting):
                    self.arrive(sent, "late")
            self.books.settle(hole, 0 if hole.epoch == self.epoch else None)


send = st.tuples(st.just("send"), st.sampled_from((A, B)), st.booleans(), st.booleans())
others = st.sampled_from(("resend", "answer", "restart", "repeat"))
events = st.lists(st.one_of(send, send, send, send, st.tuples(others)), max_size=80)


def played(happened: list[tuple[str, ...]], lasting: bool, restarts: bool = True) -> World:
    world = World()
    for name, *rest in happened:
        if name == "send":
            world.send(*rest)  # type: ignore[arg-type]
        elif name == "answer":
            world.answer(lasting)
        elif name == "resend":
            world.resend()
        elif name == "repeat":
            for sent in [each for each in world.delivered if world.delivered[each]]:
                world.arrive(sent)
        elif restarts:
            world.epoch += 1
    return world


@given(events, st.booleans())
def test_nothing_comes_twice_whatever_happens(happened: list[tuple[str, ...]], lasting: bool) -> None:
    world = played(happened, lasting)
    world.resend()
    world.answer(lasting)
    assert max(world.delivered.values(), default=0) <= 1


@given(events, st.booleans())
def test_every_final_since_joining_comes_when_the_engine_answers(
    happened: list[tuple[str, ...]], lasting: bool
) -> None:
    world = played(happened, lasting, restarts=False)
    world.resend()  # which shows what is newest, so that nothing is missing unnoticed
    world.answer(lasting)
    for where, history in world.history.items():
        for sent in history:
            if sent[3] and sent[2] >= world.oldest[where]:
                assert world.delivered[sent] == 1
    assert world.books.missed == 0


@given(events)
def test_after_a_restart_nothing_of_the_new_engine_is_missing(happened: list[tuple[str, ...]]) -> None:
    world = World()
    world.send(A, True, lost=False)
    world.epoch = 2
    for name, *rest in happened:
        if name == "send":
            world.send(*rest)  # type: ignore[arg-type]
    world.resend()
    world.answer(lasting=True)
    finals = [sent for (_, epoch), history in world.history.items() for sent in history if epoch == 2 and sent[3]]
    assert [world.delivered[sent] for sent in finals] == [1] * len(finals)
    assert world.books.restarts == (1 if any(epoch == 2 for _, epoch in world.history) else 0)


@given(events)
def test_the_books_balance(happened: list[tuple[str, ...]]) -> None:
    """Of everything between a topic's first message and its last one: either it came, or it was lost."""
    world = World()
    for name, *rest in happened:
        if name == "send":
            world.send(rest[0], False, rest[2])  # type: ignore[arg-type]
        elif name == "answer":
            for hole in world.asked:
                world.books.settle(hole)
            world.asked.clear()
    for hole in world.asked:
        world.books.settle(hole)
    spans = 0
    for topic in (A, B):
        came = [sent[2] for sent in world.delivered if sent[0] == topic and world.delivered[sent]]
        spans += max(came) - min(came) + 1 if came else 0
    assert spans == sum(world.delivered.values()) + world.books.missed


def at(books: Gaps, *seqs: int, final: bool = False) -> list[bool]:
    return [books.live(A, 1, seq, final) for seq in seqs]


def test_a_jump_is_to_be_asked_for_once() -> None:
    books = Gaps()
    assert at(books, 3, 7, 8) == [True] * 3
    assert books.next() == Hole(A, 1, 4, 6, True)
    assert books.next() is None


def test_of_what_the_engine_no_longer_has_the_oldest_is_lost() -> None:
    books = Gaps()
    at(books, 3, 10)
    hole = books.next()
    assert hole is not None
    assert books.late(A, 1, 9)
    books.settle(hole, gone=2)
    assert (books.recovered, books.missed, books.passed) == (1, 2, 3)
    assert at(books, 4, 6) == [True, False], "lost, but welcome; and what was passed over does not come back"
    assert books.missed == 1


def test_the_last_final_on_joining_may_come_behind_a_newer_message() -> None:
    books = Gaps()
    assert at(books, 7) == [True]
    assert at(books, 5, 5, final=True) == [True, False]
    assert at(books, 4, 6) == [False, False]
    assert books.next() is None


def test_what_lies_between_the_last_final_and_the_last_result_on_joining_is_asked_for_but_not_missed() -> None:
    books = Gaps()
    at(books, 5, final=True)
    at(books, 9)
    hole = books.next()
    assert hole == Hole(A, 1, 6, 8, False)
    books.settle(hole)
    assert books.missed == 0


def test_a_topic_that_begins_while_we_listen_is_had_from_its_start() -> None:
    books = Gaps()
    at(books, 5)
    books.settled = True
    assert books.live(B, 1, 4, True)
    assert books.next() == Hole(B, 1, 1, 3, False)


def test_an_engine_of_the_past_is_not_listened_to() -> None:
    books = Gaps()
    at(books, 1, 2)
    assert books.live(A, 2, 1, False)
    assert not books.live(A, 1, 3, True)
    assert not books.late(A, 1, 3)
    assert books.restarts == 1


def test_a_restart_leaves_what_was_asked_for_lost() -> None:
    books = Gaps()
    at(books, 1, 5)
    hole = books.next()
    assert hole is not None
    books.live(A, 2, 1, False)
    assert books.missed == 3
    books.settle(hole)
    assert books.missed == 3


def test_the_past_opens_no_holes_and_the_present_goes_on_behind_it() -> None:
    books = Gaps()
    assert [books.replayed(A, 1, seq, True) for seq in (2, 5, 5)] == [True, True, False]
    assert at(books, 5, 6) == [False, True]
    assert books.next() is None


def test_what_nobody_can_tell_of_stays_welcome() -> None:
    books = Gaps()
    at(books, 5, final=True)
    at(books, 9)
    hole = books.next()
    assert hole is not None
    assert books.settle(hole) == 0
    assert at(books, 7) == [True]


def test_between_the_past_that_lasts_and_the_present_nothing_is_surely_missing() -> None:
    books = Gaps()
    books.replayed(A, 1, 5, True)
    at(books, 9)
    assert books.next() == Hole(A, 1, 6, 8, False)


def test_a_part_of_a_hole_is_settled_by_itself() -> None:
    books = Gaps()
    at(books, 1, 10)
    hole = books.next()
    assert hole is not None
    assert books.settle(hole._replace(first=4, last=6), gone=1) == 1
    assert (books.missed, books.passed) == (1, 2)
    assert at(books, 3, 4, 5, 7) == [True, True, False, True]
    assert books.settle(hole) == 3
    assert (books.missed, books.passed, books.recovered) == (3, 2, 3)


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "MOST_TOPICS", 20)
    monkeypatch.setattr(gaps, "MOST_ASKS", 30)
    books = Gaps()
    for number in range(100):
        topic = b"clser/1/gap/%d/" % number
        for seq in range(1, 200, 2):
            assert books.live(topic, 1, seq, False)
    assert len(books._topics) == 20
    assert all(len(known.holes) <= gaps.MOST_HOLES for known in books._topics.values())
    assert books.asks == 30
    books.give_up()
    assert books.missed == 100 * 99


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-(2**70), 2**70), st.booleans())))
def test_no_numbers_break_it(numbers: list[tuple[int, int, bool]]) -> None:
    books = Gaps()
    for epoch, seq, final in numbers:
        books.live(A, epoch, seq, final)
    books.give_up()
    assert books.missed >= 0
