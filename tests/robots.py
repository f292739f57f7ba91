"""Robots that send sound to an engine on fakes, over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import zmq
from fakes import Rig

from clser.engine.ingest import IngestConfig
from clser.engine.sources import SourceSettings, open_source
from clser.engine.sources.zmq import Ingest


async def until(happened: Callable[[], bool]) -> None:
    """The sockets' threads take what time they need."""
    while not happened():  # noqa: ASYNC110 - other threads set no event of ours
        await asyncio.sleep(0.001)


class Robot:
    """One connection."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self.socket = socket
        self._turn = 0

    def send(self, op: str, stream: str, pcm: Any = None, **more: Any) -> None:
        header = {"op": op, "stream": stream, **more}
        self._turn += 1
        frame = json.dumps(header).encode() if self._turn % 2 else msgspec.msgpack.encode(header)
        self.socket.send_multipart([frame] if pcm is None else [frame, bytes(pcm)])

    async def reply(self) -> tuple[str, str]:
        """(op, reason) of the next answer."""
        await until(lambda: bool(self.socket.poll(0)))
        said = json.loads(self.socket.recv())
        return said["op"], said.get("reason", "")

    async def ask(self, op: str, stream: str, pcm: Any = None, **more: Any) -> tuple[str, str]:
        self.send(op, stream, pcm, **more)
        return await self.reply()

    @property
    def silent(self) -> bool:
        return not self.socket.poll(0)


class Place:
    """An engine on fakes that listens for sound."""

    def __init__(self, folder: Path, config: IngestConfig, **sections: Any) -> None:
        self.rig = Rig(**sections)
        self.endpoint = f"ipc://{folder / 'in'}"
        source = open_source(f"zmq:{self.endpoint}", SourceSettings(clock=self.rig.clock, ingest=config))
        assert isinstance(source, Ingest)
        self.ingest = source
        self.context = zmq.Context()

    def robot(self, routing_id: bytes = b"") -> Robot:
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        if routing_id:
            socket.setsockopt(zmq.ROUTING_ID, routing_id)
        socket.connect(self.endpoint)
        return Robot(socket)

    async def taken(self, packets: int) -> None:
        await until(lambda: self.ingest.packets >= packets)

    async def refused(self, messages: int) -> None:
        await until(lambda: self.ingest.refused >= messages)


@asynccontextmanager
async def listening(folder: Path, config: IngestConfig | None = None, **sections: Any) -> AsyncIterator[Place]:
    place = Place(folder, config or IngestConfig(), **sections)
    async with place.rig as rig:
        task = asyncio.create_task(place.ingest.run(rig.engine))
        await asyncio.sleep(0)
        try:
            yield place
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            place.context.destroy(linger=0)
