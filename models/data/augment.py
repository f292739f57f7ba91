"""What happens to speech on its way to a microphone, done to clean recordings."""

from collections.abc import Hashable, Sequence
from hashlib import blake2b
from pathlib import PurePath
from typing import TypeVar

import numpy as np
import soxr

from clser.models.data.clips import Sound
from clser.models.errors import GivenError
from clser.models.features.constants import SAMPLE_RATE_HZ

Item = TypeVar("Item", bound=Hashable)

SPEED = 0.1
GAIN_DB = 12.0
SNR_DB = (5.0, 30.0)
LEAD_S, TRAIL_S = 0.4, 0.25
SPEECH_BELOW_PEAK_DB = 35.0
HUSH_DBFS = (-80.0, -55.0)


def at_speed(sound: Sound, speed: float) -> Sound:
    """Faster (over 1) and higher, or slower and lower."""
    return np.asarray(soxr.resample(sound, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ), np.float32)


def held_out_files(files: Sequence[Item], share: float, seed: int = 0) -> tuple[list[Item], list[Item]]:
    """Noises or rooms to train with, and `share` of them to test with: none is in both.

    Each file's side hangs on its name and the seed alone, so that adding a file moves no other; the share is kept to
    by chance, but neither side is left empty.
    """
    if not 0.0 < share < 1.0 or len(set(map(str, files))) < 2:
        raise GivenError(f"a share between 0 and 1 of two files or more can be held out, not {share:g} of {len(files)}")
    place = {file: _place(file, seed) for file in files}
    order = sorted(set(files), key=lambda file: (place[file], str(file)))
    bound = min(max(sum(place[file] < share for file in order), 1), len(order) - 1)
    test = set(order[:bound])
    return [file for file in files if file not in test], [file for file in files if file in test]


def _place(file: object, seed: int) -> float:
    """0..1, evenly spread over names."""
    name = file.name if isinstance(file, PurePath) else str(file)
    return int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=6).digest()) / 2.0**48


def cut_to_speech(sound: Sound, lead_s: float, trail_s: float, random: np.random.Generator) -> Sound:
    """The clip from `lead_s` before its speech to `trail_s` after it; what it is too short for is near-silence."""
    first, last = speech_bounds(sound)
    begin, end = first - round(lead_s * SAMPLE_RATE_HZ), last + round(trail_s * SAMPLE_RATE_HZ)
    hush = ratio(random.uniform(*HUSH_DBFS))
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
    scale = np.sqrt(float(np.square(sound).mean()) / power) * ratio(-snr_db)
    return np.asarray(sound + scale * noise, np.float32)


def ratio(db: float) -> float:
    """Decibels to a factor of amplitudes."""
    return float(10.0 ** (db / 20.0))
