"""Sound whose every onset and offset is known: phrases laid over faint noise, with gaps, from a seed.

Phrases come from the corpora (trimmed to what sounds, so that the labels are the sound's and not the file's), or from
the bundled clip, whose labels are exact.
"""

from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from clser.clients.clips import demo_clip, demo_segments
from clser.engine.errors import GivenError, MissingError
from clser.engine.records import SAMPLE_RATE_HZ, Samples, samples
from clser.models.data.corpora import read_clips, spoken_in

Sound = NDArray[np.float32]

PACKET = samples(20)
NOISE_DBFS = -65.0
PEAK = 0.9
LEVEL_DB = 6.0
"""Phrases are louder or softer by up to so much, at random."""
SOUNDING_DB = 30.0
"""A window sounds when it is within so much of the clip's loud ones (95th percentile)."""
WINDOW, HOP = samples(20), samples(5)
LEAST_RUN = 6
"""Windows in a row that must sound: clicks do not count."""
PAUSE_S = (0.05, 0.25)
"""Between phrases of somebody who talks all the time."""
SEAM_S = 1.0
"""Ends a scene that is played in a circle and has to sound alike in each round: long enough to end any utterance."""
STEP = 8
"""Packets after which frames of all networks (20 and 32 ms) begin together again."""
PHRASE_S = (0.7, 4.0)
"""Clips that sound for less or more than this are left out of scenes."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Where its sound begins and ends, in samples of the scene."""

    onset: int
    offset: int
    name: str


@dataclass(frozen=True, slots=True)
class Take:
    """A phrase before it is laid anywhere: all of it sounds."""

    name: str
    sound: Sound


@dataclass(frozen=True, slots=True)
class Scene:
    sound: Samples
    """A whole number of packets."""
    phrases: tuple[Phrase, ...]
    source: str

    @property
    def packets(self) -> int:
        return len(self.sound) // PACKET

    @property
    def duty(self) -> float:
        return sum(phrase.offset - phrase.onset for phrase in self.phrases) / len(self.sound)


def spaced(takes: list[Take], count: int, gap_s: tuple[float, float], seed: int, source: str) -> Scene:
    """`count` phrases one after the other, far enough apart that each is an utterance of its own."""
    random = np.random.default_rng(seed)
    order = _shuffled(takes, count, random)
    gaps = [1.0, *random.uniform(*gap_s, count - 1), 1.5]
    return _lay(order, gaps, random, source)


def talking(takes: list[Take], duty: float, least_s: float, seed: int, source: str) -> Scene:
    """A scene of at least `least_s` to be played in a circle. At duty 1, phrases with natural pauses and nothing else."""
    if not 0.05 <= duty <= 1.0:
        raise GivenError(f"--duty {duty}: give a share of time from 0.05 to 1")
    random = np.random.default_rng(seed)
    order: list[Take] = []
    gaps = [float(random.uniform(*PAUSE_S))]
    length_s = gaps[0]
    while length_s < least_s:
        for take in _shuffled(takes, len(takes), random):
            phrase_s = len(take.sound) / SAMPLE_RATE_HZ
            wait_s = phrase_s * (1 - duty) / duty * random.uniform(0.7, 1.3)
            order.append(take)
            gaps.append(float(wait_s + random.uniform(*PAUSE_S)))
            length_s += phrase_s + gaps[-1]
            if length_s >= least_s:
                break
    return _lay(order, gaps, random, source)


def circle(scene: Scene, seed: int) -> Scene:
    """The scene with a pause behind it, to a whole number of steps: every round of it is cut into the same frames."""
    step = STEP * PACKET
    tail = samples(SEAM_S * 1000)
    tail += -(len(scene.sound) + tail) % step
    faint = np.float32(10 ** (NOISE_DBFS / 20)) * np.random.default_rng(seed).standard_normal(tail, dtype=np.float32)
    return Scene(np.concatenate((scene.sound, to_s16(faint))), scene.phrases, scene.source)


def phases(packets: int, streams: int) -> tuple[int, ...]:
    """Where in a scene of so many packets each of the streams begins: evenly, at whole steps."""
    return tuple(stream * packets // streams // STEP * STEP for stream in range(streams))


def find_takes(corpora: Path | None, most: int, seed: int) -> tuple[list[Take], str]:
    """Phrases, and in a word where they come from."""
    if corpora is None:
        return bundled_takes(), "bundled clip"
    random = np.random.default_rng(seed)
    piles = [[clip for clip in read_clips(corpora, [name]) if not clip.truncated] for name in spoken_in(corpora)]
    if not piles:
        raise MissingError(f"--corpora {corpora}: no folder in it has a manifest.csv with emotions")
    paths = [[pile[at].path for at in random.permutation(len(pile))] for pile in piles]
    takes: list[Take] = []
    for path in (path for row in zip(*paths, strict=False) for path in row):  # one of each corpus in turn
        take = _take(path)
        if take is not None:
            takes.append(take)
        if len(takes) >= most:
            break
    return takes, "corpora"


def bundled_takes() -> list[Take]:
    sound = read_sound(demo_clip())
    return [
        Take(
            f"{segment.voice} {segment.played}",
            sound[round(segment.start_s * SAMPLE_RATE_HZ) : round(segment.end_s * SAMPLE_RATE_HZ)],
        )
        for segment in demo_segments()
    ]


def read_sound(path: Path) -> Sound:
    """16 kHz, one channel, in -1..1."""
    try:
        sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise GivenError(f"{path}: it cannot be read as sound ({error})") from error
    if rate_hz != SAMPLE_RATE_HZ:
        raise GivenError(f"{path}: {rate_hz} Hz; the benchmarks take {SAMPLE_RATE_HZ} Hz")
    return np.ascontiguousarray(sound[:, 0])


def window_levels_db(sound: Sound) -> NDArray[np.float64]:
    """Level of each window of 20 ms, one every 5 ms."""
    if len(sound) < WINDOW:
        return np.zeros(0)
    power = np.concatenate(([0.0], np.cumsum(np.square(sound, dtype=np.float64))))
    starts = np.arange(0, len(sound) - WINDOW + 1, HOP)
    return np.asarray(10 * np.log10(np.maximum((power[starts + WINDOW] - power[starts]) / WINDOW, 1e-12)))


def sounding(sound: Sound) -> NDArray[np.bool_]:
    """Which windows of a clean clip hold sound, runs shorter than a click left out."""
    levels = window_levels_db(sound)
    if not levels.size or float(levels.max()) < -70:
        return np.zeros(levels.size, np.bool_)
    loud = levels >= np.percentile(levels, 95) - SOUNDING_DB
    edges = np.flatnonzero(np.diff(np.concatenate(([False], loud, [False])).astype(np.int8)))
    for start, end in edges.reshape(-1, 2):
        if end - start < LEAST_RUN:
            loud[start:end] = False
    return np.asarray(loud)


def bounds(sound: Sound) -> tuple[int, int] | None:
    """First and last sounding sample of a clean clip."""
    at = np.flatnonzero(sounding(sound))
    if not at.size:
        return None
    # a window says no better where within it the sound begins: take its middle
    return int(at[0]) * HOP + WINDOW // 2, int(at[-1]) * HOP + WINDOW // 2


def to_s16(sound: Sound) -> Samples:
    return np.asarray(np.clip(np.round(sound * 32768.0), -32768, 32767), np.int16)


def from_s16(sound: Samples) -> Sound:
    return np.asarray(sound * np.float32(1 / 32768), np.float32)


def _take(path: Path) -> Take | None:
    sound = read_sound(path)
    found = bounds(sound)
    if found is None or not PHRASE_S[0] <= (found[1] - found[0]) / SAMPLE_RATE_HZ <= PHRASE_S[1]:
        return None
    return Take(f"{path.parent.name}/{path.stem}", sound[found[0] : found[1]])


def _shuffled(takes: list[Take], count: int, random: np.random.Generator) -> list[Take]:
    """All in a new order, over and over."""
    order = [takes[at] for at in random.permutation(len(takes))]
    return list(islice(cycle(order), count))


def _lay(order: list[Take], gaps_s: list[float], random: np.random.Generator, source: str) -> Scene:
    """`gaps_s` has one more entry than there are takes: before, between, after."""
    parts: list[Sound] = []
    phrases: list[Phrase] = []
    at = 0
    for take, gap_s in zip(order, gaps_s, strict=False):
        silence = np.zeros(samples(gap_s * 1000), np.float32)
        gain = 10 ** (random.uniform(-LEVEL_DB, LEVEL_DB) / 20)
        loudest = float(np.abs(take.sound).max())
        sound = take.sound * np.float32(min(gain, PEAK / max(loudest, 1e-6)))
        onset = at + len(silence)
        at = onset + len(sound)
        phrases.append(Phrase(onset, at, take.name))
        parts += [silence, sound]
    tail = samples(gaps_s[-1] * 1000)
    parts.append(np.zeros(tail + -(at + tail) % PACKET, np.float32))
    scene = np.concatenate(parts)
    scene += np.float32(10 ** (NOISE_DBFS / 20)) * random.standard_normal(len(scene), dtype=np.float32)
    return Scene(to_s16(scene), tuple(phrases), source)
