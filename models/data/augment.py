"""What happens to speech on its way to a microphone, done to clean recordings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr

from clser.models.features.constants import SAMPLE_RATE_HZ

Sound = np.ndarray[Any, np.dtype[np.float32]]

SPEED = 0.1
GAIN_DB = 12.0
NOISY = 0.45
SNR_DB = (5.0, 30.0)
LEAD_S, TRAIL_S = 0.4, 0.25
SPEECH_BELOW_PEAK_DB = 35.0
HUSH_DBFS = (-80.0, -55.0)


def disturb(sound: Sound, noises: Sequence[Sound], random: np.random.Generator) -> Sound:
    """Another take of a recording: cut to its speech as an engine would cut it, another speed, level and room noise."""
    sound = cut_to_speech(sound, random.uniform(0.0, LEAD_S), random.uniform(0.0, TRAIL_S), random)
    speed = random.uniform(1.0 - SPEED, 1.0 + SPEED)
    sound = soxr.resample(sound, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ).astype(np.float32)
    if noises and random.random() < NOISY:
        sound = add_noise(sound, noises[int(random.integers(len(noises)))], random.uniform(*SNR_DB), random)
    return np.asarray(np.clip(sound * _ratio(random.uniform(-GAIN_DB, GAIN_DB)), -1.0, 1.0), np.float32)


def cut_to_speech(sound: Sound, lead_s: float, trail_s: float, random: np.random.Generator) -> Sound:
    """The clip from `lead_s` before its speech to `trail_s` after it; what it is too short for is near-silence."""
    first, last = speech_bounds(sound)
    begin, end = first - round(lead_s * SAMPLE_RATE_HZ), last + round(trail_s * SAMPLE_RATE_HZ)
    hush = _ratio(random.uniform(*HUSH_DBFS))
    before = hush * random.standard_normal(max(0, -begin))
    after = hush * random.standard_normal(max(0, end - len(sound)))
    return np.concatenate((before, sound[max(0, begin) : end], after)).astype(np.float32)


def speech_bounds(sound: Sound) -> tuple[int, int]:
    """First and last sample of what comes within `SPEECH_BELOW_PEAK_DB` of the loudest 20 ms."""
    size = SAMPLE_RATE_HZ // 50
    blocks = len(sound) // size
    if blocks < 2:
        return 0, len(sound)
    power = np.square(sound[: blocks * size].reshape(blocks, size)).mean(1)
    loud = np.flatnonzero(power > power.max() * 10.0 ** (-SPEECH_BELOW_PEAK_DB / 10.0))
    return (int(loud[0]) * size, int(loud[-1] + 1) * size) if len(loud) else (0, len(sound))


def add_noise(sound: Sound, noise: Sound, snr_db: float, random: np.random.Generator) -> Sound:
    """The noise, from somewhere within it and repeated if short, so far under the sound."""
    begin = int(random.integers(len(noise)))
    noise = np.resize(noise[begin : begin + len(sound)], len(sound))
    power = float(np.square(noise).mean())
    if power == 0.0:
        return sound
    scale = np.sqrt(float(np.square(sound).mean()) / power) * _ratio(-snr_db)
    return np.asarray(sound + scale * noise, np.float32)


def _ratio(db: float) -> float:
    return float(10.0 ** (db / 20.0))
