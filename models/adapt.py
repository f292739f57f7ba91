"""Adapts a trained system to a few clips of somebody else's speech: another language, another room, one's own voice.

    shots         a few labelled clips a class: the layers that name the classes are fitted to them (`refit`), or all weights
    unlabelled    more speech of the same kind: what is usual there, and labels that the system is sure of by itself

What the weights were is the prior, so that five clips never harm much. Nothing that was given is changed.

Letters: B rows, N clips, H heads, X what is known of a speaker.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional

from clser.models import judged
from clser.models.answers import sound_of, words_of
from clser.models.batches import Batch
from clser.models.data.clips import Clip
from clser.models.delta import applied, difference
from clser.models.errors import GivenError
from clser.models.examples import UNASKED, Examples, ordered
from clser.models.refit import Labelled, Parts, Recorded, joined, naming, of_rows, record, refit, said_by
from clser.models.saved import Trained
from clser.models.systems import FACES, WORDS, logit_margin, speaker_numbers

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Count = Annotated[int, Meta(ge=1)]
AT_ONCE = 64
MOST_UNLABELLED = 300
"""Of more, so many are drawn."""
USUAL_AFTER = 5.0
"""Clips of new speech that what was usual counts as much as."""


class Adapting(Struct, frozen=True, forbid_unknown_fields=True):
    """How a system is adapted."""

    part: Literal["answer", "all"] = "answer"
    """The layers that name the classes; or all weights, which asks for more clips."""
    reach_nats: Positive = 2.4
    """About how far a logit is thought to move, before any clip was heard: the smaller, the more the old weights count."""
    known: Share = 0.5
    """How much it counts to answer rightly for a speaker who was heard before, where the system can tell."""
    sure: Share = 0.5
    """Unlabelled clips count as what the system takes them for from this probability on,"""
    unlabelled: Share = 0.2
    """and so much, beside a labelled one."""
    epochs: Count = 15
    """Of all weights, before the last layers are fitted."""
    batch: Count = 16
    learning_rate: Positive = 1e-4
    pull: Annotated[float, Meta(ge=0.0)] = 0.01
    """Towards the old weights, at each step: the share of the way back."""


def adapted(
    system: Any, about: Trained, shots: Sequence[Clip], asked: Adapting | None = None, unlabelled: Sequence[Clip] = (),
    *, seed: int = 0,
) -> tuple[Any, Trained]:  # fmt: skip
    """A copy that is fitted to the clips, in evaluation mode, and what is to be said of it. It differs from the system by what
    a file of differences holds (`delta`), to the last bit."""
    asked = asked or Adapting()
    _check(about, shots, unlabelled)
    changed = copy.deepcopy(system).cpu().eval()
    drawn = np.random.default_rng(seed).permutation(len(unlabelled))[:MOST_UNLABELLED]
    clips = [*shots, *(unlabelled[n] for n in sorted(drawn))]
    work = _Work(changed, Heard.of(changed, clips), _targets(shots, about.heads), about, asked, seed)
    if len(drawn):
        _make_usual(work)
    if len(shots):
        if asked.part == "all":
            _tune(work)
        _refit(work)
    _round(system, changed)
    corpora = dict.fromkeys((*about.trained_on, *(clip.corpus for clip in clips)))
    return changed, msgspec.structs.replace(about, trained_on=tuple(corpora))


def _check(about: Trained, shots: Sequence[Clip], unlabelled: Sequence[Clip]) -> None:
    if not shots and not unlabelled:
        raise GivenError("there are no clips to adapt to: give labelled ones, or unlabelled ones, or both")
    unknown = sorted({clip.emotion for clip in shots} - set(about.heads))
    if unknown:
        raise GivenError(
            f"{', '.join(unknown)}: {about.name or about.system} has no head for it, and an adaptation adds none; leave such clips out "
            f"(--classes), or train a system with that class. It has {', '.join(about.heads)}"
        )


@dataclass(frozen=True, slots=True)
class Heard:
    """Clips with what their system is given of them, computed once."""

    parts: Sequence[Examples]
    lengths_N: np.ndarray[Any, Any]
    whos: Sequence[tuple[str, str]]
    """Speakers; of unknown ones everybody is another."""

    @classmethod
    def of(cls, system: Any, clips: Sequence[Clip]) -> "Heard":
        """Some at a time."""
        parts = [part for _, part, _, _ in judged.some_at_once(system, clips, bool(system.words))]
        lengths = [np.zeros(len(p.clips), np.int64) if p.clean is None else p.clean.lengths for p in parts]
        whos = [clip.who if clip.speaker else ("", f"{n}") for n, clip in enumerate(clips)]
        return cls(parts, np.concatenate(lengths), whos)

    def batches(
        self, rows: Sequence[int] | None = None, size: int = AT_ONCE
    ) -> Iterator[tuple[np.ndarray[Any, Any], Batch]]:
        """These rows (all, if none are named), those of like length together, each with what the system is given."""
        wanted = np.arange(len(self.lengths_N)) if rows is None else np.asarray(rows)
        first = 0
        for part in self.parts:
            own = wanted[(wanted >= first) & (wanted < first + len(part.clips))]
            for some in ordered(self.lengths_N[own], size):
                yield own[some], self._batch(part, own[some] - first)
            first += len(part.clips)

    def _batch(self, part: Examples, clip_B: np.ndarray[Any, Any]) -> Batch:
        given = {}
        frames_B = torch.zeros(len(clip_B), dtype=torch.long)
        if part.clean is not None:
            given = sound_of(part.clean, part.ratios, clip_B, part.clean.lengths[clip_B])
            frames_B = torch.from_numpy(part.clean.lengths[clip_B])
        if part.look is not None:
            given[FACES] = part.faces(clip_B)
        if part.tokenise is not None:
            given[WORDS] = words_of(part, clip_B)
            frames_B = frames_B if part.clean is not None else given[WORDS].length_B
        empty = torch.zeros(len(clip_B), 0)
        return Batch(given, frames_B, empty, empty, None)


def _targets(shots: Sequence[Clip], heads: Sequence[str]) -> Tensor:
    return torch.tensor([heads.index(clip.emotion) for clip in shots], dtype=torch.long)


@dataclass(frozen=True, slots=True)
class _Work:
    """All that an adaptation goes by. The first of the clips are the shots."""

    system: Any
    heard: Heard
    target_N: Tensor
    about: Trained
    asked: Adapting
    seed: int

    @property
    def mask_H(self) -> Tensor:  # noqa: N802 - shapes stand in names
        """Classes without a shot are not asked for."""
        mask_H = torch.full((len(self.about.heads),), UNASKED)
        mask_H[self.target_N.unique()] = 0.0
        return mask_H

    @property
    def weight_N(self) -> Tensor:  # noqa: N802 - as above
        """Every class counts alike; 1 in the mean."""
        count_N = torch.bincount(self.target_N)[self.target_N].float()
        return len(count_N) / (len(self.target_N.unique()) * count_N)

    def fitted(self, rows: Sequence[Labelled]) -> Parts:
        """The new parameters."""
        return refit(self.system, rows, self.mask_H, self.about.calibration, self.asked.reach_nats, seed=self.seed)


def _make_usual(work: _Work) -> None:
    """What an utterance tells of its speaker is told against the middle of the new speech: where nobody is known yet, everybody
    is taken for one of those who speak there."""
    system, heard = work.system, work.heard
    if not hasattr(system, "members"):
        return
    with torch.inference_mode():
        told = [system.tell(batch.given, _last(batch))[:, 0, 1:] for _, batch in heard.batches()]
    far_NF = torch.cat(told)
    share = len(far_NF) / (len(far_NF) + USUAL_AFTER)
    system.mean_F.add_(share * far_NF.mean(0) * system.deviation_F)
    system.mean_F.copy_(system.mean_F.half().float())  # as files may keep it


def _refit(work: _Work) -> None:
    """The layers that name the classes, to the labelled clips, and then to the unlabelled ones that this makes sure."""
    system, asked, many = work.system, work.asked, len(work.target_N)
    modes = _recorded(system, work.heard, asked.known)
    rows = [Labelled(of_rows(each, range(many)), work.target_N, share * work.weight_N) for each, share in modes]
    fitted = work.fitted(rows)
    if not fitted:
        raise GivenError(
            f"{work.about.name or work.about.system}: no layer of it can be fitted to clips by itself; "
            "ask for all weights (--part all)"
        )
    others = range(many, len(work.heard.lengths_N))
    if len(others) > 0 and asked.unlabelled:
        guess_N, sure_N = _guessed(work, of_rows(modes[-1][0], others), fitted)
        some = [n for n, sure in zip(others, sure_N.tolist(), strict=True) if sure]
        if some:
            weight_M = torch.full((len(some),), asked.unlabelled)
            rows += [Labelled(of_rows(each, some), guess_N[sure_N], share * weight_M) for each, share in modes]
            fitted = work.fitted(rows)
    with torch.no_grad():
        for name, part in fitted.items():
            system.get_parameter(name).copy_(part)


def _guessed(work: _Work, recorded: Recorded, fitted: Parts) -> tuple[Tensor, Tensor]:
    """What rows are taken for, among the classes that there are shots of, and which of them it is sure of."""
    with torch.no_grad():
        logits_NH = said_by(work.system, recorded, fitted)
    calibrated_NH = torch.from_numpy(work.about.calibration.apply(logits_NH.numpy()))
    most_N, guess_N = calibrated_NH.masked_fill(work.mask_H < 0, -torch.inf).softmax(1).max(1)
    return guess_N, most_N >= work.asked.sure


def _recorded(system: Any, heard: Heard, known: float) -> list[tuple[Recorded, float]]:
    """All clips as strangers', and as of speakers who are known by their other clips; with how much each way counts."""
    layers, numbers = naming(system), speaker_numbers(system)
    order: list[int] = []
    strangers, told = [], []
    for rows, batch in heard.batches():
        order += rows.tolist()
        if numbers:
            with torch.no_grad():
                told.append(system.hear(batch.given, system.start(len(rows)), _last(batch))[0])
        else:
            strangers.append(record(system, layers, partial(_answer, system, batch)))
    back = torch.tensor(order).argsort()
    if not numbers:
        return [(of_rows(joined(strangers), back.tolist()), 1.0)]
    e_N1Y = torch.cat(told)[back]
    known_NX = _others(e_N1Y[:, 0, :numbers], heard.whos)
    ways = ((torch.zeros_like(known_NX), 1.0 - known), (known_NX, known))
    return [
        (record(system, layers, partial(_known_answer, system, e_N1Y, speaker_NX)), share)
        for speaker_NX, share in ways if share
    ]  # fmt: skip


def _answer(system: Any, batch: Batch) -> Tensor:
    """[B, H]."""
    at_B1 = _last(batch) if system.streams == "exactly" else None
    logits_BKH: Tensor = system(batch.given, system.start(len(batch.frames_B)), at_B1)[0]
    return logits_BKH[:, -1]


def _known_answer(system: Any, e_N1Y: Tensor, speaker_NX: Tensor) -> Tensor:
    logits_N1H: Tensor = system.answer(e_N1Y, speaker_NX)
    return logits_N1H[:, -1]


def _last(batch: Batch) -> Tensor:
    return (batch.frames_B - 1).clamp_min(0)[:, None]


def _others(told_NX: Tensor, whos: Sequence[tuple[str, str]]) -> Tensor:
    """[N, X]: what the other clips of each one's speaker tell."""
    place = {who: n for n, who in enumerate(dict.fromkeys(whos))}
    who_N = torch.tensor([place[who] for who in whos])
    sums = torch.zeros(len(place), told_NX.shape[1]).index_add(0, who_N, told_NX)
    return sums[who_N] - told_NX


def _tune(work: _Work) -> None:
    """All weights, a little: cross-entropy over the shots, and at each step some of the way back to where they were."""
    system, asked, random = work.system, work.asked, np.random.default_rng(work.seed)
    trained = list(system.parameters())
    before = [parameter.detach().clone() for parameter in trained]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(trained, asked.learning_rate, weight_decay=0.0)
    batches = list(work.heard.batches(range(len(work.target_N)), asked.batch))
    with torch.random.fork_rng():
        torch.manual_seed(work.seed)
        system.train()
        for _ in range(asked.epochs):
            for n in random.permutation(len(batches)):
                loss = _loss(work, *batches[n])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], 1.0)
                optimiser.step()
                with torch.no_grad():
                    torch._foreach_lerp_([p.data for p in trained], before, asked.pull)
        system.eval()


def _loss(work: _Work, rows: np.ndarray[Any, Any], batch: Batch) -> Tensor:
    target_B = work.target_N[rows]
    logits_BH = _answer(work.system, batch) + work.mask_H
    if margin := logit_margin(work.system):
        logits_BH = logits_BH - margin * functional.one_hot(target_B, logits_BH.shape[1])
    return (work.weight_N[rows] * functional.cross_entropy(logits_BH, target_B, reduction="none")).mean()


def _round(base: Any, changed: Any) -> None:
    """To what the base and a file of differences make."""
    after = changed.state_dict()
    with torch.no_grad():
        for name, before in base.state_dict().items():
            if before.is_floating_point() and not torch.equal(before.cpu(), after[name]):
                old, new = before.detach().cpu().numpy(), after[name].numpy()
                after[name].copy_(torch.from_numpy(applied(old, difference(old, new))))
    for old, new in zip(base.parameters(), changed.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
