"""Sources: what they feed, at which pace, and what they say when they cannot."""

import asyncio
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes import RATE_HZ, Rig, run, sound

from clser.engine.errors import FailedError, GivenError, MissingError
from clser.engine.records import Gap, Result
from clser.engine.sources import SourceSettings, open_source
from clser.engine.sources.mic import Microphone
from clser.engine.sources.stdin import Stdin

SPEECH = sound([(False, 400), (True, 1200), (False, 700), (True, 900), (False, 600)])


def spans(results: list[Result]) -> list[tuple[int, int]]:
    return [(result.start_sample, result.end_sample) for result in results]


async def spans_of_feeding(pcm: Any) -> list[tuple[int, int]]:
    async with Rig() as rig:
        stream = rig.engine.open("reference")
        await stream.feed(pcm)
        await stream.close()
        return spans(rig.finals())


def test_a_spec_names_its_kind_and_a_wrong_one_is_told_what_there_is() -> None:
    for spec in ("", "tape", "tape:x", "=file:x", "a b=mic", "file"):
        with pytest.raises(GivenError, match=r"give"):
            open_source(spec, SourceSettings())


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_gives_what_its_samples_give(tmp_path: Path) -> None:
    async def main() -> None:
        for suffix in ("wav", "flac"):
            path = tmp_path / f"my talk.{suffix}"
            soundfile.write(path, SPEECH, RATE_HZ)
            async with Rig() as rig:
                await open_source(f"file:{path}", SourceSettings(pace="fast")).run(rig.engine)
                assert spans(rig.finals("my_talk")) == await spans_of_feeding(SPEECH)
                assert len(rig.finals()) == 2

    run(main())


def test_at_real_pace_a_packet_comes_when_its_last_sample_has_sounded(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, SPEECH[:RATE_HZ], RATE_HZ)

    async def main() -> None:
        async with Rig() as rig:
            source = open_source(f"slow=file:{path}", SourceSettings(clock=rig.clock))
            task = asyncio.create_task(source.run(rig.engine))
            for done in range(1, 26):
                # the engine's own three sleepers, and the source's once its thread has read
                while len(rig.clock._sleepers) < 4:  # noqa: ASYNC110 - a thread has no event to wait for
                    await asyncio.sleep(0)
                await rig.clock.advance(0.02)
                state = rig.pipeline._streams["slow"]
                assert done * 320 - 320 <= state.total <= done * 320
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(main())


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("gone.wav", None, "no such file"),
        ("noise.wav", b"not a sound file", "cannot read"),
        ("empty.wav", b"", "cannot read"),
    ],
)
def test_a_file_that_is_none_is_one_clear_line(tmp_path: Path, name: str, content: bytes | None, word: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GivenError, match=word) as error:
        open_source(f"file:{tmp_path / name}", SourceSettings())
    assert "\n" not in str(error.value)


def test_a_file_without_samples_and_one_at_a_strange_rate_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.int16), RATE_HZ)
    soundfile.write(tmp_path / "fast.wav", np.zeros(100, np.int16), 96_000)
    with pytest.raises(GivenError, match="no samples"):
        open_source(f"file:{tmp_path / 'none.wav'}", SourceSettings())
    with pytest.raises(GivenError, match="96000 Hz"):
        open_source(f"file:{tmp_path / 'fast.wav'}", SourceSettings())


# --- standard input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_format", ["s16", "f32"])
def test_raw_pcm_through_a_pipe_in_odd_pieces(sample_format: str) -> None:
    raw = SPEECH.tobytes() if sample_format == "s16" else (SPEECH / np.float32(32768)).astype("<f4").tobytes()

    async def main() -> None:
        reading, writing = os.pipe()

        def write() -> None:
            for start in range(0, len(raw), 7777):
                os.write(writing, raw[start : start + 7777])
            os.write(writing, b"\x01")  # cut off in mid-sample
            os.close(writing)

        thread = threading.Thread(target=write)
        thread.start()
        async with Rig() as rig:
            settings = SourceSettings(format=sample_format)  # type: ignore[arg-type]  # parametrized
            await Stdin("stdin", settings, reading).run(rig.engine)
            assert spans(rig.finals("stdin")) == await spans_of_feeding(SPEECH)
        thread.join()
        os.close(reading)

    run(main())


def test_a_plain_file_as_standard_input_and_an_empty_one(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "raw").write_bytes(SPEECH.tobytes())
        (tmp_path / "nothing").write_bytes(b"")
        async with Rig() as rig:
            with (tmp_path / "raw").open("rb") as file:
                await Stdin("raw", SourceSettings(), file.fileno()).run(rig.engine)
            assert len(rig.finals("raw")) == 2
            with (tmp_path / "nothing").open("rb") as file, pytest.raises(GivenError, match="held no sound"):
                await Stdin("nothing", SourceSettings(), file.fileno()).run(rig.engine)

    run(main())


# --- microphone -------------------------------------------------------------------------------------------------------


class FakePortAudio:
    """The part of sounddevice that the source uses; the test plays the device."""

    class PortAudioError(Exception):
        pass

    def __init__(self, rate: float = 16_000.0) -> None:
        self.rate = rate
        self.opened: dict[str, Any] = {}

    def query_devices(self, device: Any = None, kind: str = "input") -> dict[str, Any]:
        if device == "missing":
            raise ValueError("no such device")
        return {"name": "fake", "default_samplerate": self.rate, "max_input_channels": 1}

    def RawInputStream(self, **settings: Any) -> Any:  # noqa: N802 - PortAudio's name
        self.opened = settings
        return self

    def __enter__(self) -> "FakePortAudio":
        return self

    def __exit__(self, *_: object) -> None:
        self.opened["left"] = True

    def say(self, pcm: Any, status: str = "") -> None:
        self.opened["callback"](pcm.tobytes(), len(pcm), SimpleNamespace(), status)


async def started(rig: Rig, library: FakePortAudio) -> "tuple[Microphone, asyncio.Task[None]]":
    microphone = Microphone("", "mic", SourceSettings(clock=rig.clock), library)
    task = asyncio.create_task(microphone.run(rig.engine))
    await asyncio.sleep(0)
    return microphone, task


def test_what_the_callback_hears_reaches_the_stream_and_flags_are_counted() -> None:
    async def main() -> None:
        library = FakePortAudio()
        async with Rig() as rig:
            microphone, task = await started(rig, library)
            for start in range(0, len(SPEECH), 320):
                library.say(SPEECH[start : start + 320], "input overflow" if start == 320 else "")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await rig.settle()
            assert spans(rig.finals("mic")) == (await spans_of_feeding(SPEECH))[:2]
            assert microphone.flags == 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert library.opened["left"]

    run(main())


def test_a_reader_that_slept_too_long_finds_a_gap_where_the_ring_forgot() -> None:
    async def main() -> None:
        library = FakePortAudio()
        async with Rig() as rig:
            _, task = await started(rig, library)
            for _ in range(6):
                library.say(np.ones(16_000, np.int16))
            for _ in range(5):
                await asyncio.sleep(0)
            gaps = rig.of(Gap, "mic")
            assert [(gap.from_sample, gap.count) for gap in gaps] == [(0, 32_000)]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(main())


def test_a_device_pulled_out_ends_with_a_word() -> None:
    async def main() -> None:
        library = FakePortAudio()
        async with Rig() as rig:
            _, task = await started(rig, library)
            library.opened["finished_callback"]()
            with pytest.raises(FailedError, match="pulled out"):
                await task

    run(main())


def test_what_was_said_before_the_device_was_pulled_out_gets_its_final() -> None:
    async def main() -> None:
        library, rig = FakePortAudio(), Rig()
        with pytest.raises(FailedError, match="pulled out") as error:
            async with rig:
                _, task = await started(rig, library)
                for start in range(0, 24_000, 320):
                    library.say(SPEECH[start : start + 320])
                    await asyncio.sleep(0)
                library.opened["finished_callback"]()
                await task
        assert error.value.exit_code == 1
        (final,) = rig.finals("mic")
        assert final.reason == "closed"
        assert final.end_sample >= 23_000  # what waited for the loop in that moment is lost

    run(main())


def test_no_such_microphone() -> None:
    with pytest.raises(MissingError, match="list-devices"):
        Microphone("missing", "mic", SourceSettings(), FakePortAudio())
