"""When a stream's sound was captured, and when it arrived. Pure."""

from collections import deque

from clser.engine.records import SAMPLE_RATE_HZ, samples

STEP = samples(20)  # packets shorter than this share an entry


class Captures:
    """Of the newest sound, packet by packet."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, int, float]] = deque(maxlen=2048)  # (end sample, captured unix us, arrived s)

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, end: int, captured_unix_us: int, arrived_s: float) -> None:
        """The packet that ends before that sample of the stream."""
        self._kept.append((end, captured_unix_us, arrived_s))
        if len(self._kept) > 2 and end - self._kept[-3][0] < STEP:
            del self._kept[-2]

    def of(self, sample: int) -> tuple[int, float]:
        """When that sample was captured (unix us), and when the packet that held it arrived (monotonic s)."""
        found = (sample, 0, 0.0)
        for entry in reversed(self._kept):
            if entry[0] < sample:
                break
            found = entry
        end, captured_us, arrived_s = found
        return captured_us - (end - sample) * 1_000_000 // SAMPLE_RATE_HZ, arrived_s
