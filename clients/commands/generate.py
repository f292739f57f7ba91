"""`clser-models generate`: a corpus out of templates and a synthesiser."""

import argparse
import json
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from clser.clients.commands.lint import asked_classes
from clser.engine.errors import GivenError

NAME = "generate"
HELP = "make a corpus to train on out of templates of sentences and a speech synthesiser (TUG); downloads nothing"


def add_parser(inner: Any) -> None:
    """The action and its arguments."""
    action = inner.add_parser(NAME, help=HELP, description=HELP, allow_abbrev=False)
    action.add_argument(
        "--templates", type=Path, metavar="FILE", help="JSON (default: ours, 7 emotions in en, de, it, ru, zh)"
    )
    action.add_argument("--out", required=True, type=Path, metavar="DIR", help="a folder of the corpora folder, or any")
    action.add_argument(
        "--per-class", type=int, default=20, metavar="N", help="utterances a language and class (default: 20)"
    )
    action.add_argument("--language", metavar="A,B,C", help="these languages alone")
    action.add_argument("--classes", metavar="A,B,C", help="these emotions alone")
    action.add_argument(
        "--voice", default="espeak", metavar="espeak|MODULE:FUNCTION",
        help="who says them: espeak-ng, or what your function gives (see `Synthesiser` in clser.models.data.synthesis)",
    )  # fmt: skip
    action.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same sounds (default: 0)")
    action.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(given: argparse.Namespace) -> int:
    """The command."""
    tug = import_module("clser.models.data.tug")
    if given.per_class < 1:
        raise GivenError(f"--per-class {given.per_class}: give 1 or more")
    templates = _asked(tug.read_templates(given.templates), given)
    synthesiser = import_module("clser.models.data.synthesis").open_synthesiser(given.voice)
    _make(given.out)
    clips = tug.generate(templates, synthesiser, given.out, given.per_class, seed=given.seed, report=_line)
    emotions = Counter(clip.emotion for clip in clips)
    found = {
        "out": str(given.out), "clips": len(clips), "minutes": round(sum(clip.duration_s for clip in clips) / 60.0, 2),
        "voices": len({clip.speaker for clip in clips}), "emotions": dict(sorted(emotions.items())),
    }  # fmt: skip
    print(
        json.dumps(found)
        if given.json
        else f"{given.out}: {found['clips']} clips of {found['voices']} voices, {found['minutes']} minutes"
    )
    return 0


def _asked(templates: list[Any], given: argparse.Namespace) -> list[Any]:
    classes = asked_classes(given.classes)
    languages = {name.strip() for name in (given.language or "").split(",") if name.strip()}
    kept = [
        t for t in templates if (not classes or t.emotion in classes) and (not languages or t.language in languages)
    ]
    if not kept:
        there = sorted({t.language for t in templates}), sorted({t.emotion for t in templates})
        asked = [f"--{name} {said}" for name in ("language", "classes") if (said := getattr(given, name))]
        raise GivenError(
            f"{' '.join(asked)}: the templates have {', '.join(there[0])} and {', '.join(there[1])}; name some of these"
        )
    return kept


def _make(out: Path) -> None:
    """A folder of somebody's recordings is never written into."""
    if (out / "manifest.csv").exists():
        there = import_module("clser.models.data.manifests").read_manifest(out, labelled=False, check=False)
        if import_module("clser.models.data.synthesis").recordings(there):
            raise GivenError(f"--out {out}: there is a corpus of recordings in it; give another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GivenError(
            f"--out {out}: nothing can be written there ({error.strerror}); give another folder"
        ) from error


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
