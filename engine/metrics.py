"""Numbers for whoever keeps watch, in the text that Prometheus reads (health.py serves it).

Names are `clser_*` in base units, and stay. No label names a stream or a speaker, and none a feeling: what people said, and
how, is none of a dashboard's business.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from clser.engine.clock import Clock
from clser.engine.records import ENGINE, SAMPLE_RATE_HZ, Message, Result, Speech, Status

MOST_SPEAKING = 4096  # utterances without a final; finals end them, and gone streams leave some behind


class Metric(Struct, frozen=True):
    """A number of the engine's, under the name that dashboards know it by."""

    name: str
    kind: Literal["counter", "gauge"]
    key: str
    """What the engine itself calls it."""
    help: str
    times: float = 1.0
    """From the engine's unit to the base unit."""
    label: str = ""
    """Metrics of one name stand together and differ in this."""


def _counter(name: str, key: str, what: str, label: str = "") -> Metric:
    return Metric(f"clser_{name}_total", "counter", key, what, label=label)


def _gauge(name: str, key: str, what: str, times: float = 1.0) -> Metric:
    return Metric(f"clser_{name}", "gauge", key, what, times)


REFUSED = "Packets and requests that were refused, by where they were."
CATALOGUE = (
    _gauge("ready", "ready", "1 when every worker is warm and the engine keeps up, else 0."),
    _gauge("streams", "streams", "Streams that are open."),
    _gauge(
        "overload_step", "overload_step", "0 normal, 1 fewer partials, 2 no words, 3 no partials, 4 no new streams."
    ),
    _gauge("backlog_seconds", "backlog_s", "Sound not yet computed, of the stream that is furthest behind."),
    _gauge("loop_lag_p99_seconds", "loop_lag_ms_p99", "How late the event loop ran in the last second.", 1e-3),
    _gauge("memory_bytes", "rss_mb", "Resident memory of the engine and its workers.", 2**20),
    _counter("sound_seconds", "sound_s", "Sound heard, over all streams."),
    _counter("busy_seconds", "busy_s", "Time the workers spent computing."),
    _counter("finals", "finals", "Finals published."),
    _counter("partials", "partials", "Partials published."),
    _counter("tentatives", "tentatives", "Tentatives published."),
    _counter("amended", "amended", "Finals that were amended, since their words came late."),
    _counter("withdrawn", "withdrawn", "Utterances withdrawn since they held too little speech."),
    _counter("replaced", "replaced", "Answers that a newer one overtook before they were made."),
    _counter("frames_entered", "frames_entered", "Frames handed to the emotion model."),
    _counter("frames_needed", "frames_needed", "Frames of all utterances that have ended."),
    _counter("gaps", "gaps", "Places where samples were lost."),
    _counter("lost_samples", "lost_samples", "Samples lost in them, at 16 kHz."),
    _counter("workers_lost", "workers_lost", "Workers that died or fell silent."),
    _counter("worker_fallbacks", "fell_back", "Workers that went on on the CPU since their device broke."),
    _counter("words_written", "words_written", "Words recognised in utterances that have ended."),
    _counter("words_given_up", "words_given_up", "Utterances left without words, since too many waited."),
    _counter("recognisers_lost", "recognisers_lost", "Recognisers that died or fell silent."),
    _counter("recogniser_busy_seconds", "recogniser_busy_s", "Time the recognisers spent computing."),
    _counter("sent", "sent", "Messages sent on the bus."),
    _counter("unread", "unread", "Messages dropped since nobody in the process read them."),
    _counter("replay_cut_short", "replay_cut_short", "Messages forgotten before their time, for want of room."),
    _counter("streams_refused", "streams_refused", "Streams refused while there was too much to do."),
    _gauge("ingest_streams", "ingest_streams", "Streams that come over the ingest socket."),
    _counter("ingest_packets", "ingest_packets", "Packets of sound taken on the ingest socket."),
    _counter("ingest_late", "ingest_late", "Packets there that came late or twice, in whole or in part."),
    _counter("refused", "ingest_refused", REFUSED, '{door="ingest"}'),
    _counter("refused", "control_refused", REFUSED, '{door="control"}'),
    _counter("refused", "metrics_refused", REFUSED, '{door="metrics"}'),
    _counter("turned_away", "turned_away", "Connections that the allow-list refused."),
    _counter("loads", "loads", "Deltas that were loaded while it ran, or at the start."),
    _counter("not_kept", "not_kept", "Utterances that were to be kept on disk and were not."),
)


class Histogram:
    """How often a time was at most so long."""

    def __init__(self, name: str, what: str, bounds_s: tuple[float, ...]) -> None:
        self._name = name
        self._help = what
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def add(self, time_s: float) -> None:
        time_s = max(0.0, time_s)  # a robot's clock may be ahead of ours
        self._counts[sum(time_s > bound for bound in self._bounds_s)] += 1
        self._sum_s += time_s

    def lines(self) -> list[str]:
        lines = _head(self._name, "histogram", self._help)
        total = 0
        for bound, count in zip((*map(str, self._bounds_s), "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{self._name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{self._name}_sum {_number(self._sum_s)}", f"{self._name}_count {total}"]


class Metrics:
    """Takes what the engine publishes, asks for its counters when somebody wants to see them, and writes both down."""

    def __init__(
        self,
        numbers: Callable[[], Mapping[str, float]],
        clock: Clock,
        model: Callable[[], str] = str,
    ) -> None:
        """`numbers` has the keys of CATALOGUE; those it lacks are left out, and those it has beyond it are not shown. `model`
        is the digest of what answers."""
        self._numbers, self._model = numbers, model
        self._clock = clock
        self._speaking: dict[tuple[str, int], int] = {}
        """Utterances without a final -> onset, or once speech has ended its end, as sample indices."""
        self._abstained = 0
        self._restarts = 0
        self._steps = {1: 0, 2: 0, 3: 0}
        self._first = Histogram(
            "clser_first_emotion_seconds",
            "From the onset of speech to the first partial.",
            (0.25, 0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0),
        )
        self._final = Histogram(
            "clser_final_delay_seconds",
            "From the capture of the last speech sample to the final; holds the silence that is waited for.",
            (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0),
        )
        self._decided = Histogram(
            "clser_after_decision_seconds",
            "From the decision that an utterance has ended to its final.",
            (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
        )

    def take(self, message: Message) -> None:
        """A message at the moment of its sending."""
        if isinstance(message, Result):
            self._take_result(message)
        elif isinstance(message, Speech):
            self._take_speech(message)
        elif isinstance(message, Status) and message.stream == ENGINE:
            self._restarts += message.event == "worker_back"
            step = int(message.counters.get("overload_step", 0))
            if message.event == "overload" and step in self._steps:
                self._steps[step] += 1

    def _take_speech(self, speech: Speech) -> None:
        key = (speech.stream, speech.utterance)
        self._speaking.pop(key, None)
        if speech.reason == "too_short":
            return
        self._speaking[key] = speech.sample
        if len(self._speaking) > MOST_SPEAKING:
            del self._speaking[next(iter(self._speaking))]

    def _take_result(self, result: Result) -> None:
        key = (result.stream, result.utterance)
        if result.stage == "final":
            self._final.add(self._since(result, self._speaking.pop(key, result.end_sample)))
            timing = result.timing_ms
            self._decided.add((timing.queue + timing.infer + timing.fuse) / 1000)
            self._abstained += result.emotion.abstained
        elif result.revision == 1 and key in self._speaking:
            self._first.add(self._since(result, self._speaking[key]))

    def _since(self, result: Result, sample: int) -> float:
        """How long ago that sample was captured."""
        ago_s = (self._clock.unix_us() - result.captured_unix_us) / 1e6
        return ago_s + (result.end_sample - sample) / SAMPLE_RATE_HZ

    def text(self) -> str:
        """Everything, in the text format that Prometheus calls 0.0.4."""
        numbers = self._numbers()
        lines: list[str] = []
        for metric in CATALOGUE:
            if metric.key in numbers:
                head = _head(metric.name, metric.kind, metric.help)
                lines += head if head[0] not in lines else []
                lines.append(f"{metric.name}{metric.label} {_number(numbers[metric.key] * metric.times)}")
        lines += _head("clser_model_info", "gauge", "1; digest of the model that answers, and behind a + its delta's.")
        lines.append(f'clser_model_info{{model="{self._model()}"}} 1')
        lines += _head(
            "clser_abstained_total", "counter", "Finals without a label, since the model was not sure enough."
        )
        lines.append(f"clser_abstained_total {self._abstained}")
        lines += _head("clser_worker_restarts_total", "counter", "Workers that were started again and came back.")
        lines.append(f"clser_worker_restarts_total {self._restarts}")
        lines += _head("clser_overload_steps_total", "counter", "Times the engine went up to that step of overload.")
        lines += [f'clser_overload_steps_total{{step="{step}"}} {times}' for step, times in self._steps.items()]
        for histogram in (self._first, self._final, self._decided):
            lines += histogram.lines()
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 9))
