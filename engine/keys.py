"""CURVE keys: who we are, whom we let in, and whom we expect to meet.

A folder of four small text files, of the same form on both ends of a connection:

    secret.key     our own pair, for nobody else's eyes (mode 0600)
    public.key     the public half of it, to hand to others
    allowed.keys   who may connect to us: a public key a line, and behind it a name for people
    engine.key     the public key of the engine that we connect to

Keys guard tcp:// endpoints. What is reached over ipc:// is guarded by the mode of its folder.
"""

import os
from pathlib import Path

import zmq
from msgspec import Struct
from zmq.utils import z85

from clser.engine.errors import GivenError, MissingError
from clser.engine.sockets import Socket

KEY_LENGTH = 40
SECRET, PUBLIC, ALLOWED, ENGINE = "secret.key", "public.key", "allowed.keys", "engine.key"


class Keys(Struct, frozen=True):
    folder: Path
    public: bytes
    secret: bytes

    def allows(self, public: bytes) -> bool:
        """Whether the allow-list has that key now: it may be edited while the engine runs."""
        try:
            lines = (self.folder / ALLOWED).read_bytes().splitlines()
        except OSError:
            return False
        return public in (line.split()[0] for line in lines if line.split())


def make_keys(folder: str | Path) -> None:
    """A new pair that lets itself in, so that the folder can be used on both ends as it is."""
    if zmq.has("curve") == 0:
        raise MissingError("this libzmq was built without CURVE: pip install --force-reinstall pyzmq")
    path = Path(folder)
    if (path / SECRET).exists():
        raise GivenError(f"keys {path}: there is a {SECRET} already; give a new folder, or remove this one yourself")
    public, secret = (half.decode() for half in zmq.curve_keypair())
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path / SECRET, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{public}\n{secret}\n")
        (path / PUBLIC).write_text(f"{public}\n")
        (path / ALLOWED).write_text(f"{public} this folder\n")
        (path / ENGINE).write_text(f"{public}\n")
    except OSError as error:
        raise GivenError(f"keys {path}: {error.strerror}; give a folder that can be written") from error


def read_keys(folder: str | Path) -> Keys:
    path = Path(folder)
    lines = _lines(path / SECRET)
    if (path / SECRET).stat().st_mode & 0o077:
        raise GivenError(f"keys {path / SECRET}: others than you can read it; chmod 600 it, or make new keys")
    if len(lines) != 2:
        raise GivenError(f"keys {path / SECRET}: it must hold the public and the secret key, a line each")
    return Keys(path, _key(lines[0], path / SECRET), _key(lines[1], path / SECRET))


def lock(socket: Socket, keys: Keys) -> None:
    """Before binding: let nobody in who is not on the allow-list (which the doors ask)."""
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret


def unlock(socket: Socket, keys: Keys) -> None:
    """Before connecting: say who we are, and speak with that engine only."""
    path = keys.folder / ENGINE
    lines = _lines(path)
    socket.curve_serverkey = _key(lines[0] if lines else "", path)
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise GivenError(f"keys {path}: {why}; `clser-watch keys new DIR` makes a folder of keys") from error


def _key(text: str, path: Path) -> bytes:
    key = text.strip().encode()
    try:
        good = len(key) == KEY_LENGTH and len(z85.decode(key)) == KEY_LENGTH * 4 // 5
    except (KeyError, ValueError, OverflowError):
        good = False
    if not good:
        raise GivenError(
            f"keys {path}: a key has {KEY_LENGTH} characters of Z85; `clser-watch keys new DIR` makes some"
        )
    return key
