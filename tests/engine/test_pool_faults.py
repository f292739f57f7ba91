"""Workers in real processes that die, hang, run out of memory, are slow, or lose their device: the same for every pool."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from fakes import run
from workers import TESTS, Place, eventually, started

from clser.clients.clips import demo_clip
from clser.engine import jobs
from clser.engine.api import Engine, Stream
from clser.engine.errors import FailedError, GivenError, MissingError
from clser.engine.local_pool import LocalPool


@pytest.fixture(autouse=True)
def workers_find_the_faulty_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray of two machines (processes of this one); a worker's GPU is what the second says it has."""
    pytest.importorskip("ray", reason="the ray extra is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        size = {"num_cpus": 1, "object_store_memory": 100 << 20}
        two = Cluster(initialize_head=True, head_node_args={**size, "num_gpus": 0, "include_dashboard": False})
        two.add_node(**size, num_gpus=1)
        yield two.address
        two.shutdown()


@pytest.fixture(params=["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a pool of that kind is configured with."""
    if request.param == "local":
        return {}
    return {"on": "ray", "address": request.getfixturevalue("cluster")}


def test_a_worker_that_is_killed_in_mid_batch_is_replaced(
    tmp_path: Path, settings: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with started(tmp_path, settings) as place:
            (old,) = place.pool.pids
            place.tell("batch", "slow 60")
            lost = place.send()
            await eventually(lambda: not (tmp_path / "batch").exists())  # it is at it
            os.kill(old, signal.SIGKILL)
            await place.news.until("back")
            await place.works()
            assert place.pool.pids != [old]
            assert lost not in place.news.answers
            assert place.news.events == ["answered", "lost", "back", "answered"]

    run(main())
    assert capfd.readouterr().out == "", "standard output is for results"


@pytest.mark.parametrize("command", ["hang", "spin"])
def test_a_worker_that_hangs_is_killed_and_replaced(command: str, tmp_path: Path, settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with started(tmp_path, settings, silent_s=1.5) as place:
            (old,) = place.pool.pids
            place.tell("batch", command)
            assert "said nothing for" in await place.goes_down()
            await place.works()
            await eventually(lambda: not psutil.pid_exists(old))

    run(main())


def test_a_worker_that_is_slow_but_alive_is_left_alone(tmp_path: Path, settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with started(tmp_path, settings, silent_s=2.0) as place:
            place.tell("batch", "slow 1.2")  # more than two beats
            await place.works()
            await place.works()
            assert place.news.events == ["answered"] * 3

    run(main())


def test_a_worker_without_memory_says_so_and_is_replaced(tmp_path: Path, settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with started(tmp_path, settings) as place:
            place.tell("batch", "memory")
            assert "out of memory" in await place.goes_down()
            await place.works()

    run(main())


def test_a_worker_that_dies_at_each_start_is_given_up_once(tmp_path: Path, settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with started(tmp_path, settings) as place:
            place.tell("start", "always leave 7")
            place.tell("batch", "die")
            place.send()
            await place.news.until("failed")
            assert place.news.events == ["answered", "lost", "failed"]
            assert isinstance(place.news.error, FailedError)
            assert "worker 0 went down 6 times in 60 s, the last time because" in str(place.news.error)
            assert len(place.starts) == 1 + 5
            assert place.pool.pids == []

    run(main())


def test_a_device_that_breaks_is_tried_again_and_then_left_for_the_cpu(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async def main() -> None:
        async with started(tmp_path, settings, compute="cuda") as place:
            place.tell("batch", "device")
            assert "CUDA error" in await place.goes_down()
            await place.works()
            place.tell("batch", "device")
            await place.goes_down()
            await place.works()
            assert place.news.events == [
                "answered",
                "lost",
                "back",
                "answered",
                "lost",
                "fell_back",
                "back",
                "answered",
            ]
            assert "CUDA error: an illegal memory access" in place.news.words("fell_back")
            assert place.starts == ["cuda:0 full", "cuda:0 full", "cpu full"]

    run(main())


def test_a_device_on_which_it_does_not_come_up_again_is_left(tmp_path: Path, settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with started(tmp_path, settings, compute="cuda") as place:
            place.tell("batch", "die")
            place.tell("start", "device")
            await place.goes_down()
            await place.works()
            assert place.news.events == ["answered", "lost", "fell_back", "back", "answered"]
            assert place.starts == ["cuda:0 full", "cuda:0 full", "cpu full"]

    run(main())


def test_what_is_wrong_at_the_first_start_is_the_callers_to_hear(tmp_path: Path, settings: dict[str, Any]) -> None:
    async def main() -> None:
        (tmp_path / "start").write_text("given")
        with pytest.raises(GivenError, match="told to be wrong"):
            async with started(tmp_path, settings):
                pass

    run(main())


# --- workers of this machine alone ------------------------------------------------------------------------------------


def test_devices_are_dealt_to_the_workers_in_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, {}, compute="cuda:0,cuda:1", precision="half") as place:
            assert place.pool.workers == len(place.pool.pids) == 2
            assert sorted(place.starts) == ["cuda:0 half", "cuda:1 half"]

    run(main())


def test_a_network_that_answers_for_more_than_it_was_asked_is_not_believed(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, {}) as place:
            place.tell("batch", "many")
            assert "answered for 2 frames of 1" in await place.goes_down()
            await place.works()

    run(main())


@pytest.mark.parametrize("words", [[b"\xc1"], [b""], [jobs.encode(jobs.Answer(1, "vad", 1))], [b"\x00", b"junk"]])
def test_a_worker_that_speaks_nonsense_is_replaced(words: list[bytes], tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, {}) as place:
            assert isinstance(place.pool, LocalPool)
            place.pool._seats[0]._take(words)
            await place.news.until("back")
            assert "nonsense" in place.news.words("lost")
            await place.works()

    run(main())


# --- Ray alone --------------------------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_for_which_ray_has_no_room_is_missing(tmp_path: Path, cluster: str) -> None:
    async def main() -> None:
        place = Place(tmp_path, on="ray", address=cluster, compute="cuda", workers=2, start_s=3)
        try:
            with pytest.raises(MissingError, match="it needs a GPU"):
                await place.pool.start(place.news)
        finally:
            await place.pool.stop()

    run(main())


@pytest.mark.ray
@pytest.mark.slow
def test_a_program_that_uses_ray_itself_keeps_it(tmp_path: Path, cluster: str) -> None:
    import ray

    ray.init(address=cluster, log_to_driver=False)
    try:

        async def main() -> None:
            async with started(tmp_path, {"on": "ray"}) as place:
                await place.works()

        run(main())
        assert ray.is_initialized()
    finally:
        ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_an_engine_on_ray_says_what_one_with_local_workers_says_though_an_actor_dies(cluster: str) -> None:
    pcm = np.asarray(soundfile.read(demo_clip(), dtype="int16", frames=160_000)[0])

    async def hear(kill: bool, *settings: str) -> list[tuple[int, int, dict[str, float]]]:
        async with Engine.from_config(
            "live", "asr.recogniser=off", "bus.publish=", "vad.network=webrtc", *settings
        ) as engine:
            stream = engine.open("a")
            results = asyncio.create_task(_finals(stream))
            await stream.feed(pcm[:60_000])
            if kill:
                assert engine._pool is not None
                os.kill(engine._pool.pids[0], signal.SIGKILL)
            await stream.feed(pcm[60_000:])
            await stream.close()
            return await results

    here = run(hear(False))
    assert len(here) >= 2
    assert run(hear(True, "pool.on=ray", f"pool.address={cluster}")) == here


async def _finals(stream: Stream) -> list[tuple[int, int, dict[str, float]]]:
    return [(r.start_sample, r.end_sample, r.voice.probabilities) async for r in stream.results() if r.final]
