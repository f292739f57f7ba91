"""Every socket that others connect to: where it may be bound, and who may come in.

Without keys only this machine may connect: ipc, or tcp on loopback. With keys (engine/keys.py) tcp sockets speak CURVE, and
ZeroMQ asks here (its ZAP protocol) about everybody who knocks.
"""

import fcntl
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import zmq
from zmq.utils import z85

from clser.engine.errors import GivenError, MissingError
from clser.engine.keys import Keys, lock, read_keys
from clser.engine.logs import log
from clser.engine.sockets import KEEP_ALIVE, Frames, Inbox, Socket

ZAP = "inproc://zeromq.zap.01"
LOOPBACK = re.compile(r"tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\]|::1):[\d*]+")
HANDSHAKE_MS = 3_000
INSTEAD = {"publish": "--bind", "be asked": "--set bus.control=ENDPOINT", "listen for sound": "--device zmq:ENDPOINT"}
SOUND, WORDS = 2, 1  # ZeroMQ's threads: what comes in does not delay what goes out


class Doors:
    """Made once an engine. `open` before the first `bind`, `close` after the sockets have been closed."""

    def __init__(self, keys: str = "") -> None:
        self._keys: Keys | None = read_keys(keys) if keys else None
        self._context: zmq.Context[Socket] | None = None
        self._zap: Inbox | None = None
        self._zap_socket: Socket | None = None
        self._locks: list[IO[str]] = []
        self.turned_away = 0
        """Connections that the allow-list refused."""

    def open(self) -> None:
        self._context = zmq.Context(io_threads=2)
        if self._keys is not None:
            self._zap_socket = self._context.socket(zmq.REP)
            self._zap_socket.bind(ZAP)
            self._zap = Inbox(self._zap_socket, self._asked)

    def close(self) -> None:
        if self._zap is not None:
            self._zap.close()
        if self._context is not None:
            self._context.destroy(linger=0)  # waits for what closed sockets still have to send
        self._zap = self._zap_socket = self._context = None
        for held in self._locks:
            held.close()
        self._locks.clear()

    def bind(
        self,
        kind: int,
        endpoint: str,
        what: str,
        options: Mapping[zmq.SocketOption, int] | None = None,
        *,
        thread: int = WORDS,
        only_with_keys: bool = False,
    ) -> Socket:
        """A bound socket to `what`; GivenError where strangers could connect, MissingError where the place is taken.

        `only_with_keys`: over tcp not even this machine's other users may connect without.
        """
        assert self._context is not None, "doors are opened before sockets are bound"
        if endpoint.startswith("ipc://@"):
            raise GivenError(f"cannot {what} on {endpoint!r}: anybody may connect to such a name; give ipc:///PATH")
        if "://" not in endpoint:
            raise GivenError(f"cannot {what} on {endpoint!r}: give ipc://PATH or tcp://127.0.0.1:PORT")
        ours = endpoint.startswith(("ipc://", "inproc://"))
        if self._keys is None and not ours and (only_with_keys or not LOOPBACK.fullmatch(endpoint)):
            where = "ipc://PATH" if only_with_keys else "ipc://PATH or tcp://127.0.0.1:PORT"
            raise GivenError(
                f"cannot {what} on {endpoint!r}: without keys only this machine may connect; "
                f"give {where}, or bus.keys (`clser-watch keys new DIR` makes them)"
            )
        held = _lock_ipc(endpoint, what)
        socket = self._context.socket(kind)
        settings: dict[int, int] = {zmq.AFFINITY: thread, zmq.HANDSHAKE_IVL: HANDSHAKE_MS}
        settings.update((int(option), value) for option, value in (options or {}).items())
        if not ours:
            settings.update(KEEP_ALIVE)
            if self._keys is not None:
                lock(socket, self._keys)
        for option, value in settings.items():
            socket.setsockopt(option, value)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            if held is not None:
                held.close()
            raise MissingError(_taken(what, endpoint, str(error))) from error
        if held is not None:
            self._locks.append(held)
        return socket

    def _asked(self, frames: Frames) -> None:
        """ZAP: version, request, domain, address, routing id, mechanism, credentials (for CURVE: the public key)."""
        assert self._zap_socket is not None and self._keys is not None and self._zap is not None
        try:
            mechanism, (key,) = frames[5], frames[6:]
            known = mechanism == b"CURVE" and self._keys.allows(z85.encode(key))
        except Exception:  # noqa: BLE001 - whatever it is: a question without an answer would be the last one asked
            log.exception("allow_list_broken")
            known = False
        if not known:
            self.turned_away += 1
            if self.turned_away.bit_count() == 1:  # the first, second, fourth, ...: who knocks all day fills no disk
                log.warning("turned_away", address=frames[3].decode(errors="replace"), times=self.turned_away)
        verdict = (b"200", b"OK") if known else (b"400", b"not on the allow-list")
        self._zap_socket.send_multipart((b"1.0", frames[1], *verdict, b"", b""))
        self._zap.look()


def _lock_ipc(endpoint: str, what: str) -> IO[str] | None:
    """ZeroMQ binds over another process's ipc socket without a word; a lock beside it keeps two engines apart."""
    if not endpoint.startswith("ipc://"):
        return None
    path = Path(endpoint.removeprefix("ipc://") + ".lock")
    try:
        held = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+")
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise MissingError(_taken(what, endpoint, "another engine does")) from None
    except OSError as error:
        raise MissingError(_taken(what, endpoint, error.strerror or "no lock")) from error
    return held


def _taken(what: str, endpoint: str, why: str) -> str:
    instead = f" with {INSTEAD[what]}" if what in INSTEAD else ""
    return f"cannot {what} on {endpoint} ({why}): stop what uses it, or give another{instead}"
