"""A worker that talks nonsense is taken for one that broke: it is replaced, and the streams go on."""

import asyncio
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import run
from hostile import Frames
from listening import SPOKEN

from clser.engine import jobs
from clser.engine.api import Engine
from clser.engine.records import Status

FRAMES = 16  # of sound that come at once: rows of the first batch


def said(number: int, lane: jobs.Lane, numbers: list[float]) -> Frames:
    return [jobs.encode(jobs.Answer(number, lane, 1)), np.array(numbers, np.float32).tobytes()]


HEARD: dict[str, list[Frames]] = {
    "noise": [[random.Random(1).randbytes(40)] for _ in range(50)],
    "nothing": [[b""]],
    "half a word": [[jobs.encode(jobs.Answer(1, "vad", 1))[:-3]]],
    "no numbers": [[jobs.encode(jobs.Answer(1, "vad", 1))]],
    "half a number": [[jobs.encode(jobs.Answer(1, "vad", 1)), b"\x00" * 5]],
}
UNHEARD: dict[str, list[Frames]] = {
    "nesting": [[b"\x92\xa4Beat" + b"\x91" * 5000]],
    "too few numbers": [said(1, "vad", [0.5])],
    "too many numbers": [said(1, "vad", [0.5] * 2 * FRAMES)],
    "numbers that are none": [said(1, "vad", [float("nan")] * FRAMES)],
    "an answer to another question": [said(7, "vad", [0.5] * FRAMES)],
    "the other lane's answer": [said(1, "voice", [0.5] * FRAMES)],
}
BABBLE = HEARD | UNHEARD


@pytest.mark.parametrize("babble", [*BABBLE])
def test_a_worker_that_talks_nonsense_is_replaced(babble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "says").write_text(json.dumps([[frame.hex() for frame in frames] for frames in BABBLE[babble]]))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent.parent}/babbler.py {tmp_path} "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    async def main() -> None:
        async with Engine.from_config("live", "asr.recogniser=off", "bus.publish=") as engine:
            news = engine.messages()
            stream = engine.open("a")
            await stream.feed(SPOKEN[: FRAMES * 512])
            await asyncio.wait_for(stream.close(), 8)
        events = [message.event async for message in news if isinstance(message, Status)]
        assert [event for event in events if event in ("worker_lost", "worker_back")] == ["worker_lost", "worker_back"]

    run(main())
