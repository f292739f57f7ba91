"""The clips and texts of a run with their features: what training draws from, and what is tested on.

Letters: B rows, T frames, F features, H heads, N clips, X what is known of a speaker, L words, G pieces of a word.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clser.models.data.cache import Features
from clser.models.data.clips import Clip
from clser.models.data.corpora import Text
from clser.models.data.faces import NOBODY, Look
from clser.models.data.unvoiced import CORPUS as UNVOICED
from clser.models.labels import NONE
from clser.models.tensors import Sequences

Array = np.ndarray[Any, Any]

UNASKED = -3.0
"""What is added to the logit of a class that a corpus lacks, in nats. Minus infinity would teach that head nothing there,
and then it speaks up: never told to be silent, boredom and calm took nearly two in five answers on another corpus."""
NO_TEXT = -1

Tokenise = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Texts to ids [B, L, ...] (0: padding) and how many of them each has [B]."""


@dataclass(frozen=True, slots=True)
class TakeFeatures:
    """Features of all clips by front, all made of the same sound."""

    by_front: Mapping[str, Features]
    lengths: Array
    """Frames of the system that each clip has."""
    behind: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """For clips that were stacked, the clips whose sound comes behind theirs."""
    said: Mapping[int, str] = field(default_factory=dict)
    """What was heard in those stacks, where somebody listened."""

    @classmethod
    def of(cls, by_front: Mapping[str, Features], ratios: Mapping[str, int]) -> "TakeFeatures":
        """`ratios`: frames of a front in one of the system."""
        frames = [np.diff(features.starts) // ratios[name] for name, features in by_front.items()]
        return cls(by_front, np.min(frames, 0))


class Soft(NamedTuple):
    """Labels as somebody else sees them: probabilities over the heads, or no numbers at all where he knows nothing."""

    clip_NH: Array
    text_NH: Array

    def of(self, clips: Sequence[int | None], said: Sequence[tuple[int, ...]]) -> Array:
        """[B, H] of rows with these clips (None: no voice) that say these texts: of a row's recording where that is known,
        else the mean over its texts that are."""
        out_BH = np.full((len(clips), self.text_NH.shape[1]), np.nan, np.float32)
        for place, (clip, texts) in enumerate(zip(clips, said, strict=True)):
            if clip is not None and np.isfinite(self.clip_NH[clip]).all():
                out_BH[place] = self.clip_NH[clip]
                continue
            seen_KH = self.text_NH[list(texts)]
            seen_KH = seen_KH[np.isfinite(seen_KH).all(1)]
            if len(seen_KH):
                out_BH[place] = seen_KH.mean(0)
        return out_BH


@dataclass(frozen=True, slots=True)
class Examples:
    """All clips and texts, their takes, and what may be drawn of them."""

    heads: tuple[str, ...]
    clips: Sequence[Clip]
    clean: TakeFeatures | None
    """The recordings as they are. None: the system hears nothing."""
    takes: Sequence[TakeFeatures]
    """What is trained on."""
    indices: Sequence[int]
    """The clips to train on."""
    ratios: Mapping[str, int]
    frame_samples: int
    texts: Sequence[Text] = ()
    text_indices: Sequence[int] = ()
    own_texts: Mapping[int, int] = field(default_factory=dict)
    """The text of a clip that says what it means, which goes with it in place of one drawn by label."""
    heard_texts: Sequence[Mapping[int, int]] = ()
    """For each take, the texts of clips whose stacks somebody listened to."""
    soft: Soft | None = None
    tokenise: Tokenise | None = None
    known_TNX: Sequence[Tensor] = ()
    """For each take, what every clip tells of its speaker. Empty: the system cannot be enrolled."""
    clean_NX: Tensor | None = None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    """Per corpus [H], see `class_masks`."""
    look: Look | None = None
    """The faces of a clip. None: the system sees nobody."""

    def target(self, index: int) -> Tensor:
        """[H]: all on the clip's label."""
        return torch.eye(len(self.heads))[self.heads.index(self.clips[index].emotion)]

    def text_target(self, index: int) -> Tensor:
        """[H]: evenly on the text's labels."""
        said = self.texts[index].emotions
        return torch.stack([torch.eye(len(self.heads))[self.heads.index(emotion)] for emotion in said]).mean(0)

    def faces(self, clip_B: Array) -> Sequences:
        """[B, N, 64, 64] of these clips, whatever part of their sound is heard; none for -1."""
        assert self.look is not None
        rows = [self.look(int(clip)) if clip >= 0 else NOBODY for clip in clip_B]
        out = np.zeros((len(rows), max(1, *(len(row) for row in rows)), *NOBODY.shape[1:]), np.uint8)
        for line, row in zip(out, rows, strict=True):
            line[: len(row)] = row
        return Sequences(torch.from_numpy(out), torch.tensor([len(row) for row in rows]))

    def texts_of_labels(self, indices: Sequence[int]) -> dict[str, list[int]]:
        """For each label those of these texts that have it alone."""
        found: dict[str, list[int]] = {}
        for index in indices:
            if len(self.texts[index].emotions) == 1:
                found.setdefault(self.texts[index].emotions[0], []).append(index)
        return found


def class_masks(heads: Sequence[str], clips: Sequence[Clip], texts: Sequence[Text] = ()) -> dict[str, Tensor]:
    """Per corpus [H]: 0 for a class it has, `UNASKED` for one it lacks: hardly any gradient, but not none."""
    masks: dict[str, Tensor] = {}
    for clip in clips:
        masks.setdefault(clip.corpus, torch.full((len(heads),), UNASKED))[heads.index(clip.emotion)] = 0.0
    for text in texts:
        mask = masks.setdefault(text.corpus, torch.full((len(heads),), UNASKED))
        mask[[heads.index(emotion) for emotion in text.emotions]] = 0.0
    if NONE in heads:  # of every recording it is known whether it is speech
        for mask in masks.values():
            mask[heads.index(NONE)] = 0.0
        masks.get(UNVOICED, torch.empty(0)).zero_()
    return masks


def ordered(lengths: Array, batch: int) -> Iterator[Array]:
    """Row numbers in groups of like length, all of them once."""
    order = np.argsort(lengths, kind="stable")
    for begin in range(0, len(order), batch):
        yield order[begin : begin + batch]


def pad(rows: Sequence[Array], steps: int = 0) -> Tensor:
    """Rows [T, F] of any length -> [B, T, F] float32, zeros behind."""
    out = np.zeros((len(rows), steps or max(1, *(len(row) for row in rows)), rows[0].shape[1]), np.float32)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(out)


def pad_ids(rows: Sequence[Tensor | None], tokenise: Tokenise) -> Sequences:
    """Ids of each text, none for None, as one batch."""
    empty = tokenise([""])[0][0, :0]
    parts = [empty if row is None else row for row in rows]
    longest = max(1, *(len(part) for part in parts))
    wide = [max(part.shape[axis] for part in parts) for axis in range(1, empty.dim())]
    ids = torch.zeros(len(parts), longest, *wide, dtype=empty.dtype)
    for line, part in zip(ids, parts, strict=True):
        line[tuple(slice(0, size) for size in part.shape)] = part
    return Sequences(ids, torch.tensor([len(part) for part in parts]))
