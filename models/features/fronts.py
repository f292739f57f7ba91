"""What turns sound into frames, by name.

Letters: B rows, S samples, T frames, F numbers of a frame.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from clser.models.errors import GivenError
from clser.models.features import prosody
from clser.models.features.cepstra import lpcc, mfcc, mfcc_static
from clser.models.features.disvoice_track import DisvoiceTrack
from clser.models.features.dynamics import Dynamics
from clser.models.features.functionals import WindowFunctionals
from clser.models.features.logmel import LogMel
from clser.models.features.prosody import Prosody
from clser.models.features.spectrogram import spectrogram


class Front(Protocol):
    """An nn.Module with these. Causal: a frame hears nothing after its end, and zeros before the first sample."""

    samples: int
    """Sound in one frame."""
    width: int
    """Numbers in one frame."""

    def start(self, rows: int) -> Any:
        """The state before the first sample."""

    def __call__(self, pcm_BS: Tensor, frames_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        """[B, T, F] of pcm_BS [B, T*samples], -1..1 at 16 kHz, and the state after each row's own `frames_B` frames."""


WINDOW_FRAMES, STEP_FRAMES = 20, 10
OF_THE_VOICE = ("log_f0", "jitter", "shimmer", "hnr")
"""What an unvoiced frame says nothing of."""


class ProsodyWindowsState(NamedTuple):
    """Zeros: nothing was heard yet."""

    track: Any
    windows: Any


class ProsodyWindows(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A front: every 100 ms, statistics of the prosody track's last 200 ms; those of the voice over voiced frames only."""

    def __init__(self) -> None:
        super().__init__()
        self.track = Prosody()
        voicing = prosody.FIELDS.index("voicing")
        by = {prosody.FIELDS.index(field): voicing for field in OF_THE_VOICE}
        self.windows = WindowFunctionals(self.track.width, WINDOW_FRAMES, STEP_FRAMES, by)
        self.samples, self.width = STEP_FRAMES * self.track.samples, self.windows.width

    def start(self, rows: int) -> ProsodyWindowsState:
        """The state before the first sample."""
        return ProsodyWindowsState(self.track.start(rows), self.windows.start(rows))

    def forward(
        self, pcm_BS: Tensor, frames_B: Tensor, state: ProsodyWindowsState
    ) -> tuple[Tensor, ProsodyWindowsState]:
        """The functionals of each window, and the state after each row's own `frames_B` windows."""
        track_BTF, track = self.track(pcm_BS, frames_B * STEP_FRAMES, state.track)
        x_BTF, windows = self.windows(track_BTF, frames_B * STEP_FRAMES, state.windows)
        return x_BTF, ProsodyWindowsState(track, windows)


FRONTS: MappingProxyType[str, Callable[[], Front]] = MappingProxyType(
    {
        "logmel": LogMel,
        "mfcc_25_10": partial(mfcc, window_samples=400, hop_samples=160),
        "mfcc_40_20": partial(mfcc, window_samples=640, hop_samples=320),
        "mfcc40_40_20": partial(mfcc_static, window_samples=640, hop_samples=320, numbers=40, bands=64),
        "lpcc_25_10": partial(lpcc, window_samples=400, hop_samples=160),
        "lpcc_40_20": partial(lpcc, window_samples=640, hop_samples=320),
        "spectrogram_40_20": partial(spectrogram, window_samples=640, hop_samples=320),
        "prosody": Prosody,
        "prosody_windows": ProsodyWindows,
        "disvoice_track": DisvoiceTrack,
        "dynamics": Dynamics,
    }
)
OPTIONAL: MappingProxyType[str, Callable[[], Front]] = MappingProxyType(
    {f"dynamics_{f0}": partial(Dynamics, f0=f0) for f0 in ("crepe", "crepe_tiny", "swift")}
)
"""Those that need a package which is not asked for otherwise."""

VERSIONS = {
    "logmel": 1,
    "mfcc": 1,
    "mfcc40": 1,
    "lpcc": 1,
    "spectrogram": 1,
    "prosody": 1,
    "dynamics": 1,
    "disvoice": 1,
}
"""By the first word of a name. To be raised with every change of the numbers, so that no cache gives the old ones."""


def front(name: str) -> Front:
    """A new front of that name."""
    return _constructor(name)()


def digest(name: str) -> str:
    """16 hexadecimal digits that change with whatever changes the numbers of that front."""
    make = _constructor(name)
    made = make()
    about = {
        "name": name,
        "version": VERSIONS[name.split("_", maxsplit=1)[0]],
        "settings": make.keywords if isinstance(make, partial) else {},
        "samples": made.samples,
        "width": made.width,
        "windows": [WINDOW_FRAMES, STEP_FRAMES, *OF_THE_VOICE] if name == "prosody_windows" else [],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _constructor(name: str) -> Callable[[], Front]:
    known = {**FRONTS, **OPTIONAL}
    if name not in known:
        raise GivenError(f"front {name!r}: there is none of this name; choose one of {', '.join(FRONTS)}")
    return known[name]
