"""Trains any system on clips and texts; stopped or killed at any step, it goes on as if nothing had happened.

Letters: B rows, K asked frames, H heads.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from clser.models import checkpoint
from clser.models.acquaint import acquaint
from clser.models.answers import answer, fit_inputs, known_of
from clser.models.batches import Batch, Drawer, sampled_frames
from clser.models.checkpoint import Place
from clser.models.errors import ClserError, FailedError, GivenError
from clser.models.examples import Examples
from clser.models.losses import cross_entropy, focal, inverse_frequency
from clser.models.optimise import move_average, on_plateau, optimiser_of, rate, set_rate
from clser.models.plan import Loss, Plan, Sampling
from clser.models.systems import logit_margin, speaker_numbers
from clser.models.validation import Validation, judge

CHECKPOINT = "checkpoint.pt"
PROGRESS = "progress.jsonl"
HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}


class StoppedError(ClserError):
    """Somebody asked for the end. What was done so far is kept."""

    exit_code = 130


class Watcher(Protocol):
    """Whoever wants to see how it goes."""

    def line(self, text: str) -> None:
        """Something worth a line."""

    def step(self, done: int, total: int, what: str) -> None:
        """A step was done."""


@dataclass(frozen=True, slots=True)
class Running:
    """How a run is carried out: nothing of this changes its result, but for a device's own rounding."""

    device: str = "cpu"
    checkpoint_s: float = 30.0
    checkpoint_steps: int = 0
    """Write one after so many steps too. 0: by time alone."""
    stop: Callable[[], bool] = lambda: False
    """Asked after each step; True: write a checkpoint and raise StoppedError."""
    events: Callable[[Mapping[str, Any]], None] = lambda line: None
    """Gets each epoch's line."""


@dataclass(slots=True)
class _Run:
    """A run in progress."""

    plan: Plan
    net: Any
    average: Any
    optimiser: Any
    scaler: Any
    drawer: Drawer
    running: Running
    weight_H: Tensor | None
    place: Place = field(default_factory=Place)
    best: dict[str, Tensor] | None = None

    @property
    def steps(self) -> int:
        """Of the whole run so far."""
        return self.place.epoch * self.drawer.steps + self.place.step

    def states(self) -> dict[str, Any]:
        """All that changes as it goes, besides the place."""
        parts = {"net": self.net, "average": self.average, "optimiser": self.optimiser, "scaler": self.scaler}
        return {**{name: part.state_dict() for name, part in parts.items()}, "best": self.best}

    def restore(self, states: Mapping[str, Any]) -> None:
        for name in ("net", "average", "optimiser", "scaler"):
            getattr(self, name).load_state_dict(states[name])
        self.best = states["best"]


def train(
    system: Any, examples: Examples, validation: Validation, plan: Plan, out: Path,
    *, watcher: Watcher, seed: int = 0, fold: str = "", resume: bool = False, running: Running | None = None,
) -> tuple[Any, Examples, Place]:  # fmt: skip
    """The system with its averaged weights, the best or the last; the examples with what is known of the speakers; and
    how it went.

    `system` must have been built right after `torch.manual_seed(seed)`. A line an epoch goes to `out/progress.jsonl`.
    """
    running = running or Running()
    out.mkdir(parents=True, exist_ok=True)
    path = out / CHECKPOINT
    asked = asked_of(plan, examples, validation, seed, fold)
    if path.exists() and not resume:
        raise GivenError(f"{out} holds a run that was begun: ask to resume it (--resume), or give another folder")
    # What a system takes from its training data is the same every time, and the checkpoint has it too.
    fit_inputs(system, examples)
    examples = _with_known(system, examples, plan.sampling)
    run = _begin(system, examples, plan, seed, running)
    if path.exists():
        run.place, states = checkpoint.read(path, asked)
        run.restore(states)
        watcher.line(f"going on from epoch {run.place.epoch + 1}, step {run.place.step}")
    _rewrite(out / PROGRESS, run.place.lines)

    def save() -> None:
        checkpoint.write(path, run.place, asked, run.states())

    while not run.place.over:
        _epoch(run, seed, save, watcher)
        line = _close_epoch(run, examples, validation)
        running.events(line)
        _rewrite(out / PROGRESS, run.place.lines)
        watcher.line(describe(line, plan.optimiser.epochs))
        save()
    trained = run.average
    if run.best is not None and plan.optimiser.keep == "best":
        trained.load_state_dict(run.best)
    trained = trained.eval()
    if hasattr(trained, "members"):
        watcher.line("acquainting it with speakers")
        acquaint(trained, examples, plan, sampled_frames(plan.sampling, examples.frame_samples), seed)
    return trained, examples, run.place


def _with_known(system: Any, examples: Examples, sampling: Sampling) -> Examples:
    """With what each clip tells of its speaker, where the system can use that; of the takes, where it is trained with it."""
    if not speaker_numbers(system) or examples.clean is None:
        return examples
    takes = examples.takes if sampling.enrolled else ()
    clean_NX = known_of(system, examples.clean, examples.ratios)
    known = (clean_NX if take is examples.clean else known_of(system, take, examples.ratios) for take in takes)
    return replace(examples, known_TNX=tuple(known), clean_NX=clean_NX)


def asked_of(plan: Plan, examples: Examples, validation: Validation, seed: int, fold: str) -> dict[str, Any]:
    """All that decides how a run ends."""
    asked = msgspec.to_builtins(plan)
    for afterwards in ("calibration", "enrolled_test", "onnx"):
        del asked[afterwards]
    return {
        **asked,
        "seed": seed,
        "fold": fold,
        "training clips": len(examples.indices),
        "training texts": len(examples.text_indices),
        "validation clips": len(validation.clips),
        "heads": list(examples.heads),
    }


def loss_of(system: Any, batch: Batch, loss: Loss, least_frames: int, weight_H: Tensor | None = None) -> Tensor:
    """The loss of the answers after the last frame and, where it streams exactly, after a random earlier one."""
    last_B = (batch.frames_B - 1).clamp_min(0)
    random_B = torch.rand(len(last_B)).to(last_B.device)
    early_B = torch.minimum(last_B, least_frames + (random_B * last_B).long())
    logits_BKH = answer(system, batch, torch.stack((last_B, early_B), 1)).float()
    if margin := logit_margin(system):
        logits_BKH = logits_BKH - margin * batch.target_BH[:, None]
    last = _one(logits_BKH[:, 0], batch, loss, weight_H)
    if logits_BKH.shape[1] == 1 or loss.partial == 0.0:
        return last
    return (last + loss.partial * _one(logits_BKH[:, 1], batch, loss, weight_H)) / (1.0 + loss.partial)


def _one(logits_BH: Tensor, batch: Batch, loss: Loss, weight_H: Tensor | None) -> Tensor:
    smoothing, mask_BC = loss.smoothing, batch.mask_BH
    if loss.kind == "focal":
        return focal(
            logits_BH, batch.target_BH, gamma=loss.gamma, alpha_C=weight_H, mask_BC=mask_BC, smoothing=smoothing
        )
    return cross_entropy(logits_BH, batch.target_BH, weight_C=weight_H, mask_BC=mask_BC, smoothing=smoothing)


def _begin(system: Any, examples: Examples, plan: Plan, seed: int, running: Running) -> _Run:
    device = torch.device(running.device)
    net = system.to(device)
    average = copy.deepcopy(net).eval()
    half = plan.optimiser.precision == "half" and device.type == "cuda"
    weight_H = None
    if plan.loss.weighted:
        said = [examples.target(n) for n in examples.indices] + [examples.text_target(n) for n in examples.text_indices]
        weight_H = inverse_frequency(torch.stack(said).sum(0)).to(device)
    optimiser = optimiser_of(net, plan.optimiser)
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    return _Run(plan, net, average, optimiser, scaler, Drawer(examples, plan, seed), running, weight_H)


def _epoch(run: _Run, seed: int, save: Callable[[], None], watcher: Watcher) -> None:
    """The steps of this epoch that are left."""
    place, running = run.place, run.running
    drawn = run.drawer.epoch(place.epoch)
    least = sampled_frames(run.plan.sampling, run.drawer.examples.frame_samples)
    saved = began = time.monotonic()
    before_s = place.took_s
    run.net.train()
    while place.step < len(drawn.groups):
        batch = run.drawer.batch(drawn, place.epoch, place.step).to(torch.device(running.device))
        # Dropout hangs on the place alone: a resumed run drops what the other would have dropped.
        torch.manual_seed(int(np.random.SeedSequence((seed, run.steps)).generate_state(1)[0]))
        place.losses.append(_step(run, batch, least))
        place.step += 1
        place.took_s = before_s + time.monotonic() - began
        watcher.step(place.step, len(drawn.groups), f"epoch {place.epoch + 1}, loss {place.losses[-1]:.3f}")
        stopping = running.stop()
        due = running.checkpoint_steps and place.step % running.checkpoint_steps == 0
        if stopping or due or time.monotonic() - saved > running.checkpoint_s:
            save()
            saved = time.monotonic()
        if stopping:
            raise StoppedError(
                f"stopped in epoch {place.epoch + 1} after step {place.step}; go on with --resume and the same settings"
            )


def _step(run: _Run, batch: Batch, least: int) -> float:
    asked = run.plan.optimiser
    set_rate(run.optimiser, asked.learning_rate * run.place.scale * rate(asked, run.steps, run.drawer.steps))
    kind = batch.frames_B.device.type
    with torch.autocast(kind, HALF.get(kind, torch.bfloat16), enabled=asked.precision == "half"):
        loss = loss_of(run.net, batch, run.plan.loss, least, run.weight_H)
    if not torch.isfinite(loss):
        raise FailedError(
            f"the loss is {float(loss.detach())} in epoch {run.place.epoch + 1}, step {run.place.step}; lower "
            "optimiser.learning_rate, or look at the features"
        )
    run.optimiser.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    run.scaler.unscale_(run.optimiser)
    nn.utils.clip_grad_norm_([p for p in run.net.parameters() if p.grad is not None], asked.clip)
    run.scaler.step(run.optimiser)
    run.scaler.update()
    move_average(run.average, run.net, asked.averaging if run.steps else 0.0)
    return float(loss.detach())


def _close_epoch(run: _Run, examples: Examples, validation: Validation) -> dict[str, Any]:
    """Judges the averaged weights, keeps them if they are the best, and moves on."""
    place, asked = run.place, run.plan.optimiser
    line: dict[str, Any] = {
        "epoch": place.epoch,
        "loss": round(float(np.mean(place.losses)), 4),
        "learning_rate": float(f"{run.optimiser.param_groups[0]['lr']:.3g}"),
        **judge(run.average, examples, validation, run.running.device),
        "took_s": round(place.took_s, 1),
    }
    if "valid_uar" in line:
        if line["valid_uar"] > place.best:
            place.best, place.best_epoch = line["valid_uar"], place.epoch
            run.best = {name: part.detach().cpu().clone() for name, part in run.average.state_dict().items()}
        on_plateau(place, line["valid_uar"], asked)
    place.lines.append(line)
    place.epoch, place.step, place.losses, place.took_s = place.epoch + 1, 0, [], 0.0
    waited = place.epoch - 1 - place.best_epoch
    place.over = place.epoch >= asked.epochs or ("valid_uar" in line and 0 < asked.patience <= waited)
    return line


def describe(line: Mapping[str, Any], epochs: int) -> str:
    """An epoch's line for people."""
    valid = f", validation UAR {100 * line['valid_uar']:.1f} %" if "valid_uar" in line else ""
    return f"epoch {line['epoch'] + 1}/{epochs}: loss {line['loss']:.3f}{valid}, {line['took_s']:.0f} s"


def _rewrite(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """All lines anew: a run that was killed between its file and its checkpoint would count an epoch twice."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    partial.replace(path)
