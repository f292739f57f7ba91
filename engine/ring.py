"""The newest seconds of a stream, addressed by sample index: what the networks have yet to hear, and what rebuilds an open utterance."""

import numpy as np

from clser.engine.records import Samples


class Ring:
    """A preallocated ring of s16 samples. `start` and `end` are absolute indices; writing past the capacity forgets the oldest."""

    def __init__(self, capacity_samples: int, start_sample: int = 0) -> None:
        self._store = np.zeros(capacity_samples, np.int16)
        self._first = start_sample
        self.end = start_sample

    @property
    def start(self) -> int:
        """The oldest sample still held."""
        return max(self._first, self.end - len(self._store))

    def restart(self, at_sample: int) -> None:
        """Forget everything; the next sample is `at_sample`."""
        self._first = self.end = at_sample

    def append(self, pcm: Samples) -> None:
        size = len(self._store)
        if len(pcm) > size:
            self.end += len(pcm) - size
            pcm = pcm[-size:]
        at = self.end % size
        head = min(len(pcm), size - at)
        self._store[at : at + head] = pcm[:head]
        self._store[: len(pcm) - head] = pcm[head:]
        self.end += len(pcm)

    def read(self, start_sample: int, end_sample: int) -> Samples:
        """A copy of [start, end)."""
        assert self.start <= start_sample <= end_sample <= self.end, (self.start, start_sample, end_sample, self.end)
        size = len(self._store)
        at, count = start_sample % size, end_sample - start_sample
        if at + count <= size:
            return self._store[at : at + count].copy()
        return np.concatenate((self._store[at:], self._store[: at + count - size]))
