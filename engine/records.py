"""The few types that travel. READ FIRST.

Time is an integer count of samples at 16 kHz since the stream began; seconds appear at the edges only.
`AudioChunk` and `Utterance` stay inside the engine. `Result`, `Speech`, `Frame`, `Gap` and `Status` go out on the bus:
their fields, written once here, are the wire format, and the JSON Schema in engine/schema/ derives from them.
"""

import re
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
"""Everything behind the resampler runs at this rate."""

SCHEMA = "1.0"
ENGINE = "_engine"
"""The stream name under which the engine speaks of itself."""

STREAM_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

Samples = NDArray[np.int16]
Stage = Literal["partial", "tentative", "final", "amended"]
State = Literal["starting", "ready", "degraded", "stopping", "failed"]
SampleFormat = Literal["s16", "f32"]
Probability = Annotated[float, Meta(ge=0, le=1)]
Signed = Annotated[float, Meta(ge=-1, le=1)]
Probabilities = dict[str, Probability]


def seconds(samples: int) -> float:
    return round(samples / SAMPLE_RATE_HZ, 4)


def samples(milliseconds: float) -> int:
    return round(milliseconds * SAMPLE_RATE_HZ / 1000)


# --- inside the engine ------------------------------------------------------------------------------------------------


class AudioChunk(Struct, frozen=True):
    """Sound as a source heard it, in the source's own rate and channels."""

    data: NDArray[np.int16] | NDArray[np.float32]
    """[samples] or [samples, channels]."""
    captured_unix_us: int
    """When the last sample was captured, by the engine's wall clock."""


class Utterance(Struct, frozen=True):
    """A stretch of speech as the segmenter sees it at one moment; it grows by revisions and ends once."""

    number: int
    stage: Stage
    start_sample: int
    """With the lead-in: where the networks begin to listen."""
    onset_sample: int
    """Where speech begins."""
    end_sample: int
    reason: str = ""
    """Why it ended (`silence`, `longest`, `idle`, `gap`, `muted`, `closed`), else empty."""


# --- on the bus -------------------------------------------------------------------------------------------------------


class Emotion(Struct, frozen=True):
    label: str | None
    """None when abstained."""
    confidence: Probability
    abstained: bool
    reason: str | None
    """Why it abstained."""
    too_short: bool
    """Less sound than the model needs for an answer worth having."""
    probabilities: Probabilities


class Modality(Struct, frozen=True):
    """What one of voice and words said by itself."""

    probabilities: Probabilities


class Weights(Struct, frozen=True):
    voice: Probability
    words: Probability


class Explain(Struct, frozen=True):
    gates: dict[str, float] = {}


class Text(Struct, frozen=True):
    stable: str
    """Never changes again within the utterance."""
    tail: str
    """May still change."""
    language: str | None
    confidence: Probability
    """That what is written is what was said."""
    suspect: bool
    """Something says that these are no words, or not these: they count for nothing, or little."""
    times: tuple[tuple[float, float], ...] = ()
    """When each word of `stable`, then `tail`, begins and ends, in seconds since the stream began."""


class Timing(Struct, frozen=True):
    """Where the time went between the capture of `end_sample` and the sending, in milliseconds.

    `fuse` holds the wait for the words, where there was one.
    """

    capture: float
    vad: float
    queue: float
    infer: float
    fuse: float


class Model(Struct, frozen=True):
    name: str
    digest: str


class Result(Struct, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """The engine's answer for one utterance so far. A reader keeps the highest revision of each (stream, utterance)."""

    schema: str = SCHEMA
    epoch: int = 0
    """Changes when the engine restarts."""
    stream: str
    speaker: str | None
    seq: int = 0
    """Counts per topic, from 1."""
    utterance: int
    revision: int
    stage: Stage
    start_sample: int
    end_sample: int
    sample_rate_hz: int = SAMPLE_RATE_HZ
    start_s: float
    end_s: float
    captured_unix_us: int
    """When the sample at `end_sample` was captured, by the engine's wall clock."""
    ttl_ms: int | None
    """A partial older than this is not worth showing."""
    reason: str = ""
    emotion: Emotion
    voice: Modality
    words: Modality | None
    weights: Weights
    explain: Explain
    arousal: Signed
    valence: Signed
    affect_source: str
    text: Text | None
    timing_ms: Timing
    model: Model

    @property
    def final(self) -> bool:
        return self.stage in ("final", "amended")


class Speech(Struct, frozen=True, kw_only=True, tag_field="kind", tag="speech"):
    """Speech started or ended."""

    schema: str = SCHEMA
    epoch: int = 0
    stream: str
    seq: int = 0
    utterance: int
    event: Literal["started", "ended"]
    sample: int
    at_s: float
    reason: str = ""
    """Why it ended; `too_short` says that the utterance is withdrawn: it had no result, and gets none."""


class Frame(Struct, frozen=True, kw_only=True, tag_field="kind", tag="frame"):
    """The continuous track: a row for every frame of the voice activity network. Sent only while somebody subscribes."""

    schema: str = SCHEMA
    epoch: int = 0
    stream: str
    seq: int = 0
    end_sample: int
    end_s: float
    level_dbfs: float
    speech: Probability
    utterance: int | None
    probabilities: Probabilities | None
    arousal: Signed | None
    valence: Signed | None


class Gap(Struct, frozen=True, kw_only=True, tag_field="kind", tag="gap"):
    """Samples were lost: the index moves on, and the stream's state starts anew behind them."""

    schema: str = SCHEMA
    epoch: int = 0
    stream: str
    seq: int = 0
    from_sample: int
    count: int
    reason: str


class Status(Struct, frozen=True, kw_only=True, tag_field="kind", tag="status"):
    """How the engine, or one stream, is."""

    schema: str = SCHEMA
    epoch: int = 0
    stream: str = ENGINE
    seq: int = 0
    unix_us: int
    state: State
    event: str
    """`ready`, `heartbeat`, `opened`, `closed`, `worker_lost`, `worker_back`, `silent`, `stopping`, ..."""
    detail: str = ""
    counters: dict[str, float] = {}


Message = Result | Speech | Frame | Gap | Status
KINDS = ("result", "speech", "frame", "gap", "status")
