"""Somebody who speaks to an engine on fakes, whose words are written down; and what is looked at then."""

from typing import Any

from fakes import Rig, sound
from scribes import FakeScribes

from clser.engine.records import Result, Samples, Text

SPOKEN = sound([(False, 500), (True, 3000), (False, 1500)])
PACKET = 800


def rig(scribes: FakeScribes | None = None, **more: Any) -> Rig:
    return Rig(joins="opinions", scribes=scribes or FakeScribes(), **more)


async def speak(at: Rig, stream: Any, pcm: Samples = SPOKEN) -> None:
    for begin in range(0, len(pcm), PACKET):
        stream.push(pcm[begin : begin + PACKET])
        await at.clock.advance(PACKET / 16_000)


def whole(text: Text | None) -> list[str]:
    assert text is not None
    return (text.stable + text.tail).split()


def of_utterance(at: Rig, number: int = 1) -> list[Result]:
    return [result for result in at.of(Result) if result.utterance == number]


def check_stable(results: list[Result]) -> None:
    """Whatever was once stable stays."""
    before = ""
    for result in results:
        if result.text is not None:
            assert result.text.stable.startswith(before)
            assert len(result.text.times) == len(whole(result.text))
            before = result.text.stable
