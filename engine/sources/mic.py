"""A microphone through PortAudio. Its callback runs in PortAudio's thread and does nothing but copy into a ring."""

import asyncio
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from clser.engine.errors import FailedError, MissingError
from clser.engine.logs import log
from clser.engine.resample import RATES_HZ
from clser.engine.sources import SourceSettings

if TYPE_CHECKING:
    from clser.engine.api import Engine

RING_S = 4
BLOCK_S = 0.02
SILENT_DEVICE_S = 2.0  # a device that delivers nothing for so long has been pulled out


def portaudio() -> ModuleType:
    try:
        import sounddevice  # noqa: PLC0415 - loading it loads PortAudio, which many machines lack
    except OSError as error:
        raise MissingError(
            "no microphone without PortAudio: `apt-get install libportaudio2` (or `brew install portaudio`); "
            "file:PATH and stdin work without it"
        ) from error
    module: ModuleType = sounddevice
    return module


def list_devices() -> list[str]:
    """A line for each input."""
    devices = portaudio().query_devices()
    return [
        f"{index:3d}  {device['name']}  ({device['max_input_channels']} channels, {device['default_samplerate']:.0f} Hz)"
        for index, device in enumerate(devices)
        if device["max_input_channels"] > 0
    ]


class Microphone:
    def __init__(self, device: str, name: str, settings: SourceSettings, library: ModuleType | Any) -> None:
        self._library = library
        self._name = name
        self._clock = settings.clock
        self._device: int | str | None = int(device) if device.isdecimal() else (device or None)
        try:
            info = library.query_devices(self._device, "input")
        except (ValueError, library.PortAudioError) as error:
            wanted = f"microphone {device!r}" if device else "microphone"
            raise MissingError(f"no {wanted} here: `clser-stream --list-devices` shows what there is") from error
        rate = round(info["default_samplerate"])
        self.rate_hz = rate if RATES_HZ[0] <= rate <= RATES_HZ[1] else RATES_HZ[1]
        self._store = np.zeros(self.rate_hz * RING_S, np.int16)
        self._written = 0  # by the callback alone
        self._read = 0
        self.flags = 0
        """Blocks that PortAudio marked as late or lost."""
        self._finished = False

    async def run(self, engine: "Engine") -> None:
        stream = engine.open(self._name, sample_rate_hz=self.rate_hz, results=False)
        loop = asyncio.get_running_loop()
        news = asyncio.Event()

        def heard(data: Any, _count: int, _time: Any, status: Any) -> None:
            if status:
                self.flags += 1
            self._write(np.frombuffer(data, np.int16))
            loop.call_soon_threadsafe(news.set)

        def finished() -> None:
            self._finished = True
            loop.call_soon_threadsafe(news.set)

        try:
            device = self._library.RawInputStream(
                samplerate=self.rate_hz,
                blocksize=round(self.rate_hz * BLOCK_S),
                device=self._device,
                channels=1,
                dtype="int16",
                callback=heard,
                finished_callback=finished,
            )
        except self._library.PortAudioError as error:
            raise MissingError(f"the microphone cannot be opened ({error}): is another program using it?") from error
        flags = 0
        with device:
            while True:
                await self._wait(news)
                pcm, missing = self._take()
                if missing:
                    stream.push(np.zeros(0, np.int16), start_sample=stream.next_sample + missing)
                if len(pcm):
                    stream.push(pcm)
                if self.flags > flags:
                    flags = self.flags
                    log.warning(
                        "microphone_flag", stream=self._name, flags=flags, what="PortAudio lost or delayed sound"
                    )

    async def _wait(self, news: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(news.wait(), SILENT_DEVICE_S)
        except TimeoutError:
            self._finished = True
        news.clear()
        if self._finished:
            raise FailedError("the microphone stopped delivering sound: was it pulled out? Plug it in and start again")

    def _write(self, pcm: "np.ndarray[Any, np.dtype[np.int16]]") -> None:
        at = self._written % len(self._store)
        head = min(len(pcm), len(self._store) - at)
        self._store[at : at + head] = pcm[:head]
        self._store[: len(pcm) - head] = pcm[head:]
        self._written += len(pcm)

    def _take(self) -> "tuple[np.ndarray[Any, np.dtype[np.int16]], int]":
        """What has come since the last time, and how much the ring had to forget before that."""
        size, end = len(self._store), self._written
        missing = max(0, end - self._read - size)
        at = (self._read + missing) % size
        count = end - self._read - missing
        self._read = end
        pcm = np.concatenate((self._store[at : at + count], self._store[: max(0, at + count - size)]))
        return pcm, missing


def open_source(rest: str, name: str | None, settings: SourceSettings) -> Microphone:
    return Microphone(rest, name or "mic", settings, portaudio())
