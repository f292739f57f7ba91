"""What `clser-bench asr` is asked for."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

RECOGNISERS = ("sphinx", "whisper")
MINUTES, SHORT_MINUTES = 10.0, 0.5


class Asked(NamedTuple):
    manifest: Path | None = None
    audio: Path | None = None
    recognisers: tuple[str, ...] = ()
    listener: Path | None = None
    noise: Path | None = None
    minutes: float | None = None
    short: bool = False


def add(parser: argparse.ArgumentParser, amount: Callable[[str], float]) -> None:
    """`amount` checks a number."""
    parser.add_argument(
        "--manifest", type=Path, metavar="CSV", help="clips and what is spoken in them: file, text, emotion"
    )
    parser.add_argument("--audio", type=Path, metavar="DIR", help="the recordings it names (beside the CSV)")
    names = " and ".join(RECOGNISERS)
    parser.add_argument(
        "--recogniser", action="append", default=[], metavar="NAME",
        help=f"sphinx, whisper or whisper:NAME, as asr.recogniser; repeatable ({names})",
    )  # fmt: skip
    parser.add_argument(
        "--listener", type=Path, metavar="DIR",
        help="what `python -m clser.bench.listener` made (its ct2), on sentences that espeak-ng speaks",
    )  # fmt: skip
    parser.add_argument(
        "--noise",
        type=Path,
        metavar="DIR",
        help="recordings without speech, with a manifest.csv (noise in the corpora)",
    )
    parser.add_argument(
        "--minutes", type=amount, metavar="M", help=f"without speech ({MINUTES:g}; in short {SHORT_MINUTES:g})"
    )
    parser.add_argument("--short", action="store_true", help="few clips, one round (some 2 minutes)")


def asked(options: argparse.Namespace) -> Asked:
    return Asked(
        options.manifest,
        options.audio,
        tuple(options.recogniser),
        options.listener,
        options.noise,
        options.minutes,
        options.short,
    )
