"""Recognition as people meet it: paced like a microphone, through a whole engine, beside the same without recognition.

The runs alternate (off, on, off, on), so that whatever else the machine does falls on both.
"""

import sys
from collections.abc import Mapping, Sequence

from msgspec import Struct

from clser.bench import latency
from clser.bench.asr_sound import Material, Round, Spoken
from clser.bench.asr_words import (
    Counted,
    Settled,
    answer_ms,
    changed,
    counted,
    last_text,
    off_by_samples,
    on_the_way,
    settled,
    whole,
)
from clser.bench.card import Setup
from clser.bench.heard import Told, after_endpoint_ms, sort_out, vad_frame
from clser.bench.load import Ledger
from clser.bench.rig import Rig
from clser.bench.stats import Distribution, distribution
from clser.engine.config import Config
from clser.engine.records import SAMPLE_RATE_HZ

OFF = ""
"""The name of the runs without recognition."""
WAITS = ("first_emotion_ms", "answer_ms", "answer_without_words_ms", "lag_ms", "after_endpoint_ms")
"""Milliseconds until somebody hears of an emotion; of answers before the final, computed (the engine's own account) and arrived."""
VOICES = WAITS[:-1]
"""Which of these the voice alone answers for: with recognition, finals wait for their text."""


class Run(Struct):
    """What runs of one kind came to; they add up."""

    texts: list[tuple[Spoken, str]]
    waits: dict[str, list[float]]
    """Milliseconds by what they are of: `WAITS`."""
    settled_ms: list[float]
    settled_true_ms: list[float]
    shown: int = 0
    """Words that were published as stable,"""
    changed: int = 0
    """and of these, those that were others later."""
    suspect: int = 0
    """Utterances whose text was."""
    utterances: int = 0
    spoken_s: float = 0.0
    """Of the utterances, as the engine cut them."""
    sound_s: float = 0.0
    busy_s: float = 0.0
    given_up: int = 0
    """Utterances for whose text there was no time."""
    lost: int = 0
    """Recognisers that died or hung."""
    amended: int = 0
    missed: int = 0


def empty() -> Run:
    return Run([], {name: [] for name in WAITS}, [], [])


def measure(setups: Mapping[str, Setup], heard: Material) -> dict[str, list[Run]]:
    """By name, a run a round. Each round with each setup in turn; `OFF`, one of them, plays only those that are `paired`."""
    runs: dict[str, list[Run]] = {name: [] for name in setups}
    for number, each in enumerate(heard.rounds[: heard.played]):
        for name, setup in setups.items():
            if name != OFF or number < heard.paired:
                told = f"round {number + 1} of {heard.played}, {len(each.spoken)} clips"
                print(f"{heard.name}, {name or 'no recognition'}: {told}", file=sys.stderr, flush=True)
                runs[name].append(play(setup, each))
    return runs


def merged(runs: Sequence[Run]) -> Run:
    """All of them as one."""
    total = empty()
    for run in runs:
        for name, values in run.waits.items():
            total.waits[name] += values
        for field in Run.__struct_fields__:
            if field != "waits":
                setattr(total, field, getattr(total, field) + getattr(run, field))
    return total


def play(setup: Setup, played: Round) -> Run:
    """One round, paced, and what is to be learnt from it."""
    with Rig(setup, len(played.scene.sound) / SAMPLE_RATE_HZ) as rig:
        ledger = rig.play(played.scene).ledger
    heard = sort_out(rig.received)
    run = learn(played, heard.told(0), ledger, setup.config)
    run.sound_s = len(played.scene.sound) / SAMPLE_RATE_HZ
    run.busy_s = heard.counters.get("recogniser_busy_s", 0.0)
    run.given_up = round(heard.counters.get("words_given_up", 0))
    run.lost = round(heard.counters.get("recognisers_lost", 0))
    run.missed = heard.missed + heard.gaps
    return run


def learn(played: Round, told: Sequence[Told], ledger: Ledger, config: Config) -> Run:
    into = empty()
    frame = vad_frame(config)
    waits = latency.match(
        played.scene, list(told), ledger, lambda each: after_endpoint_ms(each, 0, ledger, config, frame)
    )
    for wait in waits:
        _put(into, "first_emotion_ms", [wait.first_emotion_ms])
        _put(into, "after_endpoint_ms", [wait.after_endpoint_ms])
    for each in told:
        results = [result for _, result in each.results]
        first = on_the_way(each)
        _put(into, "answer_ms", [answer_ms(result) for _, result in first])
        _put(into, "answer_without_words_ms", [answer_ms(result) for _, result in first if result.words is None])
        _put(into, "lag_ms", [(at_us - ledger.captured_us(0, result.end_sample)) / 1000 for at_us, result in first])
        into.changed += changed(each)
        into.amended += any(result.stage == "amended" for result in results)
        finals = [result for result in results if result.final]
        if finals:
            into.utterances += 1
            into.spoken_s += finals[-1].end_s - finals[-1].start_s
            into.suspect += finals[-1].text is not None and finals[-1].text.suspect
    _learn_words(into, played, told, ledger)
    return into


def _put(into: Run, name: str, values: Sequence[float | None]) -> None:
    into.waits[name] += [value for value in values if value is not None]


def _learn_words(into: Run, played: Round, told: Sequence[Told], ledger: Ledger) -> None:
    texts: dict[int, list[str]] = {at: [] for at in range(len(played.spoken))}
    found: dict[int, list[Settled]] = {at: [] for at in texts}
    for each in told:
        at = _whose(each, played.spoken)
        if at is None:
            continue
        texts[at].append(whole(last_text(each)))
        found[at] += settled(each)
    for at, spoken in enumerate(played.spoken):
        into.texts.append((spoken, " ".join(texts[at])))
        into.shown += len(found[at])
        into.settled_ms += [(word.at_us - ledger.captured_us(0, word.end)) / 1000 for word in found[at]]
        into.settled_true_ms += [
            (word.at_us - ledger.captured_us(0, spoken.phrase.onset + end)) / 1000
            for word, end in off_by_samples(found[at], spoken.said.words)
        ]


def _whose(told: Told, spoken: Sequence[Spoken]) -> int | None:
    """The clip that most of an utterance lies in; None of one that lies in no clip."""
    if not told.results:
        return None
    last = told.results[-1][1]
    shared = [min(last.end_sample, each.phrase.offset) - max(last.start_sample, each.phrase.onset) for each in spoken]
    best = max(range(len(spoken)), key=shared.__getitem__)
    return best if shared[best] > 0 else None


# --- figures ----------------------------------------------------------------------------------------------------------


def counts(run: Run) -> list[Counted]:
    return [counted(spoken.said.text, text) for spoken, text in run.texts]


def figures(run: Run) -> dict[str, object]:
    """Of one recogniser, what its runs say but for the words themselves."""
    line: dict[str, object] = {
        "commit_delay_ms": distribution(run.settled_ms),
        "changed_committed": run.changed,
        "committed": run.shown,
        "rtf": run.busy_s / run.spoken_s if run.spoken_s else None,
        "busy_share": run.busy_s / run.sound_s if run.sound_s else None,
        "utterances": run.utterances,
        "suspect": run.suspect,
        "amended": run.amended,
        "given_up": run.given_up,
        "recognisers_lost": run.lost,
        "missed_messages": run.missed,
    }
    if any(spoken.said.words for spoken, _ in run.texts):
        line["commit_delay_true_ms"] = distribution(run.settled_true_ms)
    return line


def on_off(on: Run, off: Run) -> dict[str, object]:
    """How long the voice's answers take with recognition and without."""
    spread = {name: (distribution(on.waits[name]), distribution(off.waits[name])) for name in WAITS}
    return {
        "on": {name: each for name, (each, _) in spread.items()},
        "off": {name: each for name, (_, each) in spread.items()},
        "p95_ratio": {name: _times(*spread[name]) for name in VOICES},
    }


def _times(on: Distribution, off: Distribution) -> float | None:
    return on.p95 / off.p95 if on.p95 is not None and off.p95 else None
