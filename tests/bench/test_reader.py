"""What the reader writes is what the analyses read, at length and in brief."""

import struct
from pathlib import Path
from typing import Any

import pytest
from made import heartbeat, result, speech

from clser.bench.account import settle
from clser.bench.notes import note
from clser.bench.reader import brief, read_notes, read_received, whole
from clser.engine import wire
from clser.engine.records import Gap, Message

MESSAGES: list[Message] = [
    speech(1, "started", 16_000, 1),
    result(1, "partial", 12_000, 30_000, 1),
    result(1, "final", 12_000, 40_000, 2),
    speech(1, "ended", 36_000, 2),
    result(2, "final", 60_000, 70_000, 4),
    Gap(stream="load-0", seq=1, from_sample=80_000, count=320, reason="lost"),
    heartbeat(1, streams=1.0, rss_mb=101.5),
]


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_a_file_at_length_and_in_brief(tmp_path: Path, form: Any) -> None:
    for name, pack in (("whole", whole), ("brief", brief)):
        packed = [pack(at * 1_000_000, wire.encode(message, form)) for at, message in enumerate(MESSAGES)]
        (tmp_path / name).write_bytes(b"".join(struct.pack("<I", len(each)) + each for each in packed))
    received = read_received(tmp_path / "whole")
    assert [entry.message for entry in received] == MESSAGES
    notes = list(read_notes(tmp_path / "brief"))
    assert notes == [note(entry.at_us, entry.message) for entry in received]
    assert notes[-1].counters == {"streams": 1.0, "rss_mb": 101.5}


def test_an_account_of_it() -> None:
    account = settle(note(at * 1000.0, message) for at, message in enumerate([*MESSAGES, *MESSAGES[:3]]))
    first, second = account.of(0).finals
    assert (first.at_us, first.start, first.end, first.onset, first.offset) == (2000.0, 12_000, 40_000, 16_000, 36_000)
    assert (second.onset, second.offset) == (60_000, 70_000)  # no word of its speech arrived
    assert (account.finals, account.missed, account.gaps, account.lost_samples) == (2, 1, 1, 320)
    assert account.of(0).partial_end.tolist() == [30_000]
    assert account.counters["rss_mb"] == 101.5
    assert account.answers_us().tolist() == [1000.0, 2000.0, 4000.0]
    assert account.of(7).finals == []
