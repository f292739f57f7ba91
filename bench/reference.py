"""The undisturbed pass: what this build says to the same sound when nothing presses it. A process of its own.

Fed like a file, a few streams at a time, so that it takes a fraction of the sound's length.
Started as `python -m clser.bench.reference ORDER` with an `Order` in JSON.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from msgspec import Struct

from clser.bench.card import Setup
from clser.bench.losses import Reference, Span
from clser.bench.scene import PACKET, Scene
from clser.engine.api import Engine, Messages
from clser.engine.errors import ClserError, FailedError
from clser.engine.records import Result, Samples, Speech

TOGETHER = 8
"""Streams at a time."""
PIECE = 50 * PACKET
PATIENCE_S = 60.0
SLOWEST = 2.0
"""Given up when it takes so many times longer than all its sound would last on one core."""
TWICE = "twice"


class Order(Struct, frozen=True):
    scene: str
    """An .npy file of s16 samples, a whole number of packets."""
    phases: tuple[int, ...]
    config: str
    overrides: tuple[str, ...]
    out: str


def undisturbed(setup: Setup, scene: Scene, phases: tuple[int, ...]) -> Reference:
    """The utterances of streams that begin at these packets of the scene."""
    with TemporaryDirectory(prefix="clser-bench-") as folder:
        path, out = Path(folder) / "scene.npy", Path(folder) / "reference"
        np.save(path, scene.sound)
        wanted = tuple(sorted(set(phases)))
        order = Order(str(path), wanted, setup.source, setup.overrides, str(out))
        sound_s = sum(scene.packets - phase for phase in wanted) / 50 + 2 * scene.packets / 50
        print(f"an undisturbed pass over {sound_s / 60:.1f} minutes of sound", file=sys.stderr)
        command = [sys.executable, "-m", "clser.bench.reference", msgspec.json.encode(order).decode()]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                timeout=PATIENCE_S + SLOWEST * sound_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FailedError(f"the undisturbed pass did not end within {error.timeout:.0f} s") from error
        if done.returncode:
            raise FailedError("the undisturbed pass failed; its own words are above")
        return msgspec.msgpack.decode(out.read_bytes(), type=Reference)


async def listen(order: Order) -> Reference:
    scene = np.load(order.scene)
    packets = len(scene) // PACKET
    sounds = {str(phase): scene[phase * PACKET :] for phase in order.phases}
    sounds[TWICE] = np.concatenate((scene, scene))
    # not on any socket, and nothing of what others may have set up for the engine under load
    async with Engine.from_config(order.config, *order.overrides, "bus.publish=", "ingest.bind=") as engine:
        messages = engine.messages()
        reading = asyncio.create_task(_read(messages))
        some = asyncio.Semaphore(TOGETHER)
        await asyncio.gather(*(_feed(engine, name, sound, some) for name, sound in sounds.items()))
        messages.close()
        spans = await reading
    again = [span for span in spans.get(TWICE, ()) if span.onset >= len(scene)]
    return Reference(
        packets,
        {phase: tuple(spans.get(str(phase), ())) for phase in order.phases},
        tuple(Span(span.onset - len(scene), span.offset - len(scene)) for span in again),
    )


async def _feed(engine: Engine, name: str, sound: Samples, some: asyncio.Semaphore) -> None:
    parent = os.getppid()
    async with some:
        stream = engine.open(name)
        for at in range(0, len(sound), PIECE):
            await stream.feed(sound[at : at + PIECE])
            if os.getppid() != parent:
                raise FailedError("whoever started the undisturbed pass has gone")
        await stream.close()


async def _read(messages: Messages) -> dict[str, list[Span]]:
    """Where the speech of each final lay, by stream."""
    onsets: dict[tuple[str, int], int] = {}
    offsets: dict[tuple[str, int], int] = {}
    final: set[tuple[str, int]] = set()
    async for message in messages:
        key = (message.stream, getattr(message, "utterance", 0))
        if isinstance(message, Result) and message.stage == "final":
            final.add(key)
        elif isinstance(message, Speech):
            (onsets if message.event == "started" else offsets)[key] = message.sample
    spans: dict[str, list[Span]] = {}
    for key in sorted(final):
        spans.setdefault(key[0], []).append(Span(onsets[key], offsets[key]))
    return spans


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides when we stop
    order = msgspec.json.decode(sys.argv[1], type=Order)
    try:
        reference = asyncio.run(listen(order))
    except ClserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    Path(order.out).write_bytes(msgspec.msgpack.encode(reference))
    return 0


if __name__ == "__main__":
    sys.exit(main())
