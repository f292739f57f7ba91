"""Who may come in, with real sockets and real keys."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest
import zmq
from fakes import run

from clser.engine.doors import Doors
from clser.engine.errors import GivenError, MissingError
from clser.engine.keys import make_keys, read_keys, unlock

ANY = "tcp://127.0.0.1:*"


class Entrance:
    """Doors with one socket that collects what is pushed to it."""

    def __init__(self, keys: Path | None) -> None:
        self.doors = Doors(str(keys or ""))

    async def __aenter__(self) -> "Entrance":
        self.doors.open()
        self.socket = self.doors.bind(zmq.PULL, ANY, "publish")
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.socket.close(linger=0)
        self.doors.close()

    async def hears(self, keys: Path | None, until_turned_away: int | None = None) -> bool:
        """Whether something said with these keys gets through."""
        context: zmq.Context[Any] = zmq.Context(io_threads=1)
        speaker = context.socket(zmq.PUSH)
        if keys is not None:
            unlock(speaker, read_keys(keys))
        speaker.connect(self.endpoint)
        speaker.send(b"hello")
        try:
            for _ in range(120):
                await asyncio.sleep(0.005)
                if self.socket.poll(0):
                    assert self.socket.recv() == b"hello"
                    return True
                if until_turned_away is not None and self.doors.turned_away >= until_turned_away:
                    return False
            return False
        finally:
            context.destroy(linger=0)


def test_the_folder_lets_itself_in_and_the_secret_is_for_nobody_else(tmp_path: Path) -> None:
    async def main() -> None:
        make_keys(tmp_path / "keys")
        assert stat.S_IMODE((tmp_path / "keys" / "secret.key").stat().st_mode) == 0o600
        async with Entrance(tmp_path / "keys") as entrance:
            assert await entrance.hears(tmp_path / "keys")
            assert entrance.doors.turned_away == 0

    run(main())


def test_who_is_not_on_the_list_is_turned_away_until_he_is(tmp_path: Path) -> None:
    async def main() -> None:
        make_keys(tmp_path / "engine")
        make_keys(tmp_path / "robot")
        (tmp_path / "robot" / "engine.key").write_text((tmp_path / "engine" / "public.key").read_text())
        async with Entrance(tmp_path / "engine") as entrance:
            assert not await entrance.hears(tmp_path / "robot", until_turned_away=1)
            allowed = tmp_path / "engine" / "allowed.keys"
            robot = (tmp_path / "robot" / "public.key").read_text().strip()
            allowed.write_text(allowed.read_text() + f"\n{robot} the robot in the kitchen\n")
            assert await entrance.hears(tmp_path / "robot")
            allowed.write_text("")
            assert not await entrance.hears(tmp_path / "engine", until_turned_away=2)

    run(main())


def test_one_who_speaks_plainly_or_to_another_engine_is_not_heard(tmp_path: Path) -> None:
    async def main() -> None:
        make_keys(tmp_path / "engine")
        make_keys(tmp_path / "other")
        other = tmp_path / "other"  # on its own allow-list, and it expects an engine with its own key
        async with Entrance(tmp_path / "engine") as entrance:
            heard = await asyncio.gather(asyncio.wait_for(entrance.hears(None), 5), return_exceptions=True)
            assert heard == [False]
            assert not await entrance.hears(other)
            assert await entrance.hears(tmp_path / "engine")

    run(main())


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:0", "tcp://*:*", "tcp://192.168.7.7:5556"])
def test_other_machines_may_come_only_where_there_are_keys(endpoint: str, tmp_path: Path) -> None:
    async def main() -> None:
        doors = Doors()
        doors.open()
        with pytest.raises(GivenError, match="clser-watch keys new"):
            doors.bind(zmq.PUB, endpoint, "publish")
        doors.close()
        make_keys(tmp_path / "keys")
        doors = Doors(str(tmp_path / "keys"))
        doors.open()
        if "192" not in endpoint:  # an address this machine does not have
            doors.bind(
                zmq.PUB, endpoint.replace(":0", ":*", 1) if endpoint.endswith(":0") else endpoint, "publish"
            ).close()
        doors.close()

    run(main())


def test_a_list_that_is_no_text_turns_away_those_it_does_not_name_and_nobody_else(tmp_path: Path) -> None:
    async def main() -> None:
        make_keys(tmp_path / "keys")
        async with Entrance(tmp_path / "keys") as entrance:
            allowed = tmp_path / "keys" / "allowed.keys"
            public = (tmp_path / "keys" / "public.key").read_bytes().strip()
            allowed.write_bytes(b"\xff\xfe half a line\n")
            assert not await entrance.hears(tmp_path / "keys", until_turned_away=1)
            allowed.write_bytes(public + b" Jos\xe9\n")
            assert await entrance.hears(tmp_path / "keys")

    run(main())


def test_a_name_that_anybody_may_connect_to_is_refused() -> None:
    async def main() -> None:
        doors = Doors()
        doors.open()
        with pytest.raises(GivenError, match="anybody may connect"):
            doors.bind(zmq.PUB, "ipc://@clser", "publish")
        doors.close()

    run(main())


def test_control_over_tcp_wants_keys_even_on_this_machine(tmp_path: Path) -> None:
    async def main() -> None:
        doors = Doors()
        doors.open()
        with pytest.raises(GivenError, match="without keys"):
            doors.bind(zmq.ROUTER, ANY, "be asked", only_with_keys=True)
        doors.bind(zmq.ROUTER, f"ipc://{tmp_path / 'c'}", "be asked", only_with_keys=True).close()
        doors.close()

    run(main())


def test_a_taken_place_is_said_to_be_taken(tmp_path: Path) -> None:
    async def main() -> None:
        doors = Doors()
        doors.open()
        here = f"ipc://{tmp_path / 'c'}"
        first = doors.bind(zmq.ROUTER, here, "be asked")
        with pytest.raises(MissingError, match=r"another engine does.*bus\.control"):
            doors.bind(zmq.ROUTER, here, "be asked")
        first.close()
        doors.close()

    run(main())


def test_keys_that_are_none_are_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    with pytest.raises(GivenError, match="clser-watch keys new"):
        read_keys(folder)
    make_keys(folder)
    with pytest.raises(GivenError, match="there is a secret"):
        make_keys(folder)
    (folder / "secret.key").chmod(0o644)
    with pytest.raises(GivenError, match="chmod 600"):
        read_keys(folder)
    (folder / "secret.key").chmod(0o600)
    for wrong in ("", "one line\n", "a\nb\n", "é" * 40 + "\n" + "x" * 40 + "\n", "x" * 39 + "\n" + "x" * 40 + "\n"):
        (folder / "secret.key").write_text(wrong)
        with pytest.raises(GivenError):
            read_keys(folder)
