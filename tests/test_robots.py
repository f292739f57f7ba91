"""The example robots against a real engine, as processes: what they send is heard, also after the engine was restarted."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import zmq
import zmq.asyncio
from fakes import run

from clser.clients.clips import demo_clip, demo_segments

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE_S = 60.0
SPOKEN_S = 1.4  # longer than a robot waits before it tries again
Robot = list[str]


def python_robot() -> Robot:
    return [sys.executable, str(EXAMPLES / "robot.py")]


@pytest.fixture(scope="session")
def node_robot(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    """The JavaScript robot, with what it needs installed beside it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("robot.mjs", "package.json"):
        shutil.copy(EXAMPLES / name, folder)
    installed = subprocess.run([npm, "install"], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot install the package: {installed.stderr.splitlines()[-1:]}")
    loads = subprocess.run(
        [node, "-e", "require('zeromq')"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    if loads.returncode:
        pytest.skip("the zeromq package has no build for this machine")
    return [node, str(folder / "robot.mjs")]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    """A folder of sockets; sound in `phrase.wav` (once) and `phrases.wav` (again and again)."""
    pcm, rate_hz = soundfile.read(demo_clip(), dtype="int16")
    spoken = min(demo_segments(), key=lambda segment: segment.end_s - segment.start_s)
    start = round((spoken.start_s - 0.1) * rate_hz)
    once = np.concatenate([pcm[start : start + round(SPOKEN_S * rate_hz)], np.zeros(rate_hz * 6 // 10, np.int16)])
    soundfile.write(tmp_path / "phrase.wav", once, rate_hz)
    soundfile.write(tmp_path / "phrases.wav", np.tile(once, 40), rate_hz)
    yield tmp_path


@asynccontextmanager
async def process(folder: Path, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process, killed at the end if it still runs."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


@asynccontextmanager
async def engine(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [
        sys.executable, "-m", "clser.clients.commands.stream", "--device", f"zmq:ipc://{folder}/sound",
        "--bind", f"ipc://{folder}/results", "--set", "vad.network=webrtc",
    ]  # fmt: skip
    async with process(folder, *command) as started:
        context = zmq.asyncio.Context()
        with context, context.socket(zmq.SUB) as socket:
            socket.subscribe(b"clser/1/status/_engine/")
            socket.connect(f"ipc://{folder}/results")
            await socket.recv_multipart()  # it is ready
        yield started


def played(robot: Robot, folder: Path, sound: str) -> list[str]:
    return [*robot, f"ipc://{folder}/sound", f"ipc://{folder}/results", "bot", str(folder / sound)]


async def says_what_it_hears(robot: Robot, folder: Path) -> None:
    async with engine(folder), process(folder, *played(robot, folder, "phrase.wav")) as started:
        out, err = await started.communicate()
        assert started.returncode == 0, err.decode()
        assert err.decode().split("\n") == ["bot: opened ", "bot: closed ", ""]
        (line,) = out.decode().splitlines()
        time_s, _, label = line.partition(" s: ")
        assert 0 <= float(time_s.split("-")[0]) < float(time_s.split("-")[1]) < 10
        assert label


async def goes_on(robot: Robot, folder: Path) -> None:
    async with engine(folder) as first, process(folder, *played(robot, folder, "phrases.wav")) as started:
        assert started.stdout is not None
        assert b" s: " in await started.stdout.readline()
        first.kill()
        await first.wait()
        async with engine(folder):
            assert b" s: " in await started.stdout.readline()
        started.kill()
        _, err = await started.communicate()
        assert err.decode().split("\n").count("bot: opened ") == 2


async def tries_again(robot: Robot, folder: Path) -> None:
    """With an engine that is played by this test, and has no room at first."""
    context = zmq.asyncio.Context()
    with context, context.socket(zmq.ROUTER) as ears:
        ears.bind(f"ipc://{folder}/sound")
        async with process(folder, *played(robot, folder, "phrase.wav")) as started:

            async def heard(reply: str | None) -> tuple[dict[str, Any], bytes]:
                who, header, *pcm = await ears.recv_multipart()
                if reply is not None:
                    await ears.send_multipart([who, json.dumps({"op": reply, "stream": "bot"}).encode()])
                return json.loads(header), b"".join(pcm)

            loop = asyncio.get_running_loop()
            first, _ = await heard("refused")
            refused_s = loop.time()
            again, _ = await heard("opened")
            assert first == again == {
                "op": "open", "stream": "bot", "sample_rate_hz": 16_000, "channels": 1, "format": "s16"
            }  # fmt: skip
            assert loop.time() - refused_s > 0.5
            for number in range(5):
                audio, pcm = await heard(None)
                assert (audio["op"], audio["start_sample"], len(pcm)) == ("audio", number * 320, 640)
                assert abs(audio["captured_unix_us"] / 1e6 - time.time()) < 5
            while (await heard(None))[0]["op"] == "audio":
                pass
            started.kill()


def test_the_robot_tries_again_when_there_is_no_room(places: Path) -> None:
    run(tries_again(python_robot(), places), PATIENCE_S)


@pytest.mark.slow
def test_the_robot_in_javascript_tries_again_when_there_is_no_room(node_robot: Robot, places: Path) -> None:
    run(tries_again(node_robot, places), PATIENCE_S)


def test_the_robot_is_heard(places: Path) -> None:
    run(says_what_it_hears(python_robot(), places), PATIENCE_S)


@pytest.mark.slow
def test_the_robot_goes_on_when_the_engine_was_restarted(places: Path) -> None:
    run(goes_on(python_robot(), places), PATIENCE_S)


@pytest.mark.slow
def test_the_robot_in_javascript_is_heard(node_robot: Robot, places: Path) -> None:
    run(says_what_it_hears(node_robot, places), PATIENCE_S)


@pytest.mark.slow
def test_the_robot_in_javascript_goes_on_when_the_engine_was_restarted(node_robot: Robot, places: Path) -> None:
    run(goes_on(node_robot, places), PATIENCE_S)


def test_the_robots_need_nothing_of_ours() -> None:
    assert "clser." not in "".join(
        line for line in (EXAMPLES / "robot.py").read_text().splitlines() if line.startswith(("import", "from"))
    )
