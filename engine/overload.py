"""What is given up when there is more to do than can be done, step by step, and taken back step by step. Pure.

    0 normal -> 1 answers half as often, in larger steps -> 2 the voice alone -> 3 no partial answers -> 4 no new streams

On the steps between, and for a while behind them, new streams come in one by one.
Every step is published. Finals are computed on every step: they are what all the rest is given up for.
"""

from typing import Annotated

from msgspec import Meta, Struct

STEPS = (
    "all is answered as configured",
    "partial answers come half as often",
    "nothing is written down: the voice alone is judged",
    "no partial answers are given",
    "new streams are refused",
)
WIDEN, ALONE, DROP, REFUSE = 1, 2, 3, 4


class OverloadConfig(Struct, frozen=True, forbid_unknown_fields=True):
    late_ms: Annotated[int, Meta(ge=50)] = 300
    """Live sound waits for longer than this to be computed: a step up."""
    relief_ms: Annotated[int, Meta(ge=10)] = 100
    """It waits for less than this: a step down."""
    up_s: Annotated[float, Meta(gt=0)] = 0.4
    """So long must it be late for each step up,"""
    down_s: Annotated[float, Meta(gt=0)] = 2.0
    """and so long in time for each step down."""
    admit_per_s: Annotated[float, Meta(gt=0)] = 2.0
    """On the steps in between, and for `wary_s` after them, so many new streams are let in: all those who were refused ask again
    at once, and what they bring shows only later."""
    wary_s: Annotated[float, Meta(ge=0)] = 30.0


class Pace(Struct):
    """What the step means for the streams, who all look at one and the same."""

    step_factor: int = 1
    """The emotion model hears growing utterances in steps so many times as large."""
    partial_factor: int = 1
    """Of so many partial answers that are due, one is given; 0 for none."""
    words: bool = True
    """Utterances that begin are written down."""


PACES = (Pace(1, 1), Pace(3, 2), Pace(3, 2, False), Pace(3, 0, False), Pace(3, 0, False))


class Ladder:
    def __init__(self) -> None:
        self.step = 0
        self.pace = Pace()
        self._since_s: float | None = None
        self._way = 0
        self._wary_until_s = float("-inf")
        self._next_s = float("-inf")
        """From then on one more may come in, while we are wary."""

    def admits(self, config: OverloadConfig, now_s: float) -> bool:
        """Whether another stream may be opened now; if so, it counts as opened."""
        if self.step == REFUSE:
            return False
        if self.step == 0 and now_s >= self._wary_until_s:
            return True
        if now_s < self._next_s:
            return False
        self._next_s = now_s + 1 / config.admit_per_s
        return True

    def look(self, config: OverloadConfig, now_s: float, late_ms: float) -> bool:
        """Take note of how late the most belated live sound is; whether that was a step up or down."""
        if self.step:
            self._wary_until_s = now_s + config.wary_s
        way = 1 if late_ms > config.late_ms else -1 if late_ms < config.relief_ms else 0
        if way != self._way or way == 0:
            self._way, self._since_s = way, now_s
        assert self._since_s is not None
        step = min(max(self.step + way, 0), REFUSE)
        if step == self.step or now_s - self._since_s < (config.up_s if way > 0 else config.down_s):
            return False
        self.step, self._since_s = step, now_s
        pace = PACES[step]
        self.pace.step_factor, self.pace.partial_factor = pace.step_factor, pace.partial_factor
        self.pace.words = pace.words
        return True
