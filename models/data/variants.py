"""Which sounds a system is trained and tested on, and their features: clean clips, and takes as rooms and phones make them.

All is kept in a `FeatureCache`; the same clip and take give the same sound to every front.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clser.models.data.augment import (
    GAIN_DB,
    SNR_DB,
    SPEED,
    Sound,
    add_noise,
    at_speed,
    cut_to_speech,
    held_out_files,
    speech_bounds,
)
from clser.models.data.augment import LEAD_S as TAKE_LEAD_S
from clser.models.data.augment import TRAIL_S as TAKE_TRAIL_S
from clser.models.data.cache import FeatureCache, Features, Report, Take
from clser.models.data.clips import Clip, read_sound
from clser.models.data.codecs import coded
from clser.models.data.manifests import read_manifest
from clser.models.data.rooms import in_room
from clser.models.data.stacks import Stacking
from clser.models.features import fronts
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.plan import Takes

LEAD_S, TRAIL_S = 0.3, 0.15
"""How much an engine leaves before and after speech."""
VERSION = 1
"""Counts up when the same settings would give other sounds."""
HUB = "hub:"

Array = np.ndarray[Any, Any]


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
    number: int, clips: Sequence[Clip], takes: Takes, around: Surroundings, stacking: Stacking | None = None
) -> Take:
    """Take `number` of every recording: what is trained on. In one take a speaker keeps the room, the microphone's gain
    and the codec, so that what other clips tell of the speaker holds for this one."""
    longest_s = limits_s(clips)
    noises, rooms = list(around.noises.values()), list(around.rooms.values())

    def change(sound: Sound, index: int, random: np.random.Generator) -> Sound:
        clip = clips[index]
        if stacking is not None:
            sound = stacking(sound, index, random)
        if clip.corpus in longest_s:
            sound = sound[: round(longest_s[clip.corpus] * SAMPLE_RATE_HZ)]
        sound = cut_to_speech(sound, random.uniform(0.0, TAKE_LEAD_S), random.uniform(0.0, TAKE_TRAIL_S), random)
        sound = at_speed(sound, random.uniform(1.0 - SPEED, 1.0 + SPEED))
        theirs = _of_speaker(number, clip)
        gain = 10.0 ** (theirs.uniform(-GAIN_DB, GAIN_DB) / 20.0)
        in_a_room, through_a_codec = theirs.random(2) < (takes.rooms, takes.codecs)
        if in_a_room:
            sound = in_room(sound, rooms, theirs)
        if noises and random.random() < takes.noise:
            sound = add_noise(sound, noises[int(random.integers(len(noises)))], random.uniform(*SNR_DB), random)
        sound = np.asarray(np.clip(sound * gain, -1.0, 1.0), np.float32)
        return coded(sound, theirs) if through_a_codec else sound

    config = f"v{VERSION} {takes.noise} {takes.rooms} {takes.codecs} {around.digest} {longest_s}"
    if stacking is None:
        return Take(number, config, change)
    # Who may follow hangs on the fold: nobody who is tested is heard in training.
    partners = blake2b(repr(sorted(stacking.partners.indices)).encode(), digest_size=8).hexdigest()
    return Take(number, f"{config} {stacking.chance} {partners}", change, alone=False)


def _of_speaker(number: int, clip: Clip) -> np.random.Generator:
    name = repr((number, clip.who if clip.speaker else clip.name)).encode()
    return np.random.default_rng(int.from_bytes(blake2b(name, digest_size=8).digest()))


def by_front(
    names: Sequence[str], clips: Sequence[Clip], take: Take, cache: FeatureCache, report: Report | None
) -> dict[str, Features]:
    """The features of all clips of one take, front by front."""
    return {name: cache.features(clips, key_of(name), compute_of(name), take, report) for name in names}


def key_of(name: str) -> str:
    """A front's name in the cache: another way to compute it is another front."""
    if name.startswith(HUB):
        return f"hub-{blake2b(name.encode(), digest_size=8).hexdigest()}"
    return f"{name}-{fronts.digest(name)}"


def samples_of(name: str) -> int:
    """Sound in one of its frames."""
    return _encoder(name).samples if name.startswith(HUB) else fronts.front(name).samples


def compute_of(name: str) -> Callable[[Sound], Array]:
    """Sound to [frames, width]."""
    if name.startswith(HUB):
        return _pretrained(name)
    front: Any = fronts.front(name)

    def compute(sound: Sound) -> Array:
        frames = len(sound) // front.samples
        if frames == 0:
            return np.zeros((0, front.width), np.float32)
        with torch.inference_mode():
            pcm_BS = torch.from_numpy(np.ascontiguousarray(sound[None, : frames * front.samples]))
            x_BTF, _ = front(pcm_BS, torch.tensor([frames]), front.start(1))
        return np.asarray(x_BTF[0].numpy())

    return compute


@lru_cache(maxsize=2)
def _encoder(name: str) -> Any:
    from clser.models.encoders.pretrained_speech import open_speech  # noqa: PLC0415 - loads transformers

    return open_speech(name.removeprefix(HUB)).eval()


def _pretrained(name: str) -> Callable[[Sound], Array]:
    def compute(sound: Sound) -> Array:
        encoder = _encoder(name)
        with torch.inference_mode():
            x_BTD, length_B = encoder(torch.from_numpy(sound[None]), torch.tensor([len(sound)]))
        return np.asarray(x_BTD[0, : int(length_B[0])].float().numpy())

    return compute


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
