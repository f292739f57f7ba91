"""Speech in a room: convolved with a response that was measured, or with one made up."""

from collections.abc import Sequence

import numpy as np

from clser.models.data.clips import Sound
from clser.models.features.constants import SAMPLE_RATE_HZ

LONGEST_S = 1.5
RT60_S = (0.15, 0.9)
DIRECT_DB = (-6.0, 12.0)
"""What comes straight from the mouth, over all that the room adds."""
FIRST_ECHO_S = (0.002, 0.012)


def in_room(sound: Sound, responses: Sequence[Sound], random: np.random.Generator) -> Sound:
    """In one of the rooms whose responses are given, or in a made-up one if there are none."""
    if responses:
        return reverberate(sound, responses[int(random.integers(len(responses)))])
    return reverberate(sound, made_up(float(random.uniform(*RT60_S)), float(random.uniform(*DIRECT_DB)), random))


def reverberate(sound: Sound, response: Sound) -> Sound:
    """As long and as loud (RMS) as before, and not later: what the response has before its peak is left off."""
    direct = from_peak(response)
    if not len(sound) or not np.any(direct):
        return sound
    size = 1 << (len(sound) + len(direct) - 1).bit_length()
    heard = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(direct, size), size)[: len(sound)]
    power = float(np.square(heard).mean())
    scale = np.sqrt(float(np.square(sound).mean()) / power) if power else 1.0
    return np.asarray(heard * scale, np.float32)


def from_peak(response: Sound) -> Sound:
    """The response from its peak on, where the direct sound arrives, `LONGEST_S` at most."""
    begin = int(np.argmax(np.abs(response))) if len(response) else 0
    return response[begin : begin + round(LONGEST_S * SAMPLE_RATE_HZ)]


def made_up(rt60_s: float, direct_db: float, random: np.random.Generator) -> Sound:
    """Noise that decays by 60 dB in `rt60_s` (Polack's model), `direct_db` under a first peak of 1."""
    late = round(float(random.uniform(*FIRST_ECHO_S)) * SAMPLE_RATE_HZ)
    time_s = np.arange(round(min(rt60_s, LONGEST_S) * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = random.standard_normal(len(time_s)) * 10.0 ** (-3.0 * time_s / rt60_s)
    energy = float(np.square(tail).sum())
    response = np.zeros(late + len(tail))
    response[late:] = tail * np.sqrt(10.0 ** (-direct_db / 10.0) / energy)
    # Chance may put a sample of the tail over the direct sound, which has to stay the peak.
    response = np.clip(response, -0.95, 0.95)
    response[0] = 1.0
    return np.asarray(response, np.float32)
