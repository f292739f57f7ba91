"""What has happened, said on the bus and, where it is wanted, kept."""

from collections.abc import Iterable

from clser.engine.clock import Clock
from clser.engine.config import Config
from clser.engine.jobs import VoiceCard
from clser.engine.logs import log
from clser.engine.privacy import Keeper
from clser.engine.publish import Bus
from clser.engine.records import ENGINE, Gap, Message, Result, Stage, State, Status, Utterance
from clser.engine.replies import Reply
from clser.engine.report import Reporter, speech
from clser.engine.segment import Event
from clser.engine.stream import StreamState
from clser.engine.track import Heard

SILENT = "every sample so far is zero: is the microphone muted, or was the wrong track recorded?"


class Herald:
    def __init__(self, bus: Bus, clock: Clock, keeper: Keeper | None) -> None:
        self._bus, self._clock, self._keeper = bus, clock, keeper

    def configure(self, config: Config, card: VoiceCard) -> None:
        """Whose answers they are, and how they are judged."""
        self._reporter = Reporter(config.fuse, card, self._clock)

    @property
    def not_kept(self) -> int:
        return self._keeper.lost if self._keeper else 0

    def hears_speech(self, stream: StreamState, reply: Reply) -> bool:
        """Whether the voice tells of somebody at all."""
        return self._reporter.hears_speech(stream, reply)

    def result(self, stream: StreamState, reply: Reply, stage: Stage) -> Result:
        """The answer as it was published."""
        reply.track.revision += 1
        sent = self._publish(self._reporter.result(stream, reply, stage))
        assert isinstance(sent, Result)
        if self._keeper is not None and sent.final:
            self._keeper.keep(sent, reply.kept if stage == "final" else None)
        return sent

    def hold(self, stream: StreamState, reply: Reply) -> None:
        """The sound of a final, if it is to be kept: the ring may have forgotten it by the time its words have come."""
        if self._keeper is not None:
            utterance = reply.mark.utterance
            end = min(utterance.end_sample, stream.total)
            reply.kept = stream.ring.read(min(max(stream.ring.start, utterance.start_sample), end), end)

    def speech(self, stream: StreamState, events: Iterable[Event]) -> None:
        for event in events:
            if not isinstance(event, Utterance):
                self._publish(speech(stream.name, event))

    def frames(self, stream: StreamState, heard: Heard) -> None:
        """The continuous track, if anybody follows it."""
        if self._bus.frames_wanted:
            for frame in self._reporter.frames(stream, heard):
                self._publish(frame)

    def gap(self, stream: StreamState, missing: int, reason: str) -> None:
        self._publish(Gap(stream=stream.name, from_sample=stream.total, count=missing, reason=reason))

    def remark_silence(self, stream: StreamState, state: State) -> None:
        """Say so, once, if nothing but zeros was heard."""
        if not stream.heard_sample and not stream.silence_remarked:
            stream.silence_remarked = True
            self.status(state, "silent", SILENT, stream.name, {})
            log.warning("silent", stream=stream.name, what=SILENT)

    def status(self, state: State, event: str, detail: str, stream: str | None, counters: dict[str, float]) -> None:
        unix_us = self._clock.unix_us()
        name = stream or ENGINE
        self._publish(Status(stream=name, unix_us=unix_us, state=state, event=event, detail=detail, counters=counters))

    def unread(self) -> None:
        """A result was dropped that nobody in this process read."""
        self._bus.unread += 1

    def _publish(self, message: Message) -> Message:
        return self._bus.publish(message)
