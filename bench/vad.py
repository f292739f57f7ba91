"""How well each voice activity network finds speech, by itself and with the segmentation behind it, and what it costs."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from clser.bench.card import Setup
from clser.bench.scene import Phrase, find_takes
from clser.bench.stats import Distribution, distribution, roc_auc
from clser.bench.vad_scenes import Excerpt, meetings, mixed
from clser.engine.backends import VadNetwork, open_vad
from clser.engine.config import Config
from clser.engine.jobs import Row
from clser.engine.records import SAMPLE_RATE_HZ
from clser.engine.segment import Ended, Segmenter, Started
from clser.engine.vad import Gate, VadConfig, levels_dbfs

NETWORKS = ("silero", "webrtc")
MINUTES = 60.0
TAKES = 600
COST_FRAMES = 500
TOGETHER = 32
"""Excerpts computed in one call."""
MEETINGS = "meetings"

Span = tuple[int, int]
Probabilities = NDArray[np.float32]


class Edge(Struct, frozen=True):
    """Of |found - labelled|, in ms; `signed` is the median with its sign, above zero where found too late."""

    p50: float | None
    p95: float | None
    p99: float | None
    n: int
    signed: float | None


class Figures(Struct, frozen=True):
    auc: float | None
    onset_error_ms: Edge
    offset_error_ms: Edge
    boundary_error_ms: Edge
    """Both together."""
    missed: int
    """Phrases in which nothing was found."""
    phrases: int
    false_starts: float
    """Utterances where nobody speaks, per minute of sound."""
    split: int
    """Phrases found as more than one utterance."""
    merged: int
    """Utterances that hold more than one phrase."""
    minutes: float


class Found(Struct, frozen=True):
    excerpt: Excerpt
    scores: Probabilities
    spans: list[Span]


def measure(setup: Setup, minutes: float, segments: Path | None, audio: Path | None) -> dict[str, object]:
    config = setup.config
    labelled = meetings(segments, audio or segments.parent) if segments is not None else []
    takes, where = find_takes(setup.corpora, TAKES, setup.seed)
    excerpts = mixed(takes, setup.corpora, minutes, setup.seed) + labelled
    line: dict[str, object] = {"sound": where, "phrases": len(takes)}
    for name in NETWORKS:
        print(name, file=sys.stderr)
        vad = msgspec.structs.replace(config.vad, network=name)
        network = open_vad(vad)
        found = _find(network, excerpts, vad, config)
        line[name] = {**_by_condition(found, network.frame_samples), **_cost(network)}
    return line


def _find(network: VadNetwork, excerpts: Sequence[Excerpt], vad: VadConfig, config: Config) -> list[Found]:
    frame = network.frame_samples
    found = []
    for start in range(0, len(excerpts), TOGETHER):
        batch = excerpts[start : start + TOGETHER]
        counts = [len(excerpt.sound) // frame for excerpt in batch]
        pcm = np.concatenate([excerpt.sound[: count * frame] for excerpt, count in zip(batch, counts, strict=True)])
        scores = network.run([Row(slot, count, True) for slot, count in enumerate(counts)], pcm)
        for excerpt, each in zip(batch, np.split(scores, np.cumsum(counts)[:-1]), strict=True):
            found.append(Found(excerpt, each, segment(excerpt, each, vad, config, frame)))
    return found


def segment(excerpt: Excerpt, scores: Probabilities, vad: VadConfig, config: Config, frame: int) -> list[Span]:
    """The utterances of the whole chain: onset and offset, the withdrawn left out, cuts of the too long mended."""
    gate, segmenter = Gate(vad), Segmenter(config.segment, frame)
    levels = levels_dbfs(excerpt.sound[: len(scores) * frame].reshape(-1, frame))
    events = []
    for score, level in zip(scores.tolist(), levels, strict=True):
        events += segmenter.push(gate.push(score), level)
    events += segmenter.flush("closed")
    onsets: dict[int, int] = {}
    spans: list[Span] = []
    cut = False
    for event in events:
        if isinstance(event, Started):
            onsets[event.number] = event.onset_sample
        elif isinstance(event, Ended):
            if cut and spans:
                spans[-1] = (spans[-1][0], max(spans[-1][1], event.offset_sample))
            elif event.reason != "too_short":
                spans.append((onsets[event.number], event.offset_sample))
            cut = event.reason == "longest"
    return spans


def _by_condition(found: list[Found], frame: int) -> dict[str, object]:
    """Figures over the mixed set (over the meetings, if there is nothing else), then each condition's."""
    mix = [each for each in found if each.excerpt.condition != MEETINGS]
    conditions = list(dict.fromkeys(each.excerpt.condition for each in found))
    by = {name: figures([each for each in found if each.excerpt.condition == name], frame) for name in conditions}
    whole: dict[str, object] = msgspec.structs.asdict(figures(mix or found, frame))
    return {**whole, "by_condition": by}


def figures(found: list[Found], frame: int) -> Figures:
    onsets: list[float] = []
    offsets: list[float] = []
    missed = false = split = merged = 0
    for each in found:
        phrases, spans = each.excerpt.phrases, each.spans
        for phrase in phrases:
            over = [span for span in spans if _overlap(span, phrase)]
            missed += not over
            split += len(over) > 1
            if over:
                onsets.append((over[0][0] - phrase.onset) / SAMPLE_RATE_HZ * 1000)
                offsets.append((over[-1][1] - phrase.offset) / SAMPLE_RATE_HZ * 1000)
        held = [sum(_overlap(span, phrase) for phrase in phrases) for span in spans]
        false += held.count(0)
        merged += sum(count > 1 for count in held)
    minutes = sum(len(each.excerpt.sound) for each in found) / SAMPLE_RATE_HZ / 60
    return Figures(
        auc=roc_auc(
            np.concatenate([each.scores for each in found]),
            np.concatenate([each.excerpt.frame_labels(frame) for each in found]),
        ),
        onset_error_ms=_edge(onsets),
        offset_error_ms=_edge(offsets),
        boundary_error_ms=_edge(onsets + offsets),
        missed=missed,
        phrases=sum(len(each.excerpt.phrases) for each in found),
        false_starts=false / minutes,
        split=split,
        merged=merged,
        minutes=minutes,
    )


def _overlap(span: Span, phrase: Phrase) -> bool:
    return span[0] < phrase.offset and span[1] > phrase.onset


def _edge(errors: list[float]) -> Edge:
    size: Distribution = distribution(np.abs(errors))
    signed = round(float(np.median(errors)), 2) if errors else None
    return Edge(size.p50, size.p95, size.p99, size.n, signed)


def _cost(network: VadNetwork) -> dict[str, float]:
    """One core's time for one stream frame by frame, as it comes, and for 32 streams together."""
    frame = network.frame_samples
    random = np.random.default_rng(0)
    costs = {}
    for name, rows in (("us_per_frame", 1), ("us_per_frame_of_32", 32)):
        batch = [Row(1000 + slot, 1, False) for slot in range(rows)]
        pcm = random.integers(-3000, 3000, rows * frame).astype(np.int16)
        took = []
        for _ in range(COST_FRAMES):
            began = time.perf_counter_ns()
            network.run(batch, pcm)
            took.append(time.perf_counter_ns() - began)
        costs[name] = float(np.median(took)) / 1000 / rows
    return {**costs, "frame_ms": frame * 1000 / SAMPLE_RATE_HZ}


def table(line: dict[str, object]) -> list[str]:
    out = [
        f"{'network, sound':<22}{'AUC':>7}{'onset ms |p50|':>16}{'|p95|':>8}{'signed':>8}{'offset |p50|':>14}{'|p95|':>8}"
        f"{'signed':>8}{'missed':>12}{'false/min':>11}{'split':>7}{'merged':>8}"
    ]
    for name in NETWORKS:
        figure = line[name]
        assert isinstance(figure, dict)
        named = {
            "all but meetings": msgspec.convert(figure, Figures),
            **figure["by_condition"],
        }
        out += [f"{name + ', ' + condition:<22}{_cells(each)}" for condition, each in named.items()]
        cost = f"{figure['us_per_frame']:.0f} us a frame of {figure['frame_ms']:.0f} ms"
        out.append(f"  {cost}; {figure['us_per_frame_of_32']:.1f} us where 32 streams go together")
    return out


def _cells(each: Figures) -> str:
    onset, offset = each.onset_error_ms, each.offset_error_ms
    numbers = [onset.p50, onset.p95, onset.signed, offset.p50, offset.p95, offset.signed]
    cells = ["-" if number is None else f"{number:.0f}" for number in numbers]
    auc = "-" if each.auc is None else f"{each.auc:.3f}"
    widths = (16, 8, 8, 14, 8, 8)
    return (
        f"{auc:>7}"
        + "".join(f"{text:>{width}}" for text, width in zip(cells, widths, strict=True))
        + f"{f'{each.missed}/{each.phrases}':>12}{each.false_starts:>11.2f}{each.split:>7}{each.merged:>8}"
    )
