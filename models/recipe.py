"""Rebuilds the shipped voice network from the corpora: `python -m clser.models.recipe --corpora DIR --out DIR`.

Five folds with held-out speakers, temperature and offsets from their answers, a last training on everything with the
same settings, export. Every part is kept in `--out`, and a run that was stopped goes on from there.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from clser.models import calibrate, evaluate, measures, plan, runs, saved
from clser.models.data.clips import Clip
from clser.models.data.corpora import corpora_folder, read_speech
from clser.models.data.splits import FOLDS, NEVER_TESTED, grouped_folds
from clser.models.errors import ClserError
from clser.models.export import export
from clser.models.labels import HEADS, PUBLISHED, PUBLISHED_AS
from clser.models.plan import Plan

Array = np.ndarray[Any, Any]
PLAN = "voice_gru"
COVERAGE = 0.75


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
    parser.add_argument("--out", required=True, type=Path, help="folder for caches, checkpoints, weights and the table")
    parser.add_argument("--epochs", type=int, help="default: as the shipped plan says")
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: its own choice)")
    parts = [*(str(fold) for fold in range(FOLDS)), "final"]
    parser.add_argument(
        "--part", choices=parts, help="train this fold, or the final network, alone (to run some at once)"
    )
    asked = parser.parse_args(arguments)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    changes = [f"optimiser.epochs={asked.epochs}"] if asked.epochs else []
    recipe = Recipe(corpora_folder(asked.corpora), asked.out, plan.load(PLAN, changes))
    if asked.part == "final":
        recipe.final()
    elif asked.part:
        recipe.held_out(int(asked.part))
    else:
        sys.stdout.write(json.dumps(recipe.run()) + "\n")


class Recipe:
    """The parts of a rebuild; each looks for its result in the folder before it makes it."""

    def __init__(self, corpora: Path, out: Path, asked: Plan) -> None:
        self.corpora, self.out, self.plan = corpora, out, asked
        self.clips = read_speech(corpora, asked.corpora, check=False)
        self.folds = grouped_folds(self.clips, asked.folds.count, valid=0.0)

    def run(self) -> dict[str, Any]:
        """Everything; gives back the table."""
        logits = [self.held_out(fold) for fold in range(len(self.folds))]
        clips = [[self.clips[index] for index in fold.test] for fold in self.folds]
        honest = [fit_without(fold, logits, clips).apply(logits[fold]) for fold in range(len(logits))]
        table = summary(np.concatenate(honest), _chain(clips))
        for row, plain in zip(table["rows"], summary(np.concatenate(logits), _chain(clips))["rows"], strict=True):
            row["uar_before_offsets"], row["interval_before_offsets"] = plain["uar"], plain["uar_interval"]
        calibration = calibrate.fit(np.concatenate(logits), _chain(clips))
        table["temperature"] = round(calibration.temperature, 4)
        table["offsets"] = dict(zip(HEADS, (round(x, 3) for x in calibration.offsets), strict=True))
        system, about = saved.load(self.final())
        about = msgspec.structs.replace(
            about,
            calibration=calibration,
            abstain_below=table["abstain_below"],
        )
        saved.save(self.out / "voice_gru.safetensors", system, about)
        table["parity"] = export(system, self.out / "voice_gru.onnx", about).parity
        (self.out / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        return table

    def final(self) -> Path:
        """The network that ships, before its calibration: trained on every clip."""
        return self._trained("", self.out / "final")

    def held_out(self, fold: int) -> Array:
        """Logits for the clips of the fold's speakers, by a network that never heard them."""
        return np.asarray(np.load(self._trained(str(fold), self.out / f"fold{fold}") / "answers.npz")["logits"])

    def _trained(self, fold: str, out: Path) -> Path:
        if not (out / "results.json").exists():  # the last file of a run
            watcher = Lines()
            prepared = runs.prepare(self.plan, self.corpora, self.out / "cache", watcher, fold=fold)
            runs.fit(prepared, out, watcher, resume=True)
        return out


def fit_without(fold: int, logits: Sequence[Array], clips: Sequence[Sequence[Clip]]) -> saved.Calibration:
    """The calibration by the other folds' answers: no figure is calibrated on the speakers it is about."""
    others = [other for other in range(len(logits)) if other != fold]
    return calibrate.fit(
        np.concatenate([logits[other] for other in others]), _chain([clips[other] for other in others])
    )


def _chain(parts: Sequence[Sequence[Clip]]) -> list[Clip]:
    return [clip for part in parts for clip in part]


def summary(logits_NH: Array, clips: Sequence[Clip]) -> dict[str, Any]:
    """The table: a row a corpus, then calibration and abstention over all, on the seven classes that are published."""
    tested = [n for n, clip in enumerate(clips) if clip.corpus not in NEVER_TESTED]
    logits_NH, clips = logits_NH[tested], [clips[n] for n in tested]
    rows = measures.rows(logits_NH, clips, HEADS)
    said_N7 = evaluate.published(evaluate.softmax(logits_NH))
    true_N = np.array([PUBLISHED.index(PUBLISHED_AS[clip.emotion]) for clip in clips])
    for row in rows:
        classes = row["classes"]
        own = [n for n, clip in enumerate(clips) if clip.corpus == row["corpus"] and clip.emotion in classes]
        counts = evaluate.confusion(true_N[own], said_N7[own].argmax(1), len(PUBLISHED))
        row["uar_published"] = round(evaluate.uar(counts), 4)
    threshold = float(np.quantile(said_N7.max(1), 1.0 - COVERAGE))
    coverage, risk = evaluate.risk_at(said_N7, true_N, threshold)
    return {
        "rows": rows,
        "abstain_below": round(threshold, 4),
        "coverage": round(coverage, 4),
        "risk": round(risk, 4),
        "risk_of_all": round(evaluate.risk_at(said_N7, true_N, 0.0)[1], 4),
        "ece_published": round(evaluate.ece(said_N7, true_N), 4),
        "nll_published": round(evaluate.nll(said_N7, true_N), 4),
    }


if __name__ == "__main__":
    try:
        main()
    except ClserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
