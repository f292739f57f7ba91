"""What a transcript adds to a voice: the voice alone, the words alone, and both together, for speakers and texts never met.

No corpus has both voices that feel and words that do: each clip stands beside texts of its label (or of another), drawn at
random. That is said in the line, too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clser.bench.table import number
from clser.models.both_run import JUDGED_ON, choices_of, measured, read

NAMES = {
    "voice": "voice alone",
    "words": "words alone",
    "right": "both, right text",
    "right_suspect": "  and mistrusted",
    "wrong": "both, wrong text",
    "wrong_suspect": "  and mistrusted",
    "none": "both, no text",
}
WHO = {"strangers": "strangers", "known": "speakers known by ten other clips"}


def measure(
    answers: Sequence[Path], words: Path, corpora: Path, seed: int = 0, changes: Sequence[str] = ()
) -> dict[str, object]:
    """Figures of networks trained on every other fold. `answers`: folders of runs, each with another fold held out."""
    torch.set_num_threads(1)
    return {"bench": "both", **measured(read(answers, words, corpora, JUDGED_ON, seed), choices_of(changes), seed)}


def table(line: Mapping[str, Any]) -> list[str]:
    """For people."""
    lines = []
    for who, name in WHO.items():
        if who not in line:
            continue
        found = line[who]
        lines.append(f"{name}: {found['clips']} clips, {found['speakers']} speakers, texts {found['texts']}")
        lines.append(
            f"{'':<20}{'UAR':>7}{'interval':>13}{'over voice':>12}{'interval':>15}{'ECE':>8}{'words count':>13}"
        )
        for row in found["rows"]:
            low, high = (100 * bound for bound in row["uar_interval"])
            least, most = (100 * bound for bound in row["over_voice_interval"])
            cells = (
                f"{number(100 * row['uar'], 1):>7}{f'{low:.1f}-{high:.1f}':>13}{100 * row['over_voice']:>+12.1f}"
                f"{f'{least:+.1f} to {most:+.1f}':>15}{number(row['ece'], 3):>8}{number(row['words_counted']):>13}"
            )
            lines.append(f"{NAMES[row['way']]:<20}{cells}")
        for collection, each in found["by_collection"].items():
            told = ", ".join(f"{NAMES[way]} {100 * value:.1f}" for way, value in each.items())
            lines.append(f"  right texts from {collection.removeprefix('text_')}: {told}")
    return lines
