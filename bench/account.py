"""What a long run's reader heard, kept small: the finals with where their speech lay, the partials' times, the statuses. Pure."""

from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clser.bench.heard import endpoint_wait_ms, vad_frame
from clser.bench.load import Ledger, name_of
from clser.bench.notes import Note
from clser.engine.config import Config
from clser.engine.records import ENGINE, SAMPLE_RATE_HZ

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Final:
    at_us: float
    epoch: int
    seq: int
    utterance: int
    start: int
    end: int
    reason: str
    onset: int
    """Where its speech began and ended, as `speech` told; without that, the result's own ends."""
    offset: int


@dataclass(slots=True)
class Voice:
    """One stream's."""

    finals: list[Final] = field(default_factory=list)
    partial_at_us: "array[float]" = field(default_factory=lambda: array("d"))
    partial_end: "array[int]" = field(default_factory=lambda: array("q"))
    answered_us: "array[float]" = field(default_factory=lambda: array("d"))
    """Arrivals of results of any stage."""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """From and to which sample sound was lost."""


@dataclass(slots=True)
class Account:
    voices: dict[str, Voice]
    statuses: list[Note]
    """The engine's own."""
    missed: int = 0
    """Messages that never arrived, by the holes in `seq`."""
    gaps: int = 0
    lost_samples: int = 0

    def of(self, stream: int) -> Voice:
        return self.voices.get(name_of(stream)) or Voice()

    @property
    def finals(self) -> int:
        return sum(len(voice.finals) for voice in self.voices.values())

    @property
    def heartbeats(self) -> list[Note]:
        return [status for status in self.statuses if status.what == "heartbeat"]

    @property
    def counters(self) -> dict[str, float]:
        """The engine's last word on its totals."""
        return next((status.counters for status in reversed(self.statuses) if status.counters), {})

    def answers_us(self) -> Numbers:
        """When results arrived, of all streams together, in order."""
        each = [np.array(voice.answered_us, np.float64) for voice in self.voices.values()]
        return np.sort(np.concatenate(each)) if each else np.zeros(0)


def settle(notes: Iterable[Note]) -> Account:
    """Repeats for late joiners, known by a `seq` that is not newer, are passed over."""
    account = Account(defaultdict(Voice), [])
    last: dict[tuple[str, str, int], int] = {}
    finals: dict[str, list[Note]] = defaultdict(list)
    spans: dict[tuple[str, int, int], list[int | None]] = defaultdict(lambda: [None, None])
    for note in notes:
        topic = (note.kind, note.stream, note.epoch)
        before = last.get(topic, note.seq - 1)
        if note.seq <= before:
            continue
        account.missed += note.seq - before - 1
        last[topic] = note.seq
        if note.kind == "result":
            _answer(account.voices[note.stream], finals[note.stream], note)
        elif note.kind == "speech":
            spans[note.stream, note.epoch, note.utterance][note.what == "ended"] = note.end
        elif note.kind == "gap":
            account.gaps += 1
            account.lost_samples += note.end
            account.voices[note.stream].gaps.append((note.start, note.start + note.end))
        elif note.stream == ENGINE:
            account.statuses.append(note)
    for stream, each in finals.items():
        account.voices[stream].finals = [
            _final(note, *spans.get((stream, note.epoch, note.utterance), (None, None))) for note in each
        ]
    account.voices = dict(account.voices)
    return account


def _answer(voice: Voice, finals: list[Note], note: Note) -> None:
    voice.answered_us.append(note.at_us)
    if note.what == "partial":
        voice.partial_at_us.append(note.at_us)
        voice.partial_end.append(note.end)
    elif note.what == "final":
        finals.append(note)


def _final(note: Note, onset: int | None, offset: int | None) -> Final:
    return Final(
        at_us=note.at_us,
        epoch=note.epoch,
        seq=note.seq,
        utterance=note.utterance,
        start=note.start,
        end=note.end,
        reason=note.reason,
        onset=note.start if onset is None else onset,
        offset=note.end if offset is None else offset,
    )


def lags(account: Account, ledger: Ledger, origin_us: float) -> tuple[Numbers, Numbers]:
    """When (seconds after `origin_us`) each partial's sound was captured, and how much later the partial arrived (ms)."""
    at: list[Numbers] = [np.zeros(0)]
    lag: list[Numbers] = [np.zeros(0)]
    for stream in range(len(ledger.start_us)):
        voice = account.of(stream)
        captured_us = ledger.start_us[stream] + np.array(voice.partial_end, np.float64) * 1e6 / SAMPLE_RATE_HZ
        at.append((captured_us - origin_us) / 1e6)
        lag.append((np.array(voice.partial_at_us, np.float64) - captured_us) / 1000)
    return np.concatenate(at), np.concatenate(lag)


def waits(account: Account, ledger: Ledger, config: Config) -> tuple[Numbers, Numbers]:
    """When (unix us) each final arrived for which silence was waited, and the wait after its endpoint (ms)."""
    frame = vad_frame(config)
    found = []
    for stream in range(len(ledger.start_us)):
        for final in account.of(stream).finals:
            span = (final.start, final.offset, final.reason)
            wait = endpoint_wait_ms(final.at_us, span, stream, ledger, config, frame)
            if wait is not None:
                found.append((final.at_us, wait))
    at_us, wait_ms = np.array(found, np.float64).reshape(-1, 2).T
    return at_us, wait_ms
