"""One stream's way from packets to answers that are due. Knows no loop, socket or process: the pipeline moves the rows.

Sound waits in the ring. The voice activity network hears it frame by frame; what it says moves the segmenter on; a
`Track` (track.py) follows each utterance until its final is out. The ring keeps all that an open utterance has heard, and the
state of the voice activity network is kept once a second, so when a worker dies, `rewind` brings its networks back.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from clser.engine.captures import Captures
from clser.engine.overload import Pace
from clser.engine.records import Samples, Utterance, samples
from clser.engine.replies import Replies, Reply
from clser.engine.ring import Ring
from clser.engine.segment import Ended, Event, SegmentConfig, Segmenter
from clser.engine.speakers import Acquaintance
from clser.engine.track import Barrier, Heard, Mark, Track, VadCut, VoiceCut
from clser.engine.transcript import Dictation
from clser.engine.vad import Gate, VadConfig, levels_dbfs
from clser.engine.windows import Windows

KEEP_FRAMES = 32  # after so many the voice activity network's state is asked for, to go on from if it is lost
WARM_UP_FRAMES = 256  # and so many are heard again where the network does not hand it out
WINDOW_MOST = 128  # frames of a row for a model without a state, which costs nothing but their copy


class StreamConfig(Struct, frozen=True, forbid_unknown_fields=True):
    backlog_ms: Annotated[int, Meta(ge=100)] = 2_000
    """Sound not yet computed: with more than this, whoever feeds is made to wait."""
    overflow_ms: Annotated[int, Meta(ge=200)] = 4_000
    """A live source cannot wait: with more than this, its packets are dropped and published as a gap."""
    step_ms: Annotated[int, Meta(ge=10)] = 100
    """The emotion model hears a growing utterance in steps of about this."""
    results_kept: Annotated[int, Meta(ge=1)] = 256
    """Results that wait for a reader inside the process."""
    silent_warn_s: Annotated[float, Meta(gt=0)] = 5.0
    """Nothing but zeros for so long: a status says so."""


class StreamState:
    def __init__(  # noqa: PLR0915 - a stream has much to remember
        self,
        name: str,
        speaker: str | None,
        configs: tuple[StreamConfig, VadConfig, SegmentConfig],
        frames: tuple[int, int],
        last_utterance: int = 0,
        *,
        pace: Pace | None = None,
    ) -> None:
        """`frames`: samples in a frame of the voice activity network and of the emotion model."""
        self._pace = pace or Pace()
        config, vad, segment = configs
        self.name = name
        self.speaker = speaker
        self.vad_frame, self.voice_frame = frames
        waiting = max(config.overflow_ms, config.backlog_ms)
        longest = segment.longest_ms + segment.lead_in_ms + segment.carry_ms + waiting
        self.ring = Ring(samples(longest + 1000))
        self.tracks: deque[Track] = deque()
        self.total = 0
        """Samples so far, those of gaps too; without what fills up the last frame."""
        self.slot = -1
        self.worker = -1
        self.muted = False
        self.ended = False
        """All that was fed has been answered and the stream is closed."""
        self.heard_sample = False
        """A sample other than zero has been seen."""
        self.silence_remarked = False
        self.held = False
        """Whoever feeds it has been made to wait."""
        self.live = False
        """Its sound comes whether or not there is time to compute it."""
        self.last_arrival_s = 0.0
        self.drift_ppm: float | None = None
        """By how many millionths its sample clock is fast, once that can be told."""
        self.segmenter = Segmenter(segment, self.vad_frame, last_number=last_utterance)
        self._gate = Gate(vad)
        self._step = max(1, samples(config.step_ms) // self.voice_frame)
        self._barriers: deque[Barrier] = deque()
        self._behind_gap: deque[Samples | Barrier] | None = None
        """What has come since a gap that is not crossed yet; the ring still holds what was before it."""
        self._behind = 0  # samples in it
        self._vad_sent = 0  # the network has been handed everything before this sample
        self._vad_from = 0  # where its state was started anew
        self._vad_fresh = True
        self._vad_given = b""  # the state it goes on from
        self._vad_kept: tuple[int, bytes] | None = None  # (sample, state), the newest that came back
        self._vad_keeps_at = 0  # where the state stands that has been asked for
        self._vad_ignored = 0  # answers that only bring the network back to where it was
        self.keeps_state = False
        """The network hands its state out."""
        self.windows: Windows | None = None
        """How the emotion model is asked, if it has no state."""
        self.acquaintance: Acquaintance | None = None
        """Whom the emotion model knows, if it is one that knows speakers."""
        self.dictation: Dictation | None = None
        """What its utterances say, where that is written down."""
        self.replies = Replies(0.0, 0.0)
        """Answers on their way out."""
        self.heads = 0
        """Numbers of an answer of the emotion model."""
        self.hears_again = False
        """The emotion model hears an utterance again once its words are known."""
        self._levels: deque[float] = deque()  # of the frames under way
        self._captures = Captures()
        self.replaced = 0
        """Answers that a newer one overtook before they were ready."""
        self.entered = 0
        """Frames the emotion model was handed."""
        self.needed = 0
        """Frames of all utterances that have ended: what it would be handed by the most careful of callers."""

    # --- sound comes in ------------------------------------------------------------------------------------------

    def take(self, pcm: Samples, captured_unix_us: int, arrived_s: float) -> None:
        """16 kHz mono that follows on what came before; whoever owns it may use it again afterwards."""
        if len(pcm) == 0:
            return
        if self.muted:
            pcm = np.zeros_like(pcm)
        self.last_arrival_s = arrived_s
        self.heard_sample = self.heard_sample or bool(pcm.any())
        self.total += len(pcm)
        self._captures.note(self.total, captured_unix_us, arrived_s)
        if self._behind_gap is None:
            self.ring.append(pcm)
        else:
            self._behind_gap.append(pcm.copy())
            self._behind += len(pcm)

    def barrier(self, reason: str, missing: int = 0, last: bool = False, speaker: str | None = None) -> None:
        """Here the sound breaks off: `missing` samples are not there, or (0) what is open ends."""
        barrier = Barrier(self.total, reason, self.total + missing, last, speaker)
        self.total += missing
        if self._behind_gap is None:
            self._put(barrier)
        else:
            self._behind_gap.append(barrier)
            self._behind += self.vad_frame  # it holds no sound, but must not be free

    def _put(self, barrier: Barrier) -> None:
        if barrier.last:  # the last frame is filled up, so that every sample is heard
            self.ring.append(np.zeros(-(self.ring.end - self._vad_sent) % self.vad_frame, np.int16))
            barrier = replace(barrier, at=self.ring.end, resume=self.ring.end)
        elif barrier.resume > barrier.at:
            self._behind_gap = deque()
        self._barriers.append(barrier)

    def _cross_gap(self, barrier: Barrier) -> None:
        """All before the gap is settled: go on behind it, with what has come meanwhile, up to the next gap."""
        self.segmenter.skip_to(barrier.resume)
        self.ring.restart(barrier.resume)
        self._gate.reset()
        self._vad_sent = self._vad_from = barrier.resume
        self._vad_fresh, self._vad_given, self._vad_kept, self._vad_ignored = True, b"", None, 0
        come, self._behind_gap = self._behind_gap or deque(), None
        while come and self._behind_gap is None:
            piece = come.popleft()
            if isinstance(piece, Barrier):
                self._put(piece)
                self._behind -= self.vad_frame
            else:
                self.ring.append(piece)
                self._behind -= len(piece)
        if self._behind_gap is not None:
            self._behind_gap = come  # as far as to the next gap

    @property
    def backlog(self) -> int:
        """Samples that wait for either network; those of gaps do not count."""
        oldest = self.segmenter.position
        if self.tracks:
            track = self.tracks[0]
            # what the model had heard before a rewind is soon heard again, and no reason to drop what comes
            heard = max(track.reached, len(track.answers))
            due = self.frames_for(track, track.due.utterance.end_sample) if track.due is not None else 0
            if max(due, track.sent) > heard or self.voice_waiting()[0]:
                if self.windows is not None:
                    heard = max(heard, self.windows.late_from(track, due))
                oldest = min(oldest, track.start + heard * self.voice_frame)
        return self.ring.end - oldest + self._behind

    @property
    def late(self) -> int:
        """Samples of the backlog beyond those that wait for a step to be full."""
        return self.backlog - self._step * self._pace.step_factor * self.voice_frame

    def times_of(self, sample: int) -> tuple[int, float]:
        """When that sample was captured (unix us), and when the packet that held it arrived (monotonic s)."""
        return self._captures.of(sample)

    # --- voice activity ------------------------------------------------------------------------------------------

    def vad_waiting(self) -> int:
        """Whole frames that can be handed over now."""
        end = self._barriers[0].at if self._barriers else self.ring.end
        return max(0, end - self._vad_sent) // self.vad_frame

    def cut_vad(self, most: int) -> VadCut:
        """Up to `most` frames."""
        count = min(most, self.vad_waiting())
        pcm = self.ring.read(self._vad_sent, self._vad_sent + count * self.vad_frame)
        self._vad_sent += count * self.vad_frame
        fresh, self._vad_fresh = self._vad_fresh, False
        given, self._vad_given = self._vad_given, b""
        self._levels.extend(levels_dbfs(pcm.reshape(count, -1)))
        last = self._vad_from if self._vad_kept is None else self._vad_kept[0]
        keep = self.keeps_state and self._vad_sent - last >= KEEP_FRAMES * self.vad_frame
        if keep:
            self._vad_keeps_at = self._vad_sent
        return VadCut(count, fresh, pcm, given, keep)

    def hear_vad(self, probabilities: NDArray[np.float32], state: NDArray[np.float32] | None = None) -> Heard:
        """The network's answers for the frames that were cut, in order; and its state behind them, where it was asked for."""
        heard = Heard([], [])
        if state is not None:
            self._vad_kept = self._vad_keeps_at, state.tobytes()
        for probability in probabilities.tolist():
            level = self._levels.popleft()
            if self._vad_ignored:
                self._vad_ignored -= 1
                continue
            heard.events.extend(self.segmenter.push(self._gate.push(probability), level))
            heard.frames.append((self.segmenter.position, level, probability))
        return heard

    def pass_barrier(self) -> tuple[Barrier, list[Event]] | None:
        """The next barrier, if all before it has been heard; with what ends there. A gap waits until its finals are out."""
        if not self._barriers or self._levels or self.vad_waiting():
            return None
        barrier = self._barriers[0]
        events = self.segmenter.flush(barrier.reason)
        if barrier.resume > barrier.at:
            if self.tracks or events:
                return (barrier, events) if events else None
            self._cross_gap(barrier)
        if barrier.reason == "speaker":
            self.speaker = barrier.speaker  # for utterances to come; those that have begun keep theirs
            if self.acquaintance is not None:
                self.acquaintance.turn_to(barrier.speaker, self.tracks)
        self._barriers.popleft()
        return barrier, events

    # --- emotion -------------------------------------------------------------------------------------------------

    def follow(self, events: list[Event], now_s: float) -> None:
        """Begin, grow and end tracks as the segmenter says."""
        for event in events:
            if isinstance(event, Utterance):
                track = self._track(event)
                if event.stage != "partial" or self._gives_partial(track):
                    self.replaced += track.due is not None
                    track.due = Mark(event, self.segmenter.position, now_s)
                if event.stage == "final":
                    self.needed += self.frames_for(track, event.end_sample)
                track.grown = event.end_sample
                if track.transcript is not None and self.dictation is not None:
                    self.dictation.follow(track.transcript, event, self.ring)
            elif isinstance(event, Ended) and event.reason == "too_short":
                for track in self.tracks:
                    if track.number == event.number:
                        track.withdrawn = True
                        self.needed += track.sent
                        self.replies.forget(track)
                        if track.transcript is not None and self.dictation is not None:
                            self.dictation.withdraw(track.transcript)
        self._drop_withdrawn()
        opened = self.segmenter.open
        if opened is not None:
            track = self._track(opened)
            track.grown = opened.end_sample
            if track.transcript is not None:
                track.transcript.grow(opened.end_sample)

    def _track(self, utterance: Utterance) -> Track:
        if not self.tracks or self.tracks[-1].number < utterance.number:
            voice = None if self.acquaintance is None else self.acquaintance.voice
            track = Track(utterance.number, self.speaker, utterance.start_sample, utterance.end_sample, voice=voice)
            if self.dictation is not None and self._pace.words:
                track.transcript = self.dictation.begin(utterance.start_sample)
            self.tracks.append(track)
        return next(track for track in self.tracks if track.number == utterance.number)

    def _gives_partial(self, track: Track) -> bool:
        """Whether the pace lets a partial through: all, one of so many, or such as take back a tentative."""
        track.partials += 1
        if self.windows is not None and not self.windows.hop:  # it has nothing to say yet
            return track.seems_over
        factor = self._pace.partial_factor
        return track.seems_over or (factor > 0 and (track.partials - 1) % factor == 0)

    def _drop_withdrawn(self) -> None:
        while self.tracks and self.tracks[0].withdrawn:
            self.tracks.popleft()

    def frames_for(self, track: Track, end_sample: int) -> int:
        return (end_sample - track.start) // self.voice_frame

    def voice_waiting(self) -> tuple[int, bool]:
        """Frames the model should hear now, of the oldest utterance that lacks any, and whether a final waits for them."""
        if not self.tracks:
            return 0, False
        track = self.tracks[0]
        urgent = track.due is not None and track.due.utterance.stage == "final"
        if self.windows is not None:
            needed = None if track.due is None else self.frames_for(track, track.due.utterance.end_sample)
            return self.windows.waiting(track, self.frames_for(track, track.grown), needed), urgent
        end = track.due.utterance.end_sample if urgent and track.due is not None else track.grown
        count = self.frames_for(track, end) - track.sent
        step = self._step * self._pace.step_factor
        return (count if count >= step or (track.due is not None and count > 0) else 0), urgent

    def cut_voice(self, most: int, now_s: float) -> VoiceCut:
        """Up to `most` frames of the oldest utterance."""
        track = self.tracks[0]
        needed = 0 if track.due is None else self.frames_for(track, track.due.utterance.end_sample)
        if self.windows is not None:
            most = max(most, WINDOW_MOST)
            if self.windows.passed(track, needed):
                track.hear_again(max(0, needed - self.windows.frames))
        count, given, keep = min(most, self.voice_waiting()[0]), b"", False
        if self.acquaintance is not None:
            count, keep = self.acquaintance.up_to_cut(track, count), self.acquaintance.learns
            given = self.acquaintance.introduce(track, now_s) if track.fresh else b""
        start = track.start + track.sent * self.voice_frame
        pcm = self.ring.read(start, start + count * self.voice_frame)
        fresh, track.fresh = track.fresh, False
        track.sent += count
        track.sent_s = now_s
        if self.windows is not None and track.sent == needed and track.due is not None:
            track.asked = needed if track.due.utterance.stage != "partial" else track.asked
        self.entered += count
        return VoiceCut(track, count, fresh, pcm, given, keep)

    def answers_due(self) -> Iterator[Reply]:
        """What the voice can answer now, oldest first; a final takes its track away."""
        while self.tracks:
            track = self.tracks[0]
            if track.due is None:
                return
            needed = self.frames_for(track, track.due.utterance.end_sample)
            if needed > len(track.answers) or (self.windows is not None and self.windows.passed(track, needed)):
                return
            mark, track.due = track.due, None
            if mark.utterance.stage == "final":
                self.tracks.popleft()
                self._drop_withdrawn()
            elif needed == 0:
                continue
            track.seems_over = mark.utterance.stage == "tentative"
            yield self._reply(track, mark, needed)

    def _reply(self, track: Track, mark: Mark, frames: int) -> Reply:
        voice = track.answers[frames - 1] if frames else np.zeros(self.heads, np.float32)
        if self.windows is not None:
            frames = self.windows.answered(track, frames)
        reply = Reply(track, mark, voice, frames, track.sent_s, track.answered_s)
        if self.hears_again and mark.utterance.stage == "final" and track.transcript is not None:
            reply.sound = self.heard_again(reply)  # its words may come when the ring holds it no more
        return reply

    def heard_again(self, reply: Reply) -> Samples:
        """The last of an answer's sound, as much as the emotion model hears with its words; nothing, if it need not."""
        if not self.hears_again or self.windows is None:
            return np.zeros(0, np.int16)
        if reply.sound is not None:
            return reply.sound
        to = reply.track.start + reply.frames * self.voice_frame
        there = (to - max(reply.track.start, self.ring.start)) // self.voice_frame
        return self.ring.read(to - min(there, self.windows.frames) * self.voice_frame, to)

    def learn(self, track: Track, utterance: Utterance, now_s: float) -> None:
        """Its final is out, and it tells of who spoke."""
        if self.acquaintance is not None:
            self.acquaintance.learn(track, utterance, self.frames_for(track, utterance.end_sample), now_s)

    def rewind(self) -> None:
        """The networks' state is gone: let them hear again what it was made from."""
        heard = self.segmenter.position
        if self._vad_kept is not None and self._vad_kept[0] >= self.ring.start:
            back, self._vad_given = self._vad_kept
        else:  # from where the network began, if that is not too far back
            back = max(self.ring.start, heard - WARM_UP_FRAMES * self.vad_frame, self._vad_from)
            self._vad_given = b""
        self._vad_fresh = not self._vad_given
        self._vad_ignored = (heard - back) // self.vad_frame
        self._vad_sent = heard - self._vad_ignored * self.vad_frame
        self._levels.clear()
        self.replies.lost()
        for track in self.tracks:
            track.hear_again()
