"""Music that nobody recorded: melodies, chords, arpeggios and drums on made-up instruments, some of which nearly sing.

Letters: S samples, K harmonics.
"""

from typing import Any, NamedTuple

import numpy as np

from clser.models.data.clips import Sound
from clser.models.features.constants import SAMPLE_RATE_HZ

Array = np.ndarray[Any, Any]

MOST_HARMONICS = 24
HIGHEST_HZ = 7_600.0
LOWEST_NOTE_HZ, OCTAVES = 65.0, 2.5
SCALES = (
    (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 6, 7, 10), (0, 2, 3, 5, 7, 9, 10),
    (0, 2, 4, 6, 8, 10),
)  # fmt: skip
BEATS_PER_MINUTE = (55.0, 175.0)
FORMANTS_HZ = ((280.0, 800.0), (800.0, 2_200.0), (2_300.0, 3_000.0))
FORMANT_WIDTH_HZ = 120.0


class Timbre(NamedTuple):
    """What one instrument sounds like."""

    slope: float
    """Harmonic k is k ** -slope strong."""
    even: float
    """How strong even harmonics are beside the odd ones."""
    attack_s: float
    fade: float
    """How fast a held note dies away, in 1/s: 0 as long as it is blown or bowed."""
    fade_by_k: float
    """How much faster each further harmonic does."""
    vibrato_cents: float
    breath: float
    """Noise beside the tone."""
    vowel: float
    """0: none; 1: all of it goes through formants, as a voice's does."""
    stretch: float
    """How far harmonics lie above whole multiples: a little in strings, much in bells."""
    glide_s: float
    """How long a note takes to come from the one before."""


# The least and the most of each.
TRAINED = {
    "flute": (Timbre(2.0, 0.6, 0.04, 0.0, 0.0, 5, 0.05, 0, 0, 0.0), Timbre(3.5, 1.0, 0.12, 0.3, 0.0, 40, 0.25, 0, 0, 0.02)),
    "reed": (Timbre(0.8, 0.0, 0.02, 0.0, 0.0, 0, 0.00, 0, 0, 0.0), Timbre(1.6, 0.3, 0.06, 0.2, 0.0, 25, 0.05, 0, 0, 0.02)),
    "bowed": (Timbre(0.7, 0.8, 0.05, 0.0, 0.0, 10, 0.01, 0, 0, 0.0), Timbre(1.3, 1.0, 0.20, 0.2, 0.0, 60, 0.08, 0.5, 0, 0.08)),
    "organ": (Timbre(0.3, 0.5, 0.01, 0.0, 0.0, 0, 0.00, 0, 0, 0.0), Timbre(1.0, 1.0, 0.03, 0.0, 0.0, 15, 0.01, 0, 0, 0.00)),
    "plucked": (Timbre(0.7, 0.7, 0.002, 0.8, 0.1, 0, 0.00, 0, 0, 0.0), Timbre(1.4, 1.0, 0.006, 5.0, 0.8, 10, 0.01, 0, 4e-4, 0.01)),
    "struck": (Timbre(1.0, 0.6, 0.003, 0.6, 0.2, 0, 0.00, 0, 1e-4, 0.0), Timbre(2.0, 1.0, 0.010, 3.0, 0.9, 0, 0.01, 0, 8e-4, 0.00)),
    "sung": (Timbre(0.8, 0.9, 0.04, 0.0, 0.0, 20, 0.01, 0.8, 0, 0.02), Timbre(1.5, 1.0, 0.15, 0.4, 0.0, 90, 0.06, 1.0, 0, 0.12)),
}  # fmt: skip
TESTED = {
    "brass": (Timbre(0.4, 0.9, 0.03, 0.0, 0.0, 0, 0.00, 0, 0, 0.0), Timbre(1.1, 1.0, 0.09, 0.3, 0.0, 30, 0.03, 0.3, 0, 0.03)),
    "bell": (Timbre(0.5, 0.5, 0.001, 0.8, 0.2, 0, 0.00, 0, 0.01, 0.0), Timbre(1.2, 1.0, 0.004, 3.0, 0.9, 0, 0.00, 0, 0.08, 0.00)),
    "chip": (Timbre(0.9, 0.0, 0.001, 0.0, 0.0, 0, 0.00, 0, 0, 0.0), Timbre(1.1, 1.0, 0.004, 2.0, 0.0, 50, 0.00, 0, 0, 0.05)),
    "harp": (Timbre(1.2, 0.4, 0.002, 1.0, 0.3, 0, 0.00, 0, 0, 0.0), Timbre(2.0, 1.0, 0.005, 4.0, 0.6, 0, 0.01, 0, 2e-4, 0.00)),
    "hummed": (Timbre(1.3, 0.8, 0.05, 0.0, 0.0, 10, 0.01, 0.6, 0, 0.03), Timbre(2.2, 1.0, 0.20, 0.3, 0.0, 70, 0.05, 0.9, 0, 0.15)),
}  # fmt: skip


class Player(NamedTuple):
    """An instrument with what it was given for one piece."""

    timbre: Timbre
    formants_hz: tuple[float, ...]
    vibrato_hz: float


class Piece(NamedTuple):
    """What the players of one piece agree on."""

    scale: tuple[int, ...]
    root_hz: float
    beat_s: float


def music(samples: int, random: np.random.Generator, tested: bool = False) -> Sound:
    """So many samples of a piece that starts somewhere in its course. `tested`: on instruments that are kept for tests."""
    instruments = TESTED if tested else TRAINED
    scale = SCALES[int(random.integers(len(SCALES)))]
    piece = Piece(scale, LOWEST_NOTE_HZ * 2.0 ** random.uniform(0.0, OCTAVES), 60.0 / random.uniform(*BEATS_PER_MINUTE))
    out = np.zeros(samples)
    ways = (melody, melody, chords, arpeggio, drone)
    parts = int(random.integers(1, 4))
    for part in random.permutation(len(ways))[:parts]:
        names = sorted(instruments)
        player = hired(instruments[names[int(random.integers(len(names)))]], random)
        out += random.uniform(0.4, 1.0) * ways[part](samples, piece, player, random)
    if random.random() < 0.35:
        out += random.uniform(0.5, 1.5) * drums(samples, piece.beat_s, random)
    return np.asarray(out, np.float32)


def hired(kind: tuple[Timbre, Timbre], random: np.random.Generator) -> Player:
    """One instrument of its kind."""
    least, most = kind
    timbre = Timbre(*(float(random.uniform(low, high)) for low, high in zip(least, most, strict=True)))
    formants_hz = tuple(float(random.uniform(*span)) for span in FORMANTS_HZ)
    return Player(timbre, formants_hz, float(random.uniform(3.5, 7.5)))


def note(player: Player, pitch_hz: float, samples: int, random: np.random.Generator, from_hz: float = 0.0) -> Array:
    """One note, coming from the pitch before it where it glides."""
    timbre = player.timbre
    time_S = np.arange(samples, dtype=np.float32) / SAMPLE_RATE_HZ
    octaves_S = timbre.vibrato_cents / 1200.0 * np.sin(2 * np.pi * player.vibrato_hz * time_S + random.uniform(0, 6.28))
    octaves_S = octaves_S * np.minimum(1.0, time_S / 0.3)
    if from_hz and timbre.glide_s > 0.005:
        octaves_S = octaves_S + np.log2(from_hz / pitch_hz) * np.exp(-time_S / timbre.glide_s)
    phase_S = 2 * np.pi * np.cumsum(pitch_hz * 2.0**octaves_S) / SAMPLE_RATE_HZ
    k_K = np.arange(1, min(MOST_HARMONICS, max(1, int(HIGHEST_HZ / pitch_hz))) + 1)
    times_K = k_K * np.sqrt(1.0 + timbre.stretch * np.square(k_K))
    k_K, times_K = k_K[times_K * pitch_hz < HIGHEST_HZ], times_K[times_K * pitch_hz < HIGHEST_HZ]
    strong_K = k_K**-timbre.slope * np.where(k_K % 2, 1.0, timbre.even) * _vowel(player, times_K * pitch_hz)
    heard_S = np.zeros(samples)
    for k, times, strong in zip(k_K, times_K, strong_K, strict=True):
        fade_S = np.exp(-(timbre.fade + timbre.fade_by_k * k) * time_S)
        heard_S += strong * fade_S * np.sin((times * phase_S + random.uniform(0, 6.28)).astype(np.float32))
    heard_S /= max(1e-9, float(np.sqrt(np.square(strong_K).sum() / 2)))
    heard_S += timbre.breath * np.exp(-timbre.fade * time_S) * random.standard_normal(samples)
    left_S = (samples - np.arange(samples)) / SAMPLE_RATE_HZ
    return np.asarray(heard_S * np.minimum(1.0, time_S / timbre.attack_s) * np.minimum(1.0, left_S / 0.03))


def _vowel(player: Player, hz_K: Array) -> Array:
    """How strong formants make each harmonic."""
    bumps = [
        1.0 / (1.0 + np.square((hz_K - at) / FORMANT_WIDTH_HZ)) / (n + 1) for n, at in enumerate(player.formants_hz)
    ]
    return np.asarray((1.0 - player.timbre.vowel) + player.timbre.vowel * np.sum(bumps, 0))


def melody(samples: int, piece: Piece, player: Player, random: np.random.Generator) -> Array:
    """A walk over the scale, with rests."""
    out, step, before_hz = np.zeros(samples), int(random.integers(len(piece.scale), 3 * len(piece.scale))), 0.0
    at = -int(random.uniform(0.0, piece.beat_s) * SAMPLE_RATE_HZ)
    while at < samples:
        many = max(800, round(piece.beat_s * float(random.choice([0.25, 0.5, 0.5, 1.0, 1.0, 2.0])) * SAMPLE_RATE_HZ))
        if random.random() < 0.88:
            step = int(np.clip(step + random.integers(-3, 4), 0, 3 * len(piece.scale)))
            pitch_hz = _pitch_hz(piece, step)
            lay(out, note(player, pitch_hz, min(many, samples), random, before_hz), at)
            before_hz = pitch_hz
        at += many
    return out


def chords(samples: int, piece: Piece, player: Player, random: np.random.Generator) -> Array:
    """Thirds upon thirds, held for a bar or struck on each beat."""
    out, held = np.zeros(samples), float(random.choice([1.0, 2.0, 4.0]))
    many = max(1600, round(piece.beat_s * held * SAMPLE_RATE_HZ))
    for at in range(-int(random.integers(many)), samples, many):
        step = int(random.integers(2 * len(piece.scale)))
        for third in range(int(random.integers(2, 5))):
            lay(out, note(player, _pitch_hz(piece, step + 2 * third), min(many, samples), random), max(at, 0))
    return out / 2.0


def arpeggio(samples: int, piece: Piece, player: Player, random: np.random.Generator) -> Array:
    """The notes of a chord one after another, again and again."""
    out, base = np.zeros(samples), int(random.integers(2 * len(piece.scale)))
    steps = [base + 2 * n for n in range(int(random.integers(3, 6)))]
    order = random.permutation(len(steps)) if random.random() < 0.3 else np.arange(len(steps))
    many = max(1000, round(piece.beat_s * float(random.choice([0.25, 0.5])) * SAMPLE_RATE_HZ))
    longer = int(random.integers(1, 4))
    for n, at in enumerate(range(0, samples, many)):
        pitch_hz = _pitch_hz(piece, steps[order[n % len(steps)]])
        lay(out, note(player, pitch_hz, min(many * longer, samples), random), at)
    return out


def drone(samples: int, piece: Piece, player: Player, random: np.random.Generator) -> Array:
    """One note or a fifth held throughout, now louder, now softer."""
    out = note(player, piece.root_hz, samples, random)
    if random.random() < 0.5:
        out = out + 0.7 * note(player, piece.root_hz * 1.5, samples, random)
    swell_S = 1.0 + 0.6 * np.sin(2 * np.pi * random.uniform(0.1, 2.0) * np.arange(samples) / SAMPLE_RATE_HZ)
    return np.asarray(out * swell_S)


def drums(samples: int, beat_s: float, random: np.random.Generator) -> Array:
    """A bar of eight, again and again: a deep drum, a snare, a cymbal."""
    out, kit = np.zeros(samples), (_deep(random), _snare(random), _cymbal(random))
    bar = random.random((3, 8)) < np.array([[0.35], [0.25], [0.6]])
    many = max(600, round(beat_s / 2 * SAMPLE_RATE_HZ))
    for n, at in enumerate(range(0, samples, many)):
        for drum, hit in zip(kit, bar[:, n % 8], strict=True):
            if hit:
                lay(out, drum * random.uniform(0.7, 1.0), at)
    return out


def _deep(random: np.random.Generator) -> Array:
    time_S = np.arange(SAMPLE_RATE_HZ // 4) / SAMPLE_RATE_HZ
    low, high = random.uniform(40, 80), random.uniform(100, 300)
    hz_S = low + high * np.exp(-time_S * random.uniform(20, 50))
    return np.asarray(
        2.5 * np.exp(-time_S * random.uniform(8, 25)) * np.sin(2 * np.pi * np.cumsum(hz_S) / SAMPLE_RATE_HZ)
    )


def _snare(random: np.random.Generator) -> Array:
    time_S = np.arange(SAMPLE_RATE_HZ // 5) / SAMPLE_RATE_HZ
    skin_S = np.sin(2 * np.pi * random.uniform(150, 260) * time_S)
    return np.asarray(np.exp(-time_S * random.uniform(15, 40)) * (skin_S + random.standard_normal(len(time_S))))


def _cymbal(random: np.random.Generator) -> Array:
    time_S = np.arange(SAMPLE_RATE_HZ // 8) / SAMPLE_RATE_HZ
    hiss_S = np.diff(random.standard_normal(len(time_S) + 1))
    return np.asarray(0.5 * np.exp(-time_S * random.uniform(25, 90)) * hiss_S)


def _pitch_hz(piece: Piece, step: int) -> float:
    octave, degree = divmod(step, len(piece.scale))
    return float(min(2_000.0, piece.root_hz * 2.0 ** (octave + piece.scale[degree] / 12.0)))


def lay(out: Array, sound: Array, at: int) -> None:
    """Adds the sound from there on, as far as it is within."""
    begin, end = max(at, 0), min(at + len(sound), len(out))
    if begin < end:
        out[begin:end] += sound[begin - at : end - at]
