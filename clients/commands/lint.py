"""`clser-models lint`: what is wrong with a collection of recordings, before anything is trained or tested on it."""

import argparse
import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from clser.engine.errors import GivenError, MissingError
from clser.models.data.corpora import FOLDER_VARIABLE, corpora_folder

NAME = "lint"
HELP = "look for what makes figures better than the model: leaks, and labels that follow from something else (exit 1)"
FOUND = 1


def add_parser(inner: Any) -> None:
    """The action and its arguments."""
    action = inner.add_parser(NAME, help=HELP, description=HELP, allow_abbrev=False)
    what = action.add_mutually_exclusive_group()
    what.add_argument("--manifest", type=Path, metavar="CSV", help="a manifest (file, emotion, speaker, ...)")
    what.add_argument("--corpora", metavar="DIR", help=f"a folder of corpora (default: ${FOLDER_VARIABLE})")
    action.add_argument("--audio", type=Path, metavar="DIR", help="folder that the manifest's paths are relative to")
    action.add_argument("--corpus", action="append", default=[], metavar="NAME", help="these corpora alone")
    action.add_argument("--classes", metavar="A,B,C", help="clips of these emotions alone")
    action.add_argument("--folds", type=int, metavar="N", help="also look at each of so many folds by speaker")
    action.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(given: argparse.Namespace) -> int:
    """Exit 1 where there are errors."""
    if given.folds is not None and given.folds < 2:
        raise GivenError(f"--folds {given.folds}: give 2 or more, or leave it out")
    linter = import_module("clser.models.data.lint")
    clips = _clips(given)
    findings = list(linter.lint(clips))
    if given.folds:
        folds = import_module("clser.models.data.splits").grouped_folds(clips, given.folds)
        known = {(f.rule, f.what) for f in findings}
        findings += [f for fold in folds for f in linter.lint(clips, fold) if (f.rule, f.what) not in known]
    if given.json:
        print(json.dumps({"clips": len(clips), "findings": [asdict(finding) for finding in findings]}))
    else:
        unknown = sum(not clip.speaker for clip in clips)
        less = f"; {unknown} clips name no speaker, so nobody can say what holds for strangers" if unknown else ""
        print("\n".join([*linter.lines(findings), f"{len(clips)} clips, {len(findings)} findings{less}"]))
    return FOUND if any(finding.severity == "error" for finding in findings) else 0


def _clips(given: argparse.Namespace) -> list[Any]:
    data = import_module("clser.models.data.corpora")
    if given.manifest:
        clips = import_module("clser.models.data.manifests").read_manifest(given.manifest, given.audio)
    else:
        folder = corpora_folder(given.corpora)
        there = data.spoken_in(folder)
        if not there:
            raise MissingError(
                f"no corpora in {folder}: a folder each is looked for, with a manifest.csv; give --manifest CSV for one of your own"
            )
        clips = data.read_speech(folder, given.corpus or there)
    if wanted := asked_classes(given.classes):
        clips = [clip for clip in clips if clip.emotion in wanted]
        if not clips:
            raise GivenError(
                f"--classes {given.classes}: no clip has one of these; see the manifest's column `emotion`"
            )
    return list(clips)


def asked_classes(text: str | None) -> tuple[str, ...]:
    """`a,b,c` in the project's own names; of None, none."""
    canonical = import_module("clser.models.data.emotions").canonical
    names = tuple(dict.fromkeys(canonical(name.strip()) for name in (text or "").split(",") if name.strip()))
    if text is not None and not names:
        raise GivenError(f"--classes {text!r}: it names no emotion; give some, with commas, or leave it out")
    return names
