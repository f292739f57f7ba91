"""Trains SERE across languages: few labelled clips of one, and unlabelled speech of it and of another.

    python -m clser.models.sere_run --corpora DIR --source emodb --target casia --shots 5 --out DIR

It answers by the target's z-scores. What it is trained on, and every choice, stands in `clser.models.sere_loss`.

Letters: B clips, T frames, X numbers of a frame, H heads.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models import saved, sections, systems
from clser.models.data.cache import FeatureCache, Report, Take
from clser.models.data.clips import Clip
from clser.models.data.corpora import corpora_folder, read_speech
from clser.models.data.front_features import by_front, samples_of
from clser.models.data.takes import clean_take
from clser.models.errors import ClserError, FailedError, GivenError
from clser.models.examples import TakeFeatures, pad
from clser.models.labels import HEADS
from clser.models.layers.averages import Standard
from clser.models.saved import Trained
from clser.models.sere_loss import Coarse, Shots, Transfer, loss_of, offsets
from clser.models.tensors import Sequences

AT_ONCE = 64


def transfer(
    system: Any, shots: Shots, source: Coarse, target: Coarse, asked: Transfer, *, seed: int = 0
) -> list[float]:
    """Trains the system in place, and gives back the losses. No label of `source` and `target` is known to it."""
    with torch.no_grad():
        system.fit_domain(source, ("source", "target"))
        if asked.normal == "domain":
            system.fit_domain(target, ("target",))
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW(system.parameters(), asked.learning_rate, weight_decay=asked.weight_decay)
    alone = round(asked.warm * asked.steps) if asked.gpr or asked.dir or asked.mmd else asked.steps
    losses = []
    system.train()
    for step in range(asked.steps):
        drawn = None if step < alone else tuple(_drawn(side, asked.batch, random) for side in (source, target))
        loss = loss_of(system, shots, drawn, asked)
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise FailedError(f"the loss is {losses[-1]} in step {step + 1}; lower learning_rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        optimiser.step()
    system.eval()
    if asked.balanced:
        with torch.no_grad():
            system.answer.bias.add_(offsets(torch.from_numpy(logits_of(system, target))))
    return losses


def logits_of(system: Any, coarse: Coarse) -> Any:
    """[X, H] of all clips of a target."""
    total = len(next(iter(coarse.values())).length_B)
    with torch.inference_mode():
        parts = [
            system.answer(system.embedded(rows(coarse, which), system.said, "target"))
            for which in torch.arange(total).split(AT_ONCE)
        ]
    return torch.cat(parts).numpy()


def coarse_of(
    system: Any, clips: Sequence[Clip], cache: FeatureCache, report: Report | None = None, take: Take | None = None
) -> dict[str, Sequences]:
    """What the system is given of these clips, features kept in the cache."""
    features = by_front(system.fronts, clips, take or clean_take(), cache, report)
    ratios = {name: system.frame_samples // samples_of(name) for name in system.fronts}
    whole = TakeFeatures.of(features, ratios)
    found: dict[str, list[Sequences]] = {}
    for which in np.array_split(np.arange(len(clips)), -(-len(clips) // AT_ONCE)):
        given = {}
        for name, ratio in ratios.items():
            parts = [features[name].clip(int(n))[: whole.lengths[n] * ratio] for n in which]
            given[name] = Sequences(pad(parts), torch.from_numpy(whole.lengths[which] * ratio))
        with torch.no_grad():
            for name, coarse in system.coarse(given).items():
                found.setdefault(name, []).append(coarse)
    return {name: _joined(parts) for name, parts in found.items()}


def by_speaker(coarse: Coarse, clips: Sequence[Clip], names: Sequence[str]) -> dict[str, Sequences]:
    """Ours: the frames of these fronts as z-scores of their speaker's own speech, for which no label is needed."""
    found = dict(coarse)
    whos = [clip.who for clip in clips]
    for name in names:
        x_BTX, length_B = coarse[name]
        x_BTX = x_BTX.clone()
        for who in dict.fromkeys(whos):
            own = torch.tensor([n for n, other in enumerate(whos) if other == who])
            usual = Standard(x_BTX.shape[2])
            usual.fit(Sequences(x_BTX[own], length_B[own]))
            x_BTX[own] = usual(x_BTX[own])
        found[name] = Sequences(x_BTX, length_B)
    return found


def rows(coarse: Coarse, which: Tensor) -> dict[str, Sequences]:
    """These clips alone, no longer than the longest of them."""
    found = {}
    for name, (x_BTX, length_B) in coarse.items():
        own_B = length_B[which]
        found[name] = Sequences(x_BTX[which, : max(1, int(own_B.max()))], own_B)
    return found


def shots_of(clips: Sequence[Clip], classes: Sequence[str], each: int, seed: int) -> Tensor:
    """Places of `each` clips of every class, drawn by seed."""
    random = np.random.default_rng(seed)
    chosen = []
    for name in classes:
        own = [n for n, clip in enumerate(clips) if clip.emotion == name]
        if len(own) < each:
            raise GivenError(
                f"{clips[0].corpus}: {len(own)} clips of {name}, {each} shots were asked for; ask for fewer"
            )
        chosen += [own[n] for n in random.permutation(len(own))[:each]]
    return torch.tensor(chosen)


def others(chosen: Tensor, total: int) -> Tensor:
    """The places that are not among these."""
    return torch.from_numpy(np.setdiff1d(np.arange(total), chosen.numpy()))


def labels_of(clips: Sequence[Clip], classes: Sequence[str]) -> Tensor:
    """Each clip's class."""
    return torch.tensor([classes.index(clip.emotion) for clip in clips])


def _joined(parts: Sequence[Sequences]) -> Sequences:
    steps = max(part.x_BTD.shape[1] for part in parts)
    longest = [functional.pad(x_BTX, (0, 0, 0, steps - x_BTX.shape[1])) for x_BTX, _ in parts]
    return Sequences(torch.cat(longest), torch.cat([length_B for _, length_B in parts]))


def _drawn(coarse: Coarse, count: int, random: torch.Generator) -> Coarse:
    total = len(next(iter(coarse.values())).length_B)
    return rows(coarse, torch.randperm(total, generator=random)[:count])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m clser.models.sere_run", description=__doc__)
    parser.add_argument("--corpora", help="folder of the corpora (default: the variable CLSER_CORPORA)")
    parser.add_argument("--source", required=True, help="the corpus with labelled shots")
    parser.add_argument("--target", required=True, help="the corpus without labels")
    parser.add_argument("--shots", type=int, default=5, help="labelled clips of each class (5)")
    parser.add_argument("--out", required=True, type=Path, help="folder for the trained system")
    parser.add_argument("--cache", type=Path, help="folder for features (default: OUT/cache)")
    parser.add_argument("--seed", type=int, default=0, help="of the shots and of the training (0)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="system.KEY, a setting of sere, or transfer.KEY, one of its training")  # fmt: skip
    given = parser.parse_args(arguments)
    sys.stdout.write(f"{crossed(given)}\n")


def crossed(given: argparse.Namespace) -> Path:
    """The file of the trained system."""
    changes: dict[str, Any] = {"system": {}, "transfer": {}}
    for change in given.set:
        sections.change(changes, change, "transfer.steps=160", 2)
    if strange := sorted(changes.keys() - {"system", "transfer"}):
        raise GivenError(
            f"--set {strange[0]}: it is system.KEY, a setting of sere, or transfer.KEY, one of its training"
        )
    asked = sections.frozen(changes["transfer"], Transfer, "transfer", strict=False)
    source, target = (read_speech(corpora_folder(given.corpora), [name]) for name in (given.source, given.target))
    both = {clip.emotion for clip in source} & {clip.emotion for clip in target}
    classes = tuple(head for head in HEADS if head in both)
    if given.shots < 1 or len(classes) < 2:
        raise GivenError(f"--shots {given.shots} of {len(classes)} classes that both have: one or more, of two or more")
    source, target = ([clip for clip in side if clip.emotion in classes] for side in (source, target))
    torch.manual_seed(given.seed)
    system = systems.build("sere", changes["system"], classes)
    cache = FeatureCache(given.cache or given.out / "cache")
    heard, unheard = (coarse_of(system, side, cache) for side in (source, target))
    chosen = shots_of(source, classes, given.shots, given.seed)
    shots = Shots(rows(heard, chosen), labels_of([source[n] for n in chosen.tolist()], classes))
    transfer(system, shots, rows(heard, others(chosen, len(source))), unheard, asked, seed=given.seed)
    about = Trained(
        system="sere",
        settings=changes["system"],
        heads=classes,
        trained_on=(given.source, given.target),
        seed=given.seed,
    )
    return saved.save(given.out, system, about)


if __name__ == "__main__":
    try:
        main()
    except ClserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
