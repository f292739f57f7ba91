from collections import Counter

import msgspec
import pytest
from made import START_US

from clser.bench import bus
from clser.bench.reader import Received
from clser.bench.speaker import Say, is_final, sample_result
from clser.engine.records import Message, Result


def arrival(stream: str, seq: int, after_ms: float) -> Received:
    sent = msgspec.structs.replace(sample_result(stream), seq=seq, captured_unix_us=int(START_US))
    return Received(START_US + after_ms * 1000, sent)


def test_what_is_sent_again_for_late_joiners_is_not_measured() -> None:
    received = [arrival("load-0", 1, 0.25), arrival("load-1", 1, 0.75), arrival("load-0", 1, 900.0)]
    transit = bus.transit(bus.first_arrivals(received), "load")
    assert (transit.p50, transit.n) == (0.5, 2)


ORDER = Say("flood", 640, 1000.0, 32, 20)


def flood() -> list[Message]:
    """All of an order's messages, as they are sent."""
    return [
        msgspec.structs.replace(
            sample_result(f"flood-{at % 32}"),
            utterance=at,
            revision=at,
            stage="final" if is_final(ORDER, at) else "partial",
        )
        for at in range(ORDER.count)
    ]


def test_every_stream_has_its_finals_in_turn() -> None:
    finals = Counter(message.stream for message in flood() if isinstance(message, Result) and message.final)
    assert finals.total() == ORDER.count // ORDER.final_every
    assert len(finals) == ORDER.streams
    assert not any(is_final(Say("quiet", 10, 1.0), at) for at in range(10))


def test_finals_that_are_missing_or_come_twice_are_counted() -> None:
    sent = flood()
    assert bus.finals_of(sent, ORDER) == {"finals": 32, "finals_missing_after_replay": 0, "finals_doubled": 0}
    first, second, third, *others = [message for message in sent if isinstance(message, Result) and message.final]
    planted = bus.finals_of([first, first, third, third, third, *others], ORDER)
    assert (planted["finals_missing_after_replay"], planted["finals_doubled"]) == (1, 3)
    del second


def test_only_passing_messages_that_newer_ones_have_overtaken_are_stale() -> None:
    sent = flood()
    newest = ORDER.count - ORDER.streams
    assert bus._stale(sent[newest:], newest) == 0
    assert bus._stale([message for message in sent if isinstance(message, Result) and message.final], newest) == 0
    assert bus._stale(sent[1:4], newest) == 3
    assert bus._stale([sample_result("load-1")], newest) == 0


@pytest.mark.slow
@pytest.mark.alone
def test_the_bus_through_real_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "QUIET_S", 0.5)  # of so few messages all has come sooner
    monkeypatch.setattr(bus, "IDLE_PER_S", 100.0)
    line = bus.measure(share=0.03)
    wait = line["publish_to_receive_ms"]
    assert isinstance(wait, bus.Distribution)
    assert wait.p50 is not None
    assert 0 < wait.p50 < 1000
    stale = line["stale_read"]
    assert isinstance(stale, int)
    assert 0 <= stale <= 100
    missed = line["missed_by_a_reader_that_keeps_up"]
    assert isinstance(missed, dict)
    assert missed["idle"] == missed["load"] == 0
    assert line["finals"] == 30
    assert line["finals_missing_after_replay"] == line["finals_doubled"] == line["missed"] == 0
    assert line["missing_of_everything"] == 0
    assert bus.table(line)
