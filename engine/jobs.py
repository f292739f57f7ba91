"""What the engine and a worker say to each other: a MessagePack head in the first frame, samples or numbers in the second.

Engine -> worker: Batch (and the rows' s16 samples, one after the other), Load, Switch, Stop.
Worker -> engine: Ready or ReadyWords, Answer (and float32 numbers, row after row; then the states that were asked for), Loaded,
Beat, Broken.

There are two kinds of workers. One has the voice activity network and the emotion model (lanes `vad`, `voice`), and joins what
the voice said with what the words say (lane `both`). The other recognises words, and says what they tell (lane `words`).

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

from clser.models.labels import PUBLISHED

Lane = Literal["vad", "voice", "both", "words"]
Streams = Literal["exactly", "window", "end"]
Joins = Literal["not", "opinions", "text"]
"""What the lane `both` is given: nothing; what voice and words said; or the sound and the text, by a model that reads both."""
CLASSES = len(PUBLISHED)
LANES: tuple[Lane, ...] = ("vad", "voice", "both")
"""Of a worker that knows emotions; one that recognises words has that lane alone."""


class Row(Struct, frozen=True, array_like=True):
    """`frames` frames for the stream whose state lies in `slot`; `fresh` starts that state anew before them.

    In the lane `words` a frame is a sample. In `both` there are as many as the model needs to hear again, none as a rule.
    """

    slot: int
    frames: int
    fresh: bool
    given: bool = False
    """Its state comes with the batch; in the emotion lane, what is known of the speaker. What is not given is unknown."""
    keep: bool = False
    """Its state behind the frames goes back with the answer; in the emotion lane, what the utterance tells of its speaker."""
    anew: bool = False
    """A model without a state computes the answer after the last frame, though its hop is not over; a recogniser says what stands
    if the utterance ends here, as it may."""
    last: bool = False
    """A recogniser is told that the utterance ends here."""
    suspect: bool = False
    """In `both`: its text is not to be trusted."""
    language: str = ""
    """What the stream speaks, as far as is known: a code such as `en`."""


class Batch(Struct, frozen=True, array_like=True, tag=True):
    number: int
    lane: Lane
    rows: tuple[Row, ...]
    states: bytes = b""
    """float32, of the rows that are `given` something; in `both` what voice and words said, row after row."""
    texts: tuple[str, ...] = ()
    """In `both`: what was said, row after row."""


class Stop(Struct, frozen=True, array_like=True, tag=True):
    pass


class Load(Struct, frozen=True, array_like=True, tag=True):
    """Make ready to answer with this delta upon the emotion model, and go on as before meanwhile. Loaded says how it went."""

    number: int
    delta: bytes
    """A file of `clser-models adapt`. Empty: the model as it is."""


class Switch(Struct, frozen=True, array_like=True, tag=True):
    """From the next batch on, answer with what was made ready by the Load of that number."""

    number: int


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


class Word(Struct, frozen=True, array_like=True):
    """As it is written, with the space before it where its script has one."""

    text: str
    start: int
    """In samples since the row that was `fresh`,"""
    end: int
    confidence: float


class Words(Struct, frozen=True, array_like=True):
    """What a recogniser holds of all the sound since the row that was `fresh`."""

    words: tuple[Word, ...] = ()
    stable: int = 0
    """So many of them will not change any more."""
    language: str = ""
    """What is spoken, as it believes; empty where it does not tell."""
    confidence: float = 0.0
    """That what is written is what was said."""
    suspect: bool = False
    """Something says that these are no words, or not these."""
    whole: bool = False
    """It has decoded all that it was given: if the utterance ends here, no more is to come."""

    @property
    def text(self) -> str:
        return "".join(word.text for word in self.words).strip()


class RecogniserCard(Struct, frozen=True):
    """What a recogniser says of itself."""

    name: str
    digest: str = ""
    languages: tuple[str, ...] = ()
    """That it knows; empty: very many."""
    step_ms: int = 500
    """New sound of about this is worth a row."""
    trust: float = 1.0
    """How far its words can be believed, next to those of people: what they tell counts so much."""


class ReadyWords(Struct, frozen=True, array_like=True, tag=True):
    """The recogniser is loaded and warmed up, and what reads its words."""

    card: RecogniserCard
    tells: int = 0
    """Numbers that come with a row's words: the logits of what they tell, by published class, and a vector. 0: nothing reads them."""

    def needed(self, batch: Batch) -> int:
        return len(batch.rows) * self.tells


class Ready(Struct, frozen=True, array_like=True, tag=True):
    """Every network is loaded and warmed up."""

    vad_frame_samples: int
    voice: VoiceCard
    vad_state: int = 0
    """Numbers in a stream's state; 0 for a network that does not hand it out."""
    joins: Joins = "not"

    def kept(self, lane: Lane) -> int:
        """Numbers that come back with a row of the lane that asked for them."""
        return self.vad_state if lane == "vad" else self.voice.speaker_numbers

    def width(self, lane: Lane) -> int:
        """Numbers of a frame's answer; in `both` of a row's: the heads' logits, the log-probabilities that the words have by
        themselves, by published class, and how much the voice and the words counted."""
        return {"vad": 1, "voice": len(self.voice.heads), "both": len(self.voice.heads) + CLASSES + 2}[lane]

    def needed(self, batch: Batch) -> int:
        """Numbers that answer that batch."""
        if batch.lane == "both":
            return len(batch.rows) * self.width("both")
        kept = sum(row.keep for row in batch.rows) * self.kept(batch.lane)
        return sum(row.frames for row in batch.rows) * self.width(batch.lane) + kept


class Answer(Struct, frozen=True, array_like=True, tag=True):
    number: int
    lane: Lane
    busy_us: int
    """Time spent computing it."""
    words: tuple[Words, ...] = ()
    """Of the lane `words`, row after row."""


class Loaded(Struct, frozen=True, array_like=True, tag=True):
    """The answer to a Load: what the model will say of itself, or why it cannot be."""

    number: int
    card: VoiceCard | None
    why: str = ""
    exit_code: int = 2


class Beat(Struct, frozen=True, array_like=True, tag=True):
    """Said by the work loop whenever it has nothing else to say for a while."""


class Broken(Struct, frozen=True, array_like=True, tag=True):
    """The worker cannot go on, and why; `exit_code` is what that makes of the engine if it happens while starting."""

    message: str
    exit_code: int
    device: bool = False
    """It was the device that broke."""


def nonsense(asked: Batch | None, answer: Answer, numbers: NDArray[np.float32], ready: "AnyReady") -> str:
    """What is wrong with an answer, as one to `asked`; empty if nothing is."""
    if asked is None or answer.number != asked.number:
        return f"an answer to batch {answer.number} of {answer.lane}, which it was not asked"
    if len(numbers) != ready.needed(asked):
        return f"{len(numbers)} numbers where {ready.needed(asked)} belong"
    if len(answer.words) != (len(asked.rows) if answer.lane == "words" else 0):
        return f"the words of {len(answer.words)} rows where {len(asked.rows)} belong"
    if not np.isfinite(numbers).all():
        return "numbers that are none"
    return "" if all(map(_sane, answer.words)) else "words out of order, or sure beyond reason"


def _sane(said: Words) -> bool:
    """Whether it can be published."""
    certainties = [said.confidence, *(word.confidence for word in said.words)]
    ordered = all(0 <= word.start <= word.end for word in said.words)
    return 0 <= said.stable <= len(said.words) and ordered and all(0 <= each <= 1 for each in certainties)


AnyReady = Ready | ReadyWords
FromEngine = Batch | Load | Switch | Stop
FromWorker = AnyReady | Answer | Loaded | Beat | Broken

encode = msgspec.msgpack.Encoder().encode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
