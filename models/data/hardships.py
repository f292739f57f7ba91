"""Test recordings made hard by what no training heard: noises and rooms held out, and a codec that is never trained with."""

import io
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import soundfile
import soxr

from clser.models.data.augment import add_noise
from clser.models.data.cache import Take
from clser.models.data.clips import Sound, read_sound
from clser.models.data.rooms import in_room, made_up
from clser.models.data.takes import clean_take
from clser.models.data.unvoiced import recordings
from clser.models.errors import MissingError
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.plan import Takes

VERSION = 1
"""Counts up when the same recordings would give other sounds."""
SNR_DB = 10.0
NOISE, ROOM, CODEC = "noise_10db", "room", "codec"
HALL_S = 1.2
"""What takes longer than this to fall by 60 dB is a hall: nobody talks to an assistant in one."""
ROOMS, ROOMS_SEED = 8, 20_000
RT60_S, DIRECT_DB = (0.4, 0.9), (-6.0, 3.0)
NARROW_HZ = 8_000
GSM_FRAME_SAMPLES = 320
"""A WAV file packs two frames of GSM 6.10 together."""

Change = Callable[[Sound, np.random.Generator], Sound]


def hardships(corpora: Path, takes: Takes) -> dict[str, Take]:
    """Takes upon the clean one, by name. `noise_10db` is left out where no noise was held out."""
    noises = [read_sound(clip) for clip in recordings(corpora / "noise", takes.held_out, tested=True)]
    rooms = lived_in([read_sound(clip) for clip in recordings(corpora / "rir", takes.held_out, tested=True)])
    found = {}
    if noises:
        found[NOISE] = _take(f"{NOISE} {_digest(noises)}", lambda sound, random: noisy(sound, noises, random))
    found[ROOM] = _take(f"{ROOM} {_digest(rooms)}", lambda sound, random: in_room(sound, rooms, random))
    found[CODEC] = _take(f"{CODEC} gsm", lambda sound, random: gsm(sound))
    return found


def noisy(sound: Sound, noises: Sequence[Sound], random: np.random.Generator) -> Sound:
    """One of the noises from somewhere within it, 10 dB under the speech."""
    return add_noise(sound, noises[int(random.integers(len(noises)))], SNR_DB, random)


def lived_in(responses: Sequence[Sound]) -> list[Sound]:
    """Those of rooms, not of halls; and as many made-up rooms beside them as make enough."""
    rooms = [response for response in responses if decay_s(response) <= HALL_S]
    random = np.random.default_rng(ROOMS_SEED)
    while len(rooms) < ROOMS:
        rooms.append(made_up(float(random.uniform(*RT60_S)), float(random.uniform(*DIRECT_DB)), random))
    return rooms


def decay_s(response: Sound) -> float:
    """Time to fall by 60 dB, as twice the time to fall by 30 (Schroeder's backward integration)."""
    after = np.square(response[int(np.abs(response).argmax()) :], dtype=np.float64)
    left = after[::-1].cumsum()[::-1]
    return 2.0 * int((left > left[0] * 1e-3).sum()) / SAMPLE_RATE_HZ


def gsm(sound: Sound) -> Sound:
    """Through a mobile telephone of the first digital kind: GSM 6.10, 13 kbit/s at 8 kHz; same length, no delay."""
    if "GSM610" not in soundfile.available_subtypes("WAV"):
        raise MissingError(f"libsndfile {soundfile.__libsndfile_version__} has no GSM 6.10; take one built with it")
    if not len(sound):
        return sound
    narrow = soxr.resample(np.clip(sound, -1.0, 1.0), SAMPLE_RATE_HZ, NARROW_HZ)
    whole = np.pad(narrow, (0, -len(narrow) % GSM_FRAME_SAMPLES))
    file = io.BytesIO()
    soundfile.write(file, np.clip(whole, -1.0, 1.0), NARROW_HZ, format="WAV", subtype="GSM610")
    file.seek(0)
    heard = soxr.resample(soundfile.read(file, dtype="float32")[0], NARROW_HZ, SAMPLE_RATE_HZ)[: len(sound)]
    return np.ascontiguousarray(np.pad(heard, (0, len(sound) - len(heard))), np.float32)


def _take(config: str, hard: Change) -> Take:
    clean = clean_take()
    cut = clean.change
    assert cut is not None

    def change(sound: Sound, index: int, random: np.random.Generator) -> Sound:
        heard = hard(cut(sound, index, random), random)
        # As a recorder is turned down, not as one that clips: that would be another hardship.
        return np.asarray(heard / max(1.0, float(np.abs(heard).max(initial=0.0))), np.float32)

    return Take(clean.number, f"v{VERSION} {clean.config}, {config}", change)


def _digest(sounds: Sequence[Sound]) -> str:
    whole = blake2b(digest_size=8)
    for sound in sounds:
        whole.update(f"{len(sound)} ".encode() + np.ascontiguousarray(sound).tobytes())
    return whole.hexdigest()
