"""Makes what is published honest: a temperature and an offset a head, fitted to answers for speakers never trained on.

A corpus that has no boredom teaches little about when not to say boredom. Offsets put the rest right afterwards, on the
seven classes that are published, where no class is ruled out.

Letters: N clips, H heads.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clser.models.data.clips import Clip
from clser.models.labels import HEADS, NONE, PUBLISHED, PUBLISHED_AS
from clser.models.saved import Calibration

Array = np.ndarray[Any, Any]
CLASSES = (*PUBLISHED, NONE)
CLASS_OF = {**PUBLISHED_AS, NONE: NONE}
SHRINK = 0.003  # what an offset's square costs, in nats: a head that hardly occurs must not be shut for good


def balance(clips: Sequence[Clip]) -> Array:
    """[N]: weights under which every corpus counts alike, and in it every class."""
    clips_of = Counter((clip.corpus, clip.emotion) for clip in clips)
    classes_of = Counter(corpus for corpus, _ in clips_of)
    weight_N = np.array([1.0 / classes_of[clip.corpus] / clips_of[clip.corpus, clip.emotion] for clip in clips])
    return np.asarray(weight_N / weight_N.sum())


def fit(
    logits_NH: Array,
    clips: Sequence[Clip],
    shrink: float = SHRINK,
    *,
    heads: Sequence[str] = HEADS,
    offsets: bool = True,
) -> Calibration:
    """The temperature and offsets under which the published classes are likeliest, and `none` where there is a head for it.

    Without `offsets` there are none.
    """
    published_H = torch.tensor([CLASSES.index(CLASS_OF[head]) for head in heads])
    true_N = torch.tensor([CLASSES.index(CLASS_OF[clip.emotion]) for clip in clips])
    right_NH = published_H == true_N[:, None]
    weight_N = torch.from_numpy(balance(clips))
    given_NH = torch.from_numpy(logits_NH).double()
    sharpness = torch.zeros((), dtype=torch.float64, requires_grad=True)
    offset_H = torch.zeros(len(heads), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [sharpness, offset_H] if offsets else [sharpness], max_iter=200, line_search_fn="strong_wolfe"
    )

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        log_NH = (given_NH * sharpness.exp() + offset_H).log_softmax(1)
        likely_N = log_NH.masked_fill(~right_NH, -1e9).logsumexp(1)
        loss = shrink * offset_H.square().sum() - (weight_N * likely_N).sum()
        loss.backward()
        return loss.detach()

    optimiser.step(step)
    return Calibration(float(torch.exp(-sharpness.detach())), tuple(offset_H.tolist()) if offsets else ())


def for_heads(calibration: Calibration, heads: Sequence[str], of: Sequence[str]) -> Calibration:
    """The same for a system that lacks some of the heads `of`."""
    return Calibration(calibration.temperature, tuple(calibration.offsets[of.index(head)] for head in heads))
