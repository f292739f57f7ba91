"""Losses: cross-entropy with soft labels and absent classes, focal, additive margin, supervised contrast.

Letters: B rows, C classes, D channels, N kept pairs of rows.

A target is either the number of the class [B] (integers) or a distribution over classes [B, C].
`mask_BC` is added to the logits: zero for a class that a row's corpus knows, well below zero for one it lacks.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FLOOR = -100.0  # a class ruled out by minus infinity costs this much at most, and its gradient is none


def inverse_frequency(count_C: Tensor) -> Tensor:
    """Class weights one over the counts, with mean 1 over the classes seen; one never seen gets 1."""
    seen_C = count_C > 0
    weight_C = torch.where(seen_C, 1.0 / count_C.clamp_min(1).float(), 0.0)
    return torch.where(seen_C, weight_C * seen_C.sum() / weight_C.sum(), 1.0)


def as_distribution(target: Tensor, classes: int, smoothing: float = 0.0, mask_BC: Tensor | None = None) -> Tensor:
    """[B, C]. Smoothing (Szegedy et al. 2016, section 7) spreads over the classes that the row's mask leaves alone."""
    target_BC = nn.functional.one_hot(target, classes).float() if target.dim() == 1 else target
    if smoothing == 0.0:
        return target_BC
    present_BC = torch.ones_like(target_BC) if mask_BC is None else (mask_BC == 0.0).to(target_BC.dtype)
    even_BC = present_BC / present_BC.sum(1, keepdim=True).clamp_min(1.0)
    return (1.0 - smoothing) * target_BC + smoothing * even_BC


def softened(target_BC: Tensor, mask_BC: Tensor, seen_BC: np.ndarray[Any, Any], mode: str) -> Tensor:
    """The labels, and in their place where somebody saw others (no numbers: he saw none) what he saw; classes that a row's
    mask rules out get nothing, and a row of which nothing is left keeps its label. `as_released`: the likeliest class alone."""
    there_BC = torch.from_numpy(np.nan_to_num(seen_BC)).to(target_BC.dtype) * (mask_BC == 0.0)
    total_B1 = there_BC.sum(1, keepdim=True)
    if mode == "as_released":
        soft_BC = nn.functional.one_hot(there_BC.argmax(1), there_BC.shape[1]).to(target_BC.dtype)
    else:
        soft_BC = there_BC / torch.where(total_B1 > 0.0, total_B1, 1.0)
    return torch.where(total_B1 > 0.0, soft_BC, target_BC)


def cross_entropy(
    logits_BC: Tensor, target: Tensor, *, weight_C: Tensor | None = None, mask_BC: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Mean over rows, each class's part times its weight; divided by the weights, so that doubling all changes nothing."""
    log_BC, target_BC = _asked(logits_BC, target, mask_BC, smoothing)
    if weight_C is not None:
        target_BC = target_BC * weight_C
    total = target_BC.sum() if weight_C is not None else log_BC.shape[0]
    return -(target_BC * log_BC).sum() / total


def focal(
    logits_BC: Tensor, target: Tensor, *, gamma: float = 2.0, alpha_C: Tensor | None = None,
    mask_BC: Tensor | None = None, smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Lin et al. 2017, eq. 4 and 5: -alpha_t (1 - p_t)^gamma log p_t, the mean over rows.

    `alpha_C` is scaled to mean 1 here: left as it comes (one over counts) it is a learning rate near zero.
    """
    log_BC, target_BC = _asked(logits_BC, target, mask_BC, smoothing)
    if gamma > 0.0:
        # A power's slope at zero is infinite below gamma 1: an answer already right must not turn into NaN.
        miss_BC = (1.0 - log_BC.exp()).clamp_min(torch.finfo(log_BC.dtype).eps)
        log_BC = miss_BC.pow(gamma) * log_BC  # eq. 4
    if alpha_C is not None:
        log_BC = alpha_C / alpha_C.mean() * log_BC  # eq. 5
    return -(target_BC * log_BC).sum(1).mean()


class AmSoftmax(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Classes as directions: logits are scaled cosines, and the true class must win by a margin (Wang et al. 2018).

    `forward` gives the logits s cos(theta) to answer with, `loss` what to train on.
    """

    def __init__(self, width: int, classes: int, scale: float = 30.0, margin: float = 0.35) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.weight_CD = nn.Parameter(torch.empty(classes, width))
        nn.init.xavier_uniform_(self.weight_CD)

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, C]."""
        normal = nn.functional.normalize
        return self.scale * (normal(x_BD, dim=-1) @ normal(self.weight_CD, dim=-1).T)

    def loss(
        self, x_BD: Tensor, target: Tensor, *, weight_C: Tensor | None = None, mask_BC: Tensor | None = None,
        smoothing: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Eq. 6: cross-entropy with cos(theta) - m (eq. 5) for the true class; with a soft target each class's share of m."""
        logits_BC = self(x_BD)
        margin_BC = self.margin * as_distribution(target, logits_BC.shape[1])
        logits_BC = logits_BC - self.scale * margin_BC
        return cross_entropy(logits_BC, target, weight_C=weight_C, mask_BC=mask_BC, smoothing=smoothing)


def supervised_contrast(
    x_BD: Tensor, label_B: Tensor, *, group_B: Tensor | None = None, temperature: float = 0.1
) -> Tensor:
    """Khosla et al. 2020, eq. 2 (the sum outside the logarithm), the mean over rows that have a positive.

    With groups (languages, speakers) a row is compared with rows of other groups only, alike or not. No row with a
    positive: zero.
    """
    unit_BD = nn.functional.normalize(x_BD, dim=-1)
    other_BB = ~torch.eye(len(x_BD), dtype=torch.bool, device=x_BD.device)
    if group_B is not None:
        other_BB = other_BB & (group_B[:, None] != group_B[None])
    alike_BB = (other_BB & (label_B[:, None] == label_B[None])).float()
    near_BB = unit_BD @ unit_BD.T / temperature
    # A row without anyone to compare with would be the logarithm of nothing; the lowest number instead, and it is left out.
    near_BB = near_BB.masked_fill(~other_BB, torch.finfo(near_BB.dtype).min)
    log_BB = near_BB.log_softmax(1).masked_fill(~other_BB, 0.0)  # the fraction of eq. 2, over A(i)
    positives_B = alike_BB.sum(1)
    loss_B = -(alike_BB * log_BB).sum(1) / positives_B.clamp_min(1.0)
    return loss_B.sum() / (positives_B > 0).sum().clamp_min(1)


def _asked(logits_BC: Tensor, target: Tensor, mask_BC: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities and the target distribution."""
    if mask_BC is not None:
        logits_BC = logits_BC + mask_BC
    target_BC = as_distribution(target, logits_BC.shape[1], smoothing, mask_BC)
    return logits_BC.log_softmax(1).clamp_min(FLOOR), target_BC
