"""Trains `both` on pairs of held-out answers and held-out texts, drawn anew every epoch.

Letters: N clips, B of a batch, C published classes.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import Tensor

from clser.models.both import Both, Config
from clser.models.both_data import KINDS, Library, Mix, Voices, pairs, weights
from clser.models.evaluate import softmax
from clser.models.labels import NONE, PUBLISHED, PUBLISHED_AS

Array = np.ndarray[Any, Any]
RUN_BATCH = 4096


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    epochs: Annotated[int, Meta(ge=1)] = 25
    batch: Annotated[int, Meta(ge=1)] = 256
    learning_rate: Annotated[float, Meta(gt=0)] = 3e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 0.1
    wary: Annotated[float, Meta(gt=0)] = 3.0
    """How much more than others a pair counts whose wrong text was mistrusted: there was a warning."""
    mix: Mix = Mix()


class Choices(Struct, frozen=True, forbid_unknown_fields=True):
    """Every one with its default."""

    net: Config = Config()
    training: Training = Training()
    offsets: bool = False
    """Whether the voice is calibrated by offsets of its heads, besides a temperature. It must be so live, too."""


def fit(
    voices: Voices,
    library: Library,
    choices: Choices,
    seed: int = 0,
    tell: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Both:
    """A trained network, from calibrated answers. The same for the same seed."""
    random, training, words = np.random.default_rng(seed), choices.training, library.words
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Both(choices.net, voices.heads, words.heads, words.vector_NX.shape[1])
        optimiser = torch.optim.AdamW(net.parameters(), training.learning_rate, weight_decay=training.weight_decay)
        steps = training.epochs * -(-len(voices.clips) // training.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.learning_rate, total_steps=steps)
        net.train()
        for epoch in range(training.epochs):
            losses = []
            for given, true_B, weight_B in _batches(voices, library, training, random):
                likely_BC = published(net, net(*given).logits_BH)
                loss = -(weight_B * likely_BC.gather(1, true_B[:, None])[:, 0]).sum() / weight_B.sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(float(loss.detach()))
            tell(epoch, float(np.mean(losses)))
    net.eval()
    return net


def _batches(
    voices: Voices, library: Library, training: Training, random: np.random.Generator
) -> Iterator[tuple[tuple[Tensor, ...], Tensor, Tensor]]:
    """Every clip once, half of them answered for a speaker who is known, where he is."""
    true_N = voices.true()
    known_N = np.isfinite(voices.known_NH[:, 0]) & (random.random(len(true_N)) < 0.5)
    voice_NH = np.where(known_N[:, None], voices.known_NH, voices.logits_NH)
    kind_N = random.choice(len(KINDS), len(true_N), p=training.mix.shares())
    drawn = pairs(voice_NH, true_N, library, kind_N, random)
    weight_N = weights(voices) * np.where(kind_N == KINDS.index("wrong_suspect"), training.wary, 1.0)
    order = random.permutation(len(true_N))
    for begin in range(0, len(order), training.batch):
        rows = order[begin : begin + training.batch]
        given = tuple(torch.from_numpy(part[rows]) for part in drawn.inputs())
        yield given, torch.from_numpy(true_N[rows]), torch.from_numpy(weight_N[rows]).float()


def published(net: Both, logits_BH: Tensor) -> Tensor:
    """[B, C]: log-probabilities of the published classes if there is a voice at all."""
    own_BE = logits_BH.index_select(1, net.emotion_E).log_softmax(1)
    return (own_BE.exp() @ net.fold_EC).clamp_min(1e-9).log()


def run(net: Both, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
    """Logits [N, H] and weights [N, 2]."""
    logits, shares = [], []
    with torch.inference_mode():
        for begin in range(0, len(inputs[0]), RUN_BATCH):
            told = net(*(torch.from_numpy(part[begin : begin + RUN_BATCH]) for part in inputs))
            logits.append(told.logits_BH.numpy())
            shares.append(told.weights_B2.numpy())
    return np.concatenate(logits), np.concatenate(shares)


def probabilities(logits_NH: Array, heads: tuple[str, ...]) -> Array:
    """[N, C]: of the published classes, if there is a voice at all, as an engine publishes them."""
    emotions = [n for n, head in enumerate(heads) if head != NONE]
    fold_EC = np.array([[PUBLISHED_AS[heads[n]] == name for name in PUBLISHED] for n in emotions], float)
    return np.asarray(softmax(logits_NH[:, emotions].astype(np.float64)) @ fold_EC)
