"""Where a command's messages go: the console, plain lines, or JSON; never in the way of whoever brings them."""

import asyncio
import contextlib
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Literal

from rich.console import Console as Terminal

from clser.clients.commands.shell import stderr_held_back
from clser.clients.console import Console, usable
from clser.clients.lines import line
from clser.engine.records import Message, Result
from clser.engine.wire import encode

Form = Literal["console", "lines", "results", "all"]
Show = Callable[[Message], bytes | None]
MOST_WAITING = 1000


class Writer:
    """Writes and flushes in a thread of its own, since a pipe that nobody reads would stop the event loop."""

    def __init__(self, descriptor: int, on_written: Callable[[], None]) -> None:
        self._on_written = on_written
        self._descriptor = descriptor  # not the file object: its lock would be held by a write that never returns
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._batches: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._busy = False
        self._error: OSError | None = None
        self._room = asyncio.Event()
        threading.Thread(target=self._write_on, name="writer", daemon=True).start()

    async def put(self, data: bytes) -> None:
        """Have it written; waits only while a great deal is waiting already. Raises what writing raised."""
        self._waiting.append(data)
        self._hand_over()
        await self._until(MOST_WAITING)

    async def written(self) -> None:
        """Return when all has been written."""
        await self._until(0)

    async def _until(self, most: int) -> None:
        while len(self._waiting) + self._busy > most and self._error is None:
            self._room.clear()
            await self._room.wait()
        if self._error is not None:
            raise self._error

    def _hand_over(self) -> None:
        if not self._busy and self._waiting:
            self._busy = True
            self._batches.put(b"".join(self._waiting))
            self._waiting = []

    def _write_on(self) -> None:
        error: OSError | None = None
        while error is None:
            batch = self._batches.get()
            try:
                while batch:
                    batch = batch[os.write(self._descriptor, batch) :]
            except OSError as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has gone, and nobody waits any more
                self._loop.call_soon_threadsafe(self._was_written, error)

    def _was_written(self, error: OSError | None) -> None:
        self._busy, self._error = False, error
        self._on_written()
        self._hand_over()
        self._room.set()


def choose(json: str | None) -> Form:
    """What `--json` and the terminal make of it."""
    if json is not None:
        return "all" if json == "all" else "results"
    return "console" if usable(Terminal()) else "lines"


@contextlib.contextmanager
def owned(form: Form, console: Console) -> Iterator[None]:
    """The terminal belongs to the console, where that is the form."""
    if form != "console":
        yield
        return
    with stderr_held_back(), console:
        yield


async def pour(
    messages: AsyncIterator[Message], form: Form, console: Console, on_written: Callable[[], None] = lambda: None
) -> None:
    """Show every message until there are no more and all are out; `on_written` is called whenever some are."""
    if form == "console":
        async for message in messages:
            console.show(message)
        return
    writer = Writer(sys.stdout.fileno(), on_written)
    async for message in messages:
        if form == "lines":
            words = line(message)
            if words is not None:
                await writer.put(words.encode() + b"\n")
        elif form == "all" or isinstance(message, Result):
            await writer.put(encode(message) + b"\n")
    await writer.written()
