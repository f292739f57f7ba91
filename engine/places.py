"""Where an engine and its clients meet when nobody says otherwise: sockets in a folder that only this user can read."""

import os
import re
import tempfile
from pathlib import Path

from clser.engine.errors import MissingError

LOCAL_PORT = re.compile(r"tcp://(?:127\.\d+\.\d+\.\d+|localhost|\[::1\]|::1):(?P<port>\d+)")


def runtime_dir() -> Path:
    """The folder of this user's sockets, for nobody else to read."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "clser" if base else Path(tempfile.gettempdir()) / f"clser-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise MissingError(
            f"{folder} cannot be made ({error.strerror}): set XDG_RUNTIME_DIR to a folder of your own"
        ) from error
    if owner != os.getuid():
        raise MissingError(f"{folder} belongs to somebody else: set XDG_RUNTIME_DIR to a folder of your own")
    folder.chmod(0o700)
    return folder


def default_endpoint() -> str:
    """Where an engine publishes unless told otherwise."""
    return f"ipc://{runtime_dir() / 'results'}"


def control_beside(publish: str) -> str | None:
    """Where an engine that publishes there can be asked things, as seen from this machine; None if it is on another."""
    if publish.startswith("ipc://"):
        return f"{publish}.control"
    local = LOCAL_PORT.fullmatch(publish)
    return f"ipc://{runtime_dir() / 'control'}-{local['port']}" if local else None
