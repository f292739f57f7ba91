"""What training draws of its examples, in which order, and how rows become a batch.

Everything that is drawn hangs on the seed, the epoch and the step alone, so a run goes on from any step as if it had
never stopped.

Letters: B rows of a batch, T frames, F features, H heads, K asked frames, N rows of an epoch, X what is known of a
speaker, L words, G pieces of a word.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clser.models.data.stacks import Partners, Stacks
from clser.models.data.synthesis import is_generated
from clser.models.examples import NO_TEXT, Examples, TakeFeatures, pad, pad_ids
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.losses import softened
from clser.models.masking import masked
from clser.models.plan import Plan, Sampling
from clser.models.systems import FACES, WORDS
from clser.models.tensors import Sequences

Array = np.ndarray[Any, Any]

POOL = 16
"""Rows of so many batches are sorted by length together."""
TOKENS_KEPT = 100_000
"""Texts whose ids are remembered: a few hundred megabytes."""


class Batch(NamedTuple):
    """Rows for a system; how long each is, which heads its corpus knows, what it is."""

    given: dict[str, Sequences]
    frames_B: Tensor
    """Of the system's own length."""
    mask_BH: Tensor
    target_BH: Tensor
    speaker_BX: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        given = {name: Sequences(*(part.to(device) for part in parts)) for name, parts in self.given.items()}
        rest = (None if part is None else part.to(device) for part in self[1:])
        return Batch(given, *rest)


class Drawn(NamedTuple):
    """The rows of an epoch, each a number here; rows of like length lie together in `groups`."""

    index_N: Array
    """Of the clip, or of the text where `voice_N` is false."""
    voice_N: Array
    take_N: Array
    begin_N: Array
    frames_N: Array
    text_N: Array
    groups: list[Array]
    behind: Mapping[int, tuple[int, ...]] = {}
    """For rows whose frames others' follow, the clips whose."""
    more: Mapping[int, tuple[int, ...]] = {}
    """For rows that say more than their text, the texts behind it."""


class Drawer:
    """Draws epochs and makes their batches."""

    def __init__(self, examples: Examples, plan: Plan, seed: int) -> None:
        self.examples, self.plan, self.seed = examples, plan, seed
        clips = [(examples.clips[n].corpus, examples.clips[n].emotion) for n in examples.indices]
        texts = [(examples.texts[n].corpus, examples.texts[n].emotions[0]) for n in examples.text_indices]
        self._chances = chances(clips, plan.sampling.balance) if clips and examples.takes else np.zeros(0)
        if len(self._chances):
            made_N = np.array([is_generated(examples.clips[n]) for n in examples.indices])
            self._chances = with_share(self._chances, made_N, plan.sampling.generated)
        self._stacks = None
        if plan.sampling.stacked and examples.takes:
            seconds_N = examples.takes[0].lengths * (examples.frame_samples / SAMPLE_RATE_HZ)
            partners = Partners(examples.clips, examples.indices, plan.stacking.speakers == "same")
            self._stacks = Stacks(partners, seconds_N, plan.stacking, plan.sampling.stacked)
        self._text_chances = chances(texts, plan.sampling.balance) if texts else np.zeros(0)
        # No clip is given its own sentence: actors say the same few sentences in every emotion, so theirs tell nothing,
        # and who trained on them would learn the sentences.
        fitting = examples.texts_of_labels(examples.text_indices) if examples.tokenise is not None else {}
        self._of_label = {emotion: np.array(indices) for emotion, indices in fitting.items()}
        self._others = others_of(examples) if examples.known_TNX else {}
        self._tokens: dict[tuple[int, ...], Tensor] = {}

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.plan.sampling.rows_per_epoch // self.plan.sampling.batch)

    def epoch(self, number: int) -> Drawn:
        """What the epoch holds: drawn evenly by corpus and class, cut now and then, sorted by length within pools."""
        sampling, examples = self.plan.sampling, self.examples
        random = np.random.default_rng((self.seed, number))
        total = sampling.rows_per_epoch
        alone = (
            total if not len(self._chances) else round(sampling.words_only * total) if len(self._text_chances) else 0
        )
        voiced = total - alone
        index_N = np.zeros(total, np.int64)
        take_N = random.integers(max(1, len(examples.takes)), size=total)
        if voiced:
            index_N[:voiced] = random.choice(examples.indices, voiced, p=self._chances)
        if alone:
            index_N[voiced:] = random.choice(examples.text_indices, alone, p=self._text_chances)
        voice_N = np.arange(total) < voiced
        behind: dict[int, tuple[int, ...]] = {}
        if self._stacks is not None:
            drawn = {int(row): self._stacks.behind(int(index_N[row]), random) for row in np.flatnonzero(voice_N)}
            behind = {row: others for row, others in drawn.items() if others}
        begin_N, frames_N = self._cuts(index_N, voice_N, take_N, random, behind)
        text_N = np.where(voice_N, NO_TEXT, index_N)
        more = {}
        for row in np.flatnonzero(voice_N) if self._of_label or examples.own_texts else ():
            others = behind.get(int(row)) or (examples.takes[take_N[row]].behind.get(int(index_N[row]), ()))
            text_N[row], after = self._said(int(index_N[row]), int(take_N[row]), others, random)
            if after:
                more[int(row)] = after
        groups = self._groups(frames_N, voice_N, random)
        return Drawn(index_N, voice_N, take_N, begin_N, frames_N, text_N, groups, behind, more)

    def _said(
        self, index: int, take: int, behind: tuple[int, ...], random: np.random.Generator
    ) -> tuple[int, tuple[int, ...]]:
        """The text of a row with this voice, and the texts behind it: of each clip its own or one of its label."""
        if self.examples.heard_texts and (heard := self.examples.heard_texts[take].get(index)) is not None:
            return heard, ()
        said = []
        for clip in (index, *(behind if self.plan.stacking.words != "first" else ())):
            text = self.examples.own_texts.get(clip, NO_TEXT)
            fitting = self._of_label.get(self.examples.clips[clip].emotion)
            if text == NO_TEXT and fitting is not None:
                text = int(fitting[int(random.integers(len(fitting)))])
            said.append(text)
        known = [text for text in said if text != NO_TEXT]
        return (known[0], tuple(known[1:])) if known else (NO_TEXT, ())

    def _groups(self, frames_N: Array, voice_N: Array, random: np.random.Generator) -> list[Array]:
        """Rows of like length together; texts, which have none, are strewn among the others."""
        sampling, total = self.plan.sampling, len(frames_N)
        if voice_N.any():
            frames_N = np.where(voice_N, frames_N, random.choice(frames_N[voice_N], total))
        order = random.permutation(total)
        groups = []
        pool = POOL * sampling.batch
        for begin in range(0, total, pool):
            near = order[begin : begin + pool]
            near = near[np.argsort(frames_N[near], kind="stable")]
            some = [near[first : first + sampling.batch] for first in range(0, len(near), sampling.batch)]
            groups += [some[which] for which in random.permutation(len(some))]
        return groups

    def batch(self, drawn: Drawn, epoch: int, step: int) -> Batch:
        """The batch of that step, disturbed."""
        rows_B = drawn.groups[step]
        random = np.random.default_rng((self.seed, epoch, step))
        examples, sampling = self.examples, self.plan.sampling
        voice_B, text_B = drawn.voice_N[rows_B], drawn.text_N[rows_B].copy()
        both_B = voice_B & (text_B != NO_TEXT)
        drop_B = random.random(len(rows_B))
        frames_B = np.where(both_B & (drop_B < sampling.drop_voice), 0, drawn.frames_N[rows_B])
        text_B[both_B & (drop_B > 1.0 - sampling.drop_words)] = NO_TEXT
        speaker_BX, known_B = self._speakers(drawn, rows_B, random)
        given: dict[str, Sequences] = {}
        if examples.clean is not None:
            given = self._sound(drawn, rows_B, frames_B, random, known_B)
        if examples.look is not None:
            given[FACES] = examples.faces(np.where(voice_B, drawn.index_N[rows_B], -1))
        said_B = [
            () if text == NO_TEXT else (int(text), *drawn.more.get(int(row), ()))
            for text, row in zip(text_B, rows_B, strict=True)
        ]
        if examples.tokenise is not None:
            given[WORDS] = self._words(said_B)
        pairs = [(bool(v), int(n)) for v, n in zip(voice_B, drawn.index_N[rows_B], strict=True)]
        target_BH = torch.stack([examples.target(n) if v else examples.text_target(n) for v, n in pairs])
        corpora = [examples.clips[n].corpus if v else examples.texts[n].corpus for v, n in pairs]
        mask_BH = torch.stack([examples.masks[corpus] for corpus in corpora])
        if examples.soft is not None:
            asked = self.plan.soft_labels
            chosen_B = random.random(len(rows_B)) < asked.chance
            seen_BH = examples.soft.of([n if v else None for v, n in pairs], said_B)
            target_BH = softened(target_BH, mask_BH, np.where(chosen_B[:, None], seen_BH, np.nan), asked.mode)
        length_B = torch.from_numpy(frames_B) if examples.clean is not None else given[WORDS].length_B
        return Batch(given, length_B, mask_BH, target_BH, speaker_BX)

    def _cuts(
        self,
        index_N: Array,
        voice_N: Array,
        take_N: Array,
        random: np.random.Generator,
        behind: Mapping[int, tuple[int, ...]],
    ) -> tuple[Array, Array]:
        """Where each row begins and how many frames it has; texts have none."""
        sampling, examples = self.plan.sampling, self.examples
        whole_N = np.zeros(len(index_N), np.int64)
        for number, take in enumerate(examples.takes):
            here = voice_N & (take_N == number)
            whole_N[here] = take.lengths[index_N[here]]
        for row, others in behind.items():
            whole_N[row] += sum(int(examples.takes[take_N[row]].lengths[other]) for other in others)
        frame_s = examples.frame_samples / SAMPLE_RATE_HZ
        size_N = np.minimum(whole_N, max(1, round(sampling.longest_s / frame_s)))
        least = np.maximum(round(1.0 / frame_s), size_N // 2)
        cut_N = (random.random(len(size_N)) < sampling.cut) & (size_N > round(1.2 / frame_s)) & (size_N > least)
        part_N = least + (random.random(len(size_N)) * np.maximum(1, size_N - least)).astype(np.int64)
        size_N = np.where(cut_N, part_N, size_N)
        begin_N = (random.random(len(size_N)) * (whole_N - size_N + 1)).astype(np.int64)
        return begin_N, size_N

    def _sound(
        self, drawn: Drawn, rows_B: Array, frames_B: Array, random: np.random.Generator, known_B: Array
    ) -> dict[str, Sequences]:
        examples = self.examples
        longest = max(1, int(frames_B.max()))
        padded = {}
        for name, ratio in examples.ratios.items():
            parts = []
            for row, frames in zip(rows_B, frames_B, strict=True):
                take = examples.takes[drawn.take_N[row]]
                first, many = int(drawn.begin_N[row]) * ratio, int(frames) * ratio
                clips = (int(drawn.index_N[row]), *drawn.behind.get(int(row), ()))
                whole = _stacked(take, name, ratio, clips) if frames else take.by_front[name].features[:0]
                parts.append(whole[first : first + many])
            padded[name] = pad(parts, longest * ratio)
        disturbed = masked(padded, frames_B, self.plan.masking, random, known_B)
        return {name: Sequences(x, torch.from_numpy(frames_B * examples.ratios[name])) for name, x in disturbed.items()}

    def _words(self, said_B: Sequence[tuple[int, ...]]) -> Sequences:
        """The texts of each row, one after the other, cut up; a row without any says nothing."""
        tokenise = self.examples.tokenise
        assert tokenise is not None
        fresh = sorted({said for said in said_B if said} - self._tokens.keys())
        if len(self._tokens) > TOKENS_KEPT:
            self._tokens = {said: self._tokens[said] for said in said_B if said in self._tokens}
        if fresh:
            ids, length = tokenise([" ".join(self.examples.texts[n].text for n in said) for said in fresh])
            self._tokens |= {n: row[: int(many)].clone() for n, row, many in zip(fresh, ids, length, strict=True)}
        return pad_ids([self._tokens.get(said) for said in said_B], tokenise)

    def _speakers(self, drawn: Drawn, rows_B: Array, random: np.random.Generator) -> tuple[Tensor | None, Array]:
        """What is known of each row's speaker, and where that is anything."""
        examples, sampling = self.examples, self.plan.sampling
        known_B = np.zeros(len(rows_B), bool)
        if not examples.known_TNX:
            return None, known_B
        speaker_BX = torch.zeros(len(rows_B), examples.known_TNX[0].shape[1])
        for place, row in enumerate(rows_B):
            chance, many = random.random(), int(random.integers(1, sampling.enrolled_most + 1))
            index = int(drawn.index_N[row])
            others = self._others.get(index) if drawn.voice_N[row] else None
            if others is None or chance >= sampling.enrolled:
                continue
            chosen = random.choice(others, min(many, len(others)), replace=False)
            speaker_BX[place] = examples.known_TNX[drawn.take_N[row]][chosen].sum(0)
            known_B[place] = True
        return speaker_BX, known_B


def with_share(chance_N: Array, made_N: Array, share: float) -> Array:
    """The same chances among those marked, and among the others; those marked together get that share."""
    if made_N.all() or not made_N.any():
        return chance_N
    return np.asarray(
        np.where(made_N, share / chance_N[made_N].sum(), (1.0 - share) / chance_N[~made_N].sum()) * chance_N
    )


def chances(kinds: Sequence[tuple[str, str]], balance: float) -> Array:
    """How often each is drawn: evenly over a corpus's classes, and over corpora the more so the higher `balance`."""
    corpora = Counter(corpus for corpus, _ in kinds)
    each = Counter(kinds)
    classes = Counter(corpus for corpus, _ in each)
    weight = np.array([corpora[c] ** (1.0 - balance) / classes[c] / each[c, emotion] for c, emotion in kinds])
    return np.asarray(weight / weight.sum())


def others_of(examples: Examples) -> dict[int, Array]:
    """For each clip to train on, the others of its speaker among these."""
    of: dict[tuple[str, str], list[int]] = {}
    for index in examples.indices:
        if examples.clips[index].speaker:
            of.setdefault(examples.clips[index].who, []).append(index)
    arrays = {who: np.array(indices) for who, indices in of.items()}
    return {
        index: arrays[who][arrays[who] != index] for who, indices in of.items() for index in indices if len(indices) > 1
    }


def sampled_frames(sampling: Sampling, frame_samples: int) -> int:
    """The earliest frame whose answer is trained."""
    return max(1, round(sampling.least_s * SAMPLE_RATE_HZ / frame_samples))


def _stacked(take: TakeFeatures, name: str, ratio: int, clips: Sequence[int]) -> Array:
    """The frames of a clip, and those of others behind it: of each as many as all its fronts have."""
    features = take.by_front[name]
    if len(clips) == 1:
        return features.clip(clips[0])
    return np.concatenate([features.clip(clip)[: int(take.lengths[clip]) * ratio] for clip in clips])
