import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.engine.records import Utterance, samples
from clser.engine.segment import Ended, Event, SegmentConfig, Segmenter, Started

FRAME = 512
FRAME_MS = 32


def frames(milliseconds: int) -> int:
    """How many frames cover so long."""
    return -(-milliseconds // FRAME_MS)


def push(segmenter: Segmenter, *runs: tuple[bool, int], level: float = -30.0) -> list[Event]:
    """(voiced, frames) after (voiced, frames)."""
    return [event for voiced, count in runs for _ in range(count) for event in segmenter.push(voiced, level)]


def utterances(events: Iterable[Event], stage: str | None = None) -> list[Utterance]:
    return [event for event in events if isinstance(event, Utterance) and stage in (None, event.stage)]


def started(events: Iterable[Event]) -> list[Started]:
    return [event for event in events if isinstance(event, Started)]


def ended(events: Iterable[Event]) -> list[Ended]:
    return [event for event in events if isinstance(event, Ended)]


# --- starting ---------------------------------------------------------------------------------------------------------


def test_speech_starts_once_it_has_been_voiced_for_start_ms() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    push(segmenter, (False, 20))
    assert push(segmenter, (True, 3)) == []
    assert push(segmenter, (True, 1)) == [Started(1, 20 * FRAME)], "the onset is the first voiced frame, not the fourth"


def test_a_voiced_run_that_breaks_off_before_start_ms_starts_nothing() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    assert push(segmenter, *[(True, 3), (False, 1)] * 10) == []
    assert segmenter.open is None


def test_the_networks_hear_the_lead_in_before_the_onset() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    push(segmenter, (False, 20), (True, 4))
    assert segmenter.open is not None
    assert segmenter.open.start_sample == 20 * FRAME - samples(300)


def test_the_lead_in_ends_at_the_beginning_of_the_stream() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    push(segmenter, (False, 2), (True, 4))
    assert segmenter.open is not None
    assert segmenter.open.start_sample == 0


def test_the_lead_in_does_not_reach_into_the_utterance_before() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    first = utterances(push(segmenter, (True, 20), (False, frames(300))), "final")[0]
    push(segmenter, (True, 4))
    assert segmenter.open is not None
    assert segmenter.open.number == 2
    assert segmenter.open.start_sample >= first.end_sample


def test_start_ms_of_zero_starts_on_the_first_voiced_frame() -> None:
    assert len(started(Segmenter(SegmentConfig(start_ms=0), FRAME).push(True, -30.0))) == 1


# --- ending -----------------------------------------------------------------------------------------------------------


def test_silence_ends_an_utterance_with_a_final() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    events = push(segmenter, (True, 20), (False, frames(300)))
    assert ended(events) == [Ended(1, 20 * FRAME, "silence")], "the offset is where the voice stopped"
    assert [u.reason for u in utterances(events, "final")] == ["silence"]
    assert events.index(utterances(events, "final")[0]) < events.index(ended(events)[0])
    assert segmenter.open is None


def test_a_pause_shorter_than_end_ms_ends_nothing() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    events = push(segmenter, *[(True, 10), (False, frames(300) - 1)] * 3)
    assert ended(events) == []
    assert len(started(events)) == 1


def test_too_little_speech_is_withdrawn_without_a_final() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    events = push(segmenter, (True, 6), (False, frames(300)))  # 192 ms of the 200 asked for
    assert ended(events) == [Ended(1, 6 * FRAME, "too_short")]
    assert utterances(events, "final") == []


def test_just_enough_speech_is_not_withdrawn() -> None:
    events = push(Segmenter(SegmentConfig(), FRAME), (True, 7), (False, frames(300)))
    assert [event.reason for event in ended(events)] == ["silence"]


def test_speech_is_summed_up_over_pauses() -> None:
    events = push(Segmenter(SegmentConfig(), FRAME), (True, 4), (False, 3), (True, 3), (False, frames(300)))
    assert [event.reason for event in ended(events)] == ["silence"]


def test_a_tentative_answer_comes_after_tentative_ms_and_the_final_ends_where_it_did() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    events = push(segmenter, (True, 20), (False, frames(150)))
    (tentative,) = utterances(events, "tentative")
    assert tentative.end_sample == (20 + frames(150)) * FRAME
    events = push(segmenter, (False, 10))
    (final,) = utterances(events, "final")
    assert final.end_sample == tentative.end_sample


def test_a_tentative_answer_is_withdrawn_by_a_partial_that_takes_the_pause_in() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    push(segmenter, (True, 20), (False, frames(150) + 1))
    events = push(segmenter, (True, 1))
    (partial,) = utterances(events)
    assert partial.stage == "partial"
    assert partial.end_sample == segmenter.position


def test_a_held_utterance_does_not_grow() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    push(segmenter, (True, 20), (False, frames(150)))
    assert segmenter.open is not None
    held = segmenter.open.end_sample
    push(segmenter, (False, 2))
    assert segmenter.open.end_sample == held
    push(segmenter, (True, 1))
    assert segmenter.open.end_sample == segmenter.position


def test_partials_come_on_their_cadence() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    ends_ms = [u.end_sample / 16 for u in utterances(push(segmenter, (True, frames(2000))), "partial")]
    assert 500 <= ends_ms[0] < 500 + FRAME_MS
    steps = [b - a for a, b in itertools.pairwise(ends_ms)]
    assert len(steps) >= 4
    assert all(250 <= step < 250 + FRAME_MS for step in steps)


def test_the_silence_asked_for_shrinks_with_the_length() -> None:
    asked_ms = []
    for speech_ms in (1_000, 4_000, 8_000, 12_000, 14_500):
        segmenter = Segmenter(SegmentConfig(), FRAME)
        push(segmenter, (True, frames(speech_ms)))
        count = 0
        while segmenter.open is not None and segmenter.open.number == 1:
            push(segmenter, (False, 1))
            count += 1
        asked_ms.append(count * FRAME_MS)
    assert asked_ms[0] == asked_ms[1] == frames(300) * FRAME_MS
    assert asked_ms == sorted(asked_ms, reverse=True)
    assert len(set(asked_ms)) >= 4
    assert 100 <= asked_ms[-1] < 160


# --- cutting ----------------------------------------------------------------------------------------------------------


def test_an_utterance_that_gets_too_long_is_cut_in_the_quietest_place_and_carries_on() -> None:
    config = SegmentConfig()
    segmenter = Segmenter(config, FRAME)
    count = frames(config.longest_ms)
    quiet = count - frames(1000)
    events: list[Event] = []
    for number in range(count):
        events += segmenter.push(True, -60.0 if number in (quiet, 10) else -30.0)  # frame 10 is too long ago
    (final,) = utterances(events, "final")
    assert final.reason == "longest"
    assert final.end_sample == (quiet + 1) * FRAME
    assert [event.number for event in started(events)] == [1, 2]
    assert segmenter.open is not None
    assert segmenter.open.number == 2
    assert segmenter.open.start_sample == final.end_sample - samples(config.carry_ms)
    assert segmenter.open.end_sample == segmenter.position, "what came after the cut belongs to the next one"


def test_without_a_quieter_place_the_cut_falls_at_the_end() -> None:
    config = SegmentConfig(longest_ms=3_000)
    segmenter = Segmenter(config, FRAME)
    (final,) = utterances(push(segmenter, (True, frames(3_000))), "final")
    assert final.end_sample == segmenter.position


def test_a_cut_goes_on_counting_the_silence_behind_it() -> None:
    config = SegmentConfig(longest_ms=3_000, shrink_from_ms=3_000)
    segmenter = Segmenter(config, FRAME)
    speech = frames(3_000) - 2
    for _ in range(speech):
        segmenter.push(True, -30.0)
    events: list[Event] = []
    for number in range(20):
        events += segmenter.push(False, -70.0 if number == 0 else -60.0)
    assert [event.reason for event in ended(events)] == ["longest", "too_short"], "the rest holds no speech"


# --- flushing and skipping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["idle", "gap", "muted", "closed"])
def test_flushing_ends_what_is_open_and_says_why(reason: str) -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    push(segmenter, (True, 20))
    events = segmenter.flush(reason)
    assert ended(events) == [Ended(1, 20 * FRAME, reason)]
    (final,) = utterances(events)
    assert (final.stage, final.reason, final.end_sample) == ("final", reason, 20 * FRAME)
    assert segmenter.flush(reason) == []


def test_flushing_a_held_utterance_ends_it_where_it_was_held() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    (tentative,) = utterances(push(segmenter, (True, 20), (False, frames(150) + 2)), "tentative")
    (final,) = utterances(segmenter.flush("closed"))
    assert final.end_sample == tentative.end_sample


def test_flushing_forgets_a_run_that_had_not_become_speech() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    push(segmenter, (True, 3))
    assert segmenter.flush("muted") == []
    assert push(segmenter, (True, 3)) == []


def test_behind_a_gap_nothing_reaches_back_over_it() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    push(segmenter, (True, 20))
    segmenter.flush("gap")
    segmenter.skip_to(100_000)
    assert segmenter.position == 100_000
    push(segmenter, (True, 4))
    assert segmenter.open is not None
    assert (segmenter.open.number, segmenter.open.start_sample) == (2, 100_000)


def test_skipping_with_an_open_utterance_is_our_mistake() -> None:
    segmenter = Segmenter(SegmentConfig(), FRAME)
    push(segmenter, (True, 20))
    with pytest.raises(AssertionError):
        segmenter.skip_to(100_000)


# --- whatever is said -------------------------------------------------------------------------------------------------

CONFIGS = [
    SegmentConfig(),
    SegmentConfig(longest_ms=3_000, shrink_from_ms=1_000, cut_search_ms=1_000),
    SegmentConfig(start_ms=0, end_ms=64, tentative_ms=32, least_speech_ms=0, lead_in_ms=0, partial_every_ms=20),
    SegmentConfig(end_ms=200, tentative_ms=400, carry_ms=0, longest_ms=1_000, cut_search_ms=500),
]
RUNS = st.lists(st.tuples(st.booleans(), st.integers(1, 120), st.floats(-90, 0)), max_size=25)


def heard(config: SegmentConfig, runs: list[tuple[bool, int, float]]) -> tuple[list[Event], Segmenter]:
    segmenter = Segmenter(config, FRAME)
    events: list[Event] = []
    for voiced, count, level in runs:
        for number in range(count):
            events += segmenter.push(voiced, level - number * 7 % 5)
    return [*events, *segmenter.flush("closed")], segmenter


@settings(max_examples=150)
@given(st.sampled_from(CONFIGS), RUNS)
def test_every_utterance_starts_once_ends_once_and_has_one_final_unless_withdrawn(
    config: SegmentConfig, runs: list[tuple[bool, int, float]]
) -> None:
    events, segmenter = heard(config, runs)
    numbers = [event.number for event in started(events)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [event.number for event in ended(events)] == numbers
    kept = [event.number for event in ended(events) if event.reason != "too_short"]
    assert [u.number for u in utterances(events, "final")] == kept
    open_number = 0
    for event in events:  # nothing is said of an utterance before it starts or after it ends
        if isinstance(event, Started):
            assert open_number == 0
            open_number = event.number
        else:
            assert event.number == open_number
            open_number = 0 if isinstance(event, Ended) else open_number
    assert segmenter.open is None


@settings(max_examples=150)
@given(st.sampled_from(CONFIGS), RUNS)
def test_utterances_follow_each_other_and_are_no_longer_than_the_longest(
    config: SegmentConfig, runs: list[tuple[bool, int, float]]
) -> None:
    events, _ = heard(config, runs)
    for utterance in utterances(events):
        assert 0 <= utterance.start_sample < utterance.end_sample
        assert utterance.end_sample - utterance.start_sample <= samples(config.longest_ms) + FRAME
    finals = utterances(events, "final")
    for before, after in itertools.pairwise(finals):
        assert after.start_sample > before.start_sample
        carried = samples(config.carry_ms) if before.reason == "longest" and after.number == before.number + 1 else 0
        assert after.start_sample >= before.end_sample - carried


@settings(max_examples=150)
@given(st.sampled_from(CONFIGS), RUNS)
def test_answers_grow_and_a_silent_end_changes_nothing(
    config: SegmentConfig, runs: list[tuple[bool, int, float]]
) -> None:
    events, _ = heard(config, runs)
    for number in {u.number for u in utterances(events)}:
        (onset,) = [event.onset_sample for event in started(events) if event.number == number]
        *growing, last = [u for u in utterances(events) if u.number == number]
        assert all(u.start_sample <= onset for u in (*growing, last))
        assert all(a.end_sample < b.end_sample for a, b in itertools.pairwise(growing))
        for tentative, next_one in itertools.pairwise([u.stage for u in growing]):
            assert tentative == "partial" or next_one == "partial", "a tentative answer is withdrawn by a partial"
        if growing and growing[-1].stage == "tentative" and last.stage == "final" and last.reason != "longest":
            assert last.end_sample == growing[-1].end_sample
        if last.stage == "final":
            (end,) = [event for event in ended(events) if event.number == number]
            assert onset <= end.offset_sample <= last.end_sample


@settings(max_examples=50)
@given(RUNS, st.integers(0, 60))
def test_where_the_stream_begins_shifts_everything_and_changes_nothing(
    runs: list[tuple[bool, int, float]], at: int
) -> None:
    shifted = Segmenter(SegmentConfig(), FRAME, at * FRAME)
    moved = [e for voiced, count, level in runs for _ in range(count) for e in shifted.push(voiced, level)]
    plain = Segmenter(SegmentConfig(), FRAME)
    still = [e for voiced, count, level in runs for _ in range(count) for e in plain.push(voiced, level)]
    assert [(type(e), e.number) for e in moved] == [(type(e), e.number) for e in still]
    assert [u.end_sample - at * FRAME for u in utterances(moved)] == [u.end_sample for u in utterances(still)]
