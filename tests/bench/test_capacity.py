import numpy as np
import pytest
from made import heard, heartbeat, ledger, result

from clser.bench import capacity
from clser.bench.capacity import WARM_UP_S, analyse, lags, verdict
from clser.bench.card import Setup
from clser.bench.rig import Cpu, Play
from clser.bench.scene import Scene
from clser.bench.stats import Slope
from clser.engine.config import load

NO_DROPS = {"lost_samples": 0.0, "missed_messages": 0, "unsent_packets": 0.0, "unclosed_streams": 0.0}


@pytest.mark.parametrize(
    ("line", "waits", "drops", "why"),
    [
        (Slope(0.1, 0.2), [10.0] * 200, {}, ""),
        (Slope(0.9, 0.1), [10.0] * 200, {}, ""),  # too flat to matter
        (Slope(8.0, 5.0), [10.0] * 200, {}, ""),  # within its error
        (Slope(8.0, 1.0), [10.0] * 200, {}, "lag grows"),
        (Slope(0.0, 1.0), [10.0] * 50 + [900.0] * 2, {}, "p99"),
        (Slope(0.0, 1.0), [], {}, "no utterance"),
        (Slope(None, None), [1.0], {}, "too few"),
        (Slope(0.0, 1.0), [1.0], {"lost_samples": 320.0}, "lost samples: 320"),
        (Slope(0.0, 1.0), [1.0], {"unclosed_streams": 1.0}, "unclosed streams"),
    ],
)
def test_what_counts_as_carried(line: Slope, waits: list[float], drops: dict[str, float], why: str) -> None:
    found = verdict(line, waits, {**NO_DROPS, **drops})
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_a_step_of_the_ladder_is_not_carried() -> None:
    assert verdict(Slope(0.0, 1.0), [1.0], {**NO_DROPS, "overload_step": 1.0}) == "overload step: 1"


@pytest.mark.parametrize(("most", "found"), [(340, 300), (25, 25), (24, 18), (5, 0), (10_000, 1400)])
def test_a_quick_estimate_is_a_little_low(monkeypatch: pytest.MonkeyPatch, most: int, found: int) -> None:
    tried: list[int] = []

    def carries(_setup: Setup, _scene: Scene, count: int) -> bool:
        tried.append(count)
        return count <= most

    monkeypatch.setattr(capacity, "_carries", carries)
    assert capacity.estimate(Setup(), Scene(np.zeros(0, np.int16), (), "")) == found
    assert max(tried) <= 2 * capacity.TOO_MANY


def test_lag_is_measured_from_the_capture_after_the_warm_up() -> None:
    late = [
        (second * 1000 + 20.0 + second, result(1, "partial", 0, second * 16_000, second)) for second in range(1, 12)
    ]
    at, lag = lags(heard(*late), ledger(), 1, 10.0)
    assert at.min() >= WARM_UP_S
    assert at.max() < 10.0
    assert lag.tolist() == pytest.approx([20.0 + second for second in range(3, 10)], abs=0.01)


def test_a_row_tells_of_a_lag_that_grows() -> None:
    late = [
        (second * 1000 + 5.0 * second, result(1, "partial", 0, round(second * 16_000), at + 1))
        for at, second in enumerate(x / 4 for x in range(12, 52))
    ]
    beats = [(second * 1000.0, heartbeat(second, streams=1.0, rss_mb=100.0 + second)) for second in range(1, 14)]
    play = Play(ledger(packets=700), Cpu(1.0, 2.0, 0.1, 0.2, 10.0), 101.0)
    row = analyse(heard(*late, *beats), play, load(), 1, 10.0)
    assert row.lag_slope == pytest.approx(5.0, abs=0.01)
    assert not row.carried
    assert "5.0 ms a second" in row.why
    assert row.cpu == {"engine": 0.1, "workers": 0.2, "reader": 0.01, "load": 0.02}
    assert (row.rss_mb, row.rss_mb_per_stream) == (113.0, 12.0)
