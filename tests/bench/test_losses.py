"""Faults planted by hand: the comparison must catch each of them, and nothing else."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import account, final, ledger, result, speech

from clser.bench.losses import Losses, Reference, Span, compare, losses
from clser.bench.scene import PACKET

SENT = [Span(1_000, 60_000), Span(61_000, 90_000), Span(95_000, 99_000), Span(120_000, 360_000)]
SAID = [final(number, span.onset + 40, span.offset - 40, number) for number, span in enumerate(SENT, 1)]
WHICH = pytest.mark.parametrize("which", range(len(SENT)))
SECOND = 50 * PACKET


def counts(found: Losses) -> tuple[int, int, int]:
    return found.lost, found.doubled, found.unexpected


def test_what_was_sent_and_said_once_is_whole() -> None:
    assert compare(SENT, SAID, "") == Losses(4, 4, 0, 0, 0, 0)


@WHICH
def test_a_dropped_final_is_lost(which: int) -> None:
    found = compare(SENT, SAID[:which] + SAID[which + 1 :], "stream 3")
    assert counts(found) == (1, 0, 0)
    assert found.where == (f"stream 3: 0 finals for samples {SENT[which].onset} to {SENT[which].offset}",)


def test_a_loss_whose_sound_was_lost_is_told_apart() -> None:
    gap = (SENT[1].offset - 1_000, SENT[2].onset + 10)
    assert compare(SENT, SAID[:1], "", [gap]).lost_in_gaps == 2
    assert compare(SENT, SAID, "", [gap]).lost_in_gaps == 0
    assert compare(SENT, SAID[1:], "", [gap]).lost_in_gaps == 0


@WHICH
def test_a_final_said_again_is_doubled(which: int) -> None:
    said = SAID[which]
    for again in (
        final(said.utterance, said.onset, said.offset, 99),  # under its number
        final(99, said.onset, said.offset, 99),  # under another
        final(said.utterance, said.onset, said.offset, said.seq, epoch=2),  # by an engine that was restarted
        final(99, said.onset + (said.offset - said.onset) // 3, said.offset, 99),  # most of it
    ):
        found = compare(SENT, [*SAID, again], "")
        assert counts(found) == (0, 1, 0)
        assert len(found.where) == 1


@WHICH
def test_a_shifted_final_is_not_the_one_that_was_due(which: int) -> None:
    said = SAID[which]
    by = (said.offset - said.onset) * 2 // 3
    shifted = final(said.utterance, said.onset + by, said.offset + by, said.seq)
    assert compare(SENT, [*SAID[:which], shifted, *SAID[which + 1 :]], "").lost == 1
    slightly = final(said.utterance, said.onset + 400, said.offset + 400, said.seq)
    assert counts(compare(SENT, [*SAID[:which], slightly, *SAID[which + 1 :]], "")) == (0, 0, 0)


def test_one_final_over_two_utterances_and_two_over_one_are_neither() -> None:
    merged = [final(1, 1_000, 90_000, 1), *SAID[2:]]
    assert counts(compare(SENT, merged, "")) == (0, 0, 0)
    cut = [*SAID[:3], final(4, 120_000, 240_000, 4), final(5, 240_000, 360_000, 5)]
    assert counts(compare(SENT, cut, "")) == (0, 0, 0)


def test_what_nobody_said_is_unexpected() -> None:
    assert counts(compare(SENT, [*SAID, final(9, 400_000, 420_000, 9)], "")) == (0, 0, 1)
    assert counts(compare([], SAID[:1], "")) == (0, 0, 1)
    assert counts(compare(SENT, [], "")) == (4, 0, 0)


@given(st.data())
def test_any_faults_are_counted(data: st.DataObject) -> None:
    lengths = data.draw(
        st.lists(st.tuples(st.integers(0, 9_000), st.integers(4_000, 240_000)), min_size=1, max_size=20)
    )
    at, sent = 0, []
    for gap, length in lengths:
        sent.append(Span(at + gap, at + gap + length))
        at += gap + length
    fates = data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=len(sent), max_size=len(sent)))
    said = [
        final(number, span.onset, span.offset, number * 2 + copy)
        for number, (span, fate) in enumerate(zip(sent, fates, strict=True))
        for copy in range(fate)
    ]
    found = compare(sent, data.draw(st.permutations(said)), "")
    assert counts(found) == (fates.count(0), fates.count(2), 0)


# --- what was sent: a scene of 10 s that ends in a pause, begun at its start or at its fourth second

REFERENCE = Reference(
    500,
    {
        0: (Span(1 * SECOND, 5 * SECOND), Span(6 * SECOND, 8 * SECOND)),
        200: (Span(0, 1 * SECOND), Span(2 * SECOND, 4 * SECOND)),
    },
    (Span(1 * SECOND, 5 * SECOND), Span(6 * SECOND, 8 * SECOND)),
)


def test_rounds_follow_each_other_from_where_a_stream_begins() -> None:
    assert [(span.onset // SECOND, span.offset // SECOND) for span in REFERENCE.expected(200, 1300)] == [
        (0, 1),
        (2, 4),  # the scene ends at 6
        (7, 11),
        (12, 14),
        (17, 21),
        (22, 24),
    ]


def test_at_the_end_of_the_run_an_utterance_is_clipped_and_then_too_short_to_insist_on() -> None:
    whole, clipped = REFERENCE.expected(0, 350)
    assert whole.sure
    assert clipped == Span(6 * SECOND, 7 * SECOND, sure=True)
    short = REFERENCE.expected(0, 320)[-1]
    assert short == Span(6 * SECOND, 320 * PACKET, sure=False)
    assert len(REFERENCE.expected(0, 300)) == 1
    assert REFERENCE.expected(0, 0) == []
    assert counts(compare([short], [], "")) == (0, 0, 0)
    assert counts(compare([short], [final(1, 6 * SECOND, 320 * PACKET, 1)], "")) == (0, 0, 0)


def test_streams_are_compared_up_to_their_last_packet() -> None:
    book = ledger(streams=2, packets=350)
    book.sent_us[1, 100:] = 0  # it was closed after two seconds
    told = account(
        (0.0, speech(1, "started", 1 * SECOND, 1)),
        (1.0, result(1, "final", SECOND // 2, 5 * SECOND, 1)),
        (1.0, speech(1, "ended", 5 * SECOND, 2)),
        (1.0, result(1, "final", SECOND // 2, 5 * SECOND, 1)),  # for a late joiner: no second one
        (2.0, result(2, "final", 6 * SECOND, 7 * SECOND, 2)),
    )
    found = losses(told, REFERENCE, book, (0, 200))
    assert (found.expected, found.finals, counts(found)) == (3, 2, (1, 0, 0))
    assert found.where == ("stream 1: 0 finals for samples 0 to 16000",)
    doubled = account(
        (0.0, result(1, "final", 1 * SECOND, 5 * SECOND, 1)), (1.0, result(1, "final", 1 * SECOND, 5 * SECOND, 2))
    )
    assert counts(losses(doubled, REFERENCE, ledger(packets=300), (0,))) == (0, 1, 0)


def test_a_reference_survives_the_way_between_processes() -> None:
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(REFERENCE), type=Reference)
    assert again == REFERENCE
    assert np.array_equal(again.expected(200, 900), REFERENCE.expected(200, 900))
