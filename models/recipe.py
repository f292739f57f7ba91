"""Rebuilds the default voice from the corpora: `python -m clser.models.recipe --corpora DIR --out DIR`.

Five folds with held-out speakers, five with a held-out corpus, temperature and offsets from the folds' answers, a last
training on everything, and another on the corpora whose licence is stated. Every part is kept in `--out`, and a run that
was stopped goes on from there. Parts do not depend on one another: `--part NAME` makes one, so that some run at once.

    out/speakers_0..4, out/without_CORPUS   runs for figures alone, folders of `clser-models train`
    out/voice, out/voice_licensed           the runs that ship, before their calibration
    out/voice.onnx, .safetensors, ...       what ships          out/table.json   the figures of the card
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clser.models import calibrate, judged, measures, plan, runs, saved, verdict
from clser.models.data.corpora import corpora_folder, read_speech
from clser.models.data.hardships import hardships
from clser.models.data.splits import NEVER_TESTED
from clser.models.data.takes import clean_take
from clser.models.errors import ClserError, GivenError
from clser.models.export import export
from clser.models.plan import Plan
from clser.models.saved import Calibration
from clser.models.verdict import Said

PLAN = "voice"
STATED = ("ravdess", "nemo", "tess")
"""Corpora that come with a licence."""
FINAL, LICENSED = "voice", "voice_licensed"
HARD_CLIPS = 240
"""Of each fold, as many are heard under hard conditions."""
SHIPPED = (FINAL, LICENSED)


class Lines:
    """Progress is for people: standard error."""

    def line(self, text: str) -> None:
        """A line of it."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def step(self, done: int, total: int, what: str) -> None:
        """A step is worth no line."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m clser.models.recipe", description=__doc__)
    parser.add_argument("--corpora", help="folder of the corpora (default: the variable CLSER_CORPORA)")
    parser.add_argument("--out", required=True, type=Path, help="folder for the runs, the weights and the table")
    parser.add_argument("--cache", type=Path, help="folder for features (default: OUT/cache)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the plan")
    parser.add_argument("--part", help="make this run alone, to make some at once; any other name tells them all")
    asked = parser.parse_args(arguments)
    recipe = Recipe(
        corpora_folder(asked.corpora), asked.out, asked.cache or asked.out / "cache", plan.load(PLAN, asked.set)
    )
    if asked.part:
        recipe.part(asked.part)
    else:
        sys.stdout.write(json.dumps(recipe.run()) + "\n")


class Recipe:
    """The parts of a rebuild; each looks for its result in the folder before it makes it."""

    def __init__(self, corpora: Path, out: Path, cache: Path, asked: Plan) -> None:
        self.corpora, self.out, self.cache, self.plan = corpora, out, cache, asked
        self.folds = [str(fold) for fold in range(asked.folds.count)]
        self.tested = [corpus for corpus in asked.corpora if corpus not in NEVER_TESTED]
        licensed = [corpus for corpus in asked.corpora if corpus in STATED] or list(asked.corpora)
        one_out = {"folds": {"scheme": "one_corpus_out", "validation": asked.folds.validation}}
        self.parts: dict[str, tuple[str, Mapping[str, Any]]] = {
            **{f"speakers_{fold}": (fold, {}) for fold in self.folds},
            FINAL: ("", {}),
            LICENSED: ("", {"corpora": licensed}),
            **{f"without_{corpus}": (corpus, one_out) for corpus in self.tested},
        }
        """By name: the fold held out, and what differs from the plan."""

    def run(self) -> dict[str, Any]:
        """Everything; gives back the table."""
        folders = {name: self.part(name) for name in self.parts}
        clips = {(clip.corpus, clip.name): clip for clip in read_speech(self.corpora, self.plan.corpora, check=False)}
        said = {name: verdict.read(folders[name], clips) for name in self.parts if name not in SHIPPED}
        folds = [said[f"speakers_{fold}"] for fold in self.folds]
        calibration, threshold = verdict.calibrated(folds)
        table = verdict.table(folds, {corpus: said[f"without_{corpus}"] for corpus in self.tested})
        table["hard"] = self.hard([folders[f"speakers_{fold}"] for fold in self.folds], folds)
        shipped = {name: self.ship(name, folders[name], folds[0].heads, calibration, threshold) for name in SHIPPED}
        table |= {"shipped": shipped, "abstain_below": threshold, "temperature": round(calibration.temperature, 4)}
        (self.out / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        return table

    def part(self, name: str) -> Path:
        """The folder of that run, made or found."""
        if name not in self.parts:
            raise GivenError(f"--part {name}: there are {', '.join(self.parts)}")
        fold, changes = self.parts[name]
        out = self.out / name
        if not (out / "results.json").exists():  # the last file of a run
            watcher = Lines()
            values = {**msgspec.to_builtins(self.plan), **changes}
            asked = plan.from_values(values, name)
            prepared = runs.prepare(asked, self.corpora, self.cache, watcher, fold=fold)
            runs.fit(prepared, out, watcher, resume=True)
        return out

    def hard(self, folders: Sequence[Path], folds: Sequence[Said]) -> dict[str, Any]:
        """UAR for strangers, the mean of the corpora, of every few clips as they are, in noise, in rooms and by telephone."""
        kinds = {"clean": clean_take(), **hardships(self.corpora, self.plan.takes)}
        chosen = [fold.clips[:: max(1, len(fold.clips) // HARD_CLIPS)] for fold in folds]
        clips = [clip for some in chosen for clip in some]
        found: dict[str, Any] = {"clips": len(clips)}
        for kind, take in kinds.items():
            parts = []
            for folder, some in zip(folders, chosen, strict=True):
                system, about = saved.load(folder)
                parts.append(judged.logits(system, about, some, take=take)[0])
            rows = measures.rows(np.concatenate(parts), clips, folds[0].heads)
            found[kind] = {"mean_uar": measures.mean_uar(rows), **{row["corpus"]: row["uar"] for row in rows}}
        return found

    def ship(
        self, name: str, trained: Path, heads: Sequence[str], calibration: Calibration, threshold: float
    ) -> dict[str, Any]:
        """Writes the files that ship, calibrated for `heads` of which they may lack some; gives back what tells them."""
        system, about = saved.load(trained)
        own = calibrate.for_heads(calibration, about.heads, heads)
        about = msgspec.structs.replace(about, name=name, calibration=own, abstain_below=threshold)
        weights = saved.save(self.out / f"{name}.safetensors", system, about, half=True)
        made = export(system, self.out / f"{name}.onnx", about)
        return {"digest": saved.about_of(weights).digest, "parity": made.parity, "size_bytes": made.size_bytes}


if __name__ == "__main__":
    try:
        main()
    except ClserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
