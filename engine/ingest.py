"""Settings of the socket that robots and other machines send sound to; sources/zmq.py serves it."""

from typing import Annotated

from msgspec import Meta, Struct


class IngestConfig(Struct, frozen=True, forbid_unknown_fields=True):
    bind: str = ""
    """A ZeroMQ endpoint for clser-stream to listen on, or empty for none."""
    most_streams: Annotated[int, Meta(ge=1)] = 1024
    idle_s: Annotated[float, Meta(gt=0)] = 30.0
    """A stream without packets for so long is closed."""
    takeover_s: Annotated[float, Meta(ge=0)] = 2.0
    """A stream without packets for so long may be taken over by another connection."""
