"""How often an engine names an emotion where nobody speaks: noises that no model was trained on, babble, music, machines, hush.

Each kind goes through a whole engine twice: with its voice activity detection, and with that forced open, so that the
emotion model has to answer for all of it.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from clser.bench.card import Setup
from clser.bench.scene import Sound, to_s16
from clser.clients.commands.through_engine import finals_of
from clser.engine.api import Engine
from clser.engine.config import Config, changed
from clser.engine.records import SAMPLE_RATE_HZ, Result, Samples
from clser.models.data.unvoiced import Sources, kinds, made, sources
from clser.models.plan import Takes

MINUTES = 5.0
STREAM_S = 60.0
"""A stream's sound, cut into pieces that follow each other without a pause."""
PIECE_S = (4.0, 12.0)
AT_ONCE = 8
"""Streams that are open together."""
WAYS = {"on": (), "open": ("vad.on=0", "vad.off=0", "segment.longest_ms=4000")}
"""Forced open, sound never ends: it is cut into utterances about as long as what people say."""
IN_PROCESS = ("bus.publish=", "bus.control=", "metrics.bind=")

Start = Callable[[Config], Engine]


class Row(Struct, frozen=True):
    kind: str
    vad: str
    minutes: float
    finals: int
    false: int
    """Finals with a label."""
    false_per_minute: float


def measure(setup: Setup, minutes: float, start: Start = Engine) -> dict[str, object]:
    """A row for each kind of sound and way of voice activity. Without corpora, the kinds that need no recordings."""
    none = Sources((), (), tested=True)
    made_of = none if setup.corpora is None else sources(setup.corpora, Takes().held_out, tested=True)
    sounds = {kind: list(streams(kind, minutes, made_of, setup.seed)) for kind in kinds(made_of.noises, made_of.voices)}
    rows = []
    for way, overrides in WAYS.items():
        print(f"voice activity {way}", file=sys.stderr, flush=True)
        config = changed(setup.config, [*IN_PROCESS, *overrides])
        rows += asyncio.run(_rows(start(config), way, sounds))
    return {"rows": rows, "minutes_of_each": minutes, "held_out": Takes().held_out}


def streams(kind: str, minutes: float, made_of: Sources, seed: int) -> Iterator[Samples]:
    """So many minutes of one kind, a stream at a time; no two pieces are alike."""
    left, number = round(minutes * 60 * SAMPLE_RATE_HZ), 0
    random = np.random.default_rng(seed)
    while left > 0:
        whole = min(left, round(STREAM_S * SAMPLE_RATE_HZ))
        left -= whole
        pieces: list[Sound] = []
        while whole > 0:
            many = min(whole, round(random.uniform(*PIECE_S) * SAMPLE_RATE_HZ))
            pieces.append(made(kind, f"bench {seed} {kind} {number}", many, made_of))
            whole, number = whole - many, number + 1
        yield to_s16(np.concatenate(pieces))


async def _rows(engine: Engine, way: str, sounds: Mapping[str, Sequence[Samples]]) -> list[Row]:
    heard: dict[str, list[Result]] = {kind: [] for kind in sounds}
    waiting = iter([(kind, number, sound) for kind, each in sounds.items() for number, sound in enumerate(each)])

    async def listen() -> None:
        for kind, number, sound in waiting:
            heard[kind] += await finals_of(engine, f"{kind}-{number}", sound)

    async with engine, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(listen())
    return [row(kind, way, sum(map(len, sounds[kind])), finals) for kind, finals in heard.items()]


def row(kind: str, way: str, samples: int, finals: Sequence[Result]) -> Row:
    """Counted."""
    minutes = samples / SAMPLE_RATE_HZ / 60
    false = sum(final.emotion.label is not None for final in finals)
    return Row(kind, way, round(minutes, 3), len(finals), false, round(false / minutes, 3))


def table(line: Mapping[str, Any]) -> list[str]:
    """For people: a line a kind, what is named wrongly with voice activity and without."""
    rows = [msgspec.structs.asdict(each) for each in line["rows"]]
    ways = list(dict.fromkeys(each["vad"] for each in rows))
    head = "".join(f"{f'finals, vad {way}':>18}{'false':>8}{'a minute':>10}" for way in ways)
    lines = [f"{'sound':<12}{'minutes':>9}{head}"]
    for kind in dict.fromkeys(each["kind"] for each in rows):
        own = [each for each in rows if each["kind"] == kind]
        cells = "".join(f"{each['finals']:>18}{each['false']:>8}{each['false_per_minute']:>10.2f}" for each in own)
        lines.append(f"{kind:<12}{own[0]['minutes']:>9.1f}{cells}")
    return lines
