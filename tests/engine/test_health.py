"""The small HTTP server, with clients that are none, and an engine behind it."""

import asyncio
from typing import Any

import pytest
from fakes import ManualClock, Rig, run, settle
from prometheus import NAMES, parse, value

from clser.engine import health
from clser.engine.errors import GivenError, MissingError
from clser.engine.health import MetricsConfig, MetricsServer
from clser.engine.metrics import CATALOGUE, Metrics

ALL = {metric.key: float(number) for number, metric in enumerate(CATALOGUE, 1)}


@pytest.mark.parametrize(
    "bind", ["0.0.0.0:9464", "192.168.1.5:9464", "9464", "localhost", "example.org:80", "127.0.0.1:70000", "[::]:80"]
)
def test_others_than_this_machine_are_not_served(bind: str) -> None:
    with pytest.raises(GivenError, match=r"metrics.bind .* 127\.0\.0\.1:9464.*proxy"):
        _ = MetricsConfig(bind).address


def test_addresses() -> None:
    assert MetricsConfig().address is None
    assert MetricsConfig("localhost:0").address == ("127.0.0.1", 0)
    assert MetricsConfig("127.0.0.2:9464").address == ("127.0.0.2", 9464)
    assert MetricsConfig("[::1]:9464").address == ("::1", 9464)


class Served:
    """A server in use, on a port of its own: `async with Served() as served`."""

    def __init__(self, state: str = "ready") -> None:
        self.state = state
        self.server = MetricsServer(Metrics(lambda: ALL, ManualClock()), self.ready)

    def ready(self) -> dict[str, object]:
        return {"ready": self.state == "ready", "state": self.state}

    async def __aenter__(self) -> "Served":
        await self.server.start(MetricsConfig("127.0.0.1:0"))
        self.port = int((self.server.endpoint or "").rpartition(":")[2])
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.server.stop()

    async def says(self, sent: bytes, more: bool = False) -> bytes:
        """What comes back for it; unless there is `more`, nothing follows."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            if not more:
                writer.write_eof()
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
        said = (await self.says(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), more=True)).decode()
        head, _, body = said.partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def test_metrics_are_served_in_the_format_they_say_they_are() -> None:
    async def main() -> None:
        async with Served() as served:
            code, head, body = await served.get("/metrics")
            assert code == 200
            assert head["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert int(head["Content-Length"]) == len(body)
            assert set(parse(body)) == set(NAMES)
            assert await served.get("/metrics", "HEAD") == (200, head, "")
            assert (await served.get("/metrics?x=1"))[0] == 200

    run(main())


def test_live_is_not_ready() -> None:
    async def main() -> None:
        async with Served("starting") as served:
            assert (await served.get("/live"))[::2] == (200, "live\n")
            assert (await served.get("/ready"))[::2] == (503, "starting\n")
            served.state = "ready"
            assert (await served.get("/ready"))[::2] == (200, "ready\n")

    run(main())


def test_other_paths_methods_and_languages_are_refused() -> None:
    async def main() -> None:
        async with Served() as served:
            assert (await served.get("/"))[0] == 404
            code, head, _ = await served.get("/metrics", "POST")
            assert (code, head["Allow"]) == (405, "GET, HEAD")
            for sent in (b"", b"\r\n\r\n", b"GET /metrics\r\n\r\n", b"\xff\x00" * 50, b"GET /live HTTP/2\r\n\r\n"):
                assert (await served.says(sent)).startswith(b"HTTP/1.1 400 "), sent
            assert served.server.refused == 6

    run(main())


def test_a_request_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Served() as served:
            long = await served.says(b"GET /live HTTP/1.1\r\n" + b"a: b\r\n" * 1000, more=True)
            assert long == b"" or long.startswith(b"HTTP/1.1 400 ")
            monkeypatch.setattr(health, "PATIENCE_S", 0.05)
            assert await served.says(b"GET /live HTTP/1.1\r\n", more=True) == b""
            assert (await served.get("/live"))[0] == 200

    run(main())


def test_who_does_not_take_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Served() as served:
            monkeypatch.setattr(Metrics, "text", lambda _: "x" * 20_000_000)
            monkeypatch.setattr(health, "PATIENCE_S", 0.2)
            _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=16)
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            while not served.server._visits:  # noqa: ASYNC110 - what it waits for happens inside the server
                await asyncio.sleep(0.001)
            while served.server._visits:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.01)
            assert served.server.refused == 1
            writer.close()

    run(main())


def test_a_crowd_is_served_sixteen_at_a_time() -> None:
    async def main() -> None:
        async with Served() as served:
            crowd = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(16)]
            while len(served.server._visits) < 16:  # noqa: ASYNC110 - what it waits for happens inside the server
                await asyncio.sleep(0.001)
            assert await served.says(b"GET /live HTTP/1.1\r\n\r\n") == b""
            assert served.server.refused == 1
            for _, writer in crowd:
                writer.close()
            while served.server._visits:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.001)
            assert (await served.get("/live"))[0] == 200

    run(main())


def test_a_port_in_use_is_missing_and_says_what_to_do() -> None:
    async def main() -> None:
        async with Served() as served:
            second = Served().server
            with pytest.raises(MissingError, match=rf"127.0.0.1:{served.port} .*another metrics.bind"):
                await second.start(MetricsConfig(f"127.0.0.1:{served.port}"))
            await second.stop()

    run(main())


def test_without_an_address_nothing_listens() -> None:
    async def main() -> None:
        server = Served().server
        await server.start(MetricsConfig())
        assert server.endpoint is None
        await server.stop()

    run(main())


def test_stopping_does_not_wait_for_visitors() -> None:
    async def main() -> None:
        async with Served() as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            while not served.server._visits:  # noqa: ASYNC110 - what it waits for happens inside the server
                await asyncio.sleep(0.001)
            await asyncio.wait_for(served.server.stop(), 1)
            assert await reader.read() == b""
            writer.close()

    run(main())


# --- an engine that serves them ---------------------------------------------------------------------------------------


async def got(endpoint: str, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(endpoint.rpartition(":")[2]))
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


def test_an_engine_serves_every_name_and_is_live_before_it_is_ready() -> None:
    async def main() -> None:
        rig = Rig(metrics={"bind": "127.0.0.1:0"})
        warm, start = asyncio.Event(), rig.pool.start

        async def slowly(listener: Any) -> Any:
            await warm.wait()
            return await start(listener)

        rig.pool.start = slowly  # type: ignore[method-assign]
        starting = asyncio.create_task(rig.__aenter__())
        await settle(lambda: rig.engine._health.endpoint)
        endpoint = rig.engine._health.endpoint or ""
        assert await got(endpoint, "/live") == (200, "live\n")
        assert await got(endpoint, "/ready") == (503, "starting\n")
        assert value((await got(endpoint, "/metrics"))[1], "clser_ready") == 0
        warm.set()
        await starting
        assert await got(endpoint, "/ready") == (200, "ready\n")
        text = (await got(endpoint, "/metrics"))[1]
        assert set(parse(text)) == {name for name in NAMES if not name.startswith("clser_ingest_")}
        await rig.__aexit__(None, None, None)
        assert rig.engine._health.endpoint is None

    run(main())
