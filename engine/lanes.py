"""What one worker has to do: two lanes, voice activity and emotion, with at most one batch under way in each.

While a batch is computed, streams that get new work wait in the lane's schedule; the next batch takes them all. So batches
are small while there is time and large when there is not.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clser.engine import jobs
from clser.engine.records import Samples
from clser.engine.schedule import Schedule
from clser.engine.stream import StreamState
from clser.engine.track import Track

MOST_ROWS = {"vad": 256, "voice": 128}
MOST_FRAMES = 16


class UnderWay(NamedTuple):
    """A row of a batch."""

    stream: StreamState
    track: Track | None
    """The utterance, for the emotion model."""
    frames: int
    keeps: bool
    """The network's state, or what the utterance tells of its speaker, comes back with the answers."""


class Lane:
    """One kind of work."""

    def __init__(self) -> None:
        self.waiting: Schedule[StreamState] = Schedule()
        self.number = 0
        self.under_way: list[UnderWay] | None = None


class Station:
    """A worker as the pipeline sees it: its lanes, the streams that are placed with it, and the slots of their state."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.up = True
        self.woken = False
        self.late_at_s = float("-inf")
        """When its live sound was last found to be late."""
        self.lanes: dict[jobs.Lane, Lane] = {lane: Lane() for lane in jobs.LANES}
        self.streams: dict[StreamState, None] = {}
        self._free: list[int] = []
        self._slots = 0

    def admit(self, stream: StreamState) -> None:
        """Give it a slot here; its first rows start the slot's state anew."""
        if not self._free:
            self._free.append(self._slots)
            self._slots += 1
        stream.worker, stream.slot = self.number, self._free.pop()
        self.streams[stream] = None

    def release(self, stream: StreamState) -> None:
        del self.streams[stream]
        self._free.append(stream.slot)
        for lane in self.lanes.values():
            lane.waiting.withdraw(stream)

    def offer(self, stream: StreamState) -> None:
        """Queue the stream in the lanes that have work for it."""
        if stream.vad_waiting():
            self.lanes["vad"].waiting.offer(stream)
        count, urgent = stream.voice_waiting()
        if count:
            self.lanes["voice"].waiting.offer(stream, urgent)

    def next_batch(self, name: jobs.Lane, now_s: float) -> tuple[jobs.Batch, Samples] | None:
        """The rows of all who wait, and their sound, if the lane is free."""
        lane = self.lanes[name]
        if lane.under_way is not None or not len(lane.waiting):
            return None
        rows: list[jobs.Row] = []
        sounds: list[NDArray[np.int16]] = []
        under_way: list[UnderWay] = []
        states: list[bytes] = []
        for stream in lane.waiting.take(MOST_ROWS[name]):
            if not (stream.vad_waiting() if name == "vad" else stream.voice_waiting()[0]):
                continue  # the utterance it waited with has been withdrawn or cut
            if name == "vad":
                count, fresh, pcm, given, keep = stream.cut_vad(MOST_FRAMES)
                rows.append(jobs.Row(stream.slot, count, fresh, bool(given), keep))
                under_way.append(UnderWay(stream, None, count, keep))
            else:
                track, count, fresh, pcm, given, keep = stream.cut_voice(MOST_FRAMES, now_s)
                rows.append(jobs.Row(stream.slot, count, fresh, bool(given), keep, anew=track.asked == track.sent))
                under_way.append(UnderWay(stream, track, count, keep))
            states.append(given)
            sounds.append(pcm)
            self.offer(stream)
        if not rows:
            return None
        lane.number += 1
        lane.under_way = under_way
        return jobs.Batch(lane.number, name, tuple(rows), b"".join(states)), np.concatenate(sounds)

    def take_answer(self, answer: jobs.Answer) -> list[UnderWay] | None:
        """The rows it is for; None for a worker's last words about a batch that was taken from it."""
        lane = self.lanes[answer.lane]
        if lane.under_way is None or answer.number != lane.number:
            return None
        rows, lane.under_way = lane.under_way, None
        return rows

    def busy_with(self) -> set[StreamState]:
        """Streams with rows under way."""
        return {row.stream for lane in self.lanes.values() for row in lane.under_way or ()}

    def lose(self) -> None:
        """The worker is gone, and with it all state: what its streams' networks had heard, they must hear again."""
        self.up = False
        for lane in self.lanes.values():
            lane.under_way = None
        for stream in self.streams:
            stream.rewind()
