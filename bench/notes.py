"""Of each message only what a long run counts later: an hour of eighty streams is a million messages of a kilobyte."""

from msgspec import Struct

from clser.engine import wire
from clser.engine.records import Gap, Message, Result, Speech, Status


class Note(Struct, frozen=True, array_like=True):
    at_us: float
    """Unix time of arrival."""
    kind: str
    stream: str
    epoch: int
    seq: int
    utterance: int = 0
    what: str = ""
    """A result's stage, another's event."""
    start: int = 0
    end: int = 0
    """Of a result; of speech, the sample (as its end); of a gap, from where on and how many."""
    reason: str = ""
    """Or a status's detail."""
    state: str = ""
    counters: dict[str, float] = {}


def note(at_us: float, message: Message) -> Note:
    kind, stream, epoch, seq = wire.kind_of(message), message.stream, message.epoch, message.seq
    if isinstance(message, Result):
        start, end = message.start_sample, message.end_sample
        return Note(at_us, kind, stream, epoch, seq, message.utterance, message.stage, start, end, message.reason)
    if isinstance(message, Speech):
        return Note(
            at_us, kind, stream, epoch, seq, message.utterance, message.event, 0, message.sample, message.reason
        )
    if isinstance(message, Gap):
        return Note(at_us, kind, stream, epoch, seq, 0, "", message.from_sample, message.count, message.reason)
    if isinstance(message, Status):
        event, detail = message.event, message.detail
        return Note(at_us, kind, stream, epoch, seq, 0, event, 0, 0, detail, message.state, message.counters)
    return Note(at_us, kind, stream, epoch, seq)
