"""Words where nobody speaks: every one of them is false."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from clser.bench.asr_decode import Written
from clser.bench.asr_sound import Piece
from clser.bench.asr_words import normalised, whole
from clser.bench.card import Setup
from clser.clients.commands.through_engine import finals_of
from clser.engine.api import Engine
from clser.engine.config import Config, changed
from clser.engine.records import SAMPLE_RATE_HZ, Samples

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
        for final in await finals_of(engine, kind, np.concatenate(sounds[kind]), for_words=True):
            text = final.text
            found[kind].append(Written("", False) if text is None else Written(whole(text), text.suspect))

    async with start(config) as engine, asyncio.TaskGroup() as group:
        for kind in sounds:
            group.create_task(hear(engine, kind))
    return found


def false_words(written: Mapping[str, Sequence[Written]]) -> FalseWords:
    each = [(kind, len(normalised(one.text)), one.suspect) for kind, some in written.items() for one in some]
    return FalseWords(
        words=sum(words for _, words, _ in each),
        trusted=sum(words for _, words, suspect in each if not suspect),
        texts=sum(words > 0 for _, words, _ in each),
        of=len(each),
        by_kind={kind: sum(words for its, words, _ in each if its == kind) for kind in written},
    )
