"""A temperature and an offset a head for a system that reads, fitted to texts it was not trained on.

Letters: N texts, H heads.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clser.models.answers import logits_of
from clser.models.examples import Examples
from clser.models.saved import Calibration

Array = np.ndarray[Any, Any]
SHRINK = 0.01
"""What an offset's square costs, in nats."""


def calibrate(system: Any, examples: Examples, valid: Sequence[int]) -> Calibration:
    """Under which these texts' labels are likeliest; every collection counts alike, and in it every text.

    How common a class is stays as it is: words are far more often neutral than not, and an answer should say so. Where a
    collection lacks a class, that class is ruled out.
    """
    if not len(valid):
        return Calibration()
    logits_NH = torch.from_numpy(logits_of(system, examples, (), valid)).double()
    texts = [examples.texts[n] for n in valid]
    absent_NH = torch.stack([examples.masks[text.corpus] != 0.0 for text in texts])
    target_NH = torch.stack([examples.text_target(n) for n in valid]).double()
    many = Counter(text.corpus for text in texts)
    weight_N = torch.tensor([1.0 / many[text.corpus] / len(many) for text in texts], dtype=torch.float64)
    sharpness = torch.zeros((), dtype=torch.float64, requires_grad=True)
    offset_H = torch.zeros(len(examples.heads), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([sharpness, offset_H], max_iter=200, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        asked_NH = (logits_NH * sharpness.exp() + offset_H).masked_fill(absent_NH, -1e9)
        likely_N = (target_NH * asked_NH.log_softmax(1)).sum(1)
        loss = SHRINK * offset_H.square().sum() - (weight_N * likely_N).sum()
        loss.backward()
        return loss.detach()

    optimiser.step(step)
    return Calibration(float(torch.exp(-sharpness.detach())), tuple(offset_H.tolist()))
