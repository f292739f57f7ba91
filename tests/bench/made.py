"""Messages and ledgers as a run would have left them."""

import msgspec
import numpy as np

from clser.bench.account import Account, Final, settle
from clser.bench.heard import Heard, sort_out
from clser.bench.load import PACKET_NS, Ledger, name_of
from clser.bench.notes import note
from clser.bench.reader import Received
from clser.bench.speaker import sample_result
from clser.engine.records import ENGINE, Message, Result, Speech, Stage, Status

START_US = 1_000_000_000.0
PACKET_US = PACKET_NS / 1000


def ledger(streams: int = 1, packets: int = 500, late_us: int = 0) -> Ledger:
    """Streams that all begin at START_US, each packet sent as it is complete."""
    due = START_US + (np.arange(packets) + 1) * PACKET_US + late_us
    return Ledger(np.full(streams, START_US), np.tile(due.astype(np.int64), (streams, 1)), 0, 0.1, 10.0, streams)


def result(utterance: int, stage: Stage, start: int, end: int, seq: int, **fields: object) -> Result:
    return msgspec.structs.replace(
        sample_result(name_of(0)),
        utterance=utterance,
        stage=stage,
        start_sample=start,
        end_sample=end,
        seq=seq,
        **{"reason": "silence" if stage == "final" else "", **fields},
    )


def speech(utterance: int, event: str, sample: int, seq: int) -> Speech:
    return Speech(stream=name_of(0), utterance=utterance, event=event, sample=sample, at_s=0.0, seq=seq)  # type: ignore[arg-type]


def heartbeat(seq: int, **counters: float) -> Status:
    return Status(stream=ENGINE, seq=seq, unix_us=0, state="ready", event="heartbeat", counters=counters)


def heard(*entries: tuple[float, Message]) -> Heard:
    """Each entry: milliseconds after START_US, and what arrived then."""
    return sort_out([Received(START_US + at_ms * 1000, message) for at_ms, message in entries])


def account(*entries: tuple[float, Message]) -> Account:
    """The same, as a brief reader keeps it."""
    return settle(note(START_US + at_ms * 1000, message) for at_ms, message in entries)


def final(utterance: int, onset: int, offset: int, seq: int, epoch: int = 1) -> Final:
    return Final(START_US, epoch, seq, utterance, onset, offset, "silence", onset, offset)
