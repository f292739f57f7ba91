"""One stream's bookkeeping, with the rows carried by hand."""

import numpy as np
import pytest
from fakes import VAD_FRAME, VOICE_FRAME, sound
from hypothesis import given
from hypothesis import strategies as st

from clser.engine.records import Samples, Utterance
from clser.engine.segment import Ended, SegmentConfig, Started
from clser.engine.stream import KEEP_FRAMES, WARM_UP_FRAMES, StreamConfig, StreamState
from clser.engine.vad import VadConfig, levels_dbfs

ONES = np.ones(1000, np.float32)


def stream(config: StreamConfig | None = None) -> StreamState:
    configs = (config or StreamConfig(), VadConfig(), SegmentConfig())
    return StreamState("a", None, configs, (VAD_FRAME, VOICE_FRAME))


def take(state: StreamState, pcm: Samples) -> None:
    state.take(pcm, 0, 0.0)


def hear(state: StreamState, probability: float = 1.0, most: int = 1000) -> list[object]:
    """Let the voice activity network hear what waits."""
    count, *_ = state.cut_vad(most)
    heard = state.hear_vad(np.full(count, probability, np.float32))
    state.follow(heard.events, 0.0)
    return list(heard.events)


@given(st.lists(st.integers(0, 2000), max_size=10))
def test_the_network_gets_whole_frames_each_once_and_in_order(sizes: list[int]) -> None:
    state, pcm = stream(), np.arange(sum(sizes)).astype(np.int16)
    got: list[int] = []
    at = 0
    for size in sizes:
        take(state, pcm[at : at + size])
        at += size
        assert state.vad_waiting() == at // VAD_FRAME - len(got) // VAD_FRAME
        if state.vad_waiting():
            count, fresh, sent, *_ = state.cut_vad(2)
            assert fresh == (not got)
            assert len(sent) == count * VAD_FRAME
            got += sent.tolist()
    assert got == pcm[: len(got)].tolist()


def test_no_more_frames_than_asked_for_are_cut() -> None:
    state = stream()
    take(state, np.zeros(10 * VAD_FRAME, np.int16))
    assert state.cut_vad(4)[0] == 4
    assert state.vad_waiting() == 6


def test_the_model_hears_the_lead_in_and_whole_steps_of_what_grows() -> None:
    state = stream()
    take(state, sound([(True, 352)]))  # 11 frames
    hear(state, 0.0, 7)
    assert state.voice_waiting() == (0, False)
    events = hear(state, 1.0)
    assert [type(event) for event in events] == [Started]
    count, urgent = state.voice_waiting()
    assert (count, urgent) == (11 * VAD_FRAME // VOICE_FRAME, False)
    track, sent, fresh, pcm = state.cut_voice(16, 1.0)[:4]
    assert (track.start, sent, fresh) == (0, 16, True)
    assert len(pcm) == 16 * VOICE_FRAME
    assert state.voice_waiting() == (0, False), "one frame is less than a step"


def test_a_final_is_urgent_and_given_once_its_frames_are_answered() -> None:
    state = stream()
    take(state, sound([(True, 960), (False, 640)]))
    hear(state, 1.0, 30)
    hear(state, 0.0)
    count, urgent = state.voice_waiting()
    assert urgent
    assert list(state.answers_due()) == []
    track, sent, _, _ = state.cut_voice(1000, 1.0)[:4]
    assert sent == count
    track.answers.extend([ONES] * (count - 1))
    assert list(state.answers_due()) == []
    track.answers.append(ONES)
    (reply,) = state.answers_due()
    assert reply.track is track
    assert reply.mark.utterance.stage == "final"
    assert not state.tracks
    assert list(state.answers_due()) == []
    assert state.needed == state.entered == count


def test_the_final_needs_nothing_that_the_tentative_answer_did_not() -> None:
    state = stream()
    take(state, sound([(True, 960), (False, 160)]))
    hear(state, 1.0, 30)
    *_, tentative = [event for event in hear(state, 0.0) if isinstance(event, Utterance)]
    assert tentative.stage == "tentative"
    track, _, _, _ = state.cut_voice(1000, 1.0)[:4]
    track.answers.extend([ONES] * track.sent)
    assert len(list(state.answers_due())) == 1
    take(state, sound([(False, 640)]))
    hear(state, 0.0)
    assert state.voice_waiting()[0] == 0
    (reply,) = state.answers_due()
    assert reply.mark.utterance.stage == "final"


def test_after_a_rewind_the_networks_hear_again_what_their_state_was_made_from() -> None:
    state = stream()
    pcm = sound([(True, 3200)])
    take(state, pcm)
    hear(state, 0.0, 50)
    hear(state, 1.0)
    position, level_frames = state.segmenter.position, len(pcm) // VAD_FRAME
    track, sent, _, first = state.cut_voice(1000, 1.0)[:4]
    track.answers.extend([ONES] * 5)
    state.rewind()
    assert state.segmenter.position == position
    assert state.vad_waiting() == level_frames, "from where the network began"
    count, fresh, again, *_ = state.cut_vad(1000)
    assert fresh
    assert again.tolist() == pcm[:position].tolist()
    assert state.hear_vad(np.zeros(count, np.float32)).frames == [], "heard before"
    assert state.segmenter.position == position == level_frames * VAD_FRAME
    track_again, sent_again, fresh, second = state.cut_voice(1000, 2.0)[:4]
    assert (track_again, sent_again, fresh) == (track, sent, True)
    assert second.tolist() == first.tolist()


def test_a_network_that_hands_out_no_state_hears_the_last_while_again() -> None:
    state = stream()
    take(state, sound([(True, 12_000)]))
    hear(state, 1.0)
    state.rewind()
    assert state.vad_waiting() == WARM_UP_FRAMES
    assert state.cut_vad(1)[:2] == (1, True)


def test_a_network_that_hands_out_its_state_goes_on_from_there() -> None:
    state = stream()
    state.keeps_state = True
    pcm = sound([(True, 3200)])
    take(state, pcm)
    first = state.cut_vad(KEEP_FRAMES - 1)
    assert (first.fresh, first.given, first.keep) == (True, b"", False)
    state.hear_vad(np.ones(first.frames, np.float32))
    second = state.cut_vad(5)
    assert second.keep
    state.hear_vad(np.ones(5, np.float32), np.array([1.5, 2.5], np.float32))
    kept_at = state.segmenter.position
    third = state.cut_vad(7)
    assert not third.keep
    state.hear_vad(np.ones(7, np.float32))
    position = state.segmenter.position
    for _ in range(2):  # the second worker dies too, while it is brought back to where the first one was
        state.rewind()
        again = state.cut_vad(4)
        assert (again.fresh, np.frombuffer(again.given, np.float32).tolist()) == (False, [1.5, 2.5])
        assert again.pcm.tolist() == pcm[kept_at : kept_at + 4 * VAD_FRAME].tolist()
        assert state.hear_vad(np.zeros(4, np.float32)).frames == []
    rest = state.cut_vad(5)
    assert rest.given == b""
    heard = state.hear_vad(np.ones(5, np.float32))
    assert [end for end, _, _ in heard.frames] == [position + VAD_FRAME, position + 2 * VAD_FRAME]


def test_what_was_handed_over_is_kept_though_its_owner_uses_it_again() -> None:
    state = stream()
    pcm = sound([(True, 320)])
    first, second = pcm.copy(), pcm.copy()
    take(state, first)
    first[:] = 0
    state.barrier("gap", 16_000)
    take(state, second)
    second[:] = 0
    assert (state.cut_vad(10).pcm == pcm).all()
    state.hear_vad(np.zeros(10, np.float32))
    assert state.pass_barrier() is not None
    assert (state.cut_vad(10).pcm == pcm).all()


def test_gaps_that_pile_up_count_as_backlog_and_are_crossed_in_their_order() -> None:
    state = stream()
    take(state, sound([(False, 640)]))
    before = state.backlog
    for _ in range(3):
        state.barrier("gap", 1600)
        take(state, sound([(False, 64)]))
    assert state.backlog == before + 3 * 1024 + 2 * VAD_FRAME
    crossed = []
    for _ in range(4):
        count = state.vad_waiting()
        if count:
            state.cut_vad(count)
            state.hear_vad(np.zeros(count, np.float32))
        passed = state.pass_barrier()
        crossed += [passed[0].resume] if passed else []
    assert crossed == [10_240 + 1600, 10_240 + 1024 + 3200, 10_240 + 2048 + 4800]
    assert state.backlog == 0


def test_behind_a_gap_no_old_state_is_given() -> None:
    state = stream()
    state.keeps_state = True
    take(state, sound([(False, 3200)]))
    count = state.cut_vad(1000).frames
    state.hear_vad(np.zeros(count, np.float32), np.ones(2, np.float32))
    state.barrier("gap", 16_000)
    take(state, sound([(False, 640)]))
    assert state.pass_barrier() is not None
    state.cut_vad(3)
    state.rewind()
    again = state.cut_vad(1000)
    assert (again.fresh, again.given, again.frames) == (True, b"", 20)


def test_a_rewind_at_the_beginning_starts_from_the_beginning() -> None:
    state = stream()
    take(state, sound([(True, 320)]))
    state.cut_vad(4)
    state.rewind()
    assert state.vad_waiting() == 10
    assert state.cut_vad(1000)[1]


def test_a_rewind_reaches_back_to_a_gap_at_most() -> None:
    state = stream()
    take(state, sound([(True, 3200)]))
    state.barrier("gap", 16_000)
    hear(state, 0.0)
    while state.pass_barrier():
        pass
    take(state, sound([(True, 320)], 2))
    hear(state, 0.0)
    state.rewind()
    count, _, again, *_ = state.cut_vad(1000)
    assert count == 10
    assert again.tolist() == sound([(True, 320)], 2).tolist()


def test_a_barrier_waits_until_all_before_it_was_heard() -> None:
    state = stream()
    take(state, sound([(True, 1000)]))
    state.barrier("muted")
    take(state, sound([(True, 1000)]))
    assert state.pass_barrier() is None
    count, *_ = state.cut_vad(1000)
    assert count == 16_000 // VAD_FRAME, "not beyond the barrier"
    assert state.pass_barrier() is None
    state.follow(state.hear_vad(np.ones(count, np.float32)).events, 0.0)
    passed = state.pass_barrier()
    assert passed is not None
    assert [event.reason for event in passed[1] if isinstance(event, Ended)] == ["muted"]
    state.follow(passed[1], 0.0)
    assert state.vad_waiting() == 32_000 // VAD_FRAME - count, "and on it goes, without a hole"


def test_what_waits_for_either_network_is_backlog() -> None:
    state = stream()
    take(state, sound([(True, 1600)]))
    assert state.backlog == 25_600
    hear(state, 1.0)
    assert state.backlog == 25_600, "the model has heard nothing yet"
    track, sent, _, _ = state.cut_voice(1000, 1.0)[:4]
    assert state.backlog == 25_600
    track.answers.extend([ONES] * sent)
    assert list(state.answers_due())
    assert state.backlog < 1600
    state.barrier("gap", 1_000_000)
    assert state.backlog < 1600, "what is not there does not wait"


def test_the_time_of_a_sample_is_reckoned_from_the_packet_that_held_it() -> None:
    state = stream()
    for number in range(1, 101):
        state.take(np.zeros(320, np.int16), number * 20_000, number * 0.02)
    assert state.times_of(320) == (20_000, 0.02)
    assert state.times_of(480) == (30_000, 0.04)
    assert state.times_of(32_000) == (2_000_000, 2.0)


def test_packets_of_one_sample_do_not_wear_the_times_out() -> None:
    state = stream()
    for number in range(1, 16_001):
        state.take(np.zeros(1, np.int16), round(number * 62.5), number / 16_000)
    for sample in (1, 8_000, 16_000):
        captured_us, arrived_s = state.times_of(sample)
        assert captured_us == pytest.approx(sample * 62.5, abs=2)
        assert arrived_s == pytest.approx(sample / 16_000, abs=0.045)
    assert len(state._captures) < 200


def test_levels_are_in_db_below_full_scale() -> None:
    tone = np.rint(32_767 * np.sin(2 * np.pi * np.arange(512) / 32)).astype(np.int16)
    square = np.full(512, -32_768, np.int16)
    assert levels_dbfs(np.stack((tone, square, np.zeros(512, np.int16), tone // 10))) == pytest.approx(
        [-3.0, 0.0, -100.0, -23.0], abs=0.11
    )


def test_behind_a_gap_speech_has_to_start_again() -> None:
    state = stream()
    take(state, sound([(True, 160)]))
    hear(state, 1.0)
    state.barrier("gap", 16_000)
    while passed := state.pass_barrier():
        state.follow(passed[1], 0.0)
    take(state, sound([(True, 640)]))
    assert hear(state, 0.4) == [], "enough to go on, but not enough to start"
