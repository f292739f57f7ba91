"""What a worker that recognises words computes: the words, and what they tell of the emotion (the lane `words` of jobs.py)."""

import time
from collections.abc import Sequence
from typing import ClassVar

import msgspec
import numpy as np

from clser.engine import jobs
from clser.engine.asr import AsrConfig
from clser.engine.backends import Numbers, Recogniser
from clser.engine.backends.recognisers import Choice, open_recogniser
from clser.engine.backends.words import Reader, open_reader
from clser.engine.errors import FailedError
from clser.engine.making import Made
from clser.engine.records import SAMPLE_RATE_HZ, Samples

NICENESS = 5  # the voice's answers come first


class WritingConfig(msgspec.Struct, frozen=True, tag=True):
    kind: ClassVar[str] = "recogniser"
    choice: Choice
    asr: AsrConfig
    compute: str = "cpu"
    """One device; the pool says which."""
    threads: int = 1


class Scribe:
    """A recogniser and a reader of its words, loaded and warmed up."""

    def __init__(self, config: WritingConfig) -> None:
        self._recogniser = open_recogniser(config.choice, config.compute, config.asr)
        self._reader = open_reader()
        self._read: dict[str, Numbers] = {}  # by text: what was told of it the last time
        warm_up(self._recogniser, self._reader)
        self.ready = jobs.ReadyWords(self._recogniser.card, self._reader.tells if self._reader is not None else 0)

    def make(self, load: jobs.Load) -> Made:
        raise AssertionError("what recognises words loads nothing")

    def compute(self, batch: jobs.Batch, pcm: Samples) -> tuple[jobs.Answer, Numbers]:
        began = time.perf_counter()
        words = self._recogniser.run(batch.rows, pcm)
        if len(words) != len(batch.rows):
            raise FailedError(f"the recogniser answered {len(words)} rows of {len(batch.rows)}: it is broken")
        told = self._tell([each.text for each in words])
        busy_us = int((time.perf_counter() - began) * 1e6)
        return jobs.Answer(batch.number, batch.lane, busy_us, tuple(words)), told

    def _tell(self, texts: Sequence[str]) -> Numbers:
        """A row of numbers for each text; those that have not changed since the last batch are not read again."""
        if self._reader is None:
            return np.zeros((len(texts), 0), np.float32)
        new = [text for text in dict.fromkeys(texts) if text not in self._read]
        known = {text: self._read[text] for text in texts if text in self._read}
        if new:
            known.update(zip(new, self._reader.read(new, self._recogniser.card.trust), strict=True))
        self._read = known
        return np.ascontiguousarray(np.stack([known[text] for text in texts]), np.float32)


def warm_up(recogniser: Recogniser, reader: Reader | None) -> None:
    """The first calls are the slowest; nobody waits for these."""
    for last in (False, True):
        row = jobs.Row(0, SAMPLE_RATE_HZ, fresh=not last, anew=last, last=last)
        recogniser.run([row], np.zeros(SAMPLE_RATE_HZ, np.int16))
    if reader is not None:
        reader.read(["well then"], 1.0)
