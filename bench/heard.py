"""What came over the bus, in the order the analyses want it. Pure."""

from collections import defaultdict
from dataclasses import dataclass, field
from importlib import import_module

from clser.bench.endpoint import deciding_sample
from clser.bench.load import Ledger, name_of
from clser.bench.reader import Received
from clser.bench.scene import PACKET
from clser.engine.config import Config
from clser.engine.records import ENGINE, Gap, Result, Speech, Status


@dataclass(slots=True)
class Told:
    """All that was published about one utterance."""

    number: int
    results: list[tuple[float, Result]] = field(default_factory=list)
    """Arrival (unix us) and result, in order."""
    onset: int | None = None
    offset: int | None = None

    @property
    def final(self) -> tuple[float, Result] | None:
        return next(((at, result) for at, result in self.results if result.stage == "final"), None)


@dataclass(slots=True)
class Heard:
    """Everything of one run."""

    streams: dict[str, dict[int, Told]]
    statuses: list[Status]
    missed: int
    """Messages that never arrived, by the holes in `seq`."""
    gaps: int

    @property
    def heartbeats(self) -> list[Status]:
        return [status for status in self.statuses if status.event == "heartbeat"]

    @property
    def counters(self) -> dict[str, float]:
        """The engine's last word on its totals."""
        return next((status.counters for status in reversed(self.statuses) if status.counters), {})

    def told(self, stream: int) -> list[Told]:
        """One stream's utterances, in order."""
        return [told for _, told in sorted(self.streams.get(name_of(stream), {}).items())]


def sort_out(received: list[Received]) -> Heard:
    streams: dict[str, dict[int, Told]] = defaultdict(dict)
    heard = Heard(streams, [], 0, 0)
    last: dict[tuple[str, str], int] = {}
    for entry in received:
        message = entry.message
        key = (type(message).__name__, message.stream)
        if key in last and message.seq <= last[key]:
            continue  # a kept message, sent to late joiners
        heard.missed += message.seq - last.get(key, message.seq - 1) - 1
        last[key] = message.seq
        if isinstance(message, Status) and message.stream == ENGINE:
            heard.statuses.append(message)
        elif isinstance(message, Gap):
            heard.gaps += 1
        elif isinstance(message, Result):
            told = streams[message.stream].setdefault(message.utterance, Told(message.utterance))
            told.results.append((entry.at_us, message))
        elif isinstance(message, Speech):
            told = streams[message.stream].setdefault(message.utterance, Told(message.utterance))
            if message.event == "started":
                told.onset = message.sample
            else:
                told.offset = message.sample
    return heard


def vad_frame(config: Config) -> int:
    """Samples in a frame of the voice activity network."""
    return int(import_module(f"clser.engine.backends.{config.vad.network}").FRAME)


def after_endpoint_ms(told: Told, stream: int, ledger: Ledger, config: Config, frame: int) -> float | None:
    """Final received - sending of the packet that completed the silence asked for; None where nothing was waited for."""
    if told.final is None or told.offset is None:
        return None
    at_us, final = told.final
    span = (final.start_sample, told.offset, final.reason)
    return endpoint_wait_ms(at_us, span, stream, ledger, config, frame)


def endpoint_wait_ms(  # noqa: PLR0917 - made of what a final, a stream and a setting are
    at_us: float, span: tuple[int, int, str], stream: int, ledger: Ledger, config: Config, frame: int
) -> float | None:
    """The same from the final's arrival and its `span`: first sample, end of the last voiced frame, why it ended."""
    start, offset, reason = span
    sample = deciding_sample(config.segment, frame, start, offset, reason)
    if sample is None or sample > ledger.sent_us.shape[1] * PACKET:
        return None
    sent_us = int(ledger.sent_us[stream, (sample - 1) // PACKET])
    return (at_us - sent_us) / 1000 if sent_us else None


def timing_sum_ms(final: Result) -> float:
    """The engine's own account of the same stretch, without the bus."""
    timing = final.timing_ms
    return timing.vad + timing.queue + timing.infer + timing.fuse
