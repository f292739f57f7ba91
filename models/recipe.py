"""Rebuilds the shipped voice network from the corpora: `python -m clser.models.recipe --corpora DIR --out DIR`.

Decode, disturb, five folds with held-out speakers, temperature and abstention from their answers, a last training on
everything with the same settings, export. Every part is kept in `--out`, and a run that was stopped goes on from there.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from clser.models import calibrate, evaluate
from clser.models.data import variants
from clser.models.data.corpora import NOISE, SPEECH, Clip, corpora_folder, decode, read_clips
from clser.models.data.splits import FOLDS, NEVER_TESTED, speaker_folds, split
from clser.models.export import export, metadata
from clser.models.labels import HEADS, PUBLISHED, PUBLISHED_AS
from clser.models.train import Examples, Settings, predict, train
from clser.models.zoo.voice_gru import VoiceGru

Array = np.ndarray[Any, Any]
TAKES = 8
COVERAGE = 0.75
EMODB_CLASSES = ("anger", "happiness", "neutral", "sadness")
"""The classes of EmoDB whose clips are all whole."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m clser.models.recipe", description=__doc__)
    parser.add_argument("--corpora", help="folder of the corpora (default: the variable CLSER_CORPORA)")
    parser.add_argument("--out", required=True, type=Path, help="folder for caches, checkpoints, weights and the table")
    parser.add_argument("--epochs", type=int, default=Settings().epochs)
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: its own choice)")
    parts = [*(str(fold) for fold in range(FOLDS)), "final"]
    parser.add_argument(
        "--part", choices=parts, help="train this fold, or the final network, alone (to run some at once)"
    )
    asked = parser.parse_args(arguments)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    recipe = Recipe(corpora_folder(asked.corpora), asked.out, replace(Settings(), epochs=asked.epochs))
    if asked.part == "final":
        recipe.final()
    elif asked.part:
        recipe.held_out(int(asked.part))
    else:
        sys.stdout.write(json.dumps(recipe.run()) + "\n")


def report(line: str) -> None:
    """Progress is for people: standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Recipe:
    """The parts of a rebuild; each looks for its result in the folder before it makes it."""

    def __init__(self, corpora: Path, out: Path, settings: Settings) -> None:
        self.out, self.settings = out, settings
        self.clips = read_clips(corpora)
        self.fold_of = speaker_folds(self.clips)
        cache = out / "cache"
        recordings = decode(self.clips, cache / "speech")
        noise_clips = read_clips(corpora, NOISE)
        noise_recordings = decode(noise_clips, cache / "noise")
        noises = [noise_recordings.clip(index) for index in range(len(noise_clips))]
        report(f"{len(self.clips)} clips, {len(noises)} noises; features next")
        self.clean = variants.clean(self.clips, recordings, cache)
        self.takes = [variants.disturbed(self.clips, recordings, noises, take, cache) for take in range(TAKES)]

    def run(self) -> dict[str, Any]:
        """Everything; gives back the table."""
        folds = [self.held_out(fold) for fold in range(FOLDS)]
        clips = [[self.clips[index] for index in tested] for _, tested in folds]
        logits = [logits for logits, _ in folds]
        honest = [fit_without(fold, logits, clips).apply(logits[fold]) for fold in range(FOLDS)]
        table = summary(np.concatenate(honest), _chain(clips))
        for row, plain in zip(table["rows"], summary(np.concatenate(logits), _chain(clips))["rows"], strict=True):
            row["uar_before_offsets"], row["interval_before_offsets"] = plain["uar"], plain["uar_interval"]
        calibration = calibrate.fit(np.concatenate(logits), _chain(clips))
        table["temperature"] = round(calibration.temperature, 4)
        table["offsets"] = dict(zip(HEADS, (round(float(x), 3) for x in calibration.offset_H), strict=True))
        net = self.final()
        net.temperature.fill_(calibration.temperature)
        with torch.no_grad():
            net.heads.bias += calibration.temperature * torch.from_numpy(calibration.offset_H).float()
        save_file(net.state_dict(), str(self.out / "voice_gru.safetensors"))
        about = metadata(table["abstain_below"], SPEECH)
        table["parity"] = export(net, self.out / "voice_gru.onnx", about)
        (self.out / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        return table

    def final(self) -> VoiceGru:
        """The network that ships, before its temperature: trained on every clip."""
        return train(
            Examples(self.clips, self.takes, range(len(self.clips))), self.settings, self.out / "final", report
        )

    def held_out(self, fold: int) -> tuple[Array, list[int]]:
        """Logits for the clips of the fold's speakers, by a network that never heard them."""
        to_train, to_test = split(self.clips, fold, self.fold_of)
        kept = self.out / f"fold{fold}" / "logits.npy"
        if not kept.exists():
            net = train(Examples(self.clips, self.takes, to_train), self.settings, kept.parent, report)
            np.save(kept, predict(net, self.clean, to_test))
        return np.load(kept), to_test


def fit_without(fold: int, logits: Sequence[Array], clips: Sequence[Sequence[Clip]]) -> calibrate.Calibration:
    """The calibration by the other folds' answers: no figure is calibrated on the speakers it is about."""
    others = [other for other in range(len(logits)) if other != fold]
    return calibrate.fit(
        np.concatenate([logits[other] for other in others]), _chain([clips[other] for other in others])
    )


def _chain(parts: Sequence[Sequence[Clip]]) -> list[Clip]:
    return [clip for part in parts for clip in part]


def classes_of(corpus: str, clips: Sequence[Clip]) -> list[int]:
    """The heads on which a corpus is scored."""
    known = EMODB_CLASSES if corpus == "emodb" else {clip.emotion for clip in clips if clip.corpus == corpus}
    return sorted(HEADS.index(emotion) for emotion in known)


def summary(logits_NH: Array, clips: Sequence[Clip]) -> dict[str, Any]:
    """The table: a row a corpus, then calibration and abstention over all, on the seven classes that are published."""
    true_N = np.array([HEADS.index(clip.emotion) for clip in clips])
    rows = [_row(c, logits_NH, clips, true_N) for c in SPEECH if c not in NEVER_TESTED]
    seven_N7 = evaluate.published(evaluate.softmax(logits_NH))
    said_N = np.array([PUBLISHED.index(PUBLISHED_AS[clip.emotion]) for clip in clips])
    threshold = float(np.quantile(seven_N7.max(1), 1.0 - COVERAGE))
    coverage, risk = evaluate.risk_at(seven_N7, said_N, threshold)
    return {
        "rows": rows,
        "abstain_below": round(threshold, 4),
        "coverage": round(coverage, 4),
        "risk": round(risk, 4),
        "risk_of_all": round(evaluate.risk_at(seven_N7, said_N, 0.0)[1], 4),
        "ece_published": round(evaluate.ece(seven_N7, said_N), 4),
        "nll_published": round(evaluate.nll(seven_N7, said_N), 4),
    }


def _row(corpus: str, logits_NH: Array, clips: Sequence[Clip], true_N: Array) -> dict[str, Any]:
    classes = classes_of(corpus, clips)
    own = [n for n, clip in enumerate(clips) if clip.corpus == corpus and true_N[n] in classes]
    probability_NH = evaluate.softmax(evaluate.restrict(logits_NH[own], classes))
    said, true = probability_NH.argmax(1), true_N[own]
    seven = evaluate.published(evaluate.softmax(logits_NH[own])).argmax(1)
    seven_true = np.array([PUBLISHED.index(PUBLISHED_AS[clips[n].emotion]) for n in own])
    counts = evaluate.confusion(true, said, len(HEADS))
    speakers = [clips[n].speaker for n in own]
    return {
        "corpus": corpus,
        "classes": [HEADS[c] for c in classes],
        "clips": len(own),
        "speakers": len(set(speakers)),
        "uar": round(evaluate.uar(counts), 4),
        "uar_interval": [round(x, 4) for x in evaluate.bootstrap(true, said, speakers, len(HEADS))],
        "uar_published": round(evaluate.uar(evaluate.confusion(seven_true, seven, len(PUBLISHED))), 4),
        "war": round(evaluate.war(counts), 4),
        "macro_f1": round(evaluate.macro_f1(counts), 4),
        "ece": round(evaluate.ece(probability_NH, true), 4),
        "nll": round(evaluate.nll(probability_NH, true), 4),
        "confusion": counts[np.ix_(classes, classes)].tolist(),
    }


if __name__ == "__main__":
    main()
