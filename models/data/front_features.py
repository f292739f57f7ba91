"""The features of clips, front by front, whether ours or a pretrained encoder's; kept in a `FeatureCache`."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from clser.models import saved
from clser.models.data.cache import FeatureCache, Features, Report, Take
from clser.models.data.clips import Clip, Sound
from clser.models.encoders.hub_frames import is_hub, taken_apart
from clser.models.encoders.own_speech import own_file
from clser.models.features import fronts

Array = np.ndarray[Any, Any]


def by_front(
    names: Sequence[str], clips: Sequence[Clip], take: Take, cache: FeatureCache, report: Report | None
) -> dict[str, Features]:
    """The features of all clips of one take, front by front."""
    return {name: cache.features(clips, key_of(name), compute_of(name), take, report) for name in names}


def key_of(name: str) -> str:
    """A front's name in the cache: another way to compute it is another front."""
    if is_hub(name):
        own = own_file(taken_apart(name)[0])
        told = name if own is None else f"{name} {saved.about_of(own).digest}"
        return f"hub-{blake2b(told.encode(), digest_size=8).hexdigest()}"
    return f"{name}-{fronts.digest(name)}"


def samples_of(name: str) -> int:
    """Sound in one of its frames."""
    return _encoder(name).samples if is_hub(name) else fronts.front(name).samples


def compute_of(name: str) -> Callable[[Sound], Array]:
    """Sound to [frames, width]."""
    if is_hub(name):
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
    from clser.models.encoders.pretrained_speech import open_frames  # noqa: PLC0415 - loads transformers

    return open_frames(name).eval()


def _pretrained(name: str) -> Callable[[Sound], Array]:
    def compute(sound: Sound) -> Array:
        encoder = _encoder(name)
        with torch.inference_mode():
            x_BTD, length_B = encoder(torch.from_numpy(sound[None]), torch.tensor([len(sound)]))
        return np.asarray(x_BTD[0, : int(length_B[0])].float().numpy())

    return compute
