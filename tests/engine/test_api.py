"""The engine as programs use it, with its own networks in worker processes."""

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import Rig, run, sound

from clser.clients.clips import demo_clip, demo_segments
from clser.engine.api import Engine
from clser.engine.errors import GivenError, MissingError
from clser.engine.records import Frame, Message, Result, Samples, Speech, Status


@pytest.fixture(autouse=True, scope="module")
def own_runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield


def clip() -> Samples:
    pcm, rate_hz = soundfile.read(demo_clip(), dtype="int16")
    assert rate_hz == 16_000
    return np.asarray(pcm)


@dataclass
class Heard:
    results: list[Result] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    endpoint: str = ""

    @property
    def finals(self) -> list[Result]:
        return [result for result in self.results if result.final]


async def listen(heard: Heard, *, kill_at_s: float | None = None, packet: int = 320, **opening: object) -> None:
    """The clip at full speed through an engine with one worker, which is killed at that place of the clip."""
    async with Engine.from_config("live", "asr.recogniser=off") as engine:
        heard.endpoint = engine.endpoint or ""
        news = engine.messages(frames=True)
        stream = engine.open("clip", **opening)  # type: ignore[arg-type]

        async def read() -> None:
            async for result in stream.results():
                heard.results.append(result)

        async def read_all() -> None:
            async for message in news:
                heard.messages.append(message)

        reading = [asyncio.create_task(read()), asyncio.create_task(read_all())]
        pcm = clip()
        for at in range(0, len(pcm), packet):
            if kill_at_s is not None and at >= kill_at_s * 16_000:
                kill_at_s = None
                assert engine._pool is not None
                os.kill(engine._pool.pids[0], signal.SIGKILL)
            await stream.feed(pcm[at : at + packet])
        await stream.close()
        await reading[0]
    await reading[1]


@pytest.fixture(scope="module")
def heard(own_runtime_folder: None) -> Heard:
    heard = Heard()
    run(listen(heard))
    return heard


def test_the_demo_clip_gives_a_final_for_each_phrase_where_the_phrase_is(heard: Heard) -> None:
    spoken = demo_segments()
    assert len(heard.finals) == len(spoken) == 8
    starts = [m.at_s for m in heard.messages if isinstance(m, Speech) and m.event == "started"]
    ends = [m.at_s for m in heard.messages if isinstance(m, Speech) and m.event == "ended"]
    for phrase, start_s, end_s in zip(spoken, starts, ends, strict=True):
        assert start_s == pytest.approx(phrase.start_s, abs=0.3)
        assert end_s == pytest.approx(phrase.end_s, abs=0.3)
    for final, phrase in zip(heard.finals, spoken, strict=True):
        assert final.start_s <= phrase.start_s + 0.05
        assert final.end_s >= phrase.end_s - 0.05


def test_every_result_carries_an_opinion_of_the_shipped_model(heard: Heard) -> None:
    for result in heard.results:
        assert sum(result.emotion.probabilities.values()) == pytest.approx(1, abs=1e-3)
        assert result.emotion.abstained == (result.emotion.label is None)
        assert len(result.model.digest) == 16
        assert -1 <= result.arousal <= 1
    assert len({tuple(final.emotion.probabilities.values()) for final in heard.finals}) == 8


def test_results_are_the_messages_of_kind_result(heard: Heard) -> None:
    published = [m for m in heard.messages if isinstance(m, Result)]
    assert [m.seq for m in published] == list(range(1, len(published) + 1))
    assert [m for m in published if m.final] == heard.finals
    assert set(map(repr, heard.results)) <= set(map(repr, published))


def test_the_continuous_track_has_a_row_for_every_frame(heard: Heard) -> None:
    rows = [m for m in heard.messages if isinstance(m, Frame)]
    assert [row.end_sample for row in rows] == list(range(512, 512 * len(rows) + 1, 512))
    assert len(rows) == -(-len(clip()) // 512)
    assert any(row.probabilities for row in rows)
    loud = np.mean([row.level_dbfs for row in rows if row.speech > 0.9])
    assert loud > np.mean([row.level_dbfs for row in rows if row.speech < 0.1]) + 20


def test_the_stream_says_when_it_opens_and_closes_and_the_engine_when_it_stops(heard: Heard) -> None:
    said = [(m.stream, m.event) for m in heard.messages if isinstance(m, Status) and m.event != "heartbeat"]
    assert said == [("clip", "opened"), ("clip", "closed"), ("_engine", "stopping")]
    last = next(m for m in reversed(heard.messages) if isinstance(m, Status) and m.stream == "_engine")
    assert last.counters["finals"] == 8
    assert last.counters["frames_entered"] == last.counters["frames_needed"] > 0
    assert last.counters["gaps"] == 0


def test_by_default_it_publishes_in_the_users_own_runtime_folder(heard: Heard) -> None:
    assert heard.endpoint == f"ipc://{os.environ['XDG_RUNTIME_DIR']}/clser/results"
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "clser"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.glob("worker-*")), "nothing is left behind"


def test_a_worker_killed_in_mid_speech_costs_no_final_and_changes_none(heard: Heard) -> None:
    again = Heard()
    spoken = demo_segments()[1]
    run(listen(again, kill_at_s=(spoken.start_s + spoken.end_s) / 2, packet=1600))
    events = [m.event for m in again.messages if isinstance(m, Status)]
    assert events.count("worker_lost") == events.count("worker_back") == 1
    assert [(f.utterance, f.reason) for f in again.finals] == [(f.utterance, f.reason) for f in heard.finals]
    for after, before in zip(again.finals, heard.finals, strict=True):
        assert after.start_sample == pytest.approx(before.start_sample, abs=1024)
        assert after.end_sample == pytest.approx(before.end_sample, abs=1024)
        assert after.emotion.probabilities == pytest.approx(before.emotion.probabilities, abs=0.05)


def test_an_unknown_model_is_missing_and_the_installed_ones_are_named() -> None:
    async def main() -> None:
        with pytest.raises(MissingError, match=r"'nosuch' is unknown: installed are .*voice"):
            async with Engine.from_config("live", "asr.recogniser=off", "model.voice=nosuch", "bus.publish="):
                pass

    run(main())


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")

    async def main() -> None:
        with pytest.raises(GivenError, match=r"broken\.onnx"):
            async with Engine.from_config("live", "asr.recogniser=off", f"model.voice={path}", "bus.publish="):
                pass

    run(main())


# --- the same face, on fake workers -----------------------------------------------------------------------------------


def test_results_are_given_while_speech_goes_on_and_end_after_close() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            stages: list[str] = []

            async def read() -> None:
                async for result in stream.results():
                    stages.append(result.stage)

            reading = asyncio.create_task(read())
            for packet in np.split(sound([(False, 500), (True, 1500), (False, 500)]), 125):
                await stream.feed(packet)
                await rig.settle()
            assert stages[0] == "partial"
            assert stages[-1] == "final"
            assert not reading.done()
            await stream.close()
            await rig.settle()
            assert reading.done()

    run(main())


def test_a_reader_gets_every_final_and_only_the_newest_of_what_is_not_final() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.feed(sound([(True, 1500), (False, 500)] * 4 + [(True, 1200)]))
            await rig.settle()
            await stream.close()
            got = [(result.utterance, result.stage) async for result in stream.results()]
            assert got == [(number, "final") for number in range(1, 6)]

    run(main())


def test_results_nobody_reads_do_not_pile_up() -> None:
    async def main() -> None:
        async with Rig(stream={"results_kept": 3}) as rig:
            stream = rig.engine.open("a")
            await stream.feed(sound([(True, 800), (False, 500)] * 8))
            await stream.close()
            assert len(rig.finals()) == 8
            assert [result.utterance async for result in stream.results()] == [6, 7, 8]

    run(main())


def test_a_reader_that_is_slow_makes_the_feeder_wait_and_misses_nothing() -> None:
    async def main() -> None:
        async with Rig(stream={"results_kept": 2}) as rig:
            stream = rig.engine.open("a")
            results = stream.results()
            pcm = sound([(True, 800), (False, 500)] * 8)

            async def feed() -> None:
                for packet in np.array_split(pcm, 100):
                    await stream.feed(packet)
                await stream.close()

            feeding = asyncio.create_task(feed())
            got = [await anext(results)]
            await rig.settle()
            assert not feeding.done()
            got += [result async for result in results]
            await feeding
            assert [result.utterance for result in got if result.final] == list(range(1, 9))

    run(main())


def test_feeding_after_close_is_refused() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.close()
            assert stream.closed
            with pytest.raises(GivenError, match="stream 'a' is closed"):
                await stream.feed(b"\0\0")
            with pytest.raises(GivenError, match="stream 'a' is closed"):
                stream.push(b"\0\0")
            await stream.close()  # again, which is nothing

    run(main())


def test_leaving_the_engine_drains() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.feed(sound([(False, 300), (True, 1500)]))
            news = rig.engine.messages()
        assert [f.reason for f in rig.finals()] == ["closed"]
        assert stream.closed
        after = [message async for message in news]
        assert "stopping" in [m.event for m in after if isinstance(m, Status)]
        assert rig.finals()[0] in after

    run(main())


def test_every_kind_of_packet_says_the_same() -> None:
    pcm = sound([(False, 300), (True, 900), (False, 500)])
    floats = (pcm / 32768).astype(np.float32)
    forms = {
        "bytes": (pcm.tobytes(), {}),
        "bytearray": (bytearray(pcm.tobytes()), {}),
        "memoryview": (memoryview(pcm.tobytes()), {}),
        "array": (pcm, {}),
        "column": (pcm[:, None], {}),
        "stereo": (np.stack((pcm, pcm), axis=1), {"channels": 2}),
        "floats": (floats, {"format": "f32"}),
        "float-bytes": (floats.tobytes(), {"format": "f32"}),
    }

    async def main() -> None:
        async with Rig() as rig:
            for name, (packet, opening) in forms.items():
                stream = rig.engine.open(name, **opening)
                await stream.feed(packet)
                await stream.close()
                assert stream.next_sample == len(pcm)
            heard = {name: [(f.start_sample, f.end_sample) for f in rig.finals(name)] for name in forms}
            assert len(heard["bytes"]) == 1
            assert all(spans == heard["bytes"] for spans in heard.values())

    run(main())


def test_a_refused_packet_does_not_move_the_index() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a", format="f32")
            with pytest.raises(GivenError, match="NaN"):
                await stream.feed(np.full(100, np.nan, np.float32))
            assert stream.next_sample == 0
            await stream.feed(np.zeros(100, np.float32))
            assert stream.next_sample == 100

    run(main())


@pytest.mark.parametrize("opening", [{"sample_rate_hz": 4_000}, {"channels": 0}, {"format": "u8"}])
def test_sound_of_another_kind_is_refused_when_opening(opening: dict[str, object]) -> None:
    async def main() -> None:
        async with Rig() as rig:
            with pytest.raises(GivenError):
                rig.engine.open("a", **opening)  # type: ignore[arg-type]
            assert not rig.engine.open("a").closed, "the name is still free"

    run(main())


def test_a_stream_at_another_rate_counts_in_its_own_samples_and_answers_in_16_khz() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a", sample_rate_hz=48_000)
            pcm = np.repeat(sound([(False, 500), (True, 1000), (False, 500)]), 3)
            await stream.feed(pcm)
            await stream.close()
            assert stream.next_sample == len(pcm)
            (final,) = rig.finals()
            assert final.sample_rate_hz == 16_000
            assert final.end_s == pytest.approx(1.65, abs=0.1)

    run(main())


def test_an_engine_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(bus={"publish": f"ipc://{tmp_path / 'bus'}"})
        rig.pool.refuse = MissingError("no model")
        rig.engine._bus._config = type(rig.engine._bus._config)(publish=f"ipc://{tmp_path / 'bus'}")
        with pytest.raises(MissingError, match="no model"):
            await rig.__aenter__()
        assert rig.pool.stopped
        assert rig.engine.endpoint is None

    run(main())


def test_messages_that_nobody_reads_are_dropped_oldest_first_but_no_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clser.engine.handle.MESSAGES_KEPT", 20)

    async def main() -> None:
        async with Rig() as rig:
            news = rig.engine.messages(frames=True)
            stream = rig.engine.open("a")
            await stream.feed(sound([(True, 800), (False, 500)] * 8))
            await stream.close()
            news.close()
            kept = [message async for message in news]
            assert len(kept) == 20
            assert [m.utterance for m in kept if isinstance(m, Result) and m.final] == list(range(1, 9))
            assert kept[-1] == rig.messages[-1]

    run(main())
