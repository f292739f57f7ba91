"""What recognition is worth and what it costs: words that are wrong, when they are settled, and what becomes of the voice's answers.

Whole utterances, the same row by row, and through an engine at the pace of speech, so that what streaming costs is told apart
from what cutting costs; sound without speech, where every word is false; and the voice with recognition and without.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from clser.bench import asr_live
from clser.bench.asr_decode import TOGETHER, Batched, Done, Task, Written, run_all
from clser.bench.asr_false import false_words, through_vad
from clser.bench.asr_live import OFF, Run, counts, merged, on_off
from clser.bench.asr_options import MINUTES, RECOGNISERS, SHORT_MINUTES, Asked
from clser.bench.asr_sound import Material, Piece, Said, clips, material, sentences, speechless
from clser.bench.asr_words import Counted, counted, rate, ratio
from clser.bench.card import Setup
from clser.bench.table import number
from clser.engine.backends.recognisers import choose
from clser.engine.errors import ClserError, GivenError, MissingError
from clser.engine.records import SAMPLE_RATE_HZ

LISTENER = "listener"
MOST_CLIPS, SHORT_CLIPS = 60, 5
SENTENCES, SHORT_SENTENCES = 60, 4
WINDOW_S = (3.0, 6.0)
"""Windows that are decoded together are about so long."""
PACKAGES = ("pocketsphinx", "faster-whisper", "ctranslate2")


class Entrant(NamedTuple):
    """A recogniser, and on what it is measured."""

    name: str
    setup: Setup
    material: Material


def measure(setup: Setup, asked: Asked) -> dict[str, object]:
    rows: dict[str, object] = {}
    entrants = list(_entrants(setup, asked, rows))
    minutes = asked.minutes or (SHORT_MINUTES if asked.short else MINUTES)
    noises = asked.noise or _own_noises(setup)
    pieces = speechless(minutes, noises, setup.seed) if entrants else []
    decoded = _decoded(entrants, pieces, rows)
    for each in entrants:
        if each.name in decoded and each.name.startswith(("whisper", LISTENER)):
            decoded[each.name]["batch"] = _batch(each)
    there = [each for each in entrants if each.name in decoded]
    for group in _groups(there):
        setups = {OFF: _with(setup, "off", ""), **{each.name: each.setup for each in group}}
        runs = asr_live.measure(setups, group[0].material)
        for each in group:
            print(f"{each.name}: {minutes:g} minutes without speech", file=sys.stderr, flush=True)
            unasked = asyncio.run(through_vad(each.setup, pieces))
            rows[each.name] = _row(each, decoded[each.name], pieces, unasked, runs)
    return {
        "recognisers": rows,
        "normalised": "no case, no punctuation but apostrophes within words; numbers and abbreviations as they are written",
        "speechless": {"minutes": minutes, "kinds": list(dict.fromkeys(piece.kind for piece in pieces))},
        "packages": {name: _version(name) for name in PACKAGES},
    }


# --- who is here ------------------------------------------------------------------------------------------------------


def _entrants(setup: Setup, asked: Asked, rows: dict[str, object]) -> Iterator[Entrant]:
    """Those that can be had; of the others, `rows` gets the reason."""
    names = asked.recognisers or (() if asked.listener else RECOGNISERS)
    if names and asked.manifest is None:
        raise GivenError(
            "the clips to recognise are needed: give --manifest CSV, whose column `text` says what is spoken"
        )
    if names:
        most = SHORT_CLIPS if asked.short else MOST_CLIPS
        said, language = clips(asked.manifest or Path(), asked.audio, most, setup.seed)
        heard = material("clips", language, said, setup.seed, asked.short)
        for name in dict.fromkeys(names):
            yield from _entrant(_label(name), _with(setup, name, language), heard, rows)
    if asked.listener is not None:
        try:
            spoken = sentences(SHORT_SENTENCES if asked.short else SENTENCES, setup.seed)
        except MissingError as error:
            rows[LISTENER] = {"reason": str(error)}
            return
        heard = material("sentences", "en", spoken, setup.seed, asked.short)
        yield from _entrant(LISTENER, _with(setup, f"whisper:{asked.listener}", "en"), heard, rows)


def _entrant(name: str, setup: Setup, heard: Material, rows: dict[str, object]) -> Iterator[Entrant]:
    try:
        choice = choose(setup.config.asr)
    except ClserError as error:
        rows[name] = {"reason": str(error)}
        return
    if choice.module:
        yield Entrant(name, setup, heard)
    else:
        rows[name] = {"reason": choice.why}


def _label(name: str) -> str:
    """Where a checkpoint lies on this machine is nobody's business."""
    kind, colon, which = name.partition(":")
    return f"{kind}{colon}{Path(which).name}" if which else kind


def _with(setup: Setup, recogniser: str, language: str) -> Setup:
    more = [f"asr.recogniser={recogniser}", *([f"asr.language={language}"] if language else [])]
    return msgspec.structs.replace(setup, overrides=(*setup.overrides, *more))


def _own_noises(setup: Setup) -> Path | None:
    there = setup.corpora is not None and (setup.corpora / "noise" / "manifest.csv").is_file()
    return setup.corpora / "noise" if setup.corpora is not None and there else None


def _groups(entrants: Sequence[Entrant]) -> list[list[Entrant]]:
    """By what they hear: they take turns on it."""
    groups: dict[str, list[Entrant]] = {}
    for each in entrants:
        groups.setdefault(each.material.name, []).append(each)
    return list(groups.values())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


# --- by themselves ----------------------------------------------------------------------------------------------------


def _decoded(
    entrants: Sequence[Entrant], pieces: Sequence[Piece], rows: dict[str, object]
) -> dict[str, dict[str, Any]]:
    """By name and way, what recognisers write without an engine; as many processes at once as there are cores."""
    half = len(pieces) // 2
    tasks = [
        (each.name, kind, Task(each.setup, sounds, way))
        for each in entrants
        for kind, way, sounds in (
            ("forced", "whole", [piece.sound for piece in pieces[:half]]),
            ("forced", "whole", [piece.sound for piece in pieces[half:]]),
            ("stepped", "stepped", [spoken.alone for spoken in each.material.spoken]),
            ("whole", "whole", [spoken.alone for spoken in each.material.spoken]),
        )
    ]
    print(f"{len(tasks)} decodings", file=sys.stderr, flush=True)
    decoded: dict[str, dict[str, Any]] = {}
    for (name, kind, _), done in zip(tasks, run_all([task for *_, task in tasks], _cores()), strict=True):
        own = decoded.setdefault(name, {})
        if not isinstance(done, Done):
            rows[name] = {"reason": str(done)}
        elif own.setdefault("card", done.card) != done.card:
            rows[name] = {"reason": "it changed while it was measured: nobody may write into its folder meanwhile"}
        else:
            own[kind] = own.get(kind, ()) + done.written
            own["step_ms"] = done.step_ms
    return {name: each for name, each in decoded.items() if name not in rows}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _batch(entrant: Entrant) -> Batched | None:
    """Of as many streams as go together in an engine, with nothing else at work."""
    spoken = np.concatenate([each.alone for each in entrant.material.spoken])
    draw = np.random.default_rng(entrant.setup.seed)
    sounds = []
    for _ in range(TOGETHER):
        many = round(draw.uniform(*WINDOW_S) * SAMPLE_RATE_HZ)
        begin = int(draw.integers(max(1, len(spoken) - many)))
        sounds.append(spoken[begin : begin + many])
    (done,) = run_all([Task(entrant.setup, sounds, "batch")], 1)
    return done.batched if isinstance(done, Done) else None


# --- figures ----------------------------------------------------------------------------------------------------------


def _row(
    entrant: Entrant,
    decoded: Mapping[str, Any],
    pieces: Sequence[Piece],
    unasked: Mapping[str, Sequence[Written]],
    runs: Mapping[str, Sequence[Run]],
) -> dict[str, object]:
    said = [spoken.said for spoken in entrant.material.spoken]
    seconds = sum(len(each.sound) for each in said) / SAMPLE_RATE_HZ
    forced: dict[str, list[Written]] = {piece.kind: [] for piece in pieces}
    for piece, written in zip(pieces, decoded["forced"], strict=True):
        forced[piece.kind].append(written)
    paired = len(runs[OFF])
    on = merged(runs[entrant.name])
    ways = {
        "whole": _counted(said, decoded["whole"]),
        "stepped": _counted(said, decoded["stepped"]),
        "streamed": counts(on),
    }
    return {
        "card": decoded["card"],
        "step_ms": decoded["step_ms"],
        "heard": entrant.material.name,
        "clips": len(said),
        "minutes": seconds / 60,
        **wer(ways, entrant.setup.seed),
        **asr_live.figures(on),
        "false_words": {"forced": false_words(forced), "through_vad": false_words(unasked)},
        "voice_on_off": on_off(merged(runs[entrant.name][:paired]), merged(runs[OFF])),
        "batch": decoded.get("batch"),
        "reason": None,
    }


def _counted(said: Sequence[Said], written: Sequence[Written]) -> list[Counted]:
    return [counted(each.text, its.text) for each, its in zip(said, written, strict=True)]


def wer(ways: Mapping[str, Sequence[Counted]], seed: int) -> dict[str, object]:
    """Rates of all that was heard each way, and their ratios to whole utterances on the clips that both ways heard."""
    whole = ways["whole"]
    return {
        "wer": {way: rate(each, seed) for way, each in ways.items()},
        "wer_over_whole": {way: ratio(each, whole[: len(each)], seed) for way, each in ways.items() if way != "whole"},
    }


# --- for people -------------------------------------------------------------------------------------------------------


def table(line: Mapping[str, Any]) -> list[str]:
    """A block a recogniser."""
    lines: list[str] = []
    for name, built in line["recognisers"].items():
        row = msgspec.to_builtins(built)
        if lines:
            lines.append("")
        if row["reason"]:
            lines.append(f"{name}: not measured: {row['reason']}")
        else:
            lines += _block(name, row)
    return lines


def _block(name: str, row: Mapping[str, Any]) -> list[str]:
    about = row["card"]
    lines = [f"{name}: {about['name']} {about['digest']}, {row['clips']} {row['heard']}, {row['minutes']:.1f} minutes"]
    for way, each in row["wer"].items():
        over = row["wer_over_whole"].get(way)
        times = "" if over is None else f"   {number(over['value'], 3)} of whole ({_bounds(over, 3)})"
        lines.append(f"  words wrong, {way:<10}{number(each['value'], 3):>7} ({_bounds(each, 3)}){times}")
    lines.append(f"  {'ms':<28}{'p50':>9}{'p95':>9}{'p99':>9}{'n':>7}")
    spreads = {key: row[key] for key in ("commit_delay_ms", "commit_delay_true_ms") if key in row}
    for state in ("off", "on"):
        spreads |= {f"{key}, {state}": each for key, each in row["voice_on_off"][state].items()}
    for key, each in spreads.items():
        cells = "".join(f"{number(each[part], 1):>9}" for part in ("p50", "p95", "p99"))
        lines.append(f"  {key.replace('_ms', ''):<28}{cells}{each['n']:>7}")
    ratios = ", ".join(
        f"{key.removesuffix('_ms')} {number(each)}" for key, each in row["voice_on_off"]["p95_ratio"].items()
    )
    lines.append(f"  p95 on / off              {ratios}")
    for way, each in row["false_words"].items():
        kinds = ", ".join(f"{kind} {words}" for kind, words in each["by_kind"].items() if words)
        lines.append(
            f"  false words, {way:<13}{each['words']} in {each['of']}, trusted {each['trusted']}{f' ({kinds})' if kinds else ''}"
        )
    for key in (
        "changed_committed",
        "committed",
        "rtf",
        "busy_share",
        "suspect",
        "amended",
        "given_up",
        "recognisers_lost",
    ):
        value = row[key]
        lines.append(f"  {key:<26}{number(value) if isinstance(value, float) else value}")
    if row["batch"]:
        alone, together = row["batch"]["one_by_one_s"], row["batch"]["together_s"]
        lines.append(
            f"  {row['batch']['windows']} windows, seconds        {alone:.2f} one by one, {together:.2f} together"
        )
    return lines


def _bounds(each: Mapping[str, Any], digits: int) -> str:
    return f"{number(each['low'], digits)}-{number(each['high'], digits)}"
