"""What a recording looks like from outside: its file, its length, the silence before it, and an outline to know it by.

One pass over the sound; the linter asks everything else of these records.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import soundfile
import soxr

from clser.models.data.clips import Clip, Sound, read_samples
from clser.models.features.constants import SAMPLE_RATE_HZ

BANDS, MOMENTS = 16, 12
WINDOW, HOP = 512, 160
RANGE_DB = 45.0
"""What lies further under the loudest part says nothing about whether it is the same recording."""

EDGE, SMOOTH = 80, 4
"""Where sound begins is found to 5 ms, over 20 ms: silence put before it shifts all blocks."""
BELOW_PEAK_DB = 25.0

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """Of one clip."""

    container: str
    codec: str
    rate_hz: int
    channels: int
    length_samples: int
    zeros: int
    """Samples of exact silence that it begins with."""
    digest: str
    """Of its samples, whatever file they came in. Empty: all of them are zero."""
    speech_s: float
    outline: Array
    """[BANDS * MOMENTS], of length 1: where its energy lies. Gain and silence about it leave it as it is."""

    @property
    def duration_s(self) -> float:
        """Its length."""
        return self.length_samples / self.rate_hz


def look(clips: Sequence[Clip], tick: Callable[[int], None]) -> list[Form]:
    """The form of each clip; `tick` is told how many are done."""
    forms = []
    for clip in clips:
        forms.append(form(clip))
        tick(len(forms))
    return forms


def form(clip: Clip) -> Form:
    """Reads the clip."""
    samples, rate_hz = read_samples(clip)
    about = soundfile.info(clip.path)
    mono = samples.mean(1)
    sounding = np.flatnonzero(mono)
    speech = speech_of(mono, rate_hz)
    return Form(
        container=about.format,
        codec=about.subtype,
        rate_hz=rate_hz,
        channels=samples.shape[1],
        length_samples=len(samples),
        zeros=int(sounding[0]) if len(sounding) else len(samples),
        digest=blake2b(np.ascontiguousarray(samples).tobytes(), digest_size=16).hexdigest() if len(sounding) else "",
        speech_s=len(speech) / SAMPLE_RATE_HZ,
        outline=_outline(speech),
    )


def speech_of(mono: Sound, rate_hz: int) -> Sound:
    """The part that sounds, 16 kHz."""
    sound = mono if rate_hz == SAMPLE_RATE_HZ else soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    blocks = len(sound) // EDGE
    if blocks < SMOOTH:
        return np.asarray(sound, np.float32)
    power = np.square(sound[: blocks * EDGE].reshape(blocks, EDGE)).mean(1)
    power = np.convolve(power, np.ones(SMOOTH) / SMOOTH, "same")
    loud = np.flatnonzero(power >= power.max() * 10.0 ** (-BELOW_PEAK_DB / 10.0))
    return np.asarray(sound[loud[0] * EDGE : (loud[-1] + 1) * EDGE], np.float32)


def _outline(speech: Sound) -> Array:
    """Energy in bands over time, in dB under its peak, from the middle of its range."""
    padded = np.pad(speech, (0, max(0, WINDOW + HOP * MOMENTS - len(speech))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(windows)))
    edges = np.geomspace(4, power.shape[1], BANDS + 1).round().astype(int)
    bands = np.add.reduceat(power, edges[:-1], axis=1)
    moments = np.linspace(0, len(bands), MOMENTS + 1).round().astype(int)
    energy = np.add.reduceat(bands, moments[:-1], axis=0) / np.diff(moments)[:, None]
    level_db = 10.0 * np.log10(energy / max(energy.max(), 1e-20) + 10.0 ** (-RANGE_DB / 10.0))
    centred = (level_db - level_db.mean()).ravel()
    size = float(np.linalg.norm(centred))
    return np.asarray(centred / size if size else centred, np.float32)
