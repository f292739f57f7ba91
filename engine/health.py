"""Is the engine live, is it ready, and how does it do: asked over plain HTTP, from this machine only."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from clser.engine.errors import GivenError, MissingError
from clser.engine.metrics import Metrics

MOST_REQUEST_BYTES = 4096
MOST_CONNECTIONS = 16
PATIENCE_S = 2.0  # for a request to come, and for its answer to be taken

ADDRESS = re.compile(r"(127\.\d+\.\d+\.\d+|localhost|\[::1\]):(\d{1,5})")


class MetricsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    bind: str = ""
    """`HOST:PORT` on this machine to serve /metrics, /live and /ready over HTTP; empty: not at all."""

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port; GivenError where others than this machine could read, or where it is no address."""
        if not self.bind:
            return None
        found = ADDRESS.fullmatch(self.bind)
        if found is None or int(found[2]) > 65535:
            raise GivenError(
                f"metrics.bind {self.bind!r}: give an address of this machine, such as 127.0.0.1:9464; "
                "for others, put a proxy with a password in front"
            )
        host = "127.0.0.1" if found[1] == "localhost" else found[1].strip("[]")
        return host, int(found[2])


class MetricsServer:
    """Answers GET and HEAD for /metrics, /live and /ready, one request a connection, and never for long."""

    def __init__(self, metrics: Metrics, ready: Callable[[], Mapping[str, Any]]) -> None:
        """`ready` is what the control socket answers to it: `ready`, and `state` in a word."""
        self._metrics = metrics
        self._ready = ready
        self._server: asyncio.Server | None = None
        self._visits: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self.endpoint: str | None = None
        self.refused = 0
        """Requests that were none, and visitors beyond the number that is served."""

    async def start(self, config: MetricsConfig) -> None:
        """Listen, or raise MissingError where somebody else does; nothing happens where the config names no address."""
        address = config.address
        if address is None:
            return
        host, port = address
        try:
            self._server = await asyncio.start_server(
                self._visit, host, port, limit=MOST_REQUEST_BYTES, backlog=MOST_CONNECTIONS
            )
        except OSError as error:
            raise MissingError(
                f"cannot serve metrics on {config.bind} ({error.strerror}): stop what uses it, or give another metrics.bind"
            ) from error
        port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for writer in self._visits:
            writer.transport.abort()  # a cancelled visit would make asyncio complain
        await asyncio.gather(*self._visits.values())
        await self._server.wait_closed()
        self._server = self.endpoint = None

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._visits) >= MOST_CONNECTIONS:
            self.refused += 1
            writer.transport.abort()
            return
        visit = asyncio.current_task()
        assert visit is not None
        self._visits[writer] = visit
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(self._answer(await _request(reader)))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError):
            self.refused += 1
        finally:
            writer.transport.abort()  # whatever is left: nobody takes it
            del self._visits[writer]

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        path, _, protocol = rest.partition(b" ")
        if not protocol.startswith(b"HTTP/1."):
            self.refused += 1
            return _response(400, "this is HTTP/1.1: GET /metrics, /live or /ready\n")
        if method not in (b"GET", b"HEAD"):
            self.refused += 1
            return _response(405, "only GET\n")
        response = self._page(path.partition(b"?")[0])
        return response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else response

    def _page(self, path: bytes) -> bytes:
        if path == b"/metrics":
            return _response(200, self._metrics.text(), "text/plain; version=0.0.4; charset=utf-8")
        if path == b"/live":
            return _response(200, "live\n")  # who can answer at all runs
        if path == b"/ready":
            facts = self._ready()
            return _response(200 if facts["ready"] else 503, f"{facts['state']}\n")
        return _response(404, "there are /metrics, /live and /ready\n")


async def _request(reader: asyncio.StreamReader) -> bytes:
    """The head of the request, as far as it came; what is too long or breaks off is no request."""
    with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return await reader.readuntil(b"\r\n\r\n")
    return b""


REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed\r\nAllow: GET, HEAD",
    503: "Service Unavailable",
}


def _response(code: int, body: str, content_type: str = "text/plain; charset=utf-8") -> bytes:
    data = body.encode()
    head = (
        f"HTTP/1.1 {code} {REASONS[code]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data
