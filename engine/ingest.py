"""Settings of the socket that robots and other machines send sound to; sources/zmq.py serves it."""

from typing import Annotated

from msgspec import Meta, Struct


class IngestConfig(Struct, frozen=True, forbid_unknown_fields=True):
    bind: str = ""
    """A ZeroMQ endpoint, or empty for none."""
    most_streams: Annotated[int, Meta(ge=1)] = 1024
