"""Sound through an engine on fake workers, and what came out, in a form to compare."""

import functools
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fakes import Rig, Script, run, sound

from clser.engine.records import Samples, Speech

TALK: Script = [(False, 600), (True, 1500), (False, 500), (True, 120), (False, 500), (True, 2000), (False, 500)]
SPOKEN = sound(TALK)
LONG = sound([(False, 300), (True, 3200), (False, 400), (True, 900), (False, 400), (True, 1500), (False, 200)], 5)
SHORT = {"segment": {"longest_ms": 2000, "shrink_from_ms": 1500, "cut_search_ms": 500}}

Answer = tuple[int, int, int, str, dict[str, float], float, float]


def answers(rig: Rig, stream: str) -> list[Answer]:
    return [
        (r.utterance, r.start_sample, r.end_sample, r.reason, r.emotion.probabilities, r.arousal, r.valence)
        for r in rig.finals(stream)
    ]


def turns(rig: Rig, stream: str) -> list[tuple[int, str, int, str]]:
    return [(m.utterance, m.event, m.sample, m.reason) for m in rig.of(Speech, stream)]


def packets(pcm: Samples, sizes: list[int]) -> list[Samples]:
    """The sound in packets of these sizes, over and over."""
    out, at, turn = [], 0, 0
    while at < len(pcm):
        out.append(pcm[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    return out


async def hear(pcm: Samples, sizes: list[int], **sections: Any) -> tuple[list[Answer], list[tuple[int, str, int, str]]]:
    async with Rig(**sections) as rig:
        stream = rig.engine.open("a")
        for packet in packets(pcm, sizes):
            await stream.feed(packet)
        await stream.close()
        return answers(rig, "a"), turns(rig, "a")


# What comes out when nothing is odd, to compare with.
Outcome = tuple[list[Answer], list[tuple[int, str, int, str]]]


@functools.cache
def alone(seed: int) -> Outcome:
    return apart(hear(sound(TALK, seed), [320]))


def whole() -> Outcome:
    return alone(1)


@functools.cache
def unharmed() -> Outcome:
    return apart(hear(LONG, [320], **SHORT))


def apart(main: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run on a loop of its own, in a thread, since there may be a loop running already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run, main).result()
