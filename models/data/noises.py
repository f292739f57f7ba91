"""Sounds of rooms, machines and weather that nobody recorded: hush, hum, tones, clicks, sweeps, wind, rain, telephones.

Letters: S samples, B bins of a spectrum.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from clser.models.data.clips import Sound
from clser.models.data.music import lay
from clser.models.features.constants import SAMPLE_RATE_HZ

Array = np.ndarray[Any, Any]
Maker = Callable[[int, np.random.Generator], Array]

RINGS = (
    ((440.0, 480.0), 0.0, (2.0, 4.0)), ((425.0,), 0.0, (1.0, 4.0)), ((400.0, 450.0), 0.0, (0.4, 0.2, 0.4, 2.0)),
    ((425.0,), 0.0, (0.48, 0.48)), ((1_900.0, 2_350.0), 18.0, (1.2, 0.6)), ((1_100.0, 1_500.0), 25.0, (0.8, 0.4)),
    ((2_000.0,), 0.0, (0.1, 0.1, 0.1, 0.7)), ((350.0, 440.0), 0.0, (9.0,)),
)  # fmt: skip
"""(tones in Hz, how often a second a bell changes between them or 0 for all at once, seconds of sound and silence in turn)."""
DIALLED_HZ = ((697.0, 770.0, 852.0, 941.0), (1_209.0, 1_336.0, 1_477.0, 1_633.0))


def hush(samples: int, random: np.random.Generator) -> Array:
    """A quiet room: noise of any colour; once in a while nothing at all, or a step that goes nowhere."""
    if random.random() < 0.06:
        return np.zeros(samples)
    return coloured(samples, random.uniform(-0.5, 2.0), random)


def hum(samples: int, random: np.random.Generator) -> Array:
    """Of the mains, of a fan or of an engine: a low pitch that hardly moves, with its harmonics, and some noise."""
    first_hz = (
        float(random.choice([50.0, 60.0, 100.0, 120.0])) if random.random() < 0.5 else random.uniform(25.0, 320.0)
    )
    wander_S = 1.0 + random.uniform(0.0, 0.03) * _slow(samples, random.uniform(0.2, 3.0), random)
    phase_S = 2 * np.pi * np.cumsum(first_hz * wander_S) / SAMPLE_RATE_HZ
    slope, out = random.uniform(0.3, 2.0), np.zeros(samples)
    for k in range(1, min(30, int(7_600.0 / first_hz)) + 1):
        out += random.uniform(0.1, 1.0) * k**-slope * np.sin(k * phase_S + random.uniform(0, 6.28))
    return np.asarray(out + random.uniform(0.0, 0.8) * coloured(samples, 1.0, random))


def tones(samples: int, random: np.random.Generator) -> Array:
    """One tone held, or beeps."""
    time_S = np.arange(samples) / SAMPLE_RATE_HZ
    hz = 80.0 * 2.0 ** random.uniform(0.0, 6.4)
    shape = np.sin(2 * np.pi * hz * time_S)
    if random.random() < 0.4:
        shape = np.tanh(random.uniform(1.0, 8.0) * shape)
    if random.random() < 0.6:
        every_s = random.uniform(0.08, 1.2)
        shape = shape * (time_S % every_s < every_s * random.uniform(0.2, 0.8))
    return np.asarray(shape)


def clicks(samples: int, random: np.random.Generator) -> Array:
    """Keys, taps and knocks: short bursts that ring a little, over faint noise."""
    out = 0.003 * coloured(samples, 1.0, random)
    ring_hz, dull = random.uniform(150.0, 5_000.0), random.uniform(60.0, 800.0)
    at = 0.0
    while at < samples:
        time_S = np.arange(round(0.12 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        hz = ring_hz * random.uniform(0.8, 1.25)
        tap_S = random.standard_normal(len(time_S)) * 0.7 + np.sin(2 * np.pi * hz * time_S)
        lay(out, random.uniform(0.2, 1.0) * np.exp(-time_S * dull * random.uniform(0.7, 1.4)) * tap_S, int(at))
        at += random.exponential(0.22) * SAMPLE_RATE_HZ + 400
    return out


def sweeps(samples: int, random: np.random.Generator) -> Array:
    """Up or down, once or as a siren does."""
    time_S = np.arange(samples) / SAMPLE_RATE_HZ
    low, high = np.sort(80.0 * 2.0 ** random.uniform(0.0, 6.3, 2))
    rate_hz = random.uniform(0.15, 4.0)
    turn_S = (time_S * rate_hz + random.random()) % 1.0
    way = int(random.integers(3))
    where_S = turn_S if way == 0 else 1.0 - turn_S if way == 1 else 1.0 - np.abs(2.0 * turn_S - 1.0)
    phase_S = 2 * np.pi * np.cumsum(low * (high / low) ** where_S) / SAMPLE_RATE_HZ
    return np.asarray(sum(np.sin(k * phase_S) / k**2 for k in range(1, 1 + int(random.integers(1, 4)))))


def wind(samples: int, random: np.random.Generator) -> Array:
    """Bands of noise, each with gusts of its own; some whistle."""
    out = np.zeros(samples)
    for _ in range(int(random.integers(2, 6))):
        middle_hz = 60.0 * 2.0 ** random.uniform(0.0, 5.5)
        band_S = band(samples, middle_hz, random.uniform(0.05, 1.5), random)
        gusts_S = np.exp(random.uniform(0.2, 1.2) * _slow(samples, random.uniform(0.3, 3.0), random))
        out += (60.0 / middle_hz) ** 0.4 * gusts_S * band_S
    return out


def rain(samples: int, random: np.random.Generator) -> Array:
    """A hiss with drops in it, few or many."""
    out = random.uniform(0.02, 0.5) * coloured(samples, random.uniform(-0.6, 0.6), random)
    for _ in range(round(samples / SAMPLE_RATE_HZ * 10.0 ** random.uniform(0.5, 2.3))):
        time_S = np.arange(round(random.uniform(0.004, 0.03) * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        hz = random.uniform(500.0, 6_500.0)
        drop_S = np.exp(-time_S * random.uniform(150.0, 600.0)) * np.sin(2 * np.pi * hz * time_S)
        lay(out, random.exponential(0.6) * drop_S, int(random.integers(samples)))
    return out


def ringing(samples: int, random: np.random.Generator) -> Array:
    """A telephone, an alarm, or somebody who dials; the pitch and the pace are a little off."""
    pace, shift = random.uniform(0.7, 1.4), random.uniform(0.85, 1.2)
    time_S = np.arange(samples) / SAMPLE_RATE_HZ * pace + random.uniform(0.0, 0.3)
    if random.random() < 0.2:
        low, high = (random.choice(row, size=1 + int(time_S[-1] / 0.2)) for row in DIALLED_HZ)
        turn_S = (time_S / 0.2).astype(int) % len(low)
        pressed_S = time_S % 0.2 < 0.12
        return np.asarray(pressed_S * sum(np.sin(2 * np.pi * hz[turn_S] * time_S) for hz in (low, high)))
    tones_hz, change_hz, cadence_s = RINGS[int(random.integers(len(RINGS)))]
    edges = np.cumsum(cadence_s)
    on_S = np.searchsorted(edges, time_S % edges[-1], side="right") % 2 == 0
    each = [np.sin(2 * np.pi * shift * hz * time_S) for hz in tones_hz]
    sharp = random.uniform(0.5, 5.0)
    first_S = (time_S * change_hz).astype(int) % 2 == 0
    shape = np.where(first_S, each[0], each[-1]) if change_hz else np.sum(each, 0)
    return np.asarray(on_S * np.tanh(sharp * shape) + 0.002 * random.standard_normal(samples))


MAKERS: dict[str, tuple[Maker, ...]] = {
    "hush": (hush,),
    "machines": (hum, tones, clicks, sweeps),
    "weather": (wind, rain),
    "phones": (ringing,),
}


def coloured(samples: int, slope: float, random: np.random.Generator) -> Array:
    """Noise of RMS 1 whose power falls by the frequency to `slope`: 0 white, 1 pink, 2 brown."""
    return _shaped(samples, lambda hz_B: np.maximum(hz_B, 20.0) ** (-slope / 2.0), random)


def band(samples: int, middle_hz: float, octaves: float, random: np.random.Generator) -> Array:
    """Noise of RMS 1 around a frequency."""
    return _shaped(
        samples, lambda hz_B: np.exp(-0.5 * np.square(np.log2(np.maximum(hz_B, 1.0) / middle_hz) / octaves)), random
    )


def _shaped(samples: int, shape: Callable[[Array], Array], random: np.random.Generator) -> Array:
    spectrum_B = np.fft.rfft(random.standard_normal(samples))
    spectrum_B *= shape(np.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE_HZ))
    sound_S = np.fft.irfft(spectrum_B, samples)
    return np.asarray(sound_S / max(1e-9, float(np.sqrt(np.square(sound_S).mean()))))


def _slow(samples: int, hz: float, random: np.random.Generator) -> Array:
    """Something about -2..2 that wanders, so often a second."""
    many = 2 + int(samples / SAMPLE_RATE_HZ * hz * 2)
    return np.interp(np.linspace(0.0, many - 1.0, samples), np.arange(many), random.standard_normal(many))


def at_level(sound: Array, dbfs: float) -> Sound:
    """At this RMS, or as near to it as its peaks allow."""
    power = float(np.square(sound).mean()) if len(sound) else 0.0
    if power == 0.0:
        return np.zeros(len(sound), np.float32)
    scaled = sound * (10.0 ** (dbfs / 20.0) / np.sqrt(power))
    return np.asarray(scaled * min(1.0, 0.95 / float(np.abs(scaled).max())), np.float32)
