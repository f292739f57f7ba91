"""A sound file as a stream: all that libsndfile reads, at the pace of its sound or as fast as the engine computes."""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from clser.engine.errors import FailedError, GivenError
from clser.engine.resample import check_layout
from clser.engine.sources import SourceSettings

if TYPE_CHECKING:
    from clser.engine.api import Engine

PACKET_S = 0.02  # like a microphone's
FAST_PACKET_S = 0.5


class File:
    def __init__(self, path: Path, name: str, settings: SourceSettings) -> None:
        self._path = path
        self._name = name
        self._settings = settings
        self._file = _open(path)
        try:
            check_layout(self._file.samplerate, self._file.channels, "s16")
            if self._file.frames == 0:
                raise GivenError("it holds no samples: record it again")
        except GivenError as error:
            self._file.close()
            raise GivenError(f"file {path}: {error}") from error

    async def run(self, engine: "Engine") -> None:
        rate, real = self._file.samplerate, self._settings.pace == "real"
        stream = engine.open(self._name, sample_rate_hz=rate, channels=self._file.channels, format="f32", results=False)
        packet = max(1, round(rate * (PACKET_S if real else FAST_PACKET_S)))
        began = self._settings.clock.monotonic_s()
        reading = asyncio.create_task(asyncio.to_thread(self._read, packet))
        try:
            while True:
                data = await asyncio.shield(reading)
                if len(data) == 0:
                    break
                if real:  # a packet is there once its last sample has sounded
                    due = began + (stream.next_sample + len(data)) / rate
                    await self._settings.clock.sleep(max(0.0, due - self._settings.clock.monotonic_s()))
                await stream.feed(data, for_words=not real)
                reading = asyncio.create_task(asyncio.to_thread(self._read, packet))
            await stream.close()
        finally:
            await asyncio.wait(
                {reading}
            )  # its thread goes on when we are cancelled, and the file must stay open for it
            self._file.close()

    def _read(self, count: int) -> "soundfile.numpy.ndarray":
        try:
            return self._file.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise FailedError(f"file {self._path}: it breaks off ({error}): what came before it was heard") from error


def _open(path: Path) -> soundfile.SoundFile:
    if not path.is_file():
        raise GivenError(f"file {path}: there is no such file")
    try:
        return soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise GivenError(f"file {path}: libsndfile cannot read it ({error}); convert it to WAV, FLAC or Ogg") from error


def open_source(rest: str, name: str | None, settings: SourceSettings) -> File:
    if not rest:
        raise GivenError("device 'file': give its path, as in file:speech.wav")
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", Path(rest).stem).strip("_")[:64]
    return File(Path(rest), name or stem or "file", settings)
