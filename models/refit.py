"""The layers that name the classes, fitted anew to a few clips: what goes into them is computed once, so that hundreds of steps
take no time, and what they were before is the prior.

Letters: N rows, H heads, P places in time where such a layer was asked, X what it is asked with.

    logits_N = base_N + sum over layers and places of  c (layer(x; new) - layer(x; old))

where c says how much of what a layer says comes out at the end. That holds for whatever lies between, if it is linear; a layer
for which it does not hold is left alone.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from clser.models.saved import Calibration

STEPS = 60
PROBES = 16
"""Random directions by which the reach of a layer is estimated."""
UNEVEN = 1e-3
"""By so much of itself a layer's way out may differ from a plain factor."""

Parts = dict[str, Tensor]
"""Parameters of a system, by their names in it."""


class Asked(NamedTuple):
    """What one layer was asked, and how much its answers counted."""

    x_PX: Tensor
    share_P: Tensor
    row_P: Tensor


class Recorded(NamedTuple):
    """Rows, as their answers came about."""

    base_NH: Tensor
    """Before calibration."""
    asked: Mapping[str, Asked]
    """By layer."""


class Labelled(NamedTuple):
    """Rows to fit to."""

    recorded: Recorded
    target_N: Tensor
    weight_N: Tensor


def naming(system: Any) -> tuple[str, ...]:
    """The layers with parameters that have a line a head, as far as shapes tell.

    Where some of them glance at the speaker's manner, those alone: what a body hears in a few voices is whose they are.
    """
    heads = len(system.heads)
    found = [
        name for name, module in system.named_modules()
        if any(heads in (part.shape[0], part.shape[-1]) for part in module.parameters(recurse=False) if part.dim())
    ]  # fmt: skip
    return tuple([name for name in found if name.startswith("members.")] or found)


def record(system: Any, layers: Sequence[str], answer: Callable[[], Tensor]) -> Recorded:
    """What these layers are asked while `answer()` gives logits [N, H]. A row's places stand together in what they are asked."""
    for parameter in system.parameters():
        parameter.requires_grad_(False)  # the way back ends at the layers
    with torch.enable_grad(), _listening(system, layers) as seen:
        logits_NH = answer()
    rows, heads = logits_NH.shape
    mixed_H = 1.0 + torch.arange(heads, dtype=logits_NH.dtype)  # each head another factor, so that a mix of heads shows
    there = {name: each for name, each in seen.items() if each.said.shape[-1] == heads and len(each.asked) == rows}
    ways: Sequence[Tensor | None] = (None,) * len(there)
    if there and logits_NH.requires_grad:
        said = [each.said for each in there.values()]
        ways = torch.autograd.grad((logits_NH * mixed_H).sum(), said, allow_unused=True)
    asked = {}
    for (name, each), way in zip(there.items(), ways, strict=True):
        if way is not None and (found := _asked(each.asked, way, mixed_H)) is not None:
            asked[name] = found
    return Recorded(logits_NH.detach(), asked)


class _Seen(NamedTuple):
    asked: Tensor
    said: Tensor


@contextmanager
def _listening(system: Any, layers: Sequence[str]) -> Any:
    seen: dict[str, _Seen] = {}

    def listener(name: str) -> Callable[..., Tensor]:
        def hear(module: Any, given: tuple[Tensor, ...], said: Tensor) -> Tensor:
            said = said.detach().requires_grad_()
            seen[name] = _Seen(given[0].detach(), said)
            return said

        return hear

    hooks = [system.get_submodule(name).register_forward_hook(listener(name)) for name in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _asked(x: Tensor, way: Tensor, mixed_H: Tensor) -> Asked | None:
    """Of [N, ..., X] the places that count; None where the way out is no plain factor for each of them."""
    rows = len(x)
    way_PH, x_PX = way.reshape(-1, len(mixed_H)), x.reshape(-1, x.shape[-1])
    share_P = (way_PH * mixed_H).sum(1) / mixed_H.square().sum()
    size = way_PH.abs().max()
    if size == 0 or (way_PH - share_P[:, None] * mixed_H).abs().max() > UNEVEN * size:
        return None
    row_P = torch.arange(rows).repeat_interleave(len(x_PX) // rows)
    counts_P = share_P != 0
    return Asked(x_PX[counts_P], share_P[counts_P], row_P[counts_P])


def joined(parts: Sequence[Recorded]) -> Recorded:
    """One after the other."""
    first_N = torch.tensor([0, *(len(part.base_NH) for part in parts)]).cumsum(0)
    names = set.intersection(*(set(part.asked) for part in parts))
    asked = {
        name: Asked(
            torch.cat([part.asked[name].x_PX for part in parts]),
            torch.cat([part.asked[name].share_P for part in parts]),
            torch.cat([part.asked[name].row_P + n for part, n in zip(parts, first_N.tolist(), strict=False)]),
        )
        for name in sorted(names)
    }
    return Recorded(torch.cat([part.base_NH for part in parts]), asked)


def of_rows(recorded: Recorded, rows: Sequence[int]) -> Recorded:
    """These rows, in this order."""
    place_N = torch.full((len(recorded.base_NH),), -1)
    place_N[torch.tensor(rows, dtype=torch.long)] = torch.arange(len(rows))
    asked = {}
    for name, (x_PX, share_P, row_P) in recorded.asked.items():
        there_P = place_N[row_P] >= 0
        asked[name] = Asked(x_PX[there_P], share_P[there_P], place_N[row_P[there_P]])
    return Recorded(recorded.base_NH[torch.tensor(rows, dtype=torch.long)], asked)


def said_by(system: Any, recorded: Recorded, parts: Parts) -> Tensor:
    """[N, H]: the logits that these parameters would give, before calibration."""
    logits_NH = recorded.base_NH
    for name, asked in recorded.asked.items():
        if not _own(name, parts):
            continue
        module = system.get_submodule(name)
        with torch.no_grad():
            before_PH = module(asked.x_PX)
        after_PH = functional_call(module, _own(name, parts), (asked.x_PX,))
        logits_NH = logits_NH.index_add(0, asked.row_P, asked.share_P[:, None] * (after_PH - before_PH))
    return logits_NH


def refit(
    system: Any,
    rows: Sequence[Labelled],
    mask_H: Tensor,
    calibration: Calibration,
    reach_nats: float,
    *,
    seed: int = 0,
) -> Parts:
    """The parameters of the recorded layers that are likeliest after these rows, `mask_H` added to their logits.

    Before the rows, a logit is thought to move by about `reach_nats`: what `reach_nats` is to a row's logit, a distance from
    the old parameters is to them, so that it means the same for layers of any width.
    """
    old = parts_of(system, list(rows[0].recorded.asked))
    if not old:
        return {}
    spread = _spread(system, rows, old, seed) / calibration.temperature**2
    moved = {name: torch.zeros_like(part, requires_grad=True) for name, part in old.items()}
    offset_H = torch.tensor(calibration.offsets) if calibration.offsets else torch.zeros(len(mask_H))
    optimiser = torch.optim.LBFGS(list(moved.values()), max_iter=STEPS, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimiser.zero_grad()
        new = {name: part + moved[name] for name, part in old.items()}
        loss = 0.5 * spread / reach_nats**2 * torch.stack([part.square().sum() for part in moved.values()]).sum()
        for each in rows:
            logits_NH = said_by(system, each.recorded, new) / calibration.temperature + offset_H + mask_H
            likely_N = logits_NH.log_softmax(1).gather(1, each.target_N[:, None])[:, 0]
            loss = loss - (each.weight_N * likely_N).sum()
        loss.backward()
        return loss.detach()

    optimiser.step(step)
    return {name: part + moved[name].detach() for name, part in old.items()}


def parts_of(system: Any, layers: Sequence[str]) -> Parts:
    """The parameters of these layers, copied."""
    return {
        f"{name}.{own}": part.detach().clone()
        for name in layers for own, part in system.get_submodule(name).named_parameters()
    }  # fmt: skip


def _spread(system: Any, rows: Sequence[Labelled], old: Parts, seed: int) -> Tensor:
    """The mean square by which a logit changes for a random change of the parameters of mean square 1 (all of them together:
    the squared length of a logit's gradient), estimated by random signs."""
    generator = torch.Generator().manual_seed(seed)
    parts = {name: part.clone().requires_grad_() for name, part in old.items()}
    total, weight = torch.zeros(()), torch.zeros(())
    for each in rows:
        logits_NH = said_by(system, each.recorded, parts)
        one_N1 = torch.randint(logits_NH.shape[1], (PROBES, len(logits_NH), 1), generator=generator)
        sign_N1 = 2.0 * torch.randint(2, (PROBES, len(logits_NH), 1), generator=generator) - 1.0
        root_N1 = each.weight_N.sqrt()[:, None]
        for at_N1, way_N1 in zip(one_N1, sign_N1, strict=True):
            asked = (logits_NH.gather(1, at_N1) * way_N1 * root_N1).sum()
            ways = torch.autograd.grad(asked, list(parts.values()), retain_graph=True, allow_unused=True)
            total = total + sum(way.square().sum() for way in ways if way is not None) / PROBES
        weight = weight + each.weight_N.sum()
    return total / weight.clamp_min(1e-9)


def _own(name: str, parts: Parts) -> Parts:
    return {key.removeprefix(f"{name}."): part for key, part in parts.items() if key.startswith(f"{name}.")}
