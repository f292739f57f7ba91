"""What one stream, reader or robot does wrong costs nobody else: each of these did, once."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest
from fakes import Rig, run, sound
from listening import SPOKEN

from clser.engine.api import Engine
from clser.engine.errors import FailedError, GivenError
from clser.engine.records import Result, Status
from clser.engine.sources import SourceSettings, open_source
from clser.engine.sources.zmq import read_header
from clser.engine.tally import Tally


@pytest.mark.parametrize("key", ["captured_unix_us", "start_sample", "sample_rate_hz", "channels"])
@pytest.mark.parametrize("number", ["1" + "0" * 400, str(2**64), "-1"])
def test_numbers_beyond_counting_are_refused(key: str, number: str) -> None:
    with pytest.raises(GivenError):
        read_header(f'{{"op":"audio","stream":"a","{key}":{number}}}'.encode())


def test_a_mistake_over_one_streams_answers_ends_that_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Rig() as rig:
            bad, good = rig.engine.open("bad"), rig.engine.open("good")

            def broken(_: object) -> None:
                raise ZeroDivisionError

            monkeypatch.setattr(rig.pipeline._streams["bad"].segmenter, "push", lambda *_: broken(None))
            bad.push(SPOKEN[:8000])
            await good.feed(SPOKEN)
            await good.close()
            assert len(rig.finals("good")) == 2
            assert bad.closed
            assert ("closed", "bad") in rig.events()

    run(main())


def test_closing_a_stream_that_was_ended_in_mid_speech_disturbs_nobody() -> None:
    async def main() -> None:
        async with Rig() as rig:
            bad = rig.engine.open("bad")
            bad.push(sound([(True, 900)]))
            await rig.settle()
            state = rig.pipeline._streams["bad"]
            assert state.segmenter.open is not None
            rig.pipeline.abandon()
            assert bad.closed
            good = rig.engine.open("good")  # in the slot that has become free
            before = len(rig.messages)
            bad.mute(True)
            await asyncio.wait_for(bad.close(), 2)
            assert len(rig.messages) == before
            await good.feed(SPOKEN)
            await good.close()
            assert len(rig.finals("good")) == 2

    run(main())


def test_an_ingest_stream_that_cannot_be_drained_is_no_trouble_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(hold=("voice",))
        with pytest.raises(FailedError, match="gone for good"):
            async with rig:
                rig.pool.held.add("voice")
                ingest = open_source(f"zmq:ipc://{tmp_path / 'in'}", SourceSettings(clock=rig.clock))
                task = asyncio.create_task(ingest.run(rig.engine))
                await asyncio.sleep(0)
                ingest._receive([b"robot", b'{"op":"open","stream":"a"}'])
                ingest._receive([b"robot", b'{"op":"audio","stream":"a"}', SPOKEN[:16000].tobytes()])
                await rig.settle()
                ingest._receive([b"robot", b'{"op":"close","stream":"a"}'])
                await rig.settle()
                rig.pool.fail(FailedError("gone for good"))
                await rig.settle()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    run(main())  # which fails over any error that nobody took


def test_a_name_that_is_opened_again_goes_on_counting_its_utterances() -> None:
    async def main() -> None:
        async with Rig() as rig:
            for _ in range(2):
                stream = rig.engine.open("a")
                await stream.feed(SPOKEN)
                await stream.close()
            numbers = [result.utterance for result in rig.finals("a")]
            assert numbers == sorted(set(numbers))
            assert len(numbers) == 4

    run(main())


def test_a_tally_forgets_the_quietest_name_and_never_counts_backwards() -> None:
    tally: Tally[str] = Tally(2)
    assert [tally.put(name, number) for name, number in (("a", 5), ("b", 1), ("a", 6), ("c", 1))] == [
        None,
        None,
        None,
        "b",
    ]
    assert (tally.last("a"), tally.last("c")) == (6, 1)
    assert tally.last("b") == 1
    assert tally.put("d", tally.last("d") + 1) == "a"
    assert tally.last("stranger") == 6


def test_a_live_source_and_a_reader_that_sleeps_do_not_fill_the_memory() -> None:
    async def main() -> None:
        async with Rig(stream={"results_kept": 3}) as rig:
            stream = rig.engine.open("a")
            reader = stream.results()
            for _ in range(12):
                stream.push(sound([(True, 700), (False, 600)]))
                await rig.settle()
                if stream.next_sample < 40_000:
                    await anext(reader)
            assert len(stream._results) <= 6
            assert all(result.final for result in stream._results)
            await reader.aclose()

    run(main())


def test_where_nobody_will_read_results_none_are_kept() -> None:
    async def main() -> None:
        async with Rig(stream={"results_kept": 1}) as rig:
            stream = rig.engine.open("a", results=False)
            for _ in range(6):
                stream.push(sound([(True, 700), (False, 600)]))
                await rig.settle()
            assert len(rig.finals("a")) >= 5
            assert not stream._results
            await stream.close()
            assert [result async for result in stream.results()] == []
            assert rig.engine._bus.unread == 0

    run(main())


def test_a_robots_stream_keeps_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with Rig() as rig:
            ingest = open_source(f"zmq:ipc://{tmp_path / 'in'}", SourceSettings(clock=rig.clock))
            task = asyncio.create_task(ingest.run(rig.engine))
            await asyncio.sleep(0)
            ingest._receive([b"robot", b'{"op":"open","stream":"a"}'])
            for at in range(0, len(SPOKEN), 8000):
                ingest._receive([b"robot", b'{"op":"audio","stream":"a"}', SPOKEN[at : at + 8000].tobytes()])
                await rig.settle()
            assert rig.finals("a")
            assert not rig.engine._streams["a"]._results
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(main())


def test_a_reader_that_has_gone_does_not_keep_a_feeder_waiting() -> None:
    async def main() -> None:
        async with Rig(stream={"results_kept": 1}) as rig:
            stream = rig.engine.open("a")

            async def read_one() -> None:
                async for _ in stream.results():
                    break

            reading = asyncio.create_task(read_one())
            for _ in range(6):
                await stream.feed(sound([(True, 700), (False, 600)]))
            await reading
            await stream.close()

    run(main())


def test_an_engine_that_failed_while_closing_says_so() -> None:
    async def main() -> None:
        with pytest.raises(FailedError, match="gone for good"):
            async with Rig(hold=("voice",)) as rig:
                rig.engine.open("a").push(SPOKEN)
                await rig.settle()
                asyncio.get_running_loop().call_soon(rig.pool.fail, FailedError("gone for good"))
                await rig.engine.__aexit__(None, None, None)

    run(main())


def test_a_worker_comes_back_though_the_runtime_folder_was_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        async with Engine.from_config("live", "asr.recogniser=off", "bus.publish=", "vad.network=webrtc") as engine:
            news = engine.messages()
            shutil.rmtree(tmp_path / "clser")
            assert engine._pool is not None
            for pid in engine._pool.pids:
                os.kill(pid, signal.SIGKILL)
            async for message in news:
                if isinstance(message, Status) and message.event == "worker_back":
                    return

    run(main())


def test_results_are_kept_for_whoever_reads_late() -> None:
    async def main() -> None:
        async with Rig() as rig:
            stream = rig.engine.open("a")
            await stream.feed(SPOKEN)
            await stream.close()
            read = [result async for result in stream.results()]
            assert [result.stage for result in read if isinstance(result, Result) and result.final] == [
                "final",
                "final",
            ]

    run(main())
