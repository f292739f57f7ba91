"""How many people can talk at once: more and more streams, each time with a fresh engine, until results come later and later."""

import sys

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from clser.bench.card import Setup
from clser.bench.heard import Heard, after_endpoint_ms, sort_out, timing_sum_ms, vad_frame
from clser.bench.load import PACKET_NS, Ledger, name_of
from clser.bench.rig import Play, Rig
from clser.bench.scene import Scene, find_takes, talking
from clser.bench.stats import Distribution, Slope, distribution, medians_per_second, slope
from clser.engine.config import Config
from clser.engine.errors import ClserError

WARM_UP_S = 3.0
SCENE_S = 60.0
MOST_WAIT_MS = 500.0
"""p99 of the wait after an endpoint that still counts as carried."""
FLAT_MS_PER_S = 1.0
"""A lag that grows by less than this a second is taken for none, however small its error."""
TAKES = 200
FIRST, TOO_MANY, QUICK_S = 25, 800, 10.0
"""A quick estimate begins with so many streams, doubles up to so many, and runs each for so long."""

Numbers = NDArray[np.float64]


class Row(Struct, frozen=True):
    """What one count of streams did. Slopes in ms of lag per second of run; processor time in shares of one core."""

    streams: int
    carried: bool
    why: str
    """What spoke against it, else empty."""
    lag_slope: float | None
    lag_slope_error: float | None
    lag_ms: Distribution
    """Result received - its last sample captured, of partials."""
    after_endpoint_ms: Distribution
    own_account_ms: Distribution
    loop_lag_ms: Distribution
    """Over the engine's heartbeats, each the p99 of its second."""
    drops: dict[str, float]
    rss_mb: float
    rss_mb_per_stream: float
    cpu: dict[str, float]
    load_late_ms: Distribution
    finals: int
    seconds: float
    lag_by_second: list[list[float]]
    """[second of the run, median lag in ms]."""


def measure(setup: Setup, counts: list[int], duty: float, seconds: float) -> dict[str, object]:
    takes, where = find_takes(setup.corpora, TAKES, setup.seed)
    scene = talking(takes, duty, SCENE_S, setup.seed, where)
    rows: list[Row] = []
    for count in counts:
        print(f"{count} streams for {seconds:.0f} s", file=sys.stderr)
        try:
            rows.append(_run(setup, scene, count, seconds))
        except ClserError as error:
            print(f"{count} streams: {error}", file=sys.stderr)
            rows.append(_failed(count, seconds, str(error)))
    return {
        "duty": duty,
        "streams_max": max((row.streams for row in rows if row.carried), default=0),
        "rows": rows,
        "speech_share": scene.duty,
        "sound": scene.source,
    }


def estimate(setup: Setup, scene: Scene) -> int:
    """Roughly the most that is carried: doubled until it is not, then halved twice between. At most 2 * TOO_MANY."""
    carried, refused = 0, FIRST
    while refused <= TOO_MANY and _carries(setup, scene, refused):
        carried, refused = refused, refused * 2
    for _ in range(2):
        middle = (carried + refused) // 2
        carried, refused = (middle, refused) if _carries(setup, scene, middle) else (carried, middle)
    return carried


def _carries(setup: Setup, scene: Scene, count: int) -> bool:
    print(f"{count} streams for {QUICK_S:.0f} s", file=sys.stderr)
    try:
        return _run(setup, scene, count, QUICK_S).carried
    except ClserError as error:
        print(f"{count} streams: {error}", file=sys.stderr)
        return False


def _run(setup: Setup, scene: Scene, count: int, seconds: float) -> Row:
    total_s = WARM_UP_S + seconds
    with Rig(setup, total_s) as rig:
        play = rig.play(scene, count, round(total_s * 1e9 / PACKET_NS))
    return analyse(sort_out(rig.received), play, setup.config, count, seconds)


def analyse(heard: Heard, play: Play, config: Config, count: int, seconds: float) -> Row:
    """Everything that was captured after the warm-up and before the streams were closed."""
    ledger = play.ledger
    end_s = WARM_UP_S + seconds
    at_s, lag_ms = lags(heard, ledger, count, end_s)
    line = slope(*medians_per_second(at_s, lag_ms))
    waits, own = _waits(heard, ledger, config, count)
    beats = [beat for beat in heard.heartbeats if beat.counters.get("streams", 0) == count] or heard.heartbeats
    counters = heard.counters
    drops = {
        "lost_samples": counters.get("lost_samples", 0.0),
        "replaced_partials": counters.get("replaced", 0.0),
        "missed_messages": float(heard.missed),
        "unsent_packets": float(ledger.blocked),
        "unclosed_streams": float(count - ledger.closed),
        "overload_step": max((beat.counters.get("overload_step", 0.0) for beat in heard.heartbeats), default=0.0),
    }
    wait = distribution(waits)
    why = verdict(line, waits, drops)
    loaded_mb = max((beat.counters.get("rss_mb", 0.0) for beat in beats), default=0.0)
    return Row(
        streams=count,
        carried=not why,
        why=why,
        lag_slope=line.per_s,
        lag_slope_error=line.error,
        lag_ms=distribution(lag_ms),
        after_endpoint_ms=wait,
        own_account_ms=distribution(own),
        loop_lag_ms=distribution([beat.counters.get("loop_lag_ms_p99", 0.0) for beat in beats]),
        drops=drops,
        rss_mb=loaded_mb,
        rss_mb_per_stream=(loaded_mb - play.idle_rss_mb) / count,
        cpu=play.cpu.shares(),
        load_late_ms=distribution(ledger.late_ms()),
        finals=len(waits),
        seconds=seconds,
        lag_by_second=np.round(np.stack(medians_per_second(at_s, lag_ms), axis=1), 2).tolist(),
    )


def lags(heard: Heard, ledger: Ledger, count: int, end_s: float) -> tuple[Numbers, Numbers]:
    """When (seconds of the run) each partial's sound was captured, and how much later the partial arrived (ms)."""
    at: list[float] = []
    lag: list[float] = []
    origin_us = float(ledger.start_us.min())
    for stream in range(count):
        for told in heard.streams.get(name_of(stream), {}).values():
            for arrived_us, result in told.results:
                captured_us = ledger.captured_us(stream, result.end_sample)
                second = (captured_us - origin_us) / 1e6
                if result.stage == "partial" and WARM_UP_S <= second < end_s:
                    at.append(second)
                    lag.append((arrived_us - captured_us) / 1000)
    return np.array(at), np.array(lag)


def _waits(heard: Heard, ledger: Ledger, config: Config, count: int) -> tuple[list[float], list[float]]:
    """The wait after each endpoint, seen from outside and as the engine accounts for it."""
    frame = vad_frame(config)
    waits: list[float] = []
    own: list[float] = []
    begin_us = float(ledger.start_us.min()) + WARM_UP_S * 1e6
    for stream in range(count):
        for told in heard.told(stream):
            wait = after_endpoint_ms(told, stream, ledger, config, frame)
            if wait is not None and told.final is not None and told.final[0] > begin_us:
                waits.append(wait)
                own.append(timing_sum_ms(told.final[1]))
    return waits, own


def verdict(line: Slope, waits: list[float], drops: dict[str, float]) -> str:
    """Why the load was not carried; empty where it was."""
    if line.per_s is None or line.error is None:
        return "too few results for a slope"
    if line.per_s > max(2 * line.error, FLAT_MS_PER_S):
        return f"lag grows by {line.per_s:.1f} ms a second"
    if not waits:
        return "no utterance ended"
    p99 = float(np.percentile(waits, 99))
    if p99 > MOST_WAIT_MS:
        return f"p99 after the endpoint is {p99:.0f} ms"
    for name in ("lost_samples", "missed_messages", "unsent_packets", "unclosed_streams", "overload_step"):
        if drops.get(name):
            return f"{name.replace('_', ' ')}: {drops[name]:.0f}"
    return ""


def _failed(count: int, seconds: float, why: str) -> Row:
    none = distribution([])
    return Row(count, False, why, None, None, none, none, none, none, {}, 0.0, 0.0, {}, none, 0, seconds, [])


def table(line: dict[str, object]) -> list[str]:
    rows = line["rows"]
    assert isinstance(rows, list)
    head = f"{'streams':>7}{'slope ms/s':>16}{'lag p50':>9}{'p99':>8}{'endpoint p50':>14}{'p95':>8}{'p99':>8}{'n':>6}"
    out = [head + f"{'loop lag':>10}{'lost':>6}{'RSS MB':>8}  processor (engine, workers, load, reader)"]
    for row in rows:
        wait = row.after_endpoint_ms
        slope_text = "-" if row.lag_slope is None else f"{row.lag_slope:.2f}±{row.lag_slope_error or 0:.2f}"
        cpu = " ".join(f"{row.cpu.get(name, 0):.2f}" for name in ("engine", "workers", "load", "reader"))
        out.append(
            f"{row.streams:>7}{slope_text:>16}{_number(row.lag_ms.p50):>9}{_number(row.lag_ms.p99):>8}"
            f"{_number(wait.p50):>14}{_number(wait.p95):>8}{_number(wait.p99):>8}{wait.n:>6}"
            f"{_number(row.loop_lag_ms.p95):>10}{row.drops.get('lost_samples', 0):>6.0f}{row.rss_mb:>8.0f}  {cpu}"
            + (f"  {row.why}" if row.why else "")
        )
    return [*out, "", f"streams carried at duty {line['duty']}: {line['streams_max']}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
