"""How long one speaker waits: one stream, paced like a microphone, phrases with known onsets and offsets."""

import sys
from collections.abc import Callable

import numpy as np
from msgspec import Struct

from clser.bench.card import Setup
from clser.bench.heard import Heard, Told, after_endpoint_ms, sort_out, timing_sum_ms, vad_frame
from clser.bench.load import Ledger
from clser.bench.rig import Play, Rig
from clser.bench.scene import Phrase, Scene, find_takes, spaced
from clser.bench.stats import Distribution, distribution
from clser.engine.records import SAMPLE_RATE_HZ, Timing

UTTERANCES, SHORT = 200, 40
GAP_S = (0.7, 1.2)
COLD = 1
"""Phrases at the start whose figures stand apart."""


class Waits(Struct, frozen=True):
    """One phrase's, None where it cannot be said."""

    phrase: Phrase
    first_emotion_ms: float | None
    final_ms: float | None
    after_endpoint_ms: float | None
    timing: Timing | None
    own_account_ms: float | None
    finals: int
    heard: bool
    """Whether speech was noticed at all."""


def measure(setup: Setup, utterances: int) -> tuple[dict[str, object], dict[str, list[float]]]:
    """The JSON line's keys, and the values to draw."""
    config = setup.config
    takes, where = find_takes(setup.corpora, utterances + COLD, setup.seed)
    scene = spaced(takes, utterances + COLD, GAP_S, setup.seed, where)
    seconds = len(scene.sound) / SAMPLE_RATE_HZ
    print(f"{utterances} utterances, {seconds / 60:.1f} minutes at the pace of speech", file=sys.stderr)
    with Rig(setup, seconds) as rig:
        play = rig.play(scene)
    heard = sort_out(rig.received)
    frame = vad_frame(config)

    def endpoint_ms(told: Told) -> float | None:
        return after_endpoint_ms(told, 0, play.ledger, config, frame)

    waits = match(scene, heard.told(0), play.ledger, endpoint_ms)
    return report(scene, waits, heard, play, rig.ready_s), columns(waits[COLD:])


def match(scene: Scene, told: list[Told], ledger: Ledger, endpoint_ms: Callable[[Told], float | None]) -> list[Waits]:
    """Each phrase with the utterances that overlap it in time."""
    return [
        _wait(phrase, [each for each in told if _overlaps(each, phrase)], ledger, endpoint_ms)
        for phrase in scene.phrases
    ]


def _overlaps(told: Told, phrase: Phrase) -> bool:
    if told.onset is None:
        return False
    end = told.offset if told.offset is not None else max(told.onset, *(each.end_sample for _, each in told.results), 0)
    return told.onset < phrase.offset and end > phrase.onset


def _wait(phrase: Phrase, told: list[Told], ledger: Ledger, endpoint_ms: Callable[[Told], float | None]) -> Waits:
    finals = [each for each in told if each.final is not None]
    if not finals:
        return Waits(phrase, None, None, None, None, None, 0, bool(told))
    first_us = min(each.results[0][0] for each in told if each.results)
    last = finals[-1]
    assert last.final is not None
    final_us, final = last.final
    return Waits(
        phrase,
        (first_us - ledger.captured_us(0, phrase.onset)) / 1000,
        (final_us - ledger.captured_us(0, phrase.offset)) / 1000,
        endpoint_ms(last),
        final.timing_ms,
        timing_sum_ms(final) if final.reason == "silence" else None,
        len(finals),
        True,
    )


def columns(waits: list[Waits]) -> dict[str, list[float]]:
    names = ("first_emotion_ms", "final_ms", "after_endpoint_ms", "own_account_ms")
    return {name: [value for wait in waits if (value := getattr(wait, name)) is not None] for name in names}


def report(scene: Scene, waits: list[Waits], heard: Heard, play: Play, ready_s: float) -> dict[str, object]:
    values = columns(waits[COLD:])
    with_p99 = len(scene.phrases) - COLD >= UTTERANCES
    spread: dict[str, Distribution] = {name: distribution(each, with_p99) for name, each in values.items()}
    timings = [wait.timing for wait in waits[COLD:] if wait.timing is not None]
    counters = heard.counters
    beats = heard.heartbeats
    return {
        "first_emotion_ms": spread["first_emotion_ms"],
        "final_ms": spread["final_ms"],
        "after_endpoint_ms": spread["after_endpoint_ms"],
        "stage_ms": {
            stage: distribution([getattr(timing, stage) for timing in timings], with_p99)
            for stage in Timing.__struct_fields__
        },
        "rtf": (play.cpu.engine + play.cpu.workers) / (len(scene.sound) / SAMPLE_RATE_HZ),
        "frames_computed_once": ratio(counters.get("frames_entered", 0), counters.get("frames_needed", 0)),
        "loop_lag_ms": distribution([beat.counters.get("loop_lag_ms_p99", 0.0) for beat in beats]),
        "finals": sum(told.final is not None for told in heard.told(0)),
        "lost": sum(wait.finals == 0 for wait in waits),
        "ready_s": ready_s,
        "rss_mb": max((beat.counters.get("rss_mb", 0.0) for beat in beats), default=0.0),
        "utterances": len(scene.phrases) - COLD,
        "unheard": sum(not wait.heard for wait in waits),
        "split": sum(wait.finals > 1 for wait in waits),
        "cold": {name: each[0] if each else None for name, each in columns(waits[:COLD]).items()},
        "own_account_ms": spread["own_account_ms"],
        "sound": scene.source,
        "minutes": len(scene.sound) / SAMPLE_RATE_HZ / 60,
        "missed_messages": heard.missed,
        "cpu": play.cpu.shares(),
        "load_late_ms": distribution(play.ledger.late_ms()),
        "load_blocked": play.ledger.blocked,
    }


def ratio(entered: float, needed: float) -> float | None:
    return entered / needed if needed else None


def table(line: dict[str, object]) -> list[str]:
    rows = [f"{'ms':<20}{'p50':>9}{'p95':>9}{'p99':>9}{'n':>7}"]
    stages = line["stage_ms"]
    assert isinstance(stages, dict)
    named = {name: line[name] for name in ("first_emotion_ms", "final_ms", "after_endpoint_ms", "own_account_ms")}
    named |= {f"  {stage}": each for stage, each in stages.items()}
    named |= {name: line[name] for name in ("loop_lag_ms", "load_late_ms")}
    for name, each in named.items():
        assert isinstance(each, Distribution)
        rows.append(
            f"{name.removesuffix('_ms'):<20}"
            + "".join(cell(v) for v in (each.p50, each.p95, each.p99))
            + f"{each.n:>7}"
        )
    rows.append("")
    for name in (
        "rtf",
        "frames_computed_once",
        "finals",
        "lost",
        "unheard",
        "split",
        "ready_s",
        "rss_mb",
        "cpu",
        "cold",
    ):
        value = line[name]
        rows.append(f"{name:<22}{np.round(value, 4) if isinstance(value, float) else value}")
    return rows


def cell(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.1f}':>9}"
