"""What a person should see of each stream and of the engine, kept up to date message by message. Knows no terminal.

Written by whoever takes the messages and read by the painter in its own thread: attributes are replaced whole, never
changed in place, so that a reader sees either the old or the new.
"""

from typing import NamedTuple

from clser.engine.records import ENGINE, Frame, Gap, Message, Probabilities, Result, Speech, Status

FINALS_KEPT = 50
MOST_STREAMS = 512
QUIET_DBFS = -100.0
UNREMARKABLE = ("heartbeat", "opened", "closed", "ready", "stopping", "starting")
"""Events of a status that need no words."""


def latency_ms(result: Result, now_unix_us: int) -> float:
    """From the capture of the sound that brought the answer to here; of finals, what the engine itself measured."""
    if result.final:
        timing = result.timing_ms
        return timing.capture + timing.vad + timing.queue + timing.infer + timing.fuse
    return max(0.0, (now_unix_us - result.captured_unix_us) / 1000)


class Bars(NamedTuple):
    """How probable each emotion is: to voice and words together, and to each by itself. Nothing, where it said nothing."""

    both: Probabilities
    voice: Probabilities
    words: Probabilities


EMPTY = Bars({}, {}, {})


class StreamView:
    """One stream."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.level_dbfs = QUIET_DBFS
        self.speech = 0.0
        self.speaking = False
        self.closed = False
        self.position_s = 0.0
        self.bars = EMPTY
        self.arousal = 0.0
        self.valence = 0.0
        self.last: Result | None = None
        self.latency_ms: float | None = None
        self.finals: tuple[Result, ...] = ()
        """Newest last."""
        self.written = False
        """Something was written down of what it says: from then on there is room for words."""
        self.active = 0
        """Grows with every sign of life; the stream with the greatest was heard last."""

    def take(self, message: Message, now_unix_us: int) -> None:
        if isinstance(message, Result):
            self._take_result(message, now_unix_us)
        elif isinstance(message, Frame):
            self.level_dbfs = message.level_dbfs
            self.speech = message.speech
            self.position_s = message.end_s
            self._take_track(message)
        elif isinstance(message, Speech):
            self.speaking = message.event == "started"
        elif isinstance(message, Status):
            self._take_status(message)

    def _take_track(self, frame: Frame) -> None:
        """The continuous track is the voice's alone."""
        if frame.probabilities is None:
            return
        last = self.last
        if last is not None and last.words is not None and last.utterance == frame.utterance:
            self.bars = self.bars._replace(voice=frame.probabilities)
            return
        self.bars = Bars(frame.probabilities, frame.probabilities, {})
        self.arousal, self.valence = frame.arousal or 0.0, frame.valence or 0.0

    def _take_result(self, result: Result, now_unix_us: int) -> None:
        self.written = self.written or result.text is not None
        if result.stage == "amended":
            self.finals = tuple(result if old.utterance == result.utterance else old for old in self.finals)
            if self.last is not None and self.last.utterance > result.utterance:
                return  # the next one is being heard by now
        elif result.final:
            self.finals = (*self.finals, result)[-FINALS_KEPT:]
        self.last = result
        self.latency_ms = latency_ms(result, now_unix_us)
        self.position_s = max(self.position_s, result.end_s)
        words = {} if result.words is None else result.words.probabilities
        self.bars = Bars(result.emotion.probabilities, result.voice.probabilities, words)
        self.arousal, self.valence = result.arousal, result.valence

    def _take_status(self, status: Status) -> None:
        if status.event == "opened":
            self.closed = False
        elif status.event == "closed":
            self.closed, self.speaking = True, False
            self.level_dbfs, self.speech = QUIET_DBFS, 0.0


class EngineView:
    """The engine and all its streams."""

    def __init__(self, title: str, endpoint: str = "", model: str = "") -> None:
        self.title = title
        self.endpoint = endpoint
        self.model = model
        self.recogniser = ""
        """Who writes down what is said, where that is known."""
        self.state = ""
        self.note = ""
        """What somebody should know right now."""
        self.noted = 0
        """Grows with every note."""
        self.counters: dict[str, float] = {}
        self.streams: tuple[StreamView, ...] = ()
        """In the order in which they were first heard of."""
        self._by_name: dict[str, StreamView] = {}
        self._epoch = 0
        self._signs = 0

    def take(self, message: Message, now_unix_us: int) -> None:
        if message.epoch != self._epoch:  # another engine, or the same one started again
            self._epoch = message.epoch
            self.counters, self.streams, self._by_name = {}, (), {}
        if isinstance(message, Result):
            whole, plus, delta = message.model.digest.partition("+")
            self.model = f"{message.model.name} {whole[:8]}{plus}{delta[:8]}"
        if isinstance(message, Status):
            self._take_status(message)
        elif isinstance(message, Gap):
            self.say(f"{message.stream}: {message.count / 16_000:.2f} s of sound lost ({message.reason})")
        if message.stream != ENGINE:
            stream = self._stream(message.stream)
            self._signs += 1
            stream.active = self._signs
            stream.take(message, now_unix_us)

    def say(self, note: str) -> None:
        self.note = note
        self.noted += 1

    def _take_status(self, status: Status) -> None:
        if status.stream == ENGINE:
            self.state = status.state
            self.counters = {**self.counters, **status.counters}
            if status.event == "ready" and status.detail:
                self.model = " ".join(word[:16] for word in status.detail.split()[:2])
        if status.event not in UNREMARKABLE:
            who = "" if status.stream == ENGINE else f"{status.stream}: "
            self.say(f"{who}{status.event.replace('_', ' ')}" + (f": {status.detail}" if status.detail else ""))

    def _stream(self, name: str) -> StreamView:
        stream = self._by_name.get(name)
        if stream is None:
            if len(self._by_name) >= MOST_STREAMS:
                oldest = min(self._by_name.values(), key=lambda view: (not view.closed, view.active))
                del self._by_name[oldest.name]
            stream = self._by_name[name] = StreamView(name)
            self.streams = tuple(self._by_name.values())
        return stream
