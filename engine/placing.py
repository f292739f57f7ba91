"""Which worker computes which stream, and when one moves to another. Pure.

A stream moves with no more than its sound: the networks of the new worker hear again what the old ones made their state from.
That costs least between utterances, so only quiet streams move, unless their worker is gone.
"""

from collections.abc import Iterable, Sequence

from clser.engine.lanes import Station
from clser.engine.stream import StreamState

MOST_MOVES = 8  # at a time: each makes the voice activity network hear a second again
WARY_S = 30.0  # a worker that was late gets no more streams for so long


def best(stations: Iterable[Station], now_s: float) -> Station:
    """Where one more stream belongs: with a worker that is up, was not late of late, and has the fewest."""
    return min(stations, key=lambda station: (not station.up, _wary(station, now_s), len(station.streams)))


def _wary(station: Station, now_s: float) -> bool:
    return now_s - station.late_at_s <= WARY_S


def move(stream: StreamState, origin: Station, goal: Station) -> None:
    """`stream` has no rows under way."""
    origin.release(stream)
    stream.rewind()
    goal.admit(stream)


def evacuate(lost: Station, stations: Sequence[Station], now_s: float) -> list[StreamState]:
    """Move all streams of a worker that is gone to those that are up, if any is; which have moved."""
    if not any(station.up for station in stations):
        return []
    moved = list(lost.streams)
    for stream in moved:
        lost.release(stream)
        best(stations, now_s).admit(stream)
    return moved


def rebalance(stations: Sequence[Station], now_s: float) -> list[StreamState]:
    """Move some quiet streams from workers that are late, or have more than others, to those that have time."""
    up = [station for station in stations if station.up]
    calm = [station for station in up if not _wary(station, now_s)]
    if len(up) < 2 or not calm:
        return []
    goal = best(calm, now_s)
    origin = max(up, key=lambda station: (station.late_at_s == now_s, len(station.streams)))
    late = origin.late_at_s == now_s
    surplus = (len(origin.streams) + 1) // 2 if late else (len(origin.streams) - len(goal.streams)) // 2
    if origin is goal or surplus < 1:
        return []
    busy = origin.busy_with()
    quiet = [stream for stream in origin.streams if not stream.tracks and stream not in busy and not stream.ended]
    moved = quiet[: min(surplus, MOST_MOVES)]
    for stream in moved:
        move(stream, origin, goal)
    return moved
