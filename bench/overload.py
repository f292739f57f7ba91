"""What happens to those who are in when twice as many come as can be carried, and how soon it is over when they leave."""

import sys

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from clser.bench import capacity
from clser.bench.account import Account, lags, waits
from clser.bench.card import Setup
from clser.bench.crowd import Crowd, Crush
from clser.bench.losses import Losses, losses, rows_of
from clser.bench.reference import undisturbed
from clser.bench.rig import Press, Rig
from clser.bench.scene import circle, find_takes, phases, talking
from clser.bench.soak import thinned, undelivered
from clser.bench.stats import distribution, medians_per_second, settled_after
from clser.bench.table import number, spreads
from clser.engine.config import Config
from clser.engine.errors import GivenError

SECONDS = 120.0
FACTOR = 2.0
PER_S = 20.0
AFTER_S = 60.0
"""Watched so long after the load has fallen to half of the capacity."""
SCENE_S = 30.0
TAKES = 200
NORMAL_TIMES, NORMAL_MS = 2.0, 50.0
"""The lag is normal again when a second's median is at most twice what it was, or small."""
MOST_STREAMS = 2000
"""Three descriptors each, of the 8192 that a process may open."""

Numbers = NDArray[np.float64]


class Step(Struct, frozen=True, array_like=True):
    at_s: float
    """From the first stream's coming."""
    step: int
    event: str


def measure(setup: Setup, most: int | None, factor: float, seconds: float) -> dict[str, object]:
    takes, where = find_takes(setup.corpora, TAKES, setup.seed)
    scene = circle(talking(takes, 1.0, SCENE_S, setup.seed, where), setup.seed)
    carried = most or capacity.estimate(setup, scene)
    offered = check(carried, factor, seconds)
    begin = phases(scene.packets, offered)
    reference = undisturbed(setup, scene, begin)
    # what turns streams away shall be the load, not a limit on their number
    open_to_all = (*setup.overrides, f"ingest.most_streams={offered + 1}")
    print(f"{offered} streams where {carried} are carried, for {seconds:.0f} s", file=sys.stderr)
    with Rig(msgspec.structs.replace(setup, overrides=open_to_all), seconds + AFTER_S, brief=True) as rig:
        press = rig.press(scene, begin, Crush(PER_S, seconds, max(1, carried // 2), AFTER_S))
    found = losses(rig.account, reference, press.crowd.ledger, begin)
    line = report(rig.account, press, setup.config, carried, found)
    return {
        "factor": factor,
        "capacity": carried,
        "capacity_estimated": most is None,
        "seconds": seconds,
        **line,
        "sound": where,
    }


def check(carried: int, factor: float, seconds: float) -> int:
    """How many streams that makes; GivenError where it cannot be tried."""
    if not carried:
        raise GivenError(f"--capacity is not given, and not even {capacity.FIRST // 4} streams are carried; give it")
    offered = round(carried * factor)
    if not carried < offered <= MOST_STREAMS:
        raise GivenError(
            f"--factor {factor:g}: {offered} streams where {carried} are carried; give a factor that makes more "
            f"than these and at most {MOST_STREAMS}"
        )
    if seconds < offered / PER_S:
        raise GivenError(f"--seconds {seconds:g}: {offered} streams take {offered / PER_S:.0f} s to come; give more")
    return offered


def ladder(account: Account, begin_us: float) -> list[Step]:
    return [
        Step(round((status.at_us - begin_us) / 1e6, 2), int(status.counters.get("overload_step", 0)), status.what)
        for status in account.statuses
        if status.what in ("overload", "relief")
    ]


def relieved_s(account: Account, fall_us: float) -> float | None:
    """From the fall until the engine is on step 0 and stays there; None where it is not by the end."""
    steps = [
        (each.at_us, each.counters["overload_step"]) for each in account.statuses if "overload_step" in each.counters
    ]
    after = [(at_us, step) for at_us, step in steps if at_us > fall_us]
    if not after or after[-1][1] > 0:
        return None
    pressed = [at for at, (_, step) in enumerate(after) if step > 0]
    if not pressed:
        return (
            0.0 if [step for at_us, step in steps if at_us <= fall_us][-1:] in ([], [0]) else _since(after[0], fall_us)
        )
    return _since(after[pressed[-1] + 1], fall_us)


def _since(entry: tuple[float, float], begin_us: float) -> float:
    return (entry[0] - begin_us) / 1e6


def report(account: Account, press: Press, config: Config, carried: int, found: Losses) -> dict[str, object]:
    crowd = press.crowd
    inside = ~np.isnan(crowd.ledger.start_us)
    captured_s, lag_ms = lags(account, crowd.ledger, crowd.begin_us)
    ended_us, wait_ms = waits(account, crowd.ledger, config)
    # by arrival: what was said before the fall and comes long after it is what recovering is about
    arrived_s = np.concatenate((captured_s + lag_ms / 1000, (ended_us - crowd.begin_us) / 1e6))
    seconds, medians = medians_per_second(arrived_s, np.concatenate((lag_ms, wait_ms)))
    fall_s = (crowd.fall_us - crowd.begin_us) / 1e6
    normal_ms = normal_lag_ms(medians[seconds < carried / 2 / PER_S])
    relief_s = relieved_s(account, crowd.fall_us)
    caught_up_s = settled_after(seconds, medians, fall_s, normal_ms)
    recover_s = None if relief_s is None or caught_up_s is None else max(relief_s, caught_up_s)
    return {
        "offered": len(inside),
        "accepted": int(inside.sum()),
        "refused": int((~inside).sum()),
        "refused_at_first": int((crowd.turned_away > 0).sum()),
        "refusals": int(crowd.turned_away.sum()),
        "refused_because": crowd.reason,
        **msgspec.structs.asdict(found),
        "recover_s": recover_s,
        "recover_to_step_0_s": relief_s,
        "recover_to_normal_lag_s": caught_up_s,
        "ladder": ladder(account, crowd.begin_us),
        "after_endpoint_ms": {
            name: distribution(wait_ms[(begin <= ended_us) & (ended_us < end)]) for name, begin, end in stretches(crowd)
        },
        "lag_ms": distribution(lag_ms),
        "loop_lag_ms": distribution([beat.counters.get("loop_lag_ms_p99", 0.0) for beat in account.heartbeats]),
        "rss_mb": max((beat.counters.get("rss_mb", 0.0) for beat in account.heartbeats), default=0.0),
        **undelivered(account, crowd.ledger),
        "unclosed_streams": int(inside.sum()) - crowd.ledger.closed,
        "cpu": press.cpu.shares(),
        "load_late_ms": distribution(crowd.ledger.late_ms()),
        "fall_s": fall_s,
        "lag_over_time": thinned(seconds, medians),
        "streams_over_time": streams_over_time(account, crowd.begin_us),
    }


def normal_lag_ms(calm_ms: Numbers) -> float:
    """What lag counts as normal, from medians while nothing was amiss."""
    return max(NORMAL_TIMES * float(np.median(calm_ms)), NORMAL_MS) if calm_ms.size else NORMAL_MS


def streams_over_time(account: Account, begin_us: float) -> list[list[float]]:
    return [[round((beat.at_us - begin_us) / 1e6, 1), beat.counters.get("streams", 0.0)] for beat in account.heartbeats]


def stretches(crowd: Crowd) -> list[tuple[str, float, float]]:
    """While they come, while all have come, after most have left; from and to (unix us)."""
    come_us = crowd.begin_us + len(crowd.turned_away) / PER_S * 1e6
    return [("rising", 0.0, come_us), ("over", come_us, crowd.fall_us), ("after", crowd.fall_us, np.inf)]


def table(line: dict[str, object]) -> list[str]:
    steps, wait, where = line["ladder"], line["after_endpoint_ms"], line["where"]
    assert isinstance(steps, list) and isinstance(wait, dict) and isinstance(where, tuple)
    rows = [
        f"{line['offered']} streams offered, {line['factor']} times what is carried ({line['capacity']})",
        f"{'let in':<28}{line['accepted']}; {line['refused_at_first']} were refused at first, {line['refused']} to the end",
        f"{'refused because':<28}{line['refused_because'] or '-'}",
        *rows_of(line),
        f"{'recovered after, s':<28}{number(line['recover_s'])} (step 0 after {number(line['recover_to_step_0_s'])}, "
        f"lag normal after {number(line['recover_to_normal_lag_s'])})",
        f"{'ladder':<28}" + ", ".join(f"{each.step} at {each.at_s:.1f} s" for each in steps),
        "",
        *spreads(
            {f"after endpoint, {name}": each for name, each in wait.items()},
            [f"after endpoint, {name}" for name in wait],
        ),
        *spreads(line, ("lag_ms", "loop_lag_ms", "load_late_ms"))[1:],
        "",
    ]
    rows += [f"{name:<28}{line[name]}" for name in ("gaps", "lost_samples", "missed_messages", "unsent_packets")]
    return [*rows, f"{'processor':<28}{line['cpu']}", *where]
