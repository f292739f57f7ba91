"""A voice model that misbehaves on command.

Its "file" is a folder: `starts` gets a line (the device) for each time it is loaded; a file `start` or `batch` there, whose
words are a command, is obeyed at the next load or batch. A command whose first word is `always` stays, others are used up.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from clser.engine.backends import Numbers
from clser.engine.errors import GivenError
from clser.engine.jobs import Row, VoiceCard
from clser.engine.records import Samples
from clser.models.labels import HEADS

FRAME = 320


class Faulty:
    card = VoiceCard("faulty", "1", 16_000, FRAME, HEADS, 0.5, 0.0, "classes", digest="0123456789abcdef")

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        frames = len(pcm) // FRAME
        if len(pcm) == FRAME:  # not the warm-up
            frames += obey(self._folder, "batch")
        return np.full((frames, len(HEADS)), float(os.getpid()), np.float32)


def obey(folder: Path, moment: str) -> int:
    """How many frames too many it is to answer for."""
    path = folder / moment
    if not path.exists():
        return 0
    command = path.read_text().split()
    if command[0] == "always":
        command = command[1:]
    else:
        path.unlink()
    return COMMANDS[command[0]](*command[1:])


def hang() -> int:
    os.kill(os.getpid(), signal.SIGSTOP)
    return 0


def spin() -> int:
    while True:
        time.sleep(1)


def slow(seconds: str) -> int:
    time.sleep(float(seconds))
    return 0


def die() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def leave(code: str) -> int:
    os._exit(int(code))


def memory() -> int:
    return len(np.ones((1 << 24, 1 << 24)))


def device() -> int:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def given() -> int:
    raise GivenError("the faulty model was told to be wrong")


def many() -> int:
    return 1


COMMANDS: dict[str, Callable[..., int]] = {
    command.__name__: command for command in (hang, spin, slow, die, leave, memory, device, given, many)
}


def open_voice(model: str, compute: str, precision: str) -> Faulty:
    folder = Path(model)
    with (folder / "starts").open("a") as starts:
        starts.write(f"{compute} {precision}\n")
    obey(folder, "start")
    return Faulty(folder)
