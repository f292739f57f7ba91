"""A recogniser by itself, in a process of its own: whole utterances, the same row by row, and several at once.

Started as `python -m clser.bench.asr_decode ORDER` with an `Order` in JSON.
"""

import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from clser.bench.card import Setup
from clser.engine import config as configuration
from clser.engine.backends import Recogniser
from clser.engine.backends.recognisers import choose, open_recogniser
from clser.engine.errors import ClserError, FailedError, GivenError, MissingError
from clser.engine.jobs import RecogniserCard, Row, Words
from clser.engine.records import SAMPLE_RATE_HZ, Samples, samples
from clser.engine.scribe import warm_up

PATIENCE_S = 120.0
SLOWEST = 20.0
"""Given up when it takes so many times longer than its sound would last."""
TOGETHER = 8
TIMES = 3
LOOK_S = 0.1
ROW = 15 * SAMPLE_RATE_HZ
"""The engine hands over no longer rows than this, and some."""
ERRORS = {2: GivenError, 3: MissingError}


class Order(Struct, frozen=True):
    config: str
    overrides: tuple[str, ...]
    sound: str
    """An .npy file of s16 samples, one sound after the other."""
    lengths: tuple[int, ...]
    way: str
    """`whole`, `stepped` or `batch`."""
    out: str


class Written(Struct, frozen=True):
    text: str
    suspect: bool


class Batched(Struct, frozen=True):
    """Seconds for the same windows."""

    windows: int
    one_by_one_s: float
    together_s: float


class Done(Struct, frozen=True):
    card: RecogniserCard
    step_ms: int
    written: tuple[Written, ...] = ()
    batched: Batched | None = None


class Task(NamedTuple):
    setup: Setup
    sounds: Sequence[Samples]
    way: str


def run_all(tasks: Sequence[Task], at_once: int) -> list[Done | ClserError]:
    """What each comes to, some at a time, each in a process of its own. One that fails leaves the others alone."""
    done: dict[int, Done | ClserError] = {}
    left, running = deque(enumerate(tasks)), dict[int, _Running]()
    with TemporaryDirectory(prefix="clser-bench-") as folder:
        try:
            while left or running:
                while left and len(running) < at_once:
                    number, task = left.popleft()
                    running[number] = _Running(task, Path(folder) / str(number))
                for number, each in tuple(running.items()):
                    if each.ended():
                        done[number] = running.pop(number).outcome()
                time.sleep(LOOK_S)
        finally:
            for each in running.values():
                each.kill()
    return [done[number] for number in range(len(tasks))]


class _Running:
    def __init__(self, task: Task, folder: Path) -> None:
        folder.mkdir()
        self._out, sound = folder / "done", folder / "sound.npy"
        np.save(sound, np.concatenate(task.sounds))
        order = Order(
            task.setup.source, task.setup.overrides, str(sound), tuple(map(len, task.sounds)), task.way, str(self._out)
        )
        self._longest_s = PATIENCE_S + SLOWEST * sum(order.lengths) / SAMPLE_RATE_HZ
        self._until_s = time.monotonic() + self._longest_s
        self._errors = folder / "errors"
        command = [sys.executable, "-m", "clser.bench.asr_decode", msgspec.json.encode(order).decode()]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)

    def ended(self) -> bool:
        return self._process.poll() is not None or time.monotonic() > self._until_s

    def outcome(self) -> Done | ClserError:
        code = self._process.poll()
        if code is None:
            self.kill()
            return FailedError(f"the recogniser did not end within {self._longest_s:.0f} s")
        if code:
            said = self._errors.read_text(errors="replace").strip().splitlines()
            return ERRORS.get(code, FailedError)(said[-1] if said else f"the recogniser ended with code {code}")
        return msgspec.msgpack.decode(self._out.read_bytes(), type=Done)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def decode(recogniser: Recogniser, sounds: Sequence[Samples], way: str, step_ms: int) -> Done:
    step_ms = step_ms or recogniser.card.step_ms
    if way == "batch":
        return Done(recogniser.card, step_ms, batched=batched(recogniser, sounds))
    step = samples(step_ms) if way == "stepped" else ROW
    said = [by_rows(recogniser, sound, step) for sound in sounds]
    return Done(recogniser.card, step_ms, tuple(Written(each.text, each.suspect) for each in said))


def by_rows(recogniser: Recogniser, sound: Samples, step: int) -> Words:
    """One utterance, handed over in rows of so many samples; what it says in the end."""
    begins = range(0, max(1, len(sound)), step)
    for begin in begins:
        part, last = sound[begin : begin + step], begin == begins[-1]
        (said,) = recogniser.run([Row(0, len(part), fresh=begin == 0, anew=last, last=last)], part)
    return said


def batched(recogniser: Recogniser, sounds: Sequence[Samples]) -> Batched:
    """The medians of a few times, in turn."""
    rows = [Row(slot, len(sound), fresh=True, anew=True, last=True) for slot, sound in enumerate(sounds)]
    pcm, alone_s, together_s = np.concatenate(sounds), [], []
    for _ in range(TIMES):
        began = time.perf_counter()
        for row, sound in zip(rows, sounds, strict=True):
            recogniser.run([row], sound)
        half = time.perf_counter()
        recogniser.run(rows, pcm)
        alone_s.append(half - began)
        together_s.append(time.perf_counter() - half)
    return Batched(len(sounds), float(np.median(alone_s)), float(np.median(together_s)))


def obey(order: Order) -> Done:
    asr = configuration.load(order.config, list(order.overrides)).asr
    choice = choose(asr)
    if not choice.module:
        raise MissingError(choice.why)
    recogniser = open_recogniser(choice, asr.compute.partition(",")[0], asr)
    warm_up(recogniser, None)
    sounds = np.split(np.load(order.sound), np.cumsum(order.lengths)[:-1])
    return decode(recogniser, sounds, order.way, asr.step_ms)


def main() -> int:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    try:
        done = obey(order)
    except ClserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    Path(order.out).write_bytes(msgspec.msgpack.encode(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
