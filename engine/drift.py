"""When each sample was captured, from packets whose timestamps are late by chance. Pure: no clock, no loop.

A sound card counts samples by a crystal of its own, up to some hundred parts in a million beside the wall clock. A timestamp
is taken when a packet has been read, so it is late by whatever the system was busy with: delays only add. The truth is
therefore the lowest line that the packets (sample, time) never fall below: found through the lowest packet of each second
of the last minute.

    y                        .    x: the sample, in time by its nominal rate
    |    .     .        .         y: how much later than x it is by the clock
    |  .    .     . .  .____---
    |__.____---.----                  a packet far from the line is doubted; some that agree move it
    +------------------------ x
"""

from collections import deque
from typing import Literal, NamedTuple

WINDOW_US = 1e6
REMEMBERED_US = 60e6
ENOUGH = 4  # seconds of packets from which the line can be told
SURE_US = 20e6  # and its slope be quoted
STEEPEST = 1e-3  # no crystal is so far off: sound that comes at such a pace is not paced by one
EARLY_US = 20_000.0  # what is so early was not late by less: either all before it was late, or the clock was set back
LATE_FOR = 5  # seconds that are all late by as much: so it is now
STEP_US = 250_000.0  # off the line by more: doubted
DOUBTS = 3  # packets that have to agree on a step
DOUBT_US = 100_000.0  # and, where they are late, how much sound they have to hold
DIFFERS_US = 1_000_000.0  # two clocks that are so far apart are not the same time
AGREES_US = 500_000.0  # and these are again
STALE_US = 60e6  # nobody keeps sound back for so long, so a clock that says so is wrong
LEAK = 1e-3  # by which the smallest delay is forgotten
EVERY_S = (
    0.08  # packets that follow sooner are placed by the one before: a line needs no more, and each costs microseconds
)


class _Run:
    """Packets in a row that are far from the line, on one side of it."""

    def __init__(self, x: float, y: float, off: float) -> None:
        self.since, self.first = x, y
        self.low, self.low_x, self.low_off = y, x, off
        self.count = 0

    def add(self, x: float, y: float, off: float) -> None:
        self.count += 1
        if y < self.low:
            self.low, self.low_x, self.low_off = y, x, off

    def agrees(self, x: float) -> bool:
        """A network that was held up delivers in a burst, each packet less late than the one before: that is no step."""
        span = x - self.since
        early = self.low_off < 0
        return self.count >= DOUBTS and (early or (span >= DOUBT_US and self.first - self.low <= span / 2))


class Line:
    """The line from sample to time. O(1) a packet, and once a second O(the seconds it remembers)."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._start: tuple[int, int] | None = None
        self._windows: deque[tuple[float, float]] = deque()
        self._low = (0.0, 0.0)
        """The lowest packet of the second that is under way."""
        self._at = (0.0, 0.0)
        """A place on the line."""
        self._slope = 0.0
        self._run: _Run | None = None
        self.known = False
        """Whether the line is worth more than the last packet's own time."""
        self.ppm: float | None = None
        """By how many millionths the sample clock is faster than the other; None until that can be told."""

    @property
    def doubting(self) -> bool:
        return self._run is not None

    def push(self, end_sample: int, at_us: int) -> int:
        """Take a packet: its end, and when that was. Returns by how many us the line had to step, which is mostly 0."""
        if self._start is None:
            self._start = end_sample, at_us
            return 0
        x = (end_sample - self._start[0]) * 1e6 / self._rate_hz
        y = at_us - self._start[1] - x
        off = y - self._height(x)
        if abs(off) > STEP_US:
            return self._doubt(x, y, off)
        self._run = None
        if off < -EARLY_US:
            self._restart(x, y)
        elif x // WINDOW_US != self._low[0] // WINDOW_US:
            self._close_window()
            self._low = x, y
        elif y - self._slope * x < self._low[1] - self._slope * self._low[0]:
            self._low = x, y
        if y < self._height(x):
            self._at = x, y
        return 0

    def best(self, sample: int, said_us: int) -> int:
        """When that sample was, in us: by the line, or as it was said while there is no line to go by."""
        if not self.known:
            return said_us
        assert self._start is not None
        x = (sample - self._start[0]) * 1e6 / self._rate_hz
        return self._start[1] + round(x + self._height(x))

    def _height(self, x: float) -> float:
        return self._at[1] + self._slope * (x - self._at[0])

    def _doubt(self, x: float, y: float, off: float) -> int:
        if self._run is None or (self._run.low_off < 0) != (off < 0):
            self._run = _Run(x, y, off)
        self._run.add(x, y, off)
        if not self._run.agrees(x):
            return 0
        run, self._run = self._run, None
        self._restart(run.low_x, run.low)
        return round(run.low_off)

    def _restart(self, x: float, y: float) -> None:
        """The line goes through here from now on. Its slope stays: no clock runs faster for having been set."""
        self._windows.clear()
        self._low = self._at = x, y

    def _close_window(self) -> None:
        self._windows.append(self._low)
        while self._low[0] - self._windows[0][0] > REMEMBERED_US:
            self._windows.popleft()
        recent = list(self._windows)[-LATE_FOR:]
        if len(recent) == LATE_FOR and all(y - self._height(x) > EARLY_US for x, y in recent):
            self._windows = deque(recent)
            self._at = min(recent, key=lambda place: place[1] - self._slope * place[0])
        if len(self._windows) < ENOUGH:
            return
        slope, at = support(list(self._windows))
        self.known = abs(slope) <= STEEPEST
        self._slope, self._at = (slope, at) if self.known else (0.0, self._low)
        if not self.known:
            self.ppm = None
        elif self._windows[-1][0] - self._windows[0][0] >= SURE_US:
            self.ppm = round(-slope / (1 + slope) * 1e6, 1)


def support(places: list[tuple[float, float]]) -> tuple[float, tuple[float, float]]:
    """(slope, a place) of the line below all places, ordered by x, that is closest to them on the whole.

    It is the edge of their lower hull over the mean of x: the likeliest line where delays are exponential.
    """
    middle = sum(x for x, _ in places) / len(places)
    hull: list[tuple[float, float]] = []
    for x, y in places:
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2:]
            if (by - ay) * (x - ax) < (y - ay) * (bx - ax):
                break
            hull.pop()
        hull.append((x, y))
    right = next(index for index, (x, _) in enumerate(hull) if x >= middle)
    (ax, ay), (bx, by) = hull[max(0, right - 1)], hull[max(1, right)]
    return (by - ay) / (bx - ax), (ax, ay)


class Reading(NamedTuple):
    """What a packet's timestamp came to."""

    captured_us: int
    """When its last sample was captured, by the engine's wall clock."""
    event: Literal["", "clock_stepped", "clock_differs"] = ""
    detail: str = ""


class CaptureClock:
    """One stream's: packets in, capture times out. Steps of either clock are noticed, and clocks that disagree are joined."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._arrivals = Line(rate_hz)
        """By the engine's steady clock."""
        self._stamps = Line(rate_hz)
        """By the clock of whoever sends, where packets carry its time."""
        self._base_us = 0
        """The engine's wall clock less its steady one."""
        self._delay_us = 0.0
        """The smallest between the sender's timestamp and the arrival, by the steady clock; forgotten slowly."""
        self._since_us: int | None = None
        self._before = (0, 0)
        self._differs = False
        self._told = False
        self._last = (0, 0)
        self._steady = False
        """The line is known and nothing is in doubt: not every packet has to be looked at."""
        self._every = round(EVERY_S * rate_hz)

    @property
    def drift_ppm(self) -> float | None:
        """By how many millionths the stream's sample clock is fast; None until that can be told."""
        return self._stamps.ppm if self._since_us is not None and not self._differs else self._arrivals.ppm

    def hear(self, end_sample: int, captured_unix_us: int | None, now_us: int, now_s: float, live: bool) -> Reading:
        """A packet has come: `end_sample` is behind its last one; the time of capture, if it told one; and what time it is.

        A live sender's clock is held against the engine's; who feeds a recording is taken at his word.
        """
        steady_us = round(now_s * 1e6)
        base_us = now_us - steady_us
        if (
            live
            and self._steady
            and 0 < end_sample - self._last[0] < self._every
            and abs(base_us - self._base_us) < 100
        ):
            at_us = self.at(end_sample)
            if captured_unix_us is None or -EARLY_US < captured_unix_us - at_us < STEP_US:
                return Reading(min(at_us, now_us))
        stepped = base_us - self._base_us if self._base_us else 0
        self._base_us = base_us
        if captured_unix_us is None:
            reading = self._by_arrival(end_sample, steady_us, stepped)
        elif not live:
            self._stamps.push(end_sample, captured_unix_us)
            reading = Reading(self._stamps.best(end_sample, captured_unix_us))
        else:
            reading = self._by_stamp(end_sample, captured_unix_us, steady_us, stepped)
            reading = reading._replace(
                captured_us=min(reading.captured_us, now_us)
            )  # nothing is heard before it sounds
        self._last = end_sample, reading.captured_us
        line = self._arrivals if captured_unix_us is None else self._stamps
        self._steady = line.known and not line.doubting and not self._differs
        return reading

    def at(self, sample: int) -> int:
        """When a sample near the last packet's end was captured, by the engine's wall clock."""
        end, captured_us = self._last
        return captured_us + (sample - end) * 1_000_000 // self._rate_hz

    def _by_arrival(self, end_sample: int, steady_us: int, stepped: int) -> Reading:
        self._arrivals.push(end_sample, steady_us)
        captured_us = min(self._arrivals.best(end_sample, steady_us), steady_us) + self._base_us
        if abs(stepped) > STEP_US:
            return Reading(captured_us, "clock_stepped", f"this machine's clock moved by {stepped / 1e6:+.3f} s")
        return Reading(captured_us)

    def _by_stamp(self, end_sample: int, stamp_us: int, steady_us: int, stepped: int) -> Reading:
        moved = self._stamps.push(end_sample, stamp_us)
        if moved:  # and the steady clock with it? Then it was not the clock that stepped: the sound had paused
            moved = (stamp_us - steady_us) - (self._before[0] - self._before[1])
        self._measure_delay(stamp_us, steady_us, anew=bool(moved))
        told = self._compare(steady_us)
        reading = Reading(self._stamps.best(end_sample, stamp_us))
        if self._differs:
            reading = self._by_arrival(end_sample, steady_us, stepped)
        if abs(moved) > STEP_US and not self._differs:
            return reading._replace(event="clock_stepped", detail=f"the sender's clock moved by {moved / 1e6:+.3f} s")
        return reading._replace(event="clock_differs", detail=told) if told else reading

    def _measure_delay(self, stamp_us: int, steady_us: int, anew: bool) -> None:
        delay = steady_us - stamp_us
        if anew or self._since_us is None:
            self._since_us, self._delay_us = steady_us, delay
        elif not self._stamps.doubting:
            self._delay_us = min(delay, self._delay_us + LEAK * (steady_us - self._before[1]))
        if not self._stamps.doubting:
            self._before = stamp_us, steady_us

    def _compare(self, steady_us: int) -> str:
        """Whether the sender's clock and the engine's are the same; if they are not, once, by how much."""
        assert self._since_us is not None
        behind = self._delay_us + self._base_us
        if self._differs:
            self._differs = abs(behind) > AGREES_US
            return ""
        if abs(behind) <= DIFFERS_US:
            return ""
        # sound that was kept back while the line was down is late too, but catches up
        self._differs = steady_us - self._since_us >= WINDOW_US or not -DIFFERS_US < behind < STALE_US
        if not self._differs:
            return ""
        self._arrivals = Line(self._rate_hz)
        told, self._told = self._told, True
        word = "behind" if behind > 0 else "ahead"
        return (
            "" if told else f"the sender's clock is {abs(behind) / 1e6:.3f} s {word}: mapped by the smallest delay seen"
        )
