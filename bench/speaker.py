"""A bus and nothing behind it, in a process of its own: publishes results as it is told to on standard input.

Started as `python -m clser.bench.speaker ENDPOINT`. Each line of input is a `Say` in JSON, answered by a line once said.
"""

import asyncio
import signal
import sys
import time

import msgspec
from msgspec import Struct

from clser.engine.clock import RealClock
from clser.engine.control import Control, Facts
from clser.engine.doors import Doors
from clser.engine.errors import ClserError, GivenError
from clser.engine.places import control_beside
from clser.engine.publish import Bus, BusConfig
from clser.engine.records import Emotion, Explain, Modality, Model, Result, Stage, Timing, Weights

LABELS = ("anger", "boredom", "calm", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


class Say(Struct, frozen=True):
    stream: str
    """Its name, or how the names of several begin."""
    count: int
    per_s: float
    streams: int = 1
    final_every: int = 0
    """Of so many messages one is a final; 0 for none."""


def is_final(order: Say, at: int) -> bool:
    """Whether message `at` of the order is a final: the streams have theirs in turn."""
    return order.final_every > 0 and (at + at // order.streams) % order.final_every == 0


class Nobody:
    """What the control socket asks of an engine, where there is none: subscribers want nothing but the past of the bus."""

    def ready(self) -> Facts:
        return {"ready": True, "state": "ready", "detail": "a bus and nothing behind it"}

    def describe(self) -> Facts:
        return {}

    def reload(self, overrides: tuple[str, ...]) -> Facts:
        raise GivenError(f"{len(overrides)} settings: there is no engine here")

    async def load(self, delta: str | None) -> Facts:
        raise GivenError(f"load {delta!r}: there is no engine here")

    def mute(self, stream: str, muted: bool) -> None:
        raise GivenError(f"mute {stream!r} {muted}: there is no engine here")

    def reset_speaker(self, stream: str, speaker: str | None) -> None:
        raise GivenError(f"reset_speaker {stream!r} {speaker!r}: there is no engine here")


def sample_result(stream: str) -> Result:
    """As full as those of the engine."""
    probabilities = {label: round(1 / (2 + at) ** 2, 4) for at, label in enumerate(LABELS)}
    return Result(
        stream=stream,
        speaker=None,
        utterance=12,
        revision=3,
        stage="partial",
        start_sample=1_234_567,
        end_sample=1_267_890,
        start_s=77.1604,
        end_s=79.2431,
        captured_unix_us=0,
        ttl_ms=1000,
        emotion=Emotion("anger", 0.25, False, None, False, probabilities),
        voice=Modality(probabilities),
        words=None,
        weights=Weights(1.0, 0.0),
        explain=Explain(),
        arousal=0.4321,
        valence=-0.1234,
        affect_source="probabilities",
        text=None,
        timing_ms=Timing(8.25, 1.5, 0.0, 2.75, 0.25),
        model=Model("voice", "0123456789abcdef"),
    )


async def say(bus: Bus, order: Say) -> None:
    """Evenly spaced; `captured_unix_us` is the moment before each is published."""
    names = [order.stream] if order.streams == 1 else [f"{order.stream}-{at}" for at in range(order.streams)]
    templates = [sample_result(name) for name in names]
    begin_s = time.monotonic() + 0.05
    for at in range(order.count):
        wait_s = begin_s + at / order.per_s - time.monotonic()
        await asyncio.sleep(max(0.0, wait_s))
        template = templates[at % len(templates)]
        stage: Stage = "final" if is_final(order, at) else "partial"
        bus.publish(
            msgspec.structs.replace(
                template, utterance=at, revision=at, stage=stage, captured_unix_us=time.time_ns() // 1000
            )
        )


async def serve(endpoint: str) -> None:
    doors = Doors()
    doors.open()
    bus = Bus(BusConfig(publish=endpoint), RealClock())
    bus.open(doors)
    control = Control(Nobody(), bus)
    beside = control_beside(endpoint)
    if beside is not None:
        control.open(beside, doors)
    try:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await say(bus, msgspec.json.decode(line, type=Say))
            print("said", flush=True)
    finally:
        control.close()
        bus.close()
        doors.close()


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides when we stop
    try:
        asyncio.run(serve(sys.argv[1]))
    except ClserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
