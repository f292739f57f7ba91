"""How right trained systems are for speakers they never heard: folds put together, intervals, gains paired clip by clip.

It reads the folders that `clser-models train --fold K` leaves, one a fold, and puts a peer beside them on the same folds.

Letters: N clips, H heads, C classes.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from clser.bench import functionals
from clser.bench.table import number
from clser.engine.errors import GivenError
from clser.models import evaluate
from clser.models.data.clips import Clip
from clser.models.data.corpora import read_speech
from clser.models.enrolment import enrolment
from clser.models.measures import classes_of

Array = np.ndarray[Any, Any]
DRAWS = 1000
PLAIN = "0"


class Answers(Struct, frozen=True):
    """What one system said of the clips it was tested on, by how many clips of the speaker it had heard."""

    system: str
    heads: tuple[str, ...]
    seed: int
    folds: tuple[str, ...]
    names: tuple[tuple[str, str], ...]
    """(corpus, file) of each clip."""
    logits: dict[str, Array]
    """[N, H]; the rows of clips that were heard are not numbers."""


class Judged(Struct, frozen=True):
    """What was said of a corpus's clips, ready to be counted."""

    true_N: Array
    said_N: Array
    speakers: tuple[str, ...]
    classes: int


def measure(corpora: Path, folders: Sequence[Path], peer: bool, cache: Path) -> dict[str, object]:
    """Rows by corpus for each system and, if asked for, openSMILE with a linear machine on the same folds."""
    systems = read(folders)
    clips = {(clip.corpus, clip.name): clip for clip in read_speech(corpora, _corpora(systems), check=False)}
    tested = {name for answers in systems.values() for name in answers.names}
    # What a training left out, for a copy of it has another label, the peer is spared too.
    clips = {name: clip for name, clip in clips.items() if name in tested}
    judged: dict[tuple[str, str], dict[str, Judged]] = {}
    for answers in systems.values():
        own = [_clip(clips, name) for name in answers.names]
        for heard, logits_NH in answers.logits.items():
            judged[answers.system, heard] = _judge(logits_NH, own, answers.heads)
    if peer:
        first = next(iter(systems.values()))
        fold_of = _folds(folders, first.system)
        for heard in sorted({heard for answers in systems.values() for heard in answers.logits}, key=int):
            print(f"openSMILE and a linear machine, {heard} clips heard", file=sys.stderr, flush=True)
            said = functionals.answers([*clips.values()], fold_of, int(heard), cache)
            judged["opensmile", heard] = _judge_peer(said, [*clips.values()])
    rows = [row for (name, heard), each in judged.items() for row in _rows(name, int(heard), each)]
    digests = {folder.name: _about(folder)["digest"] for folder in folders}
    return {"rows": rows, "gains": _gains(judged), "digests": digests}


def read(folders: Sequence[Path]) -> dict[str, Answers]:
    """The answers in these folders, those of one system's folds put together."""
    parts: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for folder in folders:
        try:
            about = _about(folder)
            answers = np.load(folder / "answers.npz", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise GivenError(
                f"{folder}: no finished run with answers ({error}); give folders that `clser-models train` left"
            ) from error
        if about["on"] != "test":
            raise GivenError(f"{folder}: trained without --fold, so nobody was held out; train it on a fold")
        parts.setdefault(about["system"], []).append((about, answers))
    return {name: _together(name, found) for name, found in parts.items()}


def _about(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return about


def _together(system: str, parts: Sequence[tuple[dict[str, Any], Any]]) -> Answers:
    folds = tuple(str(about["fold"]) for about, _ in parts)
    if len(set(folds)) != len(folds):
        raise GivenError(f"{system}: fold {max(folds, key=folds.count)} is there twice; give each fold once")
    heads = {tuple(str(head) for head in answers["heads"]) for _, answers in parts}
    if len(heads) != 1:
        raise GivenError(f"{system}: its folds have different classes; train them from one plan")
    names = [pair for _, a in parts for pair in zip(a["corpus"].tolist(), a["name"].tolist(), strict=True)]
    kinds = [key for key in parts[0][1].files if key.startswith("after_")]
    logits = {PLAIN: np.concatenate([a["logits"] for _, a in parts])}
    logits |= {kind.removeprefix("after_"): np.concatenate([a[kind] for _, a in parts]) for kind in kinds}
    return Answers(system, heads.pop(), int(parts[0][0]["seed"]), folds, tuple(names), logits)


def _corpora(systems: Mapping[str, Answers]) -> list[str]:
    return list(dict.fromkeys(corpus for answers in systems.values() for corpus, _ in answers.names))


def _clip(clips: Mapping[tuple[str, str], Clip], name: tuple[str, str]) -> Clip:
    if name not in clips:
        raise GivenError(f"{'/'.join(name)} was tested on and is not in --corpora: give the corpora of the training")
    return clips[name]


def _folds(folders: Sequence[Path], system: str) -> dict[tuple[str, str], str]:
    """Each tested clip's fold."""
    fold_of = {}
    for folder in folders:
        about = _about(folder)
        if about["system"] == system:
            answers = np.load(folder / "answers.npz", allow_pickle=False)
            for name in zip(answers["corpus"].tolist(), answers["name"].tolist(), strict=True):
                fold_of[name] = str(about["fold"])
    return fold_of


def _judge(logits_NH: Array, clips: Sequence[Clip], heads: Sequence[str]) -> dict[str, Judged]:
    """By corpus, on the classes it is scored on and the clips that nobody heard before."""
    _, scored = enrolment(clips)
    found = {}
    for corpus in dict.fromkeys(clip.corpus for clip in clips):
        classes = classes_of(corpus, clips, heads)
        own = [n for n in scored if clips[n].corpus == corpus and heads.index(clips[n].emotion) in classes]
        said_N = evaluate.restrict(logits_NH[own], classes).argmax(1)
        assert not np.isnan(logits_NH[own]).any()
        true_N = np.array([heads.index(clips[n].emotion) for n in own])
        found[corpus] = Judged(true_N, said_N, tuple(clips[n].speaker for n in own), len(heads))
    return found


def _judge_peer(said: Mapping[int, str], clips: Sequence[Clip]) -> dict[str, Judged]:
    heads = sorted({clip.emotion for clip in clips})
    found = {}
    for corpus in dict.fromkeys(clip.corpus for clip in clips):
        own = [n for n in sorted(said) if clips[n].corpus == corpus]
        if own:
            true_N = np.array([heads.index(clips[n].emotion) for n in own])
            said_N = np.array([heads.index(said[n]) for n in own])
            found[corpus] = Judged(true_N, said_N, tuple(clips[n].speaker for n in own), len(heads))
    return found


def _rows(system: str, heard: int, each: Mapping[str, Judged]) -> Iterable[dict[str, object]]:
    for corpus, judged in each.items():
        counts = evaluate.confusion(judged.true_N, judged.said_N, judged.classes)
        interval = evaluate.bootstrap(judged.true_N, judged.said_N, judged.speakers, judged.classes)
        yield {
            "system": system, "enrol": heard, "corpus": corpus, "clips": len(judged.true_N),
            "speakers": len(set(judged.speakers)), "uar": evaluate.uar(counts), "uar_interval": list(interval),
            "war": evaluate.war(counts), "macro_f1": evaluate.macro_f1(counts),
        }  # fmt: skip


def _gains(judged: Mapping[tuple[str, str], Mapping[str, Judged]]) -> list[dict[str, object]]:
    """Each system less the peer, on the mean of the corpora; the same speakers are drawn for both."""
    found = []
    for (name, heard), ours in judged.items():
        peer = judged.get(("opensmile", heard))
        if peer is None or name == "opensmile":
            continue
        random = np.random.default_rng(0)
        corpora = [corpus for corpus in ours if corpus in peer]
        drawn = [np.mean([_drawn(ours[c], peer[c], random) for c in corpora]) for _ in range(DRAWS)]
        whole = np.mean([_uar(ours[c]) - _uar(peer[c]) for c in corpora])
        low, high = np.percentile(drawn, [2.5, 97.5])
        found.append({"system": name, "enrol": int(heard), "uar": float(whole), "interval": [float(low), float(high)]})
    return found


def _uar(judged: Judged) -> float:
    return evaluate.uar(evaluate.confusion(judged.true_N, judged.said_N, judged.classes))


def _drawn(ours: Judged, peer: Judged, random: np.random.Generator) -> float:
    names = sorted(set(ours.speakers))
    drawn = [names[n] for n in random.integers(len(names), size=len(names))]
    both = []
    for judged in (ours, peer):
        speakers = np.array(judged.speakers)
        rows = np.concatenate([np.flatnonzero(speakers == name) for name in drawn])
        both.append(evaluate.uar(evaluate.confusion(judged.true_N[rows], judged.said_N[rows], judged.classes)))
    return both[0] - both[1]


def table(line: Mapping[str, Any]) -> list[str]:
    """For people: a line a system, a column a corpus."""
    rows = line["rows"]
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    lines = [f"{'UAR, per cent':<16}{'heard':>6}" + "".join(f"{corpus:>22}" for corpus in corpora) + f"{'mean':>8}"]
    for system, heard in dict.fromkeys((row["system"], row["enrol"]) for row in rows):
        own = {row["corpus"]: row for row in rows if (row["system"], row["enrol"]) == (system, heard)}
        cells = "".join(f"{_cell(own[corpus]):>22}" if corpus in own else f"{'-':>22}" for corpus in corpora)
        mean = 100 * float(np.mean([row["uar"] for row in own.values()]))
        lines.append(f"{system:<16}{heard:>6}{cells}{number(mean, 1):>8}")
    for gain in line["gains"]:
        low, high = (100 * bound for bound in gain["interval"])
        lines.append(
            f"{gain['system']} less openSMILE, {gain['enrol']} heard: {100 * gain['uar']:+.1f} ({low:+.1f} to {high:+.1f}) points"
        )
    return lines


def _cell(row: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in row["uar_interval"])
    return f"{100 * row['uar']:.1f} ({low:.0f} to {high:.0f})"
