"""Nothing is kept unless somebody says what for. When they do, utterances and finals go to disk, beside the event loop.

See docs/privacy.md.
"""

import asyncio
import errno
import os
from pathlib import Path

import numpy as np
import soundfile
from msgspec import Struct

from clser.engine import wire
from clser.engine.errors import GivenError
from clser.engine.logs import log
from clser.engine.records import SAMPLE_RATE_HZ, Result, Samples

WAITING = 256  # utterances on their way to disk


class PrivacyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    purpose: str = ""
    """Why anything is kept; goes into every file that is written."""
    keep_sound: str = ""
    """A folder for each utterance's sound; empty: none is kept."""
    keep_results: str = ""
    """A file for the finals, one JSON object a line; empty: none is kept."""

    @property
    def keeps(self) -> bool:
        return bool(self.keep_sound or self.keep_results)

    def check(self, source: str) -> None:
        if self.keeps and not self.purpose.strip():
            raise GivenError(
                f"config {source}: privacy.keep_sound or privacy.keep_results is set, and privacy.purpose is empty: "
                "say what the recordings are for (docs/privacy.md)"
            )


class Keeper:
    """Writes in a thread, one utterance at a time; what cannot be written is counted and said, and the engine goes on."""

    def __init__(self, config: PrivacyConfig) -> None:
        self._config = config
        self._waiting: asyncio.Queue[tuple[Result, Samples | None]] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None
        self.lost = 0
        self.trouble = ""

    def start(self) -> None:
        log.warning(
            "keeping",
            sound=bool(self._config.keep_sound),
            results=bool(self._config.keep_results),
            purpose=self._config.purpose,
        )
        self._task = asyncio.create_task(self._work(), name="keep utterances")

    def keep(self, result: Result, pcm: Samples | None) -> None:
        """`pcm` is the utterance's sound; None where it has been kept already, or is gone."""
        try:
            self._waiting.put_nowait((result, pcm))
        except asyncio.QueueFull:
            self.lost += 1

    async def stop(self) -> None:
        if self._task is not None:
            await self._waiting.join()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            result, pcm = await self._waiting.get()
            try:
                await asyncio.to_thread(self._write, result, pcm)
                self.trouble = ""
            except (OSError, soundfile.LibsndfileError) as error:
                self.lost += 1
                # libsndfile says strange things of a full disk
                self.trouble = f"an utterance could not be kept ({error}): is the disk full, or the folder not yours?"
                log.error("not_kept", stream=result.stream, utterance=result.utterance, why=self.trouble)
            finally:
                self._waiting.task_done()

    def _write(self, result: Result, pcm: Samples | None) -> None:
        name = f"{result.stream}-{result.epoch}-{result.utterance:06d}"
        if self._config.keep_sound and pcm is not None:
            folder = Path(self._config.keep_sound)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sound = folder / f"{name}.flac"
            sound.touch(mode=0o600)  # before anything is in it
            with soundfile.SoundFile(sound, "w", SAMPLE_RATE_HZ, 1, "PCM_16") as file:
                file.comment = f"purpose: {self._config.purpose}"
                file.write(np.asarray(pcm))
        if self._config.keep_results:
            path = Path(self._config.keep_results)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            with path.open("ab", buffering=0) as file:
                whole, line = file.tell(), wire.encode(result) + b"\n"
                try:
                    if file.write(line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    file.truncate(whole)  # half a line would spoil the next one
                    raise
