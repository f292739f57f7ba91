"""A voice of our own as a frozen speech encoder: `hub:clser/NAME` is a shipped one, `hub:FOLDER` a trained one.

It fills the socket of HuBERT and its like where none of them can be had: frames of 20 ms, a choice of layers. What it was
trained on is known, so what is tested behind it can be kept apart. It hears a recording from its beginning on.

Letters: B rows, S samples, T frames of the voice, U frames of 20 ms, D channels.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clser.models import saved
from clser.models.encoders.hub_frames import HUB_SAMPLES, SHIPPED
from clser.models.encoders.layers_of import Fusion, Layers, chosen
from clser.models.errors import GivenError, MissingError
from clser.models.features.fronts import front
from clser.models.systems import Listening
from clser.models.tensors import Sequences, real


def own_file(name: str) -> Path | None:
    """The weights behind a name, if it names a voice of ours."""
    if name.startswith(SHIPPED):
        path = Path(str(files("clser.models.weights"))) / f"{name.removeprefix(SHIPPED)}.safetensors"
        if not path.is_file():
            raise MissingError(f"{name}: no such voice is shipped; look into `clser-models list`")
        return path
    path = Path(name).expanduser() / saved.FILE
    # A checkpoint of the hub has a file of that name too, and a config.json beside it.
    return path if path.is_file() and not (path.parent / "config.json").exists() else None


class OwnSpeech(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """pcm_BS and samples_B -> `Sequences`. Each frame of the voice stands as often as it has 20 ms."""

    samples = HUB_SAMPLES

    def __init__(self, system: Listening, layers: Layers = "last", fusion: str = "mean") -> None:
        super().__init__()
        self.system = system
        self.times = system.frame_samples // HUB_SAMPLES
        self.fronts = nn.ModuleList([front(name) for name in system.fronts])
        self.numbers = chosen(layers, system.listen_depth)
        self.fusion = Fusion(1 if self.numbers is None else len(self.numbers), fusion)
        self.width = system.listen_width * self.fusion.times
        self.requires_grad_(False)

    def forward(self, pcm_BS: Tensor, samples_B: Tensor) -> Sequences:
        whole = pcm_BS.shape[1] // self.system.frame_samples
        frames_B = torch.div(samples_B, self.system.frame_samples, rounding_mode="floor")
        if whole == 0:
            return Sequences(pcm_BS.new_zeros(len(pcm_BS), 1, self.width), frames_B)
        pcm_BS = pcm_BS[:, : whole * self.system.frame_samples]
        given = {}
        for name, each in zip(self.system.fronts, self.fronts, strict=True):
            ratio = self.system.frame_samples // each.samples
            x_BTF, _ = each(pcm_BS, frames_B * ratio, each.start(len(pcm_BS)))
            given[name] = Sequences(x_BTF, frames_B * ratio)
        layers = self.system.listen(given)
        y_BTD = self.fusion([layers[k] for k in (self.numbers or (self.system.listen_depth,))])
        y_BTD = y_BTD * real(frames_B, whole)[..., None]
        return Sequences(y_BTD.repeat_interleave(self.times, 1), frames_B * self.times)

    def shorten(self, dtype: torch.dtype) -> None:
        """It is small: it stays as precise as it is."""


def open_own(path: Path, layers: Layers = "last", fusion: str = "mean") -> OwnSpeech:
    """The voice in that file as an encoder."""
    system: Any = saved.load(path)[0]
    _check(system, path)
    encoder: OwnSpeech = OwnSpeech(system, layers, fusion).eval()
    return encoder


def own_width(path: Path) -> int:
    """How wide one layer of it is."""
    with torch.random.fork_rng(devices=[]):  # whoever asks is about to draw weights of its own
        system: Any = saved.load(path)[0]
    _check(system, path)
    return int(system.listen_width)


def _check(system: Any, path: Path) -> None:
    if not hasattr(system, "listen"):
        raise GivenError(f"{path}: the system {type(system).__name__} gives no frames; give one of the system voice")
    assert system.frame_samples % HUB_SAMPLES == 0
