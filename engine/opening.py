"""New streams, made to fit the networks that are there."""

from typing import Protocol

from clser.engine import jobs
from clser.engine.config import Config
from clser.engine.overload import Pace
from clser.engine.records import Result
from clser.engine.replies import Replies
from clser.engine.speakers import Acquaintance, Memory
from clser.engine.stream import StreamState
from clser.engine.windows import windows_of


class Owner(Protocol):
    """Whoever opened a stream."""

    def progressed(self) -> None:
        """Some of its sound has been dealt with, or it has ended."""

    def answered(self, result: Result) -> None:
        """A result, as it was published."""


class Opener:
    def __init__(self, ready: jobs.Ready, speakers: Memory | None) -> None:
        self._ready = ready
        self._speakers = speakers
        self._windows = windows_of(ready.voice)
        self.frame_samples = (ready.vad_frame_samples, ready.voice.frame_samples)

    def stream(
        self, name: str, speaker: str | None, config: Config, last_utterance: int = 0, pace: Pace | None = None
    ) -> StreamState:
        configs = (config.stream, config.vad, config.segment)
        stream = StreamState(name, speaker, configs, self.frame_samples, last_utterance, pace=pace)
        stream.keeps_state = self._ready.vad_state > 0
        stream.windows = self._windows
        stream.heads = len(self._ready.voice.heads)
        stream.hears_again = self._ready.joins == "text"
        stream.replies = Replies(config.asr.wait_ms / 1000, config.asr.late_s)
        if self._speakers is not None:
            cut_from = stream.segmenter.cut_from // stream.voice_frame
            stream.acquaintance = Acquaintance(self._speakers, name, speaker, cut_from)
        return stream
