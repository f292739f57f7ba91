"""Recordings through a whole engine in this process: packets of 20 ms, voice activity, utterances, finals."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from clser.engine.api import Engine
from clser.engine.records import SAMPLE_RATE_HZ, Model, Result
from clser.models.data.clips import Clip, read_sound
from clser.models.labels import PUBLISHED

PACKET_SAMPLES = SAMPLE_RATE_HZ // 50
AT_ONCE = 8
"""Streams that are open together; what one gets does not depend on the others."""
LEANING = 1e-6
"""Who heard no speech at all says neutral, hardly above the rest."""

Array = np.ndarray[Any, Any]


def hear(model: str, backend: str, clips: Sequence[Clip]) -> tuple[Array, int, Model]:
    """[N, 7] probabilities of the published classes, how many clips got no final, and the model that answered."""
    return asyncio.run(_hear(model, backend, clips))


async def _hear(model: str, backend: str, clips: Sequence[Clip]) -> tuple[Array, int, Model]:
    finals: list[list[Result]] = [[] for _ in clips]
    waiting = iter(enumerate(clips))
    overrides = (f"model.voice={model}", f"model.backend={backend}", "bus.publish=", "bus.control=")

    async def listen(engine: Engine) -> None:
        for number, clip in waiting:
            finals[number] = await _one(engine, f"clip{number}", clip)

    async with Engine.from_config("live", *overrides) as engine:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(listen(engine))
        ready = engine.describe()["model"]
    combined = [combine(own) for own in finals]
    unanswered = sum(not own for own in finals)
    return np.stack(combined), unanswered, Model(str(ready["name"]), str(ready["digest"]))


async def _one(engine: Engine, name: str, clip: Clip) -> list[Result]:
    stream = engine.open(name, sample_rate_hz=SAMPLE_RATE_HZ)
    sound = np.clip(np.round(read_sound(clip) * 32768.0), -32768, 32767).astype(np.int16)

    async def feed() -> None:
        for begin in range(0, len(sound), PACKET_SAMPLES):
            await stream.feed(sound[begin : begin + PACKET_SAMPLES])
        await stream.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        latest = {result.utterance: result async for result in stream.results() if result.final}  # an amended one wins
    return list(latest.values())


def combine(finals: Sequence[Result]) -> Array:
    """[7]: the finals' probabilities, each counted by how long its utterance is; of none, the prior."""
    if not finals:
        prior = np.full(len(PUBLISHED), 1.0 / len(PUBLISHED))
        prior[PUBLISHED.index("neutral")] += LEANING
        return np.asarray(prior / prior.sum())
    long_N = np.array([result.end_sample - result.start_sample for result in finals], float)
    said_N7 = np.array([[result.emotion.probabilities[name] for name in PUBLISHED] for result in finals])
    return np.asarray(long_N @ said_N7 / long_N.sum())
