"""espeak-ng as a library, because only that way it tells when it says each word.

Its voice is one for the whole process, and what it said before shows in the first milliseconds of what it says next: the same
sound comes out for the same sentences in the same order.
"""

import ctypes
import ctypes.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import soxr

from clser.engine.errors import FailedError, GivenError, MissingError
from clser.engine.records import SAMPLE_RATE_HZ, Samples

_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH = 1, 3
_LIST_END, _WORD = 0, 1
_SILENT = 0.01
"""Of the loudest sample: below it nothing is said."""
_BEFORE_S = 0.03
_AFTER_S = 0.02
"""What swells or dies away too slowly to be cut off at that."""


class WordTime(NamedTuple):
    word: str
    start: int
    """In samples of 16 kHz,"""
    end: int


class Spoken(NamedTuple):
    pcm: Samples
    words: tuple[WordTime, ...]


class _Name(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("name", _Name),
    ]


_Heard = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(slots=True)
class _Library:
    lib: ctypes.CDLL
    rate_hz: int = 0
    pcm: list[Samples] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    """Where in the text a word is, from 1 on, and where in the sound."""
    callback: Any = None
    """Kept, or it would be gone by the time it is called."""

    def hear(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            self.pcm.append(np.ctypeslib.as_array(wave, (count,)).copy())
        at = 0
        while events[at].kind != _LIST_END:
            if events[at].kind == _WORD:
                self.starts.append((events[at].text_position, events[at].sample))
            at += 1
        return 0


@cache
def _library() -> _Library:
    """MissingError where it is not installed."""
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        raise MissingError("espeak-ng is not installed; `apt install espeak-ng`")
    library = _Library(ctypes.CDLL(name))
    library.rate_hz = library.lib.espeak_Initialize(_SYNCHRONOUS, 0, None, _DO_NOT_EXIT)
    if library.rate_hz <= 0:
        raise FailedError(f"{name}: espeak_Initialize gave {library.rate_hz}; are its data files there?")
    library.callback = _Heard(library.hear)
    library.lib.espeak_SetSynthCallback(library.callback)
    return library


def present() -> bool:
    return ctypes.util.find_library("espeak-ng") is not None


def say(text: str, voice: str, rate_wpm: int, pitch: int, words: Sequence[str]) -> Spoken:
    """`words` are those of the text. GivenError for a voice that espeak-ng does not have, FailedError if it says other words."""
    library = _library()
    if library.lib.espeak_SetVoiceByName(voice.encode()) != 0:
        raise GivenError(
            f"voice {voice!r}: espeak-ng does not have it; `espeak-ng --voices=en` and `--voices=variant` do"
        )
    library.lib.espeak_SetParameter(_RATE, rate_wpm, 0)
    library.lib.espeak_SetParameter(_PITCH, pitch, 0)
    library.pcm.clear()
    library.starts.clear()
    raw = text.encode()
    if library.lib.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _UTF8, None, None) != 0 or not library.pcm:
        raise FailedError(f"espeak-ng did not speak {text!r} as {voice}")
    wave = np.concatenate(library.pcm)
    pcm = soxr.resample(wave, library.rate_hz, SAMPLE_RATE_HZ).astype(np.int16)
    to_ours = SAMPLE_RATE_HZ / library.rate_hz
    starts = {place: min(round(sample * to_ours), len(pcm)) for place, sample in library.starts if place > 0}
    return Spoken(pcm, tuple(_times(pcm, _runs(text, words, starts))))


def _runs(text: str, words: Sequence[str], starts: Mapping[int, int]) -> list[tuple[list[str], int]]:
    """Words and where they start; it speaks some pairs as one (`on the`) and tells of the first only."""
    runs: list[tuple[list[str], int]] = []
    at = 0
    for word in words:
        at = text.index(word, at)
        if at + 1 in starts:
            runs.append(([word], starts[at + 1]))
        elif runs:
            runs[-1][0].append(word)
        at += len(word)
    if sum(len(run) for run, _ in runs) != len(words):
        raise FailedError(f"espeak-ng told of words at {sorted(starts)} in {text!r}, which are not {list(words)}")
    return runs


def _times(pcm: Samples, runs: Sequence[tuple[list[str], int]]) -> Iterator[WordTime]:
    """espeak-ng tells when a word begins; it ends where the sound before the next one does."""
    level = np.abs(pcm.astype(np.int32))
    loud = np.flatnonzero(level > _SILENT * max(1, int(level.max())))
    for (words, start), following in zip(runs, [*(start for _, start in runs[1:]), len(pcm)], strict=True):
        within = loud[np.searchsorted(loud, start) : np.searchsorted(loud, following)]
        last = int(within[-1]) if len(within) else following
        end = max(start + 1, min(following, last + round(_AFTER_S * SAMPLE_RATE_HZ)))
        if len(within):
            start = max(start, int(within[0]) - round(_BEFORE_S * SAMPLE_RATE_HZ))  # noqa: PLW2901 (a late onset)
        letters, said = sum(map(len, words)), 0
        for word in words:
            begun, said = start + (end - start) * said // letters, said + len(word)
            yield WordTime(word, begun, start + (end - start) * said // letters)
