import msgspec
import pytest
from made import START_US

from clser.bench import bus
from clser.bench.reader import Received
from clser.bench.speaker import sample_result


def arrival(stream: str, seq: int, after_ms: float) -> Received:
    sent = msgspec.structs.replace(sample_result(stream), seq=seq, captured_unix_us=int(START_US))
    return Received(START_US + after_ms * 1000, sent)


def test_what_is_sent_again_for_late_joiners_is_not_measured() -> None:
    received = [arrival("load-0", 1, 0.25), arrival("load-1", 1, 0.75), arrival("load-0", 1, 900.0)]
    transit = bus.transit(bus.first_arrivals(received), "load")
    assert (transit.p50, transit.n) == (0.5, 2)


@pytest.mark.slow
def test_the_bus_through_real_processes() -> None:
    line = bus.measure(share=0.03)
    wait = line["publish_to_receive_ms"]
    assert isinstance(wait, bus.Distribution)
    assert wait.p50 is not None
    assert 0 < wait.p50 < 1000
    stale = line["stale_read"]
    assert isinstance(stale, int)
    assert 0 <= stale <= 600
    missed = line["missed_by_a_reader_that_keeps_up"]
    assert isinstance(missed, dict)
    assert missed["idle"] == missed["load"] == 0
    assert bus.table(line)
