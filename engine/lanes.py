"""What one worker has to do: three lanes, voice activity, emotion and joining, with at most one batch under way in each.

While a batch is computed, streams that get new work wait in the lane's schedule; the next batch takes them all. So batches
are small while there is time and large when there is not.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clser.engine import jobs
from clser.engine.records import Samples
from clser.engine.replies import Reply
from clser.engine.schedule import Schedule
from clser.engine.slots import Slots
from clser.engine.stream import StreamState
from clser.engine.track import Track

MOST_ROWS = {"vad": 256, "voice": 128, "both": 128}
MOST_FRAMES = 16

Numbers = NDArray[np.float32]


class UnderWay(NamedTuple):
    """A row of a batch."""

    stream: StreamState
    track: Track | None
    """The utterance, for the emotion model."""
    frames: int
    keeps: bool
    """The network's state, or what the utterance tells of its speaker, comes back with the answers."""
    reply: Reply | None = None
    """What is being joined with its words."""


class Said(NamedTuple):
    """What a worker answered for a row."""

    row: UnderWay
    numbers: Numbers
    """A line a frame; in `both` one in all."""
    state: Numbers | None


class Cut(NamedTuple):
    """A row of a batch to be."""

    row: jobs.Row
    under_way: UnderWay
    pcm: Samples
    given: bytes = b""
    text: str = ""


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
        self._slots = Slots()

    def admit(self, stream: StreamState) -> None:
        """Give it a slot here; its first rows start the slot's state anew."""
        stream.worker, stream.slot = self.number, self._slots.take()
        self.streams[stream] = None

    def release(self, stream: StreamState) -> None:
        del self.streams[stream]
        self._slots.give_back(stream.slot)
        for lane in self.lanes.values():
            lane.waiting.withdraw(stream)

    def offer(self, stream: StreamState) -> None:
        """Queue the stream in the lanes that have work for it."""
        if stream.vad_waiting():
            self.lanes["vad"].waiting.offer(stream)
        count, urgent = stream.voice_waiting()
        if count:
            self.lanes["voice"].waiting.offer(stream, urgent)
        if stream.replies and stream.replies.wants_joining() is not None:
            self.lanes["both"].waiting.offer(stream, urgent=stream.replies.finals_waiting)

    def next_batch(self, name: jobs.Lane, now_s: float) -> tuple[jobs.Batch, Samples] | None:
        """The rows of all who wait, and their sound, if the lane is free."""
        lane = self.lanes[name]
        if lane.under_way is not None or not len(lane.waiting):
            return None
        cut = {"vad": self._cut_vad, "voice": self._cut_voice, "both": self._cut_both}[name]
        cuts: list[Cut] = []
        for stream in lane.waiting.take(MOST_ROWS[name]):
            if made := cut(stream, now_s):  # else the utterance it waited with has been withdrawn or cut
                cuts.append(made)
                self.offer(stream)
        if not cuts:
            return None
        lane.number += 1
        lane.under_way = [each.under_way for each in cuts]
        states = b"".join(each.given for each in cuts)
        texts = tuple(each.text for each in cuts) if name == "both" else ()
        batch = jobs.Batch(lane.number, name, tuple(each.row for each in cuts), states, texts)
        return batch, np.concatenate([each.pcm for each in cuts])

    def _cut_vad(self, stream: StreamState, now_s: float) -> Cut | None:
        del now_s
        if not stream.vad_waiting():
            return None
        count, fresh, pcm, given, keep = stream.cut_vad(MOST_FRAMES)
        row = jobs.Row(stream.slot, count, fresh, bool(given), keep)
        return Cut(row, UnderWay(stream, None, count, keep), pcm, given)

    def _cut_voice(self, stream: StreamState, now_s: float) -> Cut | None:
        if not stream.voice_waiting()[0]:
            return None
        track, count, fresh, pcm, given, keep = stream.cut_voice(MOST_FRAMES, now_s)
        row = jobs.Row(stream.slot, count, fresh, bool(given), keep, anew=track.asked == track.sent)
        return Cut(row, UnderWay(stream, track, count, keep), pcm, given)

    def _cut_both(self, stream: StreamState, now_s: float) -> Cut | None:
        del now_s
        reply = stream.replies.wants_joining()
        if reply is None:
            return None
        words = reply.transcript
        assert words is not None and words.told is not None
        pcm = stream.heard_again(reply)
        reply.joining, reply.joined_at = True, words.version
        row = jobs.Row(stream.slot, len(pcm) // stream.voice_frame, fresh=False, suspect=words.suspect)
        told = reply.voice.tobytes() + words.told.tobytes()
        return Cut(row, UnderWay(stream, reply.track, 0, False, reply), pcm, told, words.text)

    def take_answer(self, answer: jobs.Answer, numbers: Numbers, kept_size: int) -> list[Said]:
        """What it says of each row; nothing for a worker's last words about a batch that was taken from it."""
        lane = self.lanes[answer.lane]
        if lane.under_way is None or answer.number != lane.number:
            return []
        rows, lane.under_way = lane.under_way, None
        kept = len(numbers) - sum(row.keeps for row in rows) * kept_size
        lines = [1 if row.reply is not None else row.frames for row in rows]
        table = numbers[:kept].reshape(sum(lines), -1)
        said, at = [], 0
        for row, count in zip(rows, lines, strict=True):
            said.append(Said(row, table[at : at + count], numbers[kept : kept + kept_size] if row.keeps else None))
            at += count
            kept += kept_size * row.keeps
        return said

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
