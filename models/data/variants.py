"""The features of every clip, once as it is and in several disturbed takes, kept on disk as half-precision floats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clser.models.data.augment import Sound, disturb, speech_bounds
from clser.models.data.corpora import Clip, Recordings
from clser.models.features.constants import FRAME_SAMPLES, SAMPLE_RATE_HZ
from clser.models.features.logmel import LogMel

LEAD_S, TRAIL_S = 0.3, 0.15
"""How much an engine leaves before and after speech."""
EMODB_S = 2.0
"""Some classes of EmoDB are cut at this length, so in training all are."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The features [frames, F] of all clips end to end, and where each clip's begin."""

    features: np.ndarray[Any, np.dtype[np.float16]]
    starts: np.ndarray[Any, np.dtype[np.int64]]

    def clip(self, index: int) -> np.ndarray[Any, np.dtype[np.float16]]:
        """One clip's features."""
        return self.features[self.starts[index] : self.starts[index + 1]]


def clean(clips: Sequence[Clip], recordings: Recordings, cache: Path) -> Variant:
    """The recordings cut about their speech as an engine cuts utterances, else as they are: what is tested on."""

    def cut(index: int) -> Sound:
        sound = recordings.clip(index)
        first, last = speech_bounds(sound)
        return sound[max(0, first - round(LEAD_S * SAMPLE_RATE_HZ)) : last + round(TRAIL_S * SAMPLE_RATE_HZ)]

    return _variant(cache / "clean", cut, len(clips))


def disturbed(
    clips: Sequence[Clip], recordings: Recordings, noises: Sequence[Sound], number: int, cache: Path
) -> Variant:
    """Take `number` of every recording: what is trained on."""

    def take(index: int) -> Sound:
        sound = recordings.clip(index)
        if clips[index].corpus == "emodb":
            sound = sound[: round(EMODB_S * SAMPLE_RATE_HZ)]
        return disturb(sound, noises, np.random.default_rng((number, index)))

    return _variant(cache / f"take{number}", take, len(clips))


def _variant(stem: Path, sound_of: Callable[[int], Sound], clips: int) -> Variant:
    features_path, starts_path = stem.with_suffix(".features.npy"), stem.with_suffix(".starts.npy")
    if not starts_path.exists():
        logmel = LogMel()
        with torch.inference_mode():
            parts = [_features(logmel, sound_of(index)) for index in range(clips)]
        np.save(features_path, np.concatenate(parts))
        np.save(starts_path, np.cumsum([0, *(len(part) for part in parts)]))
    variant = Variant(np.load(features_path, mmap_mode="r"), np.load(starts_path))
    if len(variant.starts) - 1 != clips:
        raise ValueError(f"{stem} holds {len(variant.starts) - 1} clips, the manifests {clips}: remove its files")
    return variant


def _features(logmel: LogMel, sound: Sound) -> np.ndarray[Any, np.dtype[np.float16]]:
    whole = len(sound) // FRAME_SAMPLES * FRAME_SAMPLES
    features, _ = logmel(torch.from_numpy(sound[None, :whole]), logmel.start(1))
    return np.asarray(features[0].numpy().astype(np.float16))
