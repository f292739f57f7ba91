"""What the engine and a worker say to each other: a MessagePack head in the first frame, samples or numbers in the second.

Engine -> worker: Batch (and the rows' s16 samples, one after the other), Stop.
Worker -> engine: Ready, Answer (and float32 numbers, row after row), Beat, Broken.
"""

from typing import Literal

import msgspec
from msgspec import Struct

Lane = Literal["vad", "voice"]
LANES: tuple[Lane, ...] = ("vad", "voice")


class Row(Struct, frozen=True, array_like=True):
    """`frames` frames for the stream whose state lies in `slot`; `fresh` starts that state anew before them."""

    slot: int
    frames: int
    fresh: bool


class Batch(Struct, frozen=True, array_like=True, tag=True):
    number: int
    lane: Lane
    rows: tuple[Row, ...]


class Stop(Struct, frozen=True, array_like=True, tag=True):
    pass


class VoiceCard(Struct, frozen=True):
    """What a voice model says of itself (the `clser` property of its file)."""

    name: str
    version: str
    sample_rate_hz: int
    frame_samples: int
    heads: tuple[str, ...]
    least_s: float
    """Less sound than this and the answer is marked too short."""
    abstain_below: float
    affect_source: str
    licence: str = ""
    contract: int = 1
    digest: str = ""


class Ready(Struct, frozen=True, array_like=True, tag=True):
    """Every network is loaded and warmed up."""

    vad_frame_samples: int
    voice: VoiceCard


class Answer(Struct, frozen=True, array_like=True, tag=True):
    number: int
    lane: Lane
    busy_us: int
    """Time spent computing it."""


class Beat(Struct, frozen=True, array_like=True, tag=True):
    """Said by the work loop whenever it has nothing else to say for a while."""


class Broken(Struct, frozen=True, array_like=True, tag=True):
    """The worker cannot go on, and why; `exit_code` is what that makes of the engine if it happens while starting."""

    message: str
    exit_code: int


FromEngine = Batch | Stop
FromWorker = Ready | Answer | Beat | Broken

encode = msgspec.msgpack.Encoder().encode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
