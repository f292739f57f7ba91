"""`clser-models eval`: how well a model does on the recordings of a manifest.

Letters: N clips, H heads, X what is known of a speaker.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clser.clients.commands import through_engine
from clser.clients.commands.lint import asked_classes
from clser.clients.commands.systems import add_zoo
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import Row
from clser.engine.records import SAMPLE_RATE_HZ
from clser.engine.shipped import backend_for, model_path
from clser.models import evaluate, measures
from clser.models.data.augment import speech_bounds
from clser.models.data.clips import Clip, read_sound
from clser.models.data.manifests import read_manifest
from clser.models.enrolment import MOST, enrolment
from clser.models.labels import PUBLISHED, PUBLISHED_AS

NAME = "eval"
HELP = "measure a model on the labelled recordings of a manifest"
LEAD_S, TRAIL_S = 0.3, 0.15
ROWS = 16

Array = np.ndarray[Any, Any]


class Answers(NamedTuple):
    """What a model said: log-probabilities of its heads for each clip that is scored."""

    logits_NH: Array
    heads: tuple[str, ...]
    name: str
    digest: str
    rtf: float
    """Seconds of computing per second of sound; through the engine, seconds of waiting."""
    unanswered: int = 0


def add_parser(inner: Any) -> None:
    """The action and its arguments."""
    action = inner.add_parser(NAME, help=HELP, description=HELP, allow_abbrev=False)
    action.add_argument(
        "--model",
        required=True,
        metavar="NAME|PATH",
        help="an installed model, an .onnx file, or a trained folder or its .safetensors",
    )
    action.add_argument("--manifest", required=True, type=Path, metavar="CSV", help="file, emotion, and speaker, ...")
    action.add_argument("--audio", type=Path, metavar="DIR", help="folder that the manifest's paths are relative to")
    action.add_argument("--classes", metavar="A,B,C", help="clips of these emotions alone, and no other answer")
    action.add_argument("--stream", action="store_true", help="in packets of 20 ms through the engine's own path")
    action.add_argument("--enrol", type=int, metavar="K", help="the model hears K clips of each speaker first")
    action.add_argument(
        "--words", action="store_true", help="a trained system that reads is given the column `text` too"
    )
    action.add_argument("--seed", type=int, default=0, metavar="N", help="which clips are heard first (default: 0)")
    add_zoo(action)
    action.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(given: argparse.Namespace) -> int:
    """The command."""
    if given.enrol is not None and not 0 <= given.enrol <= MOST:
        raise GivenError(f"--enrol {given.enrol}: give a number of clips from 0 to {MOST}")
    if given.words and (given.stream or not is_trained(given.model)):
        heard_by = "the engine" if given.stream else f"model {given.model}"
        raise GivenError(f"--words: {heard_by} is given none; leave it out, or judge a trained folder without --stream")
    clips = read_manifest(given.manifest, given.audio)
    wanted = asked_classes(given.classes) or tuple(dict.fromkeys(clip.emotion for clip in clips))
    heard: dict[tuple[str, str], list[int]] = {}
    scored = list(range(len(clips)))
    if given.enrol is not None:
        heard, scored = enrolment(clips, given.seed)
    scored = [n for n in scored if clips[n].emotion in wanted]
    if not scored:
        raise GivenError(f"--classes {given.classes}: no clip has one of these; see the manifest's column `emotion`")
    if given.stream:
        first = [clips[n] for own in heard.values() for n in own[: given.enrol]]
        said = _through_engine(given, [clips[n] for n in scored], first)
    elif is_trained(given.model):
        said = _trained(given, clips, scored, heard)
    else:
        said = _whole(given, clips, scored, {who: own[: given.enrol or 0] for who, own in heard.items()})
    found = _found(said, [clips[n] for n in scored], wanted, given)
    print(json.dumps(found) if given.json else "\n".join(table(found)))
    return 0


def is_trained(model: str) -> bool:
    """Whether it is something of `clser-models train`: a folder or a .safetensors file."""
    return backend_for(model) == "torch"


def cut(clip: Clip) -> Array:
    """The clip about its speech, as an engine cuts utterances."""
    sound = read_sound(clip)
    first, last = speech_bounds(sound)
    return sound[max(0, first - round(LEAD_S * SAMPLE_RATE_HZ)) : last + round(TRAIL_S * SAMPLE_RATE_HZ)]


def _whole(
    given: argparse.Namespace, clips: Sequence[Clip], scored: Sequence[int], first: dict[tuple[str, str], list[int]]
) -> Answers:
    """Each clip as one utterance, with the runtime that an engine plays the file with."""
    voice = import_module("clser.engine.backends").open_voice(given.model, "cpu")
    card = voice.card
    known: dict[tuple[str, str], Array] = {}
    if given.enrol:
        if not card.speaker_numbers:
            _cannot_enrol(given, f"model {given.model}")
        order = [n for own in first.values() for n in own]
        told = np.concatenate([told_NX for _, told_NX, _, _ in _played(voice, [clips[n] for n in order], None)])
        known = {who: told[[order.index(n) for n in own]].sum(0) for who, own in first.items()}
    parts = list(_played(voice, [clips[n] for n in scored], known or None))
    busy_s, sound_s = sum(part[2] for part in parts), sum(part[3] for part in parts)
    logits_NH = np.concatenate([part[0] for part in parts])
    return Answers(logits_NH, card.heads, card.name, card.digest, busy_s / max(sound_s, 1e-9))


def _played(
    voice: Any, clips: Sequence[Clip], known: dict[tuple[str, str], Array] | None
) -> Iterator[tuple[Array, Array, float, float]]:
    """Some clips at a time: the answers after their last frames and what they tell of their speakers (nothing, for a model
    that knows none); seconds of computing, and of sound."""
    card = voice.card
    for first in range(0, len(clips), ROWS):
        some = clips[first : first + ROWS]
        sounds = [cut(clip) for clip in some]
        frames = [max(1, len(sound) // card.frame_samples) for sound in sounds]
        rows = [Row(slot, many, True, known is not None, anew=True) for slot, many in enumerate(frames)]
        pcm = np.concatenate([_whole_frames(s, n * card.frame_samples) for s, n in zip(sounds, frames, strict=True)])
        slots = range(len(some))
        if known is not None:
            voice.know(slots, np.stack([known[clip.who] for clip in some]))
        began = time.perf_counter()
        said_NH = voice.run(rows, pcm)
        busy_s = time.perf_counter() - began
        told = voice.told(slots) if card.speaker_numbers else np.zeros((len(some), 0), np.float32)
        yield said_NH[np.cumsum(frames) - 1], told, busy_s, len(pcm) / SAMPLE_RATE_HZ


def _whole_frames(sound: Array, samples: int) -> Array:
    """So many samples of 16 bits; silence where there are fewer."""
    out = np.zeros(samples, np.int16)
    out[: len(sound)] = np.clip(np.round(sound[:samples] * 32768.0), -32768, 32767)
    return out


def _trained(
    given: argparse.Namespace, clips: Sequence[Clip], scored: Sequence[int], heard: dict[tuple[str, str], list[int]]
) -> Answers:
    """A trained folder: whole clips in torch, after those of its speaker that are heard first."""
    try:
        saved, judged = (import_module(f"clser.models.{name}") for name in ("saved", "judged"))
    except ModuleNotFoundError as error:
        raise MissingError(f"a trained folder needs {error.name}: pip install 'clser-stream[torch]'") from error
    system, about = saved.load(model_path(given.model), given.zoo)
    if given.words and not system.words:
        raise GivenError(f"--words: {about.system} reads none; leave it out")
    known_NX = None
    if given.enrol is not None:
        if not import_module("clser.models.systems").speaker_numbers(system):
            _cannot_enrol(given, f"system {about.system}")
        elif given.enrol:
            known_NX = _known(judged, system, clips, scored, {who: own[: given.enrol] for who, own in heard.items()})
    chosen = [clips[n] for n in scored]
    logits_NH, rtf = judged.logits(system, about, chosen, known_NX=known_NX, words=given.words)
    return Answers(logits_NH, about.heads, about.system, about.digest, rtf)


def _known(
    judged: Any, system: Any, clips: Sequence[Clip], scored: Sequence[int], heard: dict[tuple[str, str], list[int]]
) -> Any:
    """[N, X]: what each scored clip's speaker is known by."""
    order = [n for own in heard.values() for n in own]
    each_NX = judged.known(system, [clips[n] for n in order])
    of = {who: each_NX[[order.index(n) for n in own]].sum(0) for who, own in heard.items()}
    return import_module("torch").stack([of[clips[n].who] for n in scored])


def _through_engine(given: argparse.Namespace, clips: Sequence[Clip], first: Sequence[Clip]) -> Answers:
    began = time.perf_counter()
    probability_N7, unanswered, model = through_engine.hear(given.model, clips, first)
    busy_s = time.perf_counter() - began
    logits_NH = np.log(np.maximum(probability_N7, 1e-12))
    sound_s = sum(clip.duration_s for clip in (*first, *clips))
    return Answers(logits_NH, PUBLISHED, model.name, model.digest, busy_s / max(sound_s, 1e-9), unanswered)


def _cannot_enrol(given: argparse.Namespace, what: str) -> None:
    if given.enrol:
        raise GivenError(
            f"--enrol {given.enrol}: {what} cannot be enrolled; leave --enrol out, or give 0 to score the same clips"
        )


def _found(said: Answers, clips: Sequence[Clip], wanted: Sequence[str], given: argparse.Namespace) -> dict[str, Any]:
    """The document; its keys stay."""
    if given.stream:  # the engine publishes seven classes, and boredom and calm as neutral
        clips = [import_module("dataclasses").replace(clip, emotion=PUBLISHED_AS[clip.emotion]) for clip in clips]
        wanted = tuple(dict.fromkeys(PUBLISHED_AS[name] for name in wanted))
    lacking = [name for name in wanted if name not in said.heads]
    if lacking:
        raise GivenError(
            f"model {given.model} has no head for {', '.join(lacking)}; ask for --classes of {', '.join(said.heads)}"
        )
    kept = [n for n, head in enumerate(said.heads) if head in wanted]
    true_N = np.array([said.heads.index(clip.emotion) for clip in clips])
    probability_NH = evaluate.softmax(evaluate.restrict(said.logits_NH, kept))
    speakers = [clip.speaker or clip.name for clip in clips]
    found = measures.of_answers(probability_NH, true_N, speakers, said.heads, kept)
    found |= {
        "n": len(clips),
        "speakers": len(set(speakers)),
        "classes": [said.heads[c] for c in kept],
        "stream": given.stream,
        "enrol": given.enrol or 0,
        "rtf": round(said.rtf, 5),
        "model": said.name,
        "digest": said.digest,
    }
    if given.stream:
        found["unanswered"] = said.unanswered
    return found


def table(found: dict[str, Any]) -> list[str]:
    """For people."""
    low, high = found["uar_interval"]
    extra = f", {found['unanswered']} unanswered" if "unanswered" in found else ""
    heard = f", {found['enrol']} clips of each speaker heard first" if found["enrol"] else ""
    lines = [
        f"{found['model']} {found['digest']}: {found['n']} clips, {found['speakers']} speakers{extra}{heard}",
        f"UAR {100 * found['uar']:.1f} % ({100 * low:.1f} to {100 * high:.1f}, 95 % over speakers)   "
        f"WAR {100 * found['war']:.1f} %   F1 {100 * found['macro_f1']:.1f} % (weighted {100 * found['weighted_f1']:.1f})",
        f"ECE {found['ece']:.3f} (without luck {found['ece_corrected']:.3f})   NLL {found['nll']:.3f}   "
        f"Brier {found['brier']:.3f}   AURC {found['aurc']:.3f}   RTF {found['rtf']:.4f}",
        "",
        f"{'':<10} {'recall':>7} {'precision':>9} {'F1':>7} {'clips':>6}   said: "
        + " ".join(f"{name[:5]:>5}" for name in found["classes"]),
    ]
    for name, counts in zip(found["classes"], found["confusion"], strict=True):
        one = found["per_class"][name]
        lines.append(
            f"{name:<10} {100 * one['recall']:6.1f}% {100 * one['precision']:8.1f}% {100 * one['f1']:6.1f}% {one['n']:>6}         "
            + " ".join(f"{count:>5}" for count in counts)
        )
    return lines
