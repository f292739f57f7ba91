"""What an engine counts over all its streams, those that have ended too."""

from collections.abc import Collection

from clser.engine.records import seconds
from clser.engine.stream import StreamState

COUNTERS = (
    *("finals", "partials", "tentatives", "amended", "withdrawn", "gaps", "lost_samples"),
    *("workers_lost", "fell_back", "overload_steps", "streams_refused"),
)


class Account:
    def __init__(self) -> None:
        self.counters = dict.fromkeys(COUNTERS, 0)
        """Whoever sees it happen adds it here."""
        self._entered = self._needed = self._replaced = self._sound = 0  # of streams that have ended

    def close(self, stream: StreamState) -> None:
        """It ends: what it has counted stays."""
        self._entered += stream.entered
        self._needed += stream.needed
        self._replaced += stream.replaced
        self._sound += stream.total

    def totals(self, live: Collection[StreamState]) -> dict[str, float]:
        """By the names they are published with. `live`: the streams that are open."""
        return {
            **self.counters,
            "streams": len(live),
            "backlog_s": seconds(max((stream.backlog for stream in live), default=0)),
            "frames_entered": self._entered + sum(stream.entered for stream in live),
            "frames_needed": self._needed + sum(stream.needed for stream in live),
            "replaced": self._replaced + sum(stream.replaced for stream in live),
            "sound_s": seconds(self._sound + sum(stream.total for stream in live)),
        }
