"""Worker processes that hang, die too often, or lose their engine."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from fakes import run, sound

from clser.engine.api import Engine
from clser.engine.errors import FailedError
from clser.engine.records import Status


@pytest.fixture(autouse=True)
def own_runtime_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    yield


def pids(engine: Engine) -> list[int]:
    assert engine._pool is not None
    return engine._pool.pids


def test_a_worker_that_hangs_is_killed_and_replaced() -> None:
    async def main() -> None:
        async with Engine.from_config(
            "live", "asr.recogniser=off", "bus.publish=", "pool.silent_s=0.7", "vad.network=webrtc"
        ) as engine:
            news = engine.messages()
            (old,) = pids(engine)
            os.kill(old, signal.SIGSTOP)
            async for message in news:
                if isinstance(message, Status) and message.event == "worker_lost":
                    assert "it said nothing" in message.detail
                if isinstance(message, Status) and message.event == "worker_back":
                    break
            assert pids(engine) != [old]
            assert not psutil.pid_exists(old)
            stream = engine.open("a")
            await stream.feed(sound([(False, 300)]))
            await stream.close()

    run(main())


def test_workers_that_die_too_often_end_the_engine() -> None:
    async def main() -> None:
        async with Engine.from_config(
            "live", "asr.recogniser=off", "bus.publish=", "pool.restarts=0", "vad.network=webrtc"
        ) as engine:
            stream = engine.open("a")
            await stream.feed(sound([(True, 500)]))
            os.kill(pids(engine)[0], signal.SIGKILL)
            with pytest.raises(FailedError, match="killed by signal 9"):
                await engine.run_until_failed()
            for going_on in (stream.feed(sound([(True, 500)])), stream.close()):
                with pytest.raises(FailedError):
                    await going_on

    with pytest.raises(FailedError, match="killed by signal 9"):  # leaving it, too
        run(main())


def test_a_worker_that_is_not_ready_in_time_is_given_up() -> None:
    async def main() -> None:
        engine = Engine.from_config("live", "asr.recogniser=off", "bus.publish=", "pool.start_s=0.001")
        with pytest.raises(FailedError, match="was not ready after"):
            await engine.__aenter__()
        assert pids(engine) == []

    run(main())


def test_two_workers_serve_together_and_stop_together() -> None:
    async def main() -> None:
        async with Engine.from_config(
            "live", "asr.recogniser=off", "bus.publish=", "pool.workers=2", "vad.network=webrtc"
        ) as engine:
            started = pids(engine)
            assert len(set(started)) == 2
            streams = [engine.open(f"s{number}") for number in range(4)]
            await asyncio.gather(*(stream.feed(sound([(False, 500)])) for stream in streams))
            await asyncio.gather(*(stream.close() for stream in streams))
        assert not any(psutil.pid_exists(pid) for pid in started)

    run(main())


def test_workers_do_not_outlive_an_engine_that_was_killed() -> None:
    program = """
import asyncio
from clser.engine.api import Engine

async def main():
    async with Engine.from_config("live", "asr.recogniser=off", "bus.publish=") as engine:
        print(engine._pool.pids[0], flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        assert int(engine.stdout.readline()) > 0
        engine.kill()
        engine.communicate(timeout=20)  # the worker has the same standard output: it ends when both are gone
