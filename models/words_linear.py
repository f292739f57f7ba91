"""The linear layers of `words`: which grams own the buckets, and the one best answer of a convex problem.

Letters: M grams of all texts one after another, N texts, K buckets, C classes, U grams that differ.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clser.models.layers.hashed import NOBODY, STIR, TAGGED, TAGS

Array = np.ndarray[Any, Any]
LEAST_TEXTS = 2
"""A gram of fewer owns nothing."""
STEPS = 10
"""Of L-BFGS, in a round."""
SETTLED = 1e-5
"""A round that makes the loss smaller by less than this was the last one."""
RULED_OUT = -1e9
LEAST_IDF = 1.0


class Grams(NamedTuple):
    """Texts as the numbers of their grams."""

    id_M: Array
    start_N: Array
    """One more than there are texts: the end of the last."""

    def of(self, which: Array) -> "Grams":
        """Those of some texts."""
        begin, many = self.start_N[which], self.start_N[which + 1] - self.start_N[which]
        start = np.concatenate((np.zeros(1, np.int64), np.cumsum(many)))
        place = np.repeat(begin - start[:-1], many) + np.arange(start[-1])
        return Grams(self.id_M[place], start)


class Owners(NamedTuple):
    """Who owns the buckets, and how rare each owner is."""

    tag_K: Array
    idf_K: Array


class Layer(NamedTuple):
    """A linear layer found."""

    tag_K: Array
    weight_KC: Array
    bias_C: Array


def owners(grams: Grams, target_NC: Array, buckets: int) -> Owners:
    """The most telling grams, by the likelihood ratio of their classes against all texts' (Dunning 1993), and where they lie."""
    true_N = target_NC.argmax(1)
    classes = target_NC.shape[1]
    id_U, which_M = np.unique(grams.id_M, return_inverse=True)
    label_M = np.repeat(true_N, np.diff(grams.start_N))
    count_UC = np.bincount(which_M * classes + label_M, minlength=len(id_U) * classes).reshape(-1, classes)
    count_U = count_UC.sum(1)
    share_C = np.maximum(np.bincount(true_N, minlength=classes) / len(true_N), 1e-9)
    ratio_UC = count_UC / (count_U[:, None] * share_C)
    telling_U = (count_UC * np.log(np.where(count_UC > 0, ratio_UC, 1.0))).sum(1)
    telling_U[count_U < LEAST_TEXTS] = 0.0
    order = np.flatnonzero(telling_U > 0.0)
    order = order[np.argsort(-telling_U[order], kind="stable")]
    place = _placed(id_U[order], buckets)
    placed = place != NOBODY
    owner, place = order[placed], place[placed]
    tag_K, idf_K = np.full(buckets, NOBODY, np.int16), np.ones(buckets, np.float32)
    tag_K[place] = _tags(id_U[owner])
    idf_K[place] = np.maximum(np.log(len(true_N) / count_U[owner]), LEAST_IDF)
    return Owners(tag_K, idf_K)


def _placed(ids: Array, buckets: int) -> Array:
    """A bucket for each gram, the first ones first, as long as one of its two is free; else `NOBODY`."""
    free, left = bytearray(b"\1" * buckets), buckets
    place = np.full(len(ids), NOBODY, np.int64)
    for n, (first, second) in enumerate(zip(*(choice.tolist() for choice in _choices(ids, buckets)), strict=True)):
        bucket = first if free[first] else second
        if free[bucket]:
            free[bucket] = 0
            place[n] = bucket
            left -= 1
            if not left:
                break
    return place


def _choices(ids: Array, buckets: int) -> tuple[Array, Array]:
    wide = ids.astype(np.int64)
    return wide % buckets, wide * STIR // TAGGED % buckets


def _tags(ids: Array) -> Array:
    return np.asarray(ids // TAGGED % TAGS, np.int16)


def known(grams: Grams, tag_K: Array) -> tuple[Array, Array]:
    """The buckets of the grams that own theirs, text after text, and where each text's begin."""
    tag_M = _tags(grams.id_M)
    first_M, second_M = _choices(grams.id_M, len(tag_K))
    bucket_M = np.where(tag_K[first_M] == tag_M, first_M, second_M)
    owns_M = tag_K[bucket_M] == tag_M
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(owns_M)))
    return bucket_M[owns_M], before[grams.start_N]


def _sparse(start: Array, column: Array, value: Array, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sparse rows are beta: a product with them is all that is asked
        return torch.sparse_csr_tensor(
            torch.from_numpy(start), torch.from_numpy(column.astype(np.int64)), torch.from_numpy(value), shape
        )


def apply(layer: Layer, grams: Grams) -> Array:
    """[N, C], as `Found` answers."""
    bucket, start = known(grams, layer.tag_K)
    many = np.diff(start)
    x_NK = _sparse(start, bucket, np.ones(len(bucket), np.float32), (len(many), len(layer.tag_K)))
    sum_NC = (x_NK @ torch.from_numpy(layer.weight_KC)).numpy()
    return np.asarray(sum_NC / np.sqrt(np.maximum(many, 1))[:, None] + layer.bias_C, np.float32)


def found(layer: Layer, grams: Grams) -> Array:
    """[N], the share of grams that are known."""
    _, start = known(grams, layer.tag_K)
    return np.asarray(np.diff(start) / np.maximum(np.diff(grams.start_N), 1), np.float32)


class Problem:
    """Multinomial logistic regression with a cost on the weights' squares; L-BFGS, round by round."""

    def __init__(self, grams: Grams, target_NC: Array, buckets: int, strength: float) -> None:
        own = owners(grams, target_NC, buckets)
        bucket, start = known(grams, own.tag_K)
        many = np.diff(start)
        idf = own.idf_K[bucket]
        usual = float(np.sqrt(np.square(idf).mean())) if len(idf) else 1.0
        # A rare gram's weight counts for more, so that the cost lies on the common ones as TF-IDF would have it.
        value = (idf / usual / np.repeat(np.sqrt(np.maximum(many, 1)), many)).astype(np.float32)
        self._tag_K, self._factor_K = own.tag_K, (own.idf_K / usual).astype(np.float32)
        self._x_NK = _sparse(start, bucket, value, (len(many), buckets))
        order = np.argsort(bucket, kind="stable")
        row = np.repeat(np.arange(len(many)), many)
        ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(bucket, minlength=buckets))))
        self._x_KN = _sparse(ends, row[order], value[order], (buckets, len(many)))
        self._target_NC = torch.from_numpy(target_NC)
        # A class that is never meant is ruled out: its logit would sink without end and drag the others' along.
        self._absent_C = self._target_NC.sum(0) == 0.0
        self._cost = 1.0 / strength / max(1, len(many))
        self._weight_KC = torch.zeros(buckets, target_NC.shape[1], requires_grad=True)
        self._bias_C = torch.zeros(target_NC.shape[1], requires_grad=True)
        self._optimiser = torch.optim.LBFGS(
            [self._weight_KC, self._bias_C], max_iter=STEPS, history_size=8, line_search_fn="strong_wolfe",
            tolerance_grad=0.0, tolerance_change=0.0,
        )  # fmt: skip

    def states(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "weight": self._weight_KC.detach(), "bias": self._bias_C.detach(), "optimiser": self._optimiser.state_dict(),
        }  # fmt: skip

    def restore(self, states: Mapping[str, Any]) -> None:
        """Goes on from there."""
        with torch.no_grad():
            self._weight_KC.copy_(states["weight"])
            self._bias_C.copy_(states["bias"])
        self._optimiser.load_state_dict(states["optimiser"])

    def round(self) -> float:
        """Some steps; the loss before them."""
        return float(self._optimiser.step(self._closure()))

    def _closure(self) -> Callable[[], float]:
        weight_KC, bias_C = self._weight_KC, self._bias_C

        def step() -> float:
            with torch.no_grad():
                logits_NC = self._x_NK @ weight_KC + bias_C
                log_NC = logits_NC.masked_fill_(self._absent_C, RULED_OUT).log_softmax(1)
                off_NC = (log_NC.exp() - self._target_NC) / len(log_NC)
                weight_KC.grad = self._x_KN @ off_NC + self._cost * weight_KC
                bias_C.grad = off_NC.sum(0)
                loss = -(self._target_NC * log_NC).sum() / len(log_NC)
                return float(loss + 0.5 * self._cost * weight_KC.square().sum())

        return step

    def layer(self) -> Layer:
        """As it stands."""
        weight_KC = self._weight_KC.detach().numpy() * self._factor_K[:, None]
        return Layer(self._tag_K, weight_KC, self._bias_C.detach().numpy().copy())
