"""How weights are moved: the optimiser, its learning rate over a run, and the average of the weights."""

import math
from typing import Any

import torch

from clser.models.checkpoint import Place
from clser.models.plan import Optimiser

BETAS = (0.9, 0.98)


FACTOR = "factor"
"""Of a group of weights: what the learning rate is multiplied with for them."""


def optimiser_of(net: Any, asked: Optimiser) -> Any:
    """AdamW. Norms, biases and other vectors are not decayed; what is frozen is not trained. Parts that the system names
    in `pretrained` learn at a rate of their own."""
    parts = tuple(f"{name}." for name in getattr(net, "pretrained", ()))
    groups = []
    for begun, factor in ((False, 1.0), (True, asked.pretrained_rate)):
        trained = [p for name, p in net.named_parameters() if p.requires_grad and name.startswith(parts) == begun]
        if begun and not trained:
            continue
        decayed, plain = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() <= 1]
        groups += [
            {"params": decayed, "weight_decay": asked.weight_decay, FACTOR: factor},
            {"params": plain, "weight_decay": 0.0, FACTOR: factor},
        ]
    return torch.optim.AdamW(groups, asked.learning_rate, BETAS)


def set_rate(optimiser: Any, learning_rate: float) -> None:
    """For the next step, each group's by its factor."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group[FACTOR]


def rate(asked: Optimiser, step: int, steps_an_epoch: int) -> float:
    """What the learning rate is multiplied with at this step of the run: up in a line, then down half a cosine."""
    total = asked.epochs * steps_an_epoch
    warm = max(1, round(asked.warmup_epochs * steps_an_epoch or total * asked.warmup))
    if step < warm:
        return (step + 1) / warm
    if asked.schedule == "plateau":
        return 1.0
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm)))


def on_plateau(place: Place, value: float, asked: Optimiser) -> None:
    """Lowers the rate where the validation did not get better for some epochs."""
    if value > place.plateau_best:
        place.plateau_best, place.plateau_epochs = value, 0
        return
    place.plateau_epochs += 1
    if asked.schedule == "plateau" and place.plateau_epochs >= asked.plateau_epochs:
        place.scale, place.plateau_epochs = place.scale * asked.plateau_factor, 0


def move_average(average: Any, net: Any, keep: float) -> None:
    """Moves the averaged weights towards the net's; what is no weight (statistics of a batch norm) is copied."""
    with torch.no_grad():
        pairs = [(a, b) for a, b in zip(average.parameters(), net.parameters(), strict=True) if b.requires_grad]
        if pairs:
            torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1.0 - keep)
        for a, b in zip(average.buffers(), net.buffers(), strict=True):
            a.copy_(b)
