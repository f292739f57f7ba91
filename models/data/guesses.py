"""How well a label can be guessed from something that should not tell it: the speaker, the length, the kind of file."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_CLIPS = 40
LEAST_OF_CLASS = 4
PARTITIONS = 4
SHUFFLES = 99

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Guess:
    """Mean recall of the classes (UAR) that guessing reaches on the half of the clips it was not made on."""

    uar: float
    chance: float
    best: float
    """What it could reach at most: with two kinds of file, no more than two classes can be told."""
    p: float
    """How often labels dealt out at random are guessed as well."""

    @property
    def skill(self) -> float:
        """0: as by chance; 1: as well as can be."""
        return (self.uar - self.chance) / (self.best - self.chance)


def guess(values: Sequence[Hashable], labels: Sequence[str]) -> Guess | None:
    """The commonest class of each value, classes weighed alike. None: too little to tell, or nothing that differs."""
    kept = _kept(labels)
    value_N, label_N = _numbers([values[n] for n in kept]), _numbers([labels[n] for n in kept])
    classes, kinds = len(set(label_N)), len(set(value_N))
    if len(kept) < LEAST_CLIPS or classes < 2 or kinds < 2:
        return None
    random = np.random.default_rng(0)
    halves = [_half(label_N, random) for _ in range(PARTITIONS)]
    uar = _held_out(value_N, label_N, halves)
    by_chance = [_held_out(value_N, random.permutation(label_N), halves[:1]) for _ in range(SHUFFLES)]
    p = (1 + sum(other >= uar for other in by_chance)) / (1 + SHUFFLES)
    return Guess(uar, 1.0 / classes, min(kinds, classes) / classes, p)


def _kept(labels: Sequence[str]) -> list[int]:
    """Clips of classes that both halves can have some of."""
    counts = Counter(labels)
    return [n for n, label in enumerate(labels) if counts[label] >= LEAST_OF_CLASS]


def _numbers(values: Sequence[Hashable]) -> Array:
    number = {value: n for n, value in enumerate(dict.fromkeys(values))}
    return np.array([number[value] for value in values], dtype=np.int64)


def _half(label_N: Array, random: np.random.Generator) -> Array:
    """[N] of booleans: about half of every class."""
    chosen = np.zeros(len(label_N), bool)
    for label in range(label_N.max() + 1):
        own = random.permutation(np.flatnonzero(label_N == label))
        chosen[own[: len(own) // 2]] = True
    return chosen


def _held_out(value_N: Array, label_N: Array, halves: Sequence[Array]) -> float:
    scores = [_uar(value_N, label_N, side) for half in halves for side in (half, ~half)]
    return float(np.mean(scores))


def _uar(value_N: Array, label_N: Array, half: Array) -> float:
    values, classes = value_N.max() + 1, label_N.max() + 1
    flat = value_N * classes + label_N
    known_VC = np.bincount(flat[half], minlength=values * classes).reshape(values, classes)
    asked_VC = np.bincount(flat[~half], minlength=values * classes).reshape(values, classes)
    share_VC = known_VC / np.maximum(known_VC.sum(0), 1)
    top_VC = share_VC == share_VC.max(1, keepdims=True)
    credit_VC = top_VC / top_VC.sum(1, keepdims=True)  # a value not met before is guessed at random
    there = asked_VC.sum(0) > 0
    return float(((asked_VC * credit_VC).sum(0)[there] / asked_VC.sum(0)[there]).mean())
