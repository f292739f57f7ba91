"""Words where nobody speaks: every one of them is false."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from clser.bench.asr_decode import Written
from clser.bench.asr_sound import Piece
from clser.bench.asr_words import last_text, normalised, whole
from clser.bench.card import Setup
from clser.bench.heard import Told
from clser.bench.scene import PACKET
from clser.engine.api import Engine
from clser.engine.config import Config, changed
from clser.engine.records import SAMPLE_RATE_HZ, Result, Samples

FED = ("bus.publish=", "bus.control=", "metrics.bind=", "asr.late_s=600", "stream.overflow_ms=2000")
"""Of engines that are fed as fast as they take it: no text comes too late."""
PAUSE = round(0.6 * SAMPLE_RATE_HZ)
"""Between pieces of sound without speech that an engine hears."""

Start = Callable[[Config], Engine]


class FalseWords(Struct, frozen=True):
    """Words where nobody speaks."""

    words: int
    trusted: int
    """Those in text that is not suspect."""
    texts: int
    """Pieces, or utterances, with a word;"""
    of: int
    """and with or without."""
    by_kind: dict[str, int]


async def through_vad(setup: Setup, pieces: Sequence[Piece], start: Start = Engine) -> dict[str, list[Written]]:
    """By kind, what an engine with its voice activity detection in front writes, a text an utterance."""
    config = changed(setup.config, list(FED))
    sounds: dict[str, list[Samples]] = {}
    for piece in pieces:
        sounds.setdefault(piece.kind, []).extend((piece.sound, np.zeros(PAUSE, np.int16)))
    found: dict[str, list[Written]] = {kind: [] for kind in sounds}

    async def hear(engine: Engine, kind: str) -> None:
        last = await _last_results(engine, kind, np.concatenate(sounds[kind]))
        for told in last:
            text = last_text(told)
            if text is not None:
                found[kind].append(Written(whole(text), text.suspect))

    async with start(config) as engine, asyncio.TaskGroup() as group:
        for kind in sounds:
            group.create_task(hear(engine, kind))
    return found


async def _last_results(engine: Engine, name: str, sound: Samples) -> list[Told]:
    stream = engine.open(name)

    async def feed() -> None:
        for begin in range(0, len(sound), PACKET):
            await stream.feed(sound[begin : begin + PACKET])
        await stream.close()

    told: dict[int, list[tuple[float, Result]]] = {}
    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        async for result in stream.results():
            if result.final:
                told.setdefault(result.utterance, []).append((0.0, result))
    return [Told(utterance, results) for utterance, results in told.items()]


def false_words(written: Mapping[str, Sequence[Written]]) -> FalseWords:
    each = [(kind, len(normalised(one.text)), one.suspect) for kind, some in written.items() for one in some]
    return FalseWords(
        words=sum(words for _, words, _ in each),
        trusted=sum(words for _, words, suspect in each if not suspect),
        texts=sum(words > 0 for _, words, _ in each),
        of=len(each),
        by_kind={kind: sum(words for its, words, _ in each if its == kind) for kind in written},
    )
