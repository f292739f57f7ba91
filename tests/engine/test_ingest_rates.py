"""The same talk in packets of any size and at any rate: the same utterances."""

import asyncio
import functools
from collections.abc import Sequence

import numpy as np
import pytest
import soundfile
import soxr
from fakes import CARD, FakePool, Rig, _FakeWorker, run
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import apart
from numpy.typing import NDArray

from clser.clients.clips import demo_clip, demo_segments
from clser.engine import jobs
from clser.engine.api import Engine
from clser.engine.backends.webrtc import Webrtc
from clser.engine.errors import GivenError
from clser.engine.pool import Listener
from clser.engine.records import Gap, Message, Result, Samples, Speech, samples, seconds

RATES_HZ = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]
Spans = tuple[int, int, int, int]
APART = samples(64)


class _WebrtcWorker(_FakeWorker):
    """WebRTC's network for voice activity, which is cheap, and the fake for emotion."""

    def run(self, batch: jobs.Batch, pcm: Samples) -> NDArray[np.float32]:
        if batch.lane != "vad":
            return super().run(batch, pcm)
        self.network: Webrtc = getattr(self, "network", None) or Webrtc(2)
        return self.network.run(batch.rows, pcm)


class WebrtcPool(FakePool):
    def __init__(self) -> None:
        super().__init__()
        self._workers = [_WebrtcWorker()]

    async def start(self, listener: Listener) -> jobs.Ready:
        await super().start(listener)
        return jobs.Ready(Webrtc.frame_samples, CARD)


@functools.cache
def talk(rate_hz: int) -> Samples:
    """The demo clip at that rate."""
    pcm, clip_hz = soundfile.read(demo_clip(), dtype="int16")
    return np.asarray(soxr.resample(pcm, clip_hz, rate_hz, quality="VHQ"))


def utterances(messages: Sequence[Message], stream: str = "a") -> list[Spans]:
    """Of each that was not withdrawn: what the final covers, and where speech began and ended."""
    speech = {(m.utterance, m.event): m.sample for m in messages if isinstance(m, Speech) and m.stream == stream}
    results = [m for m in messages if isinstance(m, Result) and m.final and m.stream == stream]
    return [
        (r.start_sample, r.end_sample, speech[r.utterance, "started"], speech[r.utterance, "ended"]) for r in results
    ]


async def heard(pcm: Samples, rate_hz: int, sizes: list[int]) -> list[Spans]:
    """What comes of the sound in live packets of these sizes, over and over; nothing is lost."""
    rig = Rig()
    rig.pool = rig.engine._pool = WebrtcPool()
    async with rig:
        stream = rig.engine.open("a", sample_rate_hz=rate_hz)
        at = turn = 0
        while at < len(pcm):
            size = sizes[turn % len(sizes)]
            stream.push(pcm[at : at + size], start_sample=at)
            at, turn = at + size, turn + 1
            while stream._state.backlog > 16_000:  # noqa: ASYNC110 - as a feeder waits, but live
                await asyncio.sleep(0)
        await stream.close()
    assert rig.of(Gap) == []
    return utterances(rig.messages)


@functools.cache
def spoken(rate_hz: int) -> list[Spans]:
    return apart(heard(talk(rate_hz), rate_hz, [rate_hz // 50]))


def check_alike(ours: list[Spans], others: list[Spans]) -> None:
    assert len(ours) == len(others) == len(demo_segments())
    assert np.abs(np.array(ours) - np.array(others)).max() <= APART


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_at_every_rate_the_same_is_heard_in_the_same_places(rate_hz: int) -> None:
    check_alike(spoken(rate_hz), spoken(16_000))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@settings(max_examples=5)
@given(sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=12))
def test_packets_of_any_size_give_the_same_utterances(rate_hz: int, sizes: list[int]) -> None:
    assert run(heard(talk(rate_hz), rate_hz, [*sizes, 10_000])) == spoken(rate_hz)


@pytest.mark.parametrize("rate_hz", [11_025, 16_000])
def test_packets_of_one_sample_do_too(rate_hz: int) -> None:
    phrase = talk(rate_hz)[: 5 * rate_hz]
    ones = run(heard(phrase, rate_hz, [1]))
    assert ones == run(heard(phrase, rate_hz, [rate_hz // 50]))
    assert ones


def test_with_the_networks_that_ship_it_is_no_different() -> None:
    streams = {f"{hz}-{size}": (talk(hz), hz, size) for hz in RATES_HZ for size in (hz // 50, 9_973)}
    # what the low rates cannot carry is no fault of ours: the same sound without its treble, at 16 kHz
    streams |= {f"dull-{hz}": (soxr.resample(talk(hz), hz, 16_000), 16_000, 320) for hz in RATES_HZ if hz < 16_000}

    async def main() -> None:
        async with Engine.from_config("live", "asr.recogniser=off", "bus.publish=", "pool.workers=1") as engine:
            news = engine.messages()

            async def feed(name: str, pcm: Samples, rate_hz: int, size: int) -> None:
                stream = engine.open(name, sample_rate_hz=rate_hz)
                for at in range(0, len(pcm), size):
                    await stream.feed(pcm[at : at + size])
                await stream.close()

            await asyncio.gather(*(feed(name, *how) for name, how in streams.items()))
            news.close()
            messages = [message async for message in news]
        for hz in RATES_HZ:
            ours = utterances(messages, f"{hz}-{hz // 50}")
            assert ours == utterances(messages, f"{hz}-9973")
            check_alike(ours, utterances(messages, f"dull-{hz}" if hz < 16_000 else "16000-320"))

    run(main(), 240)


# --- holes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@given(holes=st.lists(st.tuples(st.integers(1, 700), st.integers(0, 900)), min_size=1, max_size=60))
@settings(max_examples=15)
def test_however_many_holes_the_index_stays_where_start_sample_says(rate_hz: int, holes: list[tuple[int, int]]) -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a", sample_rate_hz=rate_hz)
            start = missing = 0
            for count, hole in holes:
                stream.push(np.ones(count, np.int16), start_sample=start)
                start, missing = start + count + hole, hole
            end = start - missing
            await stream.close()
            assert stream.next_sample == end
            assert rig.pipeline.totals()["sound_s"] == seconds(round(end * 16_000 / rate_hz))
            gaps = rig.of(Gap)
            assert all(gap.count > 0 for gap in gaps)
            lost = sum(hole for _, hole in holes[:-1]) * 16_000 / rate_hz
            assert abs(sum(gap.count for gap in gaps) - lost) <= len(holes)

    run(main())


def test_behind_a_hole_speech_is_found_where_it_is() -> None:
    """A hundred holes of a millisecond in the silence before it."""
    rate_hz = 44_100

    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a", sample_rate_hz=rate_hz)
            for number in range(100):
                stream.push(np.zeros(882, np.int16), start_sample=number * 926)
            tone = np.where(np.arange(rate_hz) % 100 < 50, 8000, -8000).astype(np.int16)
            stream.push(tone, start_sample=100 * 926)
            stream.push(np.zeros(rate_hz // 2, np.int16))
            await stream.close()
            (began,) = [m for m in rig.of(Speech) if m.event == "started"]
            assert began.at_s == pytest.approx(100 * 926 / rate_hz, abs=0.04)
            assert len(rig.of(Gap)) == 100

    run(main())


@given(
    packets=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 3_000)), min_size=1, max_size=40),
    in_order=st.booleans(),
)
def test_late_twice_overlapping_or_missing_every_sample_stands_where_it_belongs(
    packets: list[tuple[int, int]], in_order: bool
) -> None:
    count = np.arange(25_000, dtype=np.int16)  # each sample says which it is

    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            state = rig.pipeline._streams["a"]
            take, refused, end = state.take, 0, 0

            def checked(pcm: Samples, captured_unix_us: int, arrived_s: float) -> None:
                assert pcm.tolist() == list(range(state.total, state.total + len(pcm)))
                take(pcm, captured_unix_us, arrived_s)

            state.take = checked
            for start, length in sorted(packets) if in_order else packets:
                try:
                    stream.push(count[start : start + length], start_sample=start)
                except GivenError:
                    refused += 1
                    assert start + length <= end
                end = max(end, start + length)
                assert stream.next_sample == state.total == end
            await stream.close()
            heard_ = end - sum(gap.count for gap in rig.of(Gap))
            covered = len({at for start, length in packets for at in range(start, start + length)})
            assert heard_ == covered if in_order else heard_ <= covered
            assert refused < len(packets)

    run(main())
