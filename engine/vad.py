"""Speech probability of a frame -> voiced or not, with hysteresis. Pure; the networks live in backends/."""

import math
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

SILENCE_DBFS = -100.0
Share = Annotated[float, Meta(ge=0, le=1)]


class VadConfig(Struct, frozen=True, forbid_unknown_fields=True):
    network: Literal["silero", "webrtc"] = "silero"
    on: Share = 0.5
    """A frame at or above this is voiced."""
    off: Share = 0.35
    """Once voiced, frames stay so down to this."""
    webrtc_mode: Annotated[int, Meta(ge=0, le=3)] = 2
    """How eagerly WebRTC's network rejects: 0 hears most, 3 rejects most."""


class Gate:
    """Two thresholds instead of one, so that a probability hovering at a single one does not chatter."""

    def __init__(self, config: VadConfig) -> None:
        self._on = config.on
        self._off = min(config.off, config.on)
        self._voiced = False

    def push(self, probability: float) -> bool:
        self._voiced = probability >= (self._off if self._voiced else self._on)
        return self._voiced

    def reset(self) -> None:
        self._voiced = False


def levels_dbfs(frames: NDArray[np.int16]) -> list[float]:
    """Root mean square of each row, in dB below full scale."""
    sound = frames.astype(np.float32)  # for few rows, which is what there mostly are, this is the quickest way
    powers = (float(row @ row) / (len(row) * 32768.0**2) for row in sound)
    return [round(max(10 * math.log10(max(power, 1e-12)), SILENCE_DBFS), 1) for power in powers]
