"""Sound to try voice activity on: emotional speech laid into noise and rooms, and meetings somebody has labelled by turns."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clser.bench.scene import HOP, WINDOW, Phrase, Scene, Sound, Take, from_s16, read_sound, sounding, spaced, to_s16
from clser.engine.errors import GivenError
from clser.engine.records import SAMPLE_RATE_HZ, Samples

SNRS_DB = (20.0, 10.0, 5.0, 0.0)
CLEAN, ROOM, HALL = "clean", "room", "hall"
HALL_S = 1.2
"""A response that takes longer than this to decay by 60 dB is a hall's."""
SPEECH_RMS = 0.05
GAP_S = (0.8, 2.0)
PHRASES = 9
"""Of each scene; some thirty seconds."""
SCENE_S = 35.0
BED_PIECE_S = 8.0


@dataclass(frozen=True, slots=True)
class Excerpt:
    condition: str
    sound: Samples
    phrases: tuple[Phrase, ...]
    voiced: NDArray[np.bool_]
    """Every 5 ms: is there speech?"""

    def frame_labels(self, frame: int) -> NDArray[np.bool_]:
        """Whether at least half of each frame is speech."""
        count = len(self.sound) // frame
        total = np.concatenate(([0], np.cumsum(np.repeat(self.voiced, HOP)[: count * frame])))
        return np.asarray(np.diff(total[::frame]) * 2 >= frame)


def mixed(takes: list[Take], corpora: Path | None, minutes: float, seed: int) -> list[Excerpt]:
    """The same phrases' kind in every condition: clean, at several distances from noise, in rooms."""
    random = np.random.default_rng(seed)
    noises = _folder(corpora, "noise") or [random.standard_normal(SAMPLE_RATE_HZ * 10).astype(np.float32)]
    rooms: dict[str, list[Sound]] = defaultdict(list)
    for response in _folder(corpora, "rir"):
        rooms[HALL if decay_s(response) > HALL_S else ROOM].append(response)
    takes = [Take(take.name, take.sound * np.float32(SPEECH_RMS / max(_rms(take.sound), 1e-6))) for take in takes]
    conditions = [CLEAN, *(f"{snr:.0f} dB" for snr in SNRS_DB), *sorted(rooms, reverse=True)]
    each = max(1, round(minutes * 60 / SCENE_S / len(conditions)))
    excerpts = []
    for condition in conditions:
        for _ in range(each):
            chosen = [takes[at] for at in random.permutation(len(takes))[:PHRASES]]
            scene = spaced(chosen, PHRASES, GAP_S, int(random.integers(1 << 31)), condition)
            sound = from_s16(scene.sound)
            if condition in rooms:
                sound = in_room(sound, rooms[condition][int(random.integers(len(rooms[condition])))])
            elif condition != CLEAN:
                sound = in_noise(sound, scene, noises, float(condition.split()[0]), random)
            excerpts.append(Excerpt(condition, to_s16(sound), scene.phrases, voiced_of(scene)))
    return excerpts


def voiced_of(scene: Scene) -> NDArray[np.bool_]:
    """Where the clean phrases sound, pauses within them left out."""
    voiced = np.zeros(-(-len(scene.sound) // HOP), np.bool_)
    for phrase in scene.phrases:
        sound = sounding(from_s16(scene.sound[phrase.onset : phrase.offset]))
        half = WINDOW // 2 // HOP  # a window speaks for its middle; the phrase's ends sound by its label
        whole = np.concatenate((np.ones(half, np.bool_), sound, np.ones(half, np.bool_)))
        at = phrase.onset // HOP
        voiced[at : at + len(whole)] = whole
    return voiced


def in_noise(sound: Sound, scene: Scene, noises: list[Sound], snr_db: float, random: np.random.Generator) -> Sound:
    """A bed of several noises, each as strong, so far under the speech (pauses not counted)."""
    bed = np.zeros(len(sound), np.float32)
    piece = round(BED_PIECE_S * SAMPLE_RATE_HZ)
    for start in range(0, len(bed), piece):
        noise = noises[int(random.integers(len(noises)))]
        part = np.resize(np.roll(noise, -int(random.integers(len(noise)))), min(piece, len(bed) - start))
        bed[start : start + piece] = part / max(_rms(part), 1e-6)
    speech = _rms(np.concatenate([sound[phrase.onset : phrase.offset] for phrase in scene.phrases]))
    mix = sound + bed * np.float32(speech * 10 ** (-snr_db / 20))
    return np.asarray(mix / max(1.0, float(np.abs(mix).max())), np.float32)


def in_room(sound: Sound, response: Sound) -> Sound:
    """As heard across a room, the direct sound where it was."""
    size = 1 << (len(sound) + len(response) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)
    direct = int(np.abs(response).argmax())
    wet = wet[direct : direct + len(sound)]
    return np.asarray(wet * (_rms(sound) / max(_rms(wet), 1e-9)) * 0.5, np.float32)


def decay_s(response: Sound) -> float:
    """Time to fall by 60 dB, as twice the time to fall by 30 (Schroeder's backward integration)."""
    after = np.square(response[int(np.abs(response).argmax()) :], dtype=np.float64)
    left = np.cumsum(after[::-1])[::-1]
    below = np.flatnonzero(left < left[0] * 1e-3)
    return 2 * (int(below[0]) if below.size else len(after)) / SAMPLE_RATE_HZ


def meetings(segments: Path, audio: Path) -> list[Excerpt]:
    """A CSV of `file, start_s, end_s[, label]`: one row a turn."""
    turns: dict[str, list[tuple[float, float]]] = defaultdict(list)
    try:
        with segments.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                if row.get("label", "speech") == "speech":
                    turns[row["file"]].append((float(row["start_s"]), float(row["end_s"])))
    except (OSError, KeyError, ValueError) as error:
        raise GivenError(f"--segments {segments}: {error!r}; give a CSV with file, start_s, end_s") from error
    return [_meeting(read_sound(audio / name), sorted(spans)) for name, spans in sorted(turns.items())]


def _meeting(sound: Sound, spans: list[tuple[float, float]]) -> Excerpt:
    voiced = np.zeros(-(-len(sound) // HOP), np.bool_)
    for start_s, end_s in spans:
        voiced[round(start_s * SAMPLE_RATE_HZ / HOP) : round(end_s * SAMPLE_RATE_HZ / HOP)] = True
    edges = np.flatnonzero(np.diff(np.concatenate(([False], voiced, [False])).astype(np.int8))).reshape(-1, 2)
    phrases = tuple(Phrase(int(start) * HOP, int(end) * HOP, "turn") for start, end in edges)
    return Excerpt("meetings", to_s16(sound), phrases, voiced)


def _folder(corpora: Path | None, name: str) -> list[Sound]:
    if corpora is None:
        return []
    return [sound for path in sorted((corpora / name).glob("*.ogg")) if len(sound := read_sound(path)) and sound.any()]


def _rms(sound: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) if len(sound) else 0.0
