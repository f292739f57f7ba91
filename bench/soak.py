"""Does it hold for hours? Many speakers, the memory, the lag, and now and then a worker that is killed."""

import sys
import time
from collections.abc import Callable
from itertools import pairwise
from math import ceil

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from clser.bench.account import Account, lags, waits
from clser.bench.card import Setup
from clser.bench.load import PACKET_NS, Ledger
from clser.bench.losses import Losses, losses, rows_of
from clser.bench.reference import undisturbed
from clser.bench.rig import Play, Rig
from clser.bench.scene import circle, find_takes, phases, talking
from clser.bench.stats import distribution, medians_per_second, slope
from clser.bench.table import number, spreads
from clser.engine.config import Config
from clser.engine.errors import GivenError

STREAMS = 80
"""What is carried easily by two cores; 80 % of what `capacity` finds is what a machine is to hold for hours."""
SCENE_S = 60.0
WARM_UP_S = 5.0
LEAST_APART_S = 15.0
"""Kills nearer to each other would look like a worker that cannot be helped: the engine gives up at the sixth in a minute."""
AFTERMATH_S = 10.0
"""So long after a worker is back, and while it is away, the lag is its recovery's and stands apart from the slope."""
SETTLE_S = 60.0
"""Memory is fitted from then on, or over the second half of a short run: rings fill, pools grow to their size."""
TAKES = 200
POINTS = 240

Numbers = NDArray[np.float64]


class Recovery(Struct, frozen=True):
    """Seconds."""

    p50: float | None
    p95: float | None
    max: float | None
    n: int


class Kill(Struct, frozen=True):
    at_us: float
    back_us: float | None
    """Arrival of the first `worker_back`."""
    result_us: float | None
    """Arrival of the first result after it."""


def measure(setup: Setup, minutes: float, streams: int, duty: float, kills: int) -> dict[str, object]:
    seconds = minutes * 60
    due_s = kill_times(kills, seconds)
    takes, where = find_takes(setup.corpora, TAKES, setup.seed)
    scene = circle(talking(takes, duty, SCENE_S, setup.seed, where), setup.seed)
    begin = phases(scene.packets, streams)
    reference = undisturbed(setup, scene, begin)
    print(f"{streams} streams for {minutes:g} minutes, {kills} kills", file=sys.stderr)
    with Rig(setup, WARM_UP_S + seconds, brief=True) as rig:
        killer = Killer(rig.kill_worker, due_s)
        play = rig.play(scene, streams, round((WARM_UP_S + seconds) * 1e9 / PACKET_NS), killer.look)
    found = losses(rig.account, reference, play.ledger, begin)
    line = report(rig.account, play, setup.config, killer.killed_us, found)
    return {"minutes": minutes, "streams": streams, "duty": duty, **line, "sound": where}


def kill_times(kills: int, seconds: float) -> list[float]:
    """Evenly over the run, in seconds from its start; GivenError where that is too often."""
    if kills > 1 and seconds / kills < LEAST_APART_S:
        most = int(seconds // LEAST_APART_S)
        raise GivenError(
            f"--kills {kills}: in {seconds:.0f} s they would be {seconds / kills:.1f} s apart, and the engine gives up "
            f"at the sixth in a minute; give at most {max(1, most)}, or more minutes"
        )
    return [WARM_UP_S + seconds * (at + 0.5) / kills for at in range(kills)]


class Killer:
    """Kills workers at the times given, when it is looked at."""

    def __init__(self, kill: Callable[[int], float | None], due_s: list[float]) -> None:
        self._kill = kill
        self._due_s = due_s
        self._began_s = time.monotonic()
        self.killed_us: list[float] = []

    def look(self) -> None:
        at = len(self.killed_us)
        if at < len(self._due_s) and time.monotonic() - self._began_s >= self._due_s[at]:
            killed_us = self._kill(at)  # one after the other, where there are several
            if killed_us is not None:
                self.killed_us.append(killed_us)


def recoveries(account: Account, killed_us: list[float]) -> list[Kill]:
    backs = [status.at_us for status in account.statuses if status.what == "worker_back"]
    answers = account.answers_us()
    kills = []
    for at_us, next_us in pairwise([*killed_us, np.inf]):
        back = next((back_us for back_us in backs if at_us < back_us < next_us), None)
        after = answers[answers > back] if back is not None else answers[:0]
        kills.append(Kill(at_us, back, float(after[0]) if after.size else None))
    return kills


def recovery(values: list[float]) -> Recovery:
    if not values:
        return Recovery(None, None, None, 0)
    p50, p95, most = (round(float(value), 3) for value in np.percentile(values, (50, 95, 100)))
    return Recovery(p50, p95, most, len(values))


def report(account: Account, play: Play, config: Config, killed_us: list[float], found: Losses) -> dict[str, object]:
    ledger = play.ledger
    origin_us = float(ledger.start_us.min())
    kills = recoveries(account, killed_us)
    at_s, lag_ms = lags(account, ledger, origin_us)
    heard = at_s >= WARM_UP_S
    seconds, medians = medians_per_second(at_s[heard], lag_ms[heard])
    calm = calm_at(origin_us + seconds * 1e6, kills)
    ended_us, wait_ms = waits(account, ledger, config)
    lag = slope(seconds[calm], medians[calm])
    killed_s = [(kill.at_us - origin_us) / 1e6 for kill in kills]
    rss_s, rss_mb = memory(account, kills, origin_us)
    settled = rss_s >= min(SETTLE_S, rss_s.max(initial=0) / 2)
    rss = slope(rss_s[settled], rss_mb[settled])
    beats = account.heartbeats
    return {
        "lag_slope": lag.per_s,
        "lag_slope_error": lag.error,
        "rss_slope_mb_h": None if rss.per_s is None else rss.per_s * 3600,
        "rss_slope_error": None if rss.error is None else rss.error * 3600,
        **msgspec.structs.asdict(found),
        "kills": len(kills),
        "recover_s": recovery([(kill.back_us - kill.at_us) / 1e6 for kill in kills if kill.back_us is not None]),
        "recover_to_result_s": recovery(
            [(kill.result_us - kill.at_us) / 1e6 for kill in kills if kill.result_us is not None]
        ),
        "lag_ms": distribution(lag_ms[heard]),
        "after_endpoint_ms": distribution(wait_ms),
        "after_endpoint_calm_ms": distribution(wait_ms[calm_at(ended_us, kills)]),
        "loop_lag_ms": distribution([beat.counters.get("loop_lag_ms_p99", 0.0) for beat in beats]),
        "rss_mb": float(rss_mb.max(initial=0)),
        "overload_step": max((beat.counters.get("overload_step", 0.0) for beat in beats), default=0.0),
        **undelivered(account, ledger),
        "cpu": play.cpu.shares(),
        "load_late_ms": distribution(ledger.late_ms()),
        "killed_s": [round(each, 2) for each in killed_s],
        "lag_over_time": thinned(seconds, medians),
        "rss_over_time": thinned(rss_s, rss_mb),
    }


def is_calm(at_us: float, kills: list[Kill]) -> bool:
    """Whether no worker was away then, nor had just come back; a worker that never did is taken for back at once."""
    return not any(
        kill.at_us <= at_us <= (kill.at_us if kill.back_us is None else kill.back_us) + AFTERMATH_S * 1e6
        for kill in kills
    )


def calm_at(times_us: Numbers, kills: list[Kill]) -> NDArray[np.bool_]:
    return np.array([is_calm(at_us, kills) for at_us in times_us.tolist()], np.bool_)


def memory(account: Account, kills: list[Kill], origin_us: float) -> tuple[Numbers, Numbers]:
    """Of engine and workers, by second of the run; a worker that is away or new would count for a change of memory."""
    begin_us = origin_us + WARM_UP_S * 1e6
    beats = [beat for beat in account.heartbeats if beat.at_us >= begin_us and is_calm(beat.at_us, kills)]
    at = np.array([(beat.at_us - origin_us) / 1e6 for beat in beats], np.float64)
    return at, np.array([beat.counters.get("rss_mb", 0.0) for beat in beats], np.float64)


def undelivered(account: Account, ledger: Ledger) -> dict[str, object]:
    """All that should be zero where the load is carried and nothing breaks."""
    return {
        "gaps": account.gaps,
        "lost_samples": account.lost_samples,
        "missed_messages": account.missed,
        "unsent_packets": ledger.blocked,
        "refused_packets": ledger.refused,
        "unclosed_streams": len(ledger.start_us) - ledger.closed,
        "workers_lost": account.counters.get("workers_lost", 0.0),
    }


def thinned(at_s: Numbers, values: Numbers) -> list[list[float]]:
    """Medians of some 240 stretches: [middle of it in s, value]."""
    if not at_s.size:
        return []
    stretch = max(1, ceil(float(np.ptp(at_s)) / POINTS))
    middles, medians = medians_per_second(at_s / stretch, values)
    return [[round(float(at) * stretch, 1), round(float(value), 2)] for at, value in zip(middles, medians, strict=True)]


def table(line: dict[str, object]) -> list[str]:
    lag, rss = (
        f"{number(line[name])} ± {number(line[error])}"
        for name, error in (("lag_slope", "lag_slope_error"), ("rss_slope_mb_h", "rss_slope_error"))
    )
    rows = [
        f"{line['streams']} streams, duty {line['duty']}, {line['minutes']} minutes",
        f"{'lag slope, ms/s':<28}{lag}",
        f"{'memory slope, MB/h':<28}{rss} (at most {number(line['rss_mb'])} MB)",
        *rows_of(line),
        f"{'kills':<28}{line['kills']}",
    ]
    for name in ("recover_s", "recover_to_result_s"):
        each = line[name]
        assert isinstance(each, Recovery)
        rows.append(f"{name:<28}p50 {number(each.p50)}, p95 {number(each.p95)}, max {number(each.max)} of {each.n}")
    rows += [
        "",
        *spreads(line, ("lag_ms", "after_endpoint_ms", "after_endpoint_calm_ms", "loop_lag_ms", "load_late_ms")),
    ]
    rows += [
        "",
        *(
            f"{name:<28}{line[name]}"
            for name in ("gaps", "lost_samples", "missed_messages", "unsent_packets", "overload_step")
        ),
    ]
    where = line["where"]
    assert isinstance(where, tuple)
    return [*rows, f"{'processor':<28}{line['cpu']}", *where]
