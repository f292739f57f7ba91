"""Which sounds a system is trained and tested on: clean clips, and takes of them as rooms and phones make them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from clser.models.data.augment import (
    GAIN_DB,
    SNR_DB,
    SPEED,
    add_noise,
    at_speed,
    cut_to_speech,
    held_out_files,
    ratio,
    speech_bounds,
)
from clser.models.data.augment import LEAD_S as TAKE_LEAD_S
from clser.models.data.augment import TRAIL_S as TAKE_TRAIL_S
from clser.models.data.cache import Take
from clser.models.data.clips import Clip, Sound, read_sound
from clser.models.data.codecs import coded
from clser.models.data.manifests import read_manifest
from clser.models.data.rooms import in_room
from clser.models.data.stacks import Stacked
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.plan import Takes

LEAD_S, TRAIL_S = 0.3, 0.15
"""How much an engine leaves before and after speech."""
VERSION = 1
"""Counts up when the same settings would give other sounds."""


def limits_s(clips: Sequence[Clip]) -> dict[str, float]:
    """Corpora some of whose clips were cut at a length, and that length: unless all are, it gives their class away."""
    found: dict[str, float] = {}
    for clip in clips:
        if clip.truncated:
            found[clip.corpus] = max(found.get(clip.corpus, 0.0), clip.duration_s)
    return found


def clean_take() -> Take:
    """The recordings cut about their speech as an engine cuts utterances, else as they are: what is tested on."""

    def change(sound: Sound, index: int, random: np.random.Generator) -> Sound:
        first, last = speech_bounds(sound)
        return sound[max(0, first - round(LEAD_S * SAMPLE_RATE_HZ)) : last + round(TRAIL_S * SAMPLE_RATE_HZ)]

    return Take(0, f"cut {LEAD_S} {TRAIL_S}", change)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What recordings are disturbed with, by file name."""

    noises: Mapping[str, Sound] = field(default_factory=dict)
    rooms: Mapping[str, Sound] = field(default_factory=dict)
    """Responses; with none, rooms are made up."""

    @property
    def digest(self) -> str:
        """Changes with any of the sounds."""
        whole = blake2b(digest_size=8)
        for kind in (self.noises, self.rooms):
            for name, sound in sorted(kind.items()):
                whole.update(f"{name} {len(sound)} ".encode() + np.ascontiguousarray(sound).tobytes())
            whole.update(b"|")
        return whole.hexdigest()


def disturbed_take(
    number: int, clips: Sequence[Clip], takes: Takes, around: Surroundings, stacked: Stacked | None = None
) -> Take:
    """Take `number` of every recording: what is trained on. In one take a speaker keeps the room, the microphone's gain
    and the codec, so that what other clips tell of the speaker holds for this one."""
    longest_s = limits_s(clips)
    noises, rooms = list(around.noises.values()), list(around.rooms.values())

    def change(sound: Sound, index: int, random: np.random.Generator) -> Sound:
        clip = clips[index]
        if stacked is not None:
            sound = stacked(sound, index, random)
        if clip.corpus in longest_s:
            sound = sound[: round(longest_s[clip.corpus] * SAMPLE_RATE_HZ)]
        sound = cut_to_speech(sound, random.uniform(0.0, TAKE_LEAD_S), random.uniform(0.0, TAKE_TRAIL_S), random)
        sound = at_speed(sound, random.uniform(1.0 - SPEED, 1.0 + SPEED))
        theirs = _of_speaker(number, clip)
        gain = ratio(theirs.uniform(-GAIN_DB, GAIN_DB))
        in_a_room, through_a_codec = theirs.random(2) < (takes.rooms, takes.codecs)
        if in_a_room:
            sound = in_room(sound, rooms, theirs)
        if noises and random.random() < takes.noise:
            sound = add_noise(sound, noises[int(random.integers(len(noises)))], random.uniform(*SNR_DB), random)
        sound = np.asarray(np.clip(sound * gain, -1.0, 1.0), np.float32)
        return coded(sound, theirs) if through_a_codec else sound

    config = f"v{VERSION} {takes.noise} {takes.rooms} {takes.codecs} {around.digest} {longest_s}"
    if stacked is None:
        return Take(number, config, change)
    # Who may follow hangs on the fold: nobody who is tested is heard in training.
    return Take(number, f"{config} stacked {stacked.digest}", change, alone=False)


def _of_speaker(number: int, clip: Clip) -> np.random.Generator:
    name = repr((number, clip.who if clip.speaker else clip.path.name)).encode()
    return np.random.default_rng(int.from_bytes(blake2b(name, digest_size=8).digest()))


def surroundings(folder: Path, takes: Takes) -> Surroundings:
    """The noises and rooms of the corpora folder to train with; a share is kept for tests. None where it has none."""
    if not takes.count:
        return Surroundings()
    return Surroundings(
        _to_train_with(folder / "noise", takes.held_out) if takes.noise else {},
        _to_train_with(folder / "rir", takes.held_out) if takes.rooms else {},
    )


def _to_train_with(folder: Path, share: float) -> dict[str, Sound]:
    if not (folder / "manifest.csv").exists():
        return {}
    by_name = {clip.path.name: clip for clip in read_manifest(folder, labelled=False)}
    train = held_out_files(sorted(by_name), share)[0] if share else sorted(by_name)
    return {name: read_sound(by_name[name]) for name in train}
