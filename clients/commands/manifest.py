"""`clser-models manifest`: a manifest of a corpus as it was downloaded."""

import argparse
import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from clser.engine.errors import GivenError

NAME = "manifest"
HELP = "write a manifest of a corpus as it was downloaded (files, labels, speakers); nothing is copied or converted"
EVERY = 2000


def add_parser(inner: Any) -> None:
    """The action and its arguments."""
    kinds = import_module("clser.models.data.downloads").kinds()
    action = inner.add_parser(NAME, help=HELP, description=HELP, allow_abbrev=False)
    action.add_argument("kind", metavar="KIND", help=f"auto (look which fits), or {', '.join(kinds)}")
    action.add_argument("folder", type=Path, metavar="DIR", help="the folder that the corpus was unpacked into")
    action.add_argument("--out", required=True, type=Path, metavar="CSV", help="the manifest; paths are relative to it")
    action.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="LABEL=EMOTION",
        help="what a label counts as (excitement=happiness), or LABEL= to leave its recordings out",
    )
    action.add_argument(
        "--sentences",
        type=Path,
        metavar="CSV",
        help="code and text, for corpora whose files' names have codes of sentences",
    )
    action.add_argument(
        "--extract", type=Path, metavar="DIR", help="write the sound of videos (by ffmpeg) and of parquet files there"
    )
    action.add_argument("--overwrite", action="store_true", help="write over a manifest that is there")
    action.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(given: argparse.Namespace) -> int:
    """The command."""
    listing = import_module("clser.models.data.listing")
    if given.out.exists() and not given.overwrite:
        raise GivenError(f"{given.out} is there already; give another --out, or --overwrite")
    made = listing.listed(
        given.kind,
        given.folder,
        also=further(given.also),
        sentences=listing.read_sentences(given.sentences) if given.sentences else None,
        extract=given.extract,
        tick=_tell,
    )
    listing.write(made, given.out)
    if given.json:
        told = [asdict(one) for one in made.told]
        print(json.dumps({"kind": made.kind, "out": str(given.out), "recordings": len(made.rows), "told": told}))
    else:
        print("\n".join([*listing.lines(made), f"wrote {given.out}; next: clser-models lint --manifest {given.out}"]))
    return 0


def further(pairs: list[str]) -> dict[str, str]:
    """`a=b` as a mapping."""
    for pair in pairs:
        if "=" not in pair or not pair.partition("=")[0].strip():
            raise GivenError(f"--also {pair!r}: LABEL=EMOTION is needed, such as excitement=happiness")
    return {label.strip(): emotion.strip() for label, _, emotion in (pair.partition("=") for pair in pairs)}


def _tell(done: int) -> None:
    if done % EVERY == 0:
        print(f"{done} recordings looked at", file=sys.stderr, flush=True)
