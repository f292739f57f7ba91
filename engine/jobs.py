"""What the engine and a worker say to each other: a MessagePack head in the first frame, samples or numbers in the second.

Engine -> worker: Batch (and the rows' s16 samples, one after the other), Stop.
Worker -> engine: Ready, Answer (and float32 numbers, row after row; then the states that were asked for), Beat, Broken.

The voice activity network hears a stream from its beginning, so its state cannot be made again from the sound that is kept.
Now and then a row asks for it (`keep`); a stream that moves, or whose worker died, goes on from there (`given`).
In the same way an emotion model that knows speakers is given what is known of one at the start of an utterance, and tells
what the utterance says of him.
"""

from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Lane = Literal["vad", "voice"]
Streams = Literal["exactly", "window", "end"]
LANES: tuple[Lane, ...] = ("vad", "voice")


class Row(Struct, frozen=True, array_like=True):
    """`frames` frames for the stream whose state lies in `slot`; `fresh` starts that state anew before them."""

    slot: int
    frames: int
    fresh: bool
    given: bool = False
    """Its state comes with the batch; in the emotion lane, what is known of the speaker. What is not given is unknown."""
    keep: bool = False
    """Its state behind the frames goes back with the answer; in the emotion lane, what the utterance tells of its speaker."""
    anew: bool = False
    """A model without a state computes the answer after the last frame, though its hop is not over."""


class Batch(Struct, frozen=True, array_like=True, tag=True):
    number: int
    lane: Lane
    rows: tuple[Row, ...]
    states: bytes = b""
    """float32, of the rows that are `given` something."""


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
    streams: Streams = "exactly"
    """It carries a state; or hears the last `window_frames` anew, now and then (window) or once all was said (end)."""
    window_frames: int = 0
    hop_frames: int = 0
    """From one answer to the next (window)."""
    speaker_numbers: int = 0
    """So many numbers tell of a speaker; 0: it knows nobody."""
    none_above: float = 0.5
    """From this probability of its head `none` on, what was heard is no speech."""


class Ready(Struct, frozen=True, array_like=True, tag=True):
    """Every network is loaded and warmed up."""

    vad_frame_samples: int
    voice: VoiceCard
    vad_state: int = 0
    """Numbers in a stream's state; 0 for a network that does not hand it out."""

    def kept(self, lane: Lane) -> int:
        """Numbers that come back with a row of the lane that asked for them."""
        return self.vad_state if lane == "vad" else self.voice.speaker_numbers


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
    device: bool = False
    """It was the device that broke."""


def nonsense(asked: Batch | None, answer: Answer, numbers: NDArray[np.float32], ready: Ready) -> str:
    """What is wrong with an answer, as one to `asked`; empty if nothing is."""
    if asked is None or answer.number != asked.number:
        return f"an answer to batch {answer.number} of {answer.lane}, which it was not asked"
    width = 1 if answer.lane == "vad" else len(ready.voice.heads)
    needed = sum(row.frames * width + row.keep * ready.kept(answer.lane) for row in asked.rows)
    if len(numbers) != needed:
        return f"{len(numbers)} numbers where {needed} belong"
    return "" if np.isfinite(numbers).all() else "numbers that are none"


FromEngine = Batch | Stop
FromWorker = Ready | Answer | Beat | Broken

encode = msgspec.msgpack.Encoder().encode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
