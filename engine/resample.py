"""Any rate from 8 to 48 kHz, 1 to 8 channels, s16 or f32, in packets of any size -> 16 kHz mono s16, as one unbroken stream."""

from typing import cast

import numpy as np
import soxr
from numpy.typing import NDArray

from clser.engine.errors import GivenError
from clser.engine.records import SAMPLE_RATE_HZ, SampleFormat, Samples

RATES_HZ = (8_000, 48_000)
CHANNELS = (1, 8)
BYTES = {"s16": 2, "f32": 4}
LOUDEST = 4.0  # times full scale


def check_layout(sample_rate_hz: int, channels: int, sample_format: str) -> None:
    """Raise GivenError unless the engine can take such sound."""
    if not RATES_HZ[0] <= sample_rate_hz <= RATES_HZ[1]:
        raise GivenError(f"sample rate {sample_rate_hz} Hz: give one from {RATES_HZ[0]} to {RATES_HZ[1]}")
    if not CHANNELS[0] <= channels <= CHANNELS[1]:
        raise GivenError(f"{channels} channels: give {CHANNELS[0]} to {CHANNELS[1]}")
    if sample_format not in BYTES:
        raise GivenError(f"sample format {sample_format!r}: give s16 or f32")


def from_bytes(
    pcm: bytes | bytearray | memoryview, channels: int, sample_format: SampleFormat
) -> NDArray[np.int16] | NDArray[np.float32]:
    """Raw little-endian interleaved bytes as [samples, channels]; GivenError unless they are a whole number of samples."""
    whole = BYTES[sample_format] * channels
    if len(pcm) % whole:
        raise GivenError(
            f"{len(pcm)} bytes are not whole samples of {channels} channels in {sample_format}: send multiples of {whole}"
        )
    return np.frombuffer(pcm, "<i2" if sample_format == "s16" else "<f4").reshape(-1, channels)


class Resampler:
    """Turns packets into 16 kHz mono; what it holds back for its filter comes out of `finish`.

    However often the sound breaks off, sample n of the stream stands at n x 16000 / rate, rounded, of what comes out.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        check_layout(sample_rate_hz, channels, "s16")
        self.sample_rate_hz = sample_rate_hz
        self.channels = channels
        self.taken = 0
        """Samples so far in the stream's own rate, those that were skipped too."""
        self._given = 0
        self._stream = self._open()

    def _open(self) -> "soxr.ResampleStream | None":
        if self.sample_rate_hz == SAMPLE_RATE_HZ:
            return None
        return soxr.ResampleStream(self.sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")

    @property
    def held_us(self) -> int:
        """How much sound has gone in that has not come out: the last sample out is older than the last one in by this."""
        if self._stream is None:
            return 0
        return round(1e6 * (self.taken / self.sample_rate_hz - self._given / SAMPLE_RATE_HZ))

    def check(self, data: NDArray[np.int16] | NDArray[np.float32]) -> NDArray[np.int16] | NDArray[np.float32]:
        """The packet as [samples, channels]; GivenError where it is of another layout, or no sound."""
        if data.ndim == 1:
            data = data[:, None]
        if data.ndim != 2 or data.shape[1] != self.channels:
            raise GivenError(
                f"a packet of {data.shape[-1]} channels in a stream of {self.channels}: keep to one layout"
            )
        if data.dtype != np.int16 and data.dtype.kind != "f":
            raise GivenError(f"samples of type {data.dtype}: give int16, or float32 from -1 to 1")
        if data.dtype != np.int16 and not np.isfinite(data).all():
            raise GivenError("the sound holds NaN or infinite samples: check what writes it (f32 samples lie in -1..1)")
        return data

    def push(self, data: NDArray[np.int16] | NDArray[np.float32]) -> Samples:
        """[samples, channels] -> as many 16 kHz samples as are settled by now."""
        return self.convert(self.check(data))

    def convert(self, data: NDArray[np.int16] | NDArray[np.float32]) -> Samples:
        """`push` for what `check` has returned. May be a view of it."""
        self.taken += len(data)
        if data.dtype == np.int16:
            if self._stream is None and self.channels == 1:
                self._given += len(data)
                return cast(Samples, data[:, 0])  # the common case
            mono = data.mean(axis=1, dtype=np.float32) / np.float32(32768.0)
        else:  # a wild sample must not ring on in the filter, nor overflow in the mean
            mono = np.clip(data, -LOUDEST, LOUDEST).mean(axis=1, dtype=np.float32)
        if self._stream is not None:
            mono = self._stream.resample_chunk(mono)
        self._given += len(mono)
        return to_s16(mono)

    def finish(self) -> Samples:
        """What the filter still holds; what comes next is a new stretch of sound."""
        if self._stream is None:
            return np.zeros(0, np.int16)
        rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        out = np.zeros(max(0, self._due() - self._given), np.float32)
        kept = rest[: len(out)]
        out[: len(kept)] = kept
        self._given += len(out)
        self._stream = self._open()
        return to_s16(out)

    def skip(self, missing: int) -> int:
        """Go on behind so many samples that are not there, after `finish`: how many that makes at 16 kHz."""
        self.taken += missing
        lost = self._due() - self._given
        self._given += lost
        return lost

    def _due(self) -> int:
        return round(self.taken * SAMPLE_RATE_HZ / self.sample_rate_hz)


def to_s16(mono: NDArray[np.float32]) -> Samples:
    pcm: Samples = np.clip(np.rint(mono * 32768.0), -32768, 32767).astype(np.int16)
    return pcm
