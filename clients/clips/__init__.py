"""The sound this package carries: a short clip that shows the engine at work with nothing to download or record."""

import importlib.resources
from pathlib import Path

import msgspec


class Segment(msgspec.Struct, frozen=True):
    """One phrase of the demo clip: where its sound begins and ends, what is said, and the feeling played."""

    start_s: float
    end_s: float
    text: str
    voice: str
    played: str


class Labels(msgspec.Struct, frozen=True):
    """What `demo.json` holds, so that the script that writes it and `demo_segments` cannot disagree."""

    clip: str
    sample_rate_hz: int
    made_with: str
    segments: list[Segment]


def _carried(name: str) -> Path:
    # A Path rather than a Traversable: readers of sound want a file, and a wheel is always unpacked on installing.
    return Path(str(importlib.resources.files(__name__).joinpath(name)))


def demo_clip() -> Path:
    """The demo clip: 16 kHz, one channel, Ogg Vorbis."""
    return _carried("demo.ogg")


def demo_segments() -> list[Segment]:
    """The phrases of the demo clip in the order they are heard."""
    return msgspec.json.decode(_carried("demo.json").read_bytes(), type=Labels).segments
