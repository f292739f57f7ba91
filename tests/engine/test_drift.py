"""Capture times from timestamps that are late by chance, by clocks that run apart, are set, or were never right."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from fakes import ManualClock, Rig, run, sound
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clser.engine.drift import REMEMBERED_US, CaptureClock, Reading, support
from clser.engine.records import Result, Status

START_US = ManualClock.START_US
Times = NDArray[np.float64]


@dataclass
class Sender:
    """A stream in virtual time: how its sample clock runs, its packets travel, and its wall clock is set."""

    ppm: float = 0.0
    rate_hz: int = 16_000
    packet: int = 320
    set_us: int = 0
    """Its wall clock against the truth."""
    engine_set_us: int = 0
    clock: CaptureClock = field(init=False)
    sample: int = 0
    paused_us: float = 0.0
    arrived_us: float = 0.0

    def __post_init__(self) -> None:
        self.clock = CaptureClock(self.rate_hz)

    def send(self, delays_us: Times, stamped: bool = True, live: bool = True) -> Iterator[tuple[float, Reading]]:
        """A packet for each delay: by how much (us) its capture time is wrong, and the reading.

        The delay is that of the timestamp; a stamped packet comes at once, one without a timestamp is late by it. None overtakes
        another.
        """
        for delay_us in delays_us:
            self.sample += self.packet
            true_us = self.paused_us + self.sample * 1e6 / (self.rate_hz * (1 + self.ppm * 1e-6))
            self.arrived_us = max(self.arrived_us, true_us + delay_us)
            stamp = START_US + round(true_us + delay_us) + self.set_us if stamped else None
            now_us = START_US + round(self.arrived_us) + self.engine_set_us
            reading = self.clock.hear(self.sample, stamp, now_us, 100.0 + self.arrived_us / 1e6, live)
            yield reading.captured_us - START_US - self.engine_set_us - true_us, reading


def jitter(count: int, seed: int = 1, mean_us: float = 5_000.0) -> Times:
    """Mostly little, now and then 80 ms more."""
    rng = np.random.default_rng(seed)
    return rng.exponential(mean_us, count) + 80_000 * (rng.random(count) < 0.01)


def errors_ms(sender: Sender, delays_us: Times, stamped: bool = True) -> Times:
    return np.array([wrong for wrong, _ in sender.send(delays_us, stamped)]) / 1000


def events(sender: Sender, delays_us: Times, stamped: bool = True) -> list[tuple[int, str, str]]:
    readings = [reading for _, reading in sender.send(delays_us, stamped)]
    return [(number, reading.event, reading.detail) for number, reading in enumerate(readings) if reading.event]


@pytest.mark.parametrize(
    ("ppm", "rate_hz", "packet", "stamped"),
    [(200, 16_000, 320, True), (-200, 48_000, 960, False), (200, 44_100, 1024, False), (-200, 16_000, 1600, True)],
)
def test_for_an_hour_capture_times_hold_though_timestamps_come_late_and_the_clock_drifts(
    ppm: float, rate_hz: int, packet: int, stamped: bool
) -> None:
    sender = Sender(ppm, rate_hz, packet)
    second = rate_hz // packet
    delays = jitter(3600 * second)
    assert np.abs(errors_ms(sender, delays[: 60 * second], stamped)[5 * second :]).max() <= 5
    for at in range(60 * second, len(delays), 60 * second):
        assert np.abs(errors_ms(sender, delays[at : at + 60 * second], stamped)).max() <= 5
        assert sender.clock.drift_ppm == pytest.approx(ppm, abs=10)


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("ppm", [200, 0, -200])
def test_timestamps_that_are_never_late_are_kept_to_the_millisecond_from_the_first_on(
    ppm: float, stamped: bool
) -> None:
    sender = Sender(ppm, 48_000, 960)
    assert np.abs(errors_ms(sender, np.zeros(50 * 600), stamped)).max() <= 0.1
    assert sender.clock.drift_ppm == pytest.approx(ppm, abs=0.5)


def test_what_is_remembered_does_not_grow() -> None:
    sender = Sender(100)
    errors_ms(sender, jitter(50 * 1200))
    assert len(sender.clock._stamps._windows) <= REMEMBERED_US / 1e6 + 1


def test_how_fast_a_clock_runs_is_not_said_before_it_can_be_told() -> None:
    sender = Sender(100)
    errors_ms(sender, jitter(50 * 15))
    assert sender.clock.drift_ppm is None


# --- clocks that are set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_s", [0.3, 5.0, -0.3, -5.0, 86_400.0])
def test_a_step_of_this_machines_clock_is_told_at_once_and_followed(by_s: float) -> None:
    sender = Sender(100)
    assert events(sender, jitter(50 * 30), stamped=False) == []
    sender.engine_set_us = round(by_s * 1e6)
    assert events(sender, jitter(1), stamped=False) == [
        (0, "clock_stepped", f"this machine's clock moved by {by_s:+.3f} s")
    ]
    assert np.abs(errors_ms(sender, jitter(50 * 30), stamped=False)).max() <= 5
    assert sender.clock.drift_ppm == pytest.approx(100, abs=10)


@pytest.mark.parametrize("by_s", [0.4, -0.4, -0.9])
def test_a_step_of_the_senders_clock_is_told_within_a_few_packets_and_followed(by_s: float) -> None:
    sender = Sender(100)
    assert events(sender, jitter(50 * 30)) == []
    sender.set_us = round(by_s * 1e6)
    ((number, event, detail),) = events(sender, jitter(50 * 30))
    assert event == "clock_stepped"
    assert number <= 12
    assert float(detail.split()[-2]) == pytest.approx(by_s, abs=0.1)
    if by_s < 0:
        assert np.abs(errors_ms(sender, jitter(50 * 30)) - 1000 * by_s).max() <= 5
    else:  # ahead of us: nothing is heard before it sounds
        assert errors_ms(sender, np.zeros(50)).max() <= 0.1
    assert sender.clock.drift_ppm == pytest.approx(100, abs=10)


def test_sound_that_pauses_is_no_step_of_a_clock() -> None:
    for stamped in (True, False):
        sender = Sender()
        assert events(sender, jitter(50 * 30), stamped) == []
        sender.paused_us = 7e6
        assert events(sender, jitter(50 * 3), stamped) == []
        assert np.abs(errors_ms(sender, jitter(50 * 30), stamped)).max() <= 5


@pytest.mark.parametrize("stall_s", [0.5, 3.0])
def test_packets_that_were_held_up_and_come_in_a_burst_are_no_step(stall_s: float) -> None:
    sender = Sender(50)
    delays = jitter(50 * 60)
    stall = round(50 * stall_s)
    delays[2000 : 2000 + stall] = 1e6 * (stall_s - np.arange(stall) / 50)
    assert events(sender, delays, stamped=False) == []
    sender = Sender(50)
    assert np.abs(errors_ms(sender, delays, stamped=False)[300:]).max() <= 5


def test_one_timestamp_far_off_changes_nothing() -> None:
    sender = Sender()
    errors_ms(sender, jitter(50 * 30))
    for wild_us in (400_000, -400_000, 2_000_000_000, -(10**15)):
        sender.set_us = wild_us
        assert np.abs(errors_ms(sender, np.zeros(2))).max() <= 5
        sender.set_us = 0
        assert np.abs(errors_ms(sender, jitter(50))).max() <= 5


def test_samples_lost_without_a_word_are_made_good_within_seconds() -> None:
    sender = Sender()
    errors_ms(sender, jitter(50 * 30), stamped=False)
    sender.paused_us = 60_000.0
    assert np.abs(errors_ms(sender, jitter(50 * 20), stamped=False)[50 * 8 :]).max() <= 5


# --- clocks that disagree ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("set_s", [-3600.0, -1.5, 1.5, 3600.0, -1.7e9])
def test_a_senders_clock_that_differs_is_said_once_and_mapped_onto_ours(set_s: float) -> None:
    sender = Sender(100, set_us=round(set_s * 1e6))
    said = events(sender, jitter(50 * 10))
    assert [event for _, event, _ in said] == ["clock_differs"]
    word = "ahead" if set_s > 0 else "behind"
    assert f"{abs(set_s):.2f}" in said[0][2]
    assert f" s {word}: mapped" in said[0][2]
    assert said[0][0] <= 55
    wrong = [(error, reading) for error, reading in sender.send(jitter(50 * 60))]
    assert max(abs(error) for error, _ in wrong) <= 5_000
    assert not any(reading.event for _, reading in wrong)
    assert sender.clock.drift_ppm == pytest.approx(100, abs=10)


def test_a_clock_that_is_set_right_is_believed_again() -> None:
    sender = Sender(set_us=-1_600_000_000_000_000)
    assert [event for _, event, _ in events(sender, jitter(50 * 10))] == ["clock_differs"]
    assert sender.clock._differs
    sender.set_us = 0
    events(sender, jitter(50 * 10))
    assert not sender.clock._differs
    assert np.abs(errors_ms(sender, jitter(50 * 10))).max() <= 5


def test_sound_kept_back_while_the_line_was_down_does_not_make_the_clock_wrong() -> None:
    sender = Sender()
    sender.arrived_us = 2e6  # the first two seconds come at once
    readings = [reading for _, reading in sender.send(np.zeros(200))]
    assert not any(reading.event for reading in readings)
    assert readings[0].captured_us == START_US + 20_000


# --- what no clock paces ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [320, 8000])
def test_sound_fed_faster_than_it_sounds_was_captured_when_it_came(packet: int) -> None:
    clock = CaptureClock(16_000)
    for number in range(1, 2000):
        now_us = START_US + number * 1000
        assert clock.hear(number * packet, None, now_us, number / 1000, False).captured_us == now_us
    assert clock.drift_ppm is None


def test_who_feeds_a_recording_is_taken_at_his_word() -> None:
    clock = CaptureClock(16_000)
    for number in range(1, 2000):
        stamp = number * 20_000
        reading = clock.hear(number * 320, stamp, START_US, 100.0, False)
        assert reading == Reading(stamp)


def test_a_rate_that_was_told_wrong_is_no_clock_and_no_flood_of_words() -> None:
    sender = Sender(ppm=(44_100 / 48_000 - 1) * 1e6, rate_hz=48_000, packet=960)
    assert events(sender, jitter(50 * 60)) == []
    assert sender.clock.drift_ppm is None


@given(
    st.lists(
        st.tuples(st.integers(1, 48_000), st.none() | st.integers(0, 2**53), st.integers(0, 3_000_000)), max_size=60
    )
)
def test_no_timestamps_break_it_and_none_is_in_the_future(packets: list[tuple[int, int | None, int]]) -> None:
    clock, sample, passed_us = CaptureClock(48_000), 0, 0
    for count, stamp, later_us in packets:
        sample, passed_us = sample + count, passed_us + later_us
        reading = clock.hear(sample, stamp, START_US + passed_us, passed_us / 1e6, True)
        assert reading.captured_us <= START_US + passed_us
        assert clock.at(sample) == reading.captured_us


@given(st.lists(st.floats(0, 1e5), min_size=2, max_size=60))
def test_the_line_runs_below_all_places_and_touches_two(heights: list[float]) -> None:
    places = [(1e6 * number, height) for number, height in enumerate(heights)]
    slope, (x, y) = support(places)
    above = [place[1] - (y + slope * (place[0] - x)) for place in places]
    assert min(above) >= -1e-3
    assert sum(abs(height) <= 1e-3 for height in above) >= 2


# --- in a stream ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 32_000, 44_100, 48_000])
def test_results_say_when_their_sound_was_captured_at_any_rate(rate_hz: int) -> None:
    """The resampler keeps up to 60 ms for its filter: what comes out is older than what went in."""
    packet, spoken = rate_hz // 50, sound([(False, 500), (True, 1200), (False, 600)])
    pcm = np.interp(np.arange(len(spoken) * rate_hz // 16_000) * 16_000 / rate_hz, np.arange(len(spoken)), spoken)

    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a", sample_rate_hz=rate_hz)
            began_us = rig.clock.unix_us()
            for at in range(0, len(pcm), packet):
                await rig.clock.advance(len(pcm[at : at + packet]) / rate_hz)
                stream.push(pcm[at : at + packet].astype(np.int16))
                await rig.settle()
            await stream.close()
            results = rig.of(Result)
            assert "final" in {result.stage for result in results}
            for result in results:
                assert abs(result.captured_unix_us - began_us - result.end_sample * 62.5) <= 1000
                assert 0 <= result.timing_ms.capture <= 140

    run(main())


def test_a_stream_says_when_a_clock_was_set_and_how_fast_its_own_runs() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            packet = sound([(False, 100)])
            for _ in range(300):
                await rig.clock.advance(0.1 * (1 - 100e-6))
                stream.push(packet)
            assert stream.drift_ppm == pytest.approx(100, abs=1)
            rig.clock.set_us = 3_000_000
            for _ in range(10):
                await rig.clock.advance(0.1)
                stream.push(packet)
            assert [(s.event, s.detail) for s in rig.of(Status, "a") if s.event.startswith("clock")] == [
                ("clock_stepped", "this machine's clock moved by +3.000 s")
            ]
            await stream.feed(sound([(True, 900), (False, 500)]))
            await stream.close()
            (final,) = rig.finals("a")
            assert final.captured_unix_us <= rig.clock.unix_us()
            assert final.captured_unix_us > rig.clock.unix_us() - 1_500_000

    run(main())


def test_a_robot_whose_clock_is_wrong_gets_results_by_ours() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            pcm, began_us = sound([(False, 8000), (True, 1200), (False, 600)]), rig.clock.unix_us()
            for at in range(0, len(pcm), 320):
                await rig.clock.advance(0.02)
                stream.push(pcm[at : at + 320], captured_unix_us=(at + 320) * 1_000_000 // 16_000)
                await rig.settle()
            (final,) = rig.finals("a")
            assert abs(final.captured_unix_us - began_us - final.end_sample * 62.5) <= 1000
            assert [event for event, _ in rig.events("a")].count("clock_differs") == 1

    run(main())
