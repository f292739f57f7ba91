"""Answers on their way out: what waits for what, for how long, and in which order they leave."""

import numpy as np
import pytest

from clser.engine.jobs import Word, Words
from clser.engine.records import Stage, Utterance
from clser.engine.replies import Replies, Reply
from clser.engine.track import Mark, Track
from clser.engine.transcript import Transcript

VOICE = np.zeros(9, np.float32)
TOLD = np.ones(9, np.float32)
WAIT_S, LATE_S = 0.4, 10.0


def track(number: int = 1, written: bool = True) -> Track:
    made = Track(number, None, 0, 16_000)
    made.transcript = Transcript(0) if written else None
    return made


def reply(of: Track, stage: Stage = "partial", end: int = 16_000) -> Reply:
    return Reply(of, Mark(Utterance(of.number, stage, 0, 0, end), end, 0.0), VOICE, end // 320)


def write(of: Track, text: str, *, ends: bool = False) -> None:
    transcript = of.transcript
    assert transcript is not None
    transcript.grow(16_000)
    if ends:
        transcript.end(16_000, np.zeros(16_000, np.int16))
    spoken = tuple(Word(f" {word}", n, n + 1, 0.9) for n, word in enumerate(text.split()))
    transcript.take(Words(spoken, 0, "en", 0.9, False, ends), TOLD, 16_000)


def join(replies: Replies) -> Reply:
    """What a worker does."""
    asked = replies.wants_joining()
    assert asked is not None and asked.transcript is not None
    asked.joining, asked.joined_at = True, asked.transcript.version
    return asked


def joined(asked: Reply) -> None:
    asked.both, asked.joining = TOLD, False


def out(replies: Replies, now_s: float = 0.0, waits: bool = True) -> list[tuple[int, Stage, bool]]:
    """(utterance, stage, whether words counted)"""
    return [(each.track.number, stage, each.both is not None) for each, stage in replies.due(now_s, waits)]


@pytest.fixture
def replies() -> Replies:
    return Replies(WAIT_S, LATE_S)


def test_where_nothing_is_written_down_nothing_waits(replies: Replies) -> None:
    for stage in ("partial", "tentative", "final"):
        replies.take(reply(track(written=False), stage), 0.0)
        assert out(replies, waits=False) == [(1, stage, False)]
    assert not replies


def test_a_partial_without_words_goes_at_once_and_again_with_them(replies: Replies) -> None:
    spoken = track()
    replies.take(reply(spoken), 0.0)
    assert out(replies) == [(1, "partial", False)]
    assert not replies
    write(spoken, "well then")
    replies.landed(spoken.transcript)
    assert out(replies) == []
    joined(join(replies))
    assert out(replies) == [(1, "partial", True)]


def test_with_words_known_a_partial_waits_for_a_worker_only(replies: Replies) -> None:
    spoken = track()
    write(spoken, "well")
    replies.take(reply(spoken), 0.0)
    assert out(replies) == []
    joined(join(replies))
    assert out(replies) == [(1, "partial", True)]


def test_partials_come_out_even_if_a_worker_never_catches_up(replies: Replies) -> None:
    spoken = track()
    write(spoken, "well")
    replies.take(reply(spoken, end=6_400), 0.0)
    given = 0
    for turn in range(20):  # each time the worker is done, two newer ones have come
        asked = join(replies)
        replies.take(reply(spoken, end=6_400 + 640 * turn), 0.0)
        replies.take(reply(spoken, end=6_720 + 640 * turn), 0.0)
        joined(asked)
        given += len(out(replies))
    assert given == 20


def test_a_final_goes_with_its_words_if_they_come_in_time(replies: Replies) -> None:
    spoken = track()
    replies.take(reply(spoken, "final"), 1.0)
    assert out(replies, 1.1) == []
    write(spoken, "well then", ends=True)
    joined(join(replies))
    assert out(replies, 1.2) == [(1, "final", True)]
    assert not replies


def test_a_final_goes_alone_after_its_time_and_is_amended(replies: Replies) -> None:
    spoken = track()
    replies.take(reply(spoken, "final"), 1.0)
    assert out(replies, 1.39) == []
    assert out(replies, 1.4) == [(1, "final", False)]
    assert out(replies, 3.0) == []
    write(spoken, "well then", ends=True)
    assert out(replies, 3.0) == []
    joined(join(replies))
    assert out(replies, 3.0) == [(1, "amended", True)]
    assert not replies


def test_words_that_were_joined_too_late_for_the_final_amend_it(replies: Replies) -> None:
    spoken = track()
    replies.take(reply(spoken, "final"), 0.0)
    write(spoken, "well", ends=True)
    asked = join(replies)
    assert out(replies, 0.5) == [(1, "final", False)]
    joined(asked)
    assert out(replies, 0.6) == [(1, "amended", True)]


def test_no_words_are_no_amendment(replies: Replies) -> None:
    spoken = track()
    replies.take(reply(spoken, "final"), 0.0)
    assert out(replies, 0.5) == [(1, "final", False)]
    spoken.transcript.give_up()
    assert out(replies, 0.6) == []
    assert not replies


def test_what_comes_too_late_is_given_up(replies: Replies) -> None:
    spoken = track()
    replies.take(reply(spoken, "final"), 0.0)
    out(replies, 1.0)
    assert out(replies, WAIT_S + LATE_S + 0.1) == []
    assert spoken.transcript.gone
    assert not replies


def test_without_hope_no_final_waits(replies: Replies) -> None:
    replies.take(reply(track(), "final"), 0.0)
    assert out(replies, 0.0, waits=False) == [(1, "final", False)]


def test_finals_leave_in_their_order_and_partials_pass_them(replies: Replies) -> None:
    first, second, third = (track(number) for number in (1, 2, 3))
    replies.take(reply(first, "final"), 0.0)
    replies.take(reply(second, "final"), 0.1)
    write(second, "well", ends=True)
    joined(join(replies))
    replies.take(reply(third), 0.2)
    assert out(replies, 0.2) == [(3, "partial", False)]
    assert out(replies, 0.41) == [(1, "final", False), (2, "final", True)]


def test_a_final_overtakes_the_partials_of_its_utterance(replies: Replies) -> None:
    spoken = track()
    write(spoken, "well")
    replies.take(reply(spoken), 0.0)
    asked = join(replies)
    replies.take(reply(spoken), 0.0)
    replies.take(reply(spoken, "final"), 0.0)
    joined(asked)
    assert out(replies, 0.1) == []
    assert out(replies, 0.5) == [(1, "final", False)]


def test_a_worker_that_dies_is_asked_again(replies: Replies) -> None:
    spoken = track()
    write(spoken, "well")
    replies.take(reply(spoken), 0.0)
    join(replies)
    assert replies.wants_joining() is None
    replies.lost()
    joined(join(replies))
    assert out(replies) == [(1, "partial", True)]
