"""ZeroMQ sockets read from the event loop's own selector: a tenth of the cost a message of pyzmq's futures."""

import asyncio
from collections.abc import Callable

import zmq

BURST = 64  # messages taken in a row before others get their turn, unless each may cost much

KEEP_ALIVE: dict[int, int] = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 5,
    zmq.TCP_KEEPALIVE_INTVL: 5,
    zmq.TCP_KEEPALIVE_CNT: 3,
}
"""A machine whose cable was pulled says nothing; so the kernel asks it, after seconds. ZeroMQ's own heartbeats are not used:
over them libzmq 4.3.5 aborts the process where a reader stalls."""

Frames = list[bytes]
Socket = zmq.Socket[bytes]


class Inbox:
    """Calls `handle` with each message that reaches `socket`, on the loop it was made on, until closed."""

    def __init__(self, socket: Socket, handle: Callable[[Frames], None], burst: int = BURST) -> None:
        self._socket = socket
        self._burst = burst
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._again: asyncio.Handle | None = None
        self._full_since_s: float | None = None
        self._loop.add_reader(self._descriptor, self.look)
        self.look()

    def look(self) -> None:
        """Read what is there. ZeroMQ's descriptor tells of changes only, so look again after every send on the same socket."""
        if self._again is None:
            self._again = self._loop.call_soon(self._drain)

    @property
    def behind_s(self) -> float:
        """For how long there has always been more to read."""
        return 0.0 if self._full_since_s is None else self._loop.time() - self._full_since_s

    def _drain(self) -> None:
        self._again = None
        for _ in range(self._burst):
            if self._socket.closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                self._full_since_s = None
                return
            try:
                self._handle(frames)
            except BaseException:
                self.look()  # our mistake is the loop's to report; what else has come is not to blame
                raise
        if self._full_since_s is None:
            self._full_since_s = self._loop.time()
        self.look()

    def close(self, linger_ms: int = 0) -> None:
        """Close the socket too; what it still has to send gets `linger_ms` to go out."""
        self._loop.remove_reader(self._descriptor)
        if self._again is not None:
            self._again.cancel()
        self._again = None
        self._socket.close(linger=linger_ms)
