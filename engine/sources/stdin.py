"""Raw PCM on standard input, as `arecord`, `ffmpeg` or `sox` write it."""

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from clser.engine.errors import GivenError
from clser.engine.logs import log
from clser.engine.resample import BYTES, check_layout
from clser.engine.sources import SourceSettings

if TYPE_CHECKING:
    from clser.engine.api import Engine

MOST_BYTES = 65_536


class Stdin:
    def __init__(self, name: str, settings: SourceSettings, descriptor: int) -> None:
        check_layout(settings.rate_hz, settings.channels, settings.format)
        self._name = name
        self._settings = settings
        self._descriptor = descriptor

    async def run(self, engine: "Engine") -> None:
        settings = self._settings
        stream = engine.open(
            self._name,
            sample_rate_hz=settings.rate_hz,
            channels=settings.channels,
            format=settings.format,
            results=False,
        )
        whole = BYTES[settings.format] * settings.channels
        rest = b""
        while pcm := await self._read():
            pcm = rest + pcm
            cut = len(pcm) - len(pcm) % whole
            rest = pcm[cut:]
            if cut:
                await stream.feed(pcm[:cut])
        if stream.next_sample == 0:
            raise GivenError(
                "standard input held no sound: pipe raw PCM into it, and say --rate, --channels and --format"
            )
        if rest:
            log.warning(
                "stdin_cut_off", bytes=len(rest), what="the last sample is not whole: check --channels and --format"
            )
        await stream.close()

    async def _read(self) -> bytes:
        """The next bytes. A pipe is waited for in the loop itself, since a thread stuck in a read could not be ended."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(self._descriptor, _resolve, ready)
        except PermissionError:
            return os.read(self._descriptor, MOST_BYTES)  # a plain file is always ready, and the selector refuses it
        try:
            await ready
        finally:
            loop.remove_reader(self._descriptor)
        return os.read(self._descriptor, MOST_BYTES)


def _resolve(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def open_source(rest: str, name: str | None, settings: SourceSettings) -> Stdin:
    if rest:
        raise GivenError(f"device 'stdin:{rest}': stdin takes nothing behind a colon")
    if sys.stdin is None or sys.stdin.isatty():
        raise GivenError("device 'stdin': standard input is a terminal; pipe raw PCM into it")
    return Stdin(name or "stdin", settings, sys.stdin.fileno())
