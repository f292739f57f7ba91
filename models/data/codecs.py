"""What a call, a voice message or a podcast does to speech: encoded and decoded again, same length, no delay."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
import soxr

from clser.models.data.clips import Sound
from clser.models.errors import MissingError
from clser.models.features.constants import SAMPLE_RATE_HZ

OPUS_KBIT_S = (8.0, 24.0)
MP3_KBIT_S = (16, 24, 32, 48)
TELEPHONE_HZ = 8_000
TELEPHONE_BAND_HZ = (300.0, 3_400.0)
MU = 255.0
MOST_DELAY_SAMPLES = 3_200
"""Encoders delay sound by less than this; some decoders take the delay off, some do not."""


def coded(sound: Sound, random: np.random.Generator) -> Sound:
    """Through one of the codecs, at a random low rate."""
    ways: tuple[Callable[[], Sound], ...] = (
        lambda: opus(sound, float(random.uniform(*OPUS_KBIT_S))),
        lambda: mp3(sound, int(random.choice(MP3_KBIT_S))),
        lambda: telephone(sound),
    )
    return ways[int(random.integers(len(ways)))]()


def opus(sound: Sound, kbit_s: float) -> Sound:
    """Ogg Opus; 6 to 256 kbit/s."""
    # libsndfile has no rate to set: its level 0..1 runs from 256 down to 6 kbit/s.
    return _through(sound, "OGG", "OPUS", (256.0 - kbit_s) / 250.0)


def mp3(sound: Sound, kbit_s: float) -> Sound:
    """MP3 of constant rate; 8 to 160 kbit/s at this sampling rate."""
    return _through(sound, "MP3", "MPEG_LAYER_III", (160.0 - kbit_s) / 152.0 * 0.99, "CONSTANT")


def telephone(sound: Sound) -> Sound:
    """300 to 3400 Hz, 8 bits of mu-law a sample at 8 kHz (ITU-T G.711's curve)."""
    narrow = _band(soxr.resample(sound, SAMPLE_RATE_HZ, TELEPHONE_HZ))
    # F(x) = sgn(x) ln(1 + mu |x|) / ln(1 + mu), in 255 steps, and back
    pressed = np.sign(narrow) * np.log1p(MU * np.minimum(np.abs(narrow), 1.0)) / np.log1p(MU)
    stepped = np.round(pressed * 127.0) / 127.0
    heard = np.sign(stepped) * np.expm1(np.abs(stepped) * np.log1p(MU)) / MU
    return _fitted(soxr.resample(heard, TELEPHONE_HZ, SAMPLE_RATE_HZ), len(sound))


def _band(narrow: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if not len(narrow):
        return narrow
    size = 1 << (len(narrow) + TELEPHONE_HZ // 10).bit_length()
    hz = np.fft.rfftfreq(size, 1.0 / TELEPHONE_HZ)
    low, high = TELEPHONE_BAND_HZ
    # Slopes a fifth of an octave wide or more: a brick wall rings.
    rise = np.clip((hz - 0.7 * low) / (0.3 * low), 0.0, 1.0)
    fall = np.clip((1.12 * high - hz) / (0.12 * high), 0.0, 1.0)
    return np.asarray(np.fft.irfft(np.fft.rfft(narrow, size) * rise * fall, size)[: len(narrow)])


def _through(sound: Sound, container: str, codec: str, level: float, mode: str | None = None) -> Sound:
    if codec not in soundfile.available_subtypes(container):
        raise MissingError(f"libsndfile {soundfile.__libsndfile_version__} has no {codec}; take one of 1.2 or later")
    if not len(sound):
        return sound
    file = io.BytesIO()
    soundfile.write(
        file,
        np.clip(sound, -1.0, 1.0),
        SAMPLE_RATE_HZ,
        format=container,
        subtype=codec,
        compression_level=level,
        bitrate_mode=mode,
    )
    file.seek(0)
    heard, rate_hz = soundfile.read(file, dtype="float32")
    if rate_hz != SAMPLE_RATE_HZ:  # libsndfile may hand out Opus at 48 kHz
        heard = soxr.resample(heard, rate_hz, SAMPLE_RATE_HZ)
    return _fitted(heard[_delay(sound, heard) :], len(sound))


def _delay(sound: Sound, heard: np.ndarray[Any, Any]) -> int:
    """Samples by which it comes late, by the peak of the cross-correlation."""
    size = 1 << (len(sound) + len(heard)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sound, size)), size)
    return int(np.argmax(product[:MOST_DELAY_SAMPLES])) if np.any(product) else 0


def _fitted(sound: np.ndarray[Any, Any], samples: int) -> Sound:
    short = max(0, samples - len(sound))
    return np.ascontiguousarray(np.pad(sound[:samples], (0, short)), np.float32)
