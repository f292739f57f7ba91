import numpy as np
import pytest
from made import account, heartbeat, ledger, result

from clser.bench import soak
from clser.bench.losses import Losses
from clser.bench.rig import Cpu, Play
from clser.bench.soak import Kill, Killer, is_calm, kill_times, recoveries, recovery, report, table, thinned
from clser.bench.stats import Distribution
from clser.engine.config import load
from clser.engine.errors import GivenError
from clser.engine.records import ENGINE, Status

NONE = Losses(0, 0, 0, 0, 0, 0)


def worker(seq: int, event: str) -> Status:
    return Status(stream=ENGINE, seq=seq, unix_us=0, state="ready", event=event)


def test_kills_lie_evenly_and_not_too_close() -> None:
    assert kill_times(0, 60.0) == []
    assert kill_times(2, 60.0) == [soak.WARM_UP_S + 15.0, soak.WARM_UP_S + 45.0]
    assert kill_times(1, 6.0) == [soak.WARM_UP_S + 3.0]
    with pytest.raises(GivenError, match="at most 4, or more minutes"):
        kill_times(5, 60.0)


def test_a_kill_that_finds_no_worker_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(soak.time, "monotonic", lambda: now[0])
    asked: list[int] = []

    def kill(which: int) -> float | None:
        asked.append(which)
        return None if len(asked) == 1 else now[0] * 1e6

    killer = Killer(kill, [5.0, 20.0])
    for now[0] in (104.0, 105.2, 105.4, 105.6, 121.0, 130.0):
        killer.look()
    assert asked == [0, 0, 1]
    assert killer.killed_us == [105.4e6, 121.0e6]


def test_recovery_is_counted_from_the_kill() -> None:
    told = account(
        (900.0, result(1, "partial", 0, 100, 1)),
        (1_000.0, worker(1, "worker_lost")),
        (1_010.0, result(1, "partial", 0, 100, 2)),  # from another worker
        (1_200.0, worker(2, "worker_back")),
        (1_350.0, result(1, "partial", 0, 200, 3)),
        (1_400.0, result(1, "final", 0, 200, 4)),
        (9_000.0, worker(3, "worker_lost")),
    )
    start = account().answers_us()
    assert start.size == 0
    begin = told.statuses[0].at_us - 1_000_000
    first, second = recoveries(told, [begin + 950_000, begin + 8_990_000])
    assert first.back_us is not None and first.result_us is not None
    assert (first.back_us - first.at_us, first.result_us - first.at_us) == (250_000, 400_000)
    assert (second.back_us, second.result_us) == (None, None)
    spread = recovery([0.25, 0.5, 1.0])
    assert (spread.p50, spread.max, spread.n) == (0.5, 1.0, 3)
    assert recovery([]).p50 is None


def test_the_time_around_a_kill_is_not_calm() -> None:
    kills = [Kill(100e6, 101e6, 101.1e6), Kill(200e6, None, None)]
    times = [99.9, 100.0, 110.9, 111.1, 200.0, 209.9, 210.1]
    assert [is_calm(at * 1e6, kills) for at in times] == [True, False, False, True, False, False, True]


def leaking(kill_at_s: float | None = None) -> dict[str, object]:
    """Two minutes of one stream: lag grows by 0.5 ms a second, memory by 36 MB an hour."""
    late, beats = [], []
    for at in range(1, 120):
        away = kill_at_s is not None and kill_at_s <= at <= kill_at_s + 2
        lag_ms = 10 + 0.5 * at + (3000 if away else 0)
        late.append((at * 1000 + lag_ms, at * 16_000))
        beats.append((at * 1000.0, heartbeat(at, streams=1.0, rss_mb=20.0 if away else 100 + at * 0.01)))
    partials = [(at_ms, result(1, "partial", 0, end, seq)) for seq, (at_ms, end) in enumerate(sorted(late), 1)]
    told = account(*sorted([*partials, *beats], key=lambda entry: entry[0]))
    killed = [] if kill_at_s is None else [told.statuses[0].at_us + (kill_at_s - 1) * 1e6]
    play = Play(ledger(packets=6000), Cpu(10.0, 20.0, 1.0, 2.0, 120.0), 90.0)
    return report(told, play, load(), killed, NONE)


def test_lag_and_memory_that_grow_are_told() -> None:
    line = leaking()
    assert line["lag_slope"] == pytest.approx(0.5, abs=0.001)
    assert line["rss_slope_mb_h"] == pytest.approx(36.0, abs=0.01)
    assert line["lag_slope_error"] == pytest.approx(0.0, abs=0.001)
    assert line["unclosed_streams"] == line["missed_messages"] == 0
    assert line["cpu"] == {"engine": 0.083, "workers": 0.167, "reader": 0.008, "load": 0.017}


def test_what_a_kill_does_stands_apart_from_the_slopes() -> None:
    line = leaking(60.0)
    assert line["lag_slope"] == pytest.approx(0.5, abs=0.001)
    assert line["rss_slope_mb_h"] == pytest.approx(36.0, abs=0.01)
    lag = line["lag_ms"]
    assert isinstance(lag, Distribution)
    assert lag.p99 == pytest.approx(3040, abs=10)
    assert line["killed_s"] == [60.0]
    text = "\n".join(table({**line, "streams": 1, "duty": 1.0, "minutes": 2.0}))
    assert "0.50 ± 0.00" in text
    assert "36.00 ± " in text


def test_an_hour_is_drawn_with_a_few_hundred_points() -> None:
    at = np.arange(5.0, 3605.0)
    points = thinned(at, at * 2)
    assert 200 <= len(points) <= soak.POINTS + 1
    assert points[0][0] < 20
    assert all(value == pytest.approx(2 * second, abs=40) for second, value in points)
    assert thinned(np.zeros(0), np.zeros(0)) == []
