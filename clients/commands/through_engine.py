"""Recordings through a whole engine in this process: packets of 20 ms, voice activity, utterances, finals."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from clser.engine.api import Engine
from clser.engine.errors import GivenError
from clser.engine.records import SAMPLE_RATE_HZ, Model, Result, Samples
from clser.models.data.clips import Clip, read_sound
from clser.models.labels import PUBLISHED

PACKET_SAMPLES = SAMPLE_RATE_HZ // 50
AT_ONCE = 8
"""Streams that are open together; what one gets does not depend on the others."""
EVERYTHING_COUNTS = ("speaker.forget_after_s=1000000000", "speaker.most_utterances=1000000")
"""However long it takes, and in however many utterances a clip falls apart."""
LEANING = 1e-6
"""Who heard no speech at all says neutral, hardly above the rest."""

Array = np.ndarray[Any, Any]


def hear(
    model: str, clips: Sequence[Clip], heard: Sequence[Clip] = (), overrides: Sequence[str] = ()
) -> tuple[Array, int, Model]:
    """[N, 7] probabilities of the published classes, how many clips got no final, and the model that answered.

    heard: clips that are heard first, each as its speaker's. What is known of the speakers by then stays as it is: no clip
    that is answered counts for another, nor its first utterance for its second.
    """
    return asyncio.run(_hear(model, clips, heard, overrides))


async def _hear(
    model: str, clips: Sequence[Clip], heard: Sequence[Clip], overrides: Sequence[str]
) -> tuple[Array, int, Model]:
    settings = [f"model.voice={model}", "bus.publish=", "bus.control=", "asr.recogniser=off", *overrides]
    settings += [f"speaker.enabled={'true' if heard else 'false'}", *EVERYTHING_COUNTS]
    async with Engine.from_config("live", *settings) as engine:
        ready = engine.describe()["model"]
        if heard:
            if not ready["speaker_numbers"]:
                raise GivenError(
                    f"model {ready['name']} cannot be enrolled; leave --enrol out, or give 0 to score the same clips"
                )
            await _all(engine, heard, named=True)
            engine.reload(("speaker.learns=false",))
        finals = await _all(engine, clips, named=bool(heard))
    combined = [combine(own) for own in finals]
    unanswered = sum(not own for own in finals)
    return np.stack(combined), unanswered, Model(str(ready["name"]), str(ready["digest"]))


async def _all(engine: Engine, clips: Sequence[Clip], named: bool) -> list[list[Result]]:
    """The finals of each clip. `named`: the engine is told whose it is."""
    finals: list[list[Result]] = [[] for _ in clips]
    waiting = iter(enumerate(clips))

    async def listen() -> None:
        for number, clip in waiting:
            speaker = repr(clip.who) if named else None
            sound = np.clip(np.round(read_sound(clip) * 32768.0), -32768, 32767).astype(np.int16)
            finals[number] = await finals_of(engine, f"clip{number}", sound, speaker)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(listen())
    return finals


async def finals_of(
    engine: Engine, name: str, sound: Samples, speaker: str | None = None, *, for_words: bool = False
) -> list[Result]:
    """The last word on each utterance of that sound, fed as fast as the engine takes it; `for_words`, as its recogniser does."""
    stream = engine.open(name, sample_rate_hz=SAMPLE_RATE_HZ, speaker=speaker)

    async def feed() -> None:
        for begin in range(0, len(sound), PACKET_SAMPLES):
            await stream.feed(sound[begin : begin + PACKET_SAMPLES], for_words=for_words)
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
