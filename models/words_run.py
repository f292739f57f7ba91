"""Trains `words` from its plan to a finished folder: linear layers, what they say of texts they never saw, the last layers.

Letters: N texts, C classes, F numbers the linear layers say, H heads.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from clser.models import checkpoint, page, results, saved
from clser.models.checkpoint import Place
from clser.models.data.text_parts import Parts, parts, share_of
from clser.models.encoders.words import ragged
from clser.models.errors import GivenError
from clser.models.export_words import export
from clser.models.losses import as_distribution
from clser.models.runs import Prepared
from clser.models.saved import Trained
from clser.models.train import CHECKPOINT, PROGRESS, Running, StoppedError, Watcher, asked_of
from clser.models.validation import Validation
from clser.models.words_calibrate import calibrate
from clser.models.words_linear import RULED_OUT, SETTLED, Grams, Layer, Problem, apply, found

Array = np.ndarray[Any, Any]
KINDS = "kinds"
HALVES = (0, 1)
WHOLE = -1


@dataclass(slots=True)
class _Run:
    """A run in progress."""

    prepared: Prepared
    parts: Parts
    out: Path
    watcher: Watcher
    running: Running
    asked: dict[str, Any]
    place: Place = field(default_factory=Place)
    layers: dict[str, Layer] = field(default_factory=dict)
    """Those that are found, by name and part."""
    open: dict[str, Any] = field(default_factory=dict)
    """What is being worked at: its states."""

    def save(self) -> None:
        kept = {name: [torch.from_numpy(part) for part in layer] for name, layer in self.layers.items()}
        checkpoint.write(self.out / CHECKPOINT, self.place, self.asked, {"layers": kept, "open": self.open})

    def resume(self) -> None:
        self.place, states = checkpoint.read(self.out / CHECKPOINT, self.asked)
        self.layers = {name: Layer(*(part.numpy() for part in parts_)) for name, parts_ in states["layers"].items()}
        self.open = states["open"]
        self.watcher.line(f"going on after {len(self.place.lines)} parts")

    def tell(self, line: dict[str, Any]) -> None:
        """A part is over."""
        self.place.lines.append(line)
        if "epoch" in line:
            self.running.events(line)
        told = "".join(json.dumps(each) + "\n" for each in self.place.lines)
        (self.out / PROGRESS).write_text(told, encoding="utf-8")
        self.watcher.line(", ".join(f"{key} {value}" for key, value in line.items() if key != "epoch"))

    def pause(self, saved_at: float) -> float:
        """A checkpoint if one is due; the end if somebody asked for it."""
        stopping = self.running.stop()
        if stopping or time.monotonic() - saved_at > self.running.checkpoint_s:
            self.save()
            saved_at = time.monotonic()
        if stopping:
            raise StoppedError(
                f"stopped after {len(self.place.lines)} parts; go on with --resume and the same settings"
            )
        return saved_at


@dataclass(frozen=True, slots=True)
class _Data:
    """The texts to train on."""

    grams: Grams
    target_NH: Array
    kind_N: Array
    """Which collection, by its place among the settings'."""
    half_N: Array

    def part(self, kind: int, half: int) -> Array:
        """The texts that a layer is trained on; `half`: those it will be asked about are left out."""
        chosen = self.half_N != half
        return np.flatnonzero(chosen if kind < 0 else chosen & (self.kind_N == kind))


def fit(
    prepared: Prepared, out: Path, watcher: Watcher, *, resume: bool = False, running: Running | None = None
) -> dict[str, Any]:
    """Trains, calibrates, judges, and writes the folder; gives back what `results.json` holds."""
    running = running or Running()
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).exists() and not resume:
        raise GivenError(f"{out} holds a run that was begun: ask to resume it (--resume), or give another folder")
    system, plan = prepared.system, prepared.plan
    split = parts(prepared.examples.texts)
    examples = replace(prepared.examples, text_indices=split.train)
    prepared = replace(prepared, examples=examples, validation=Validation((), split.valid))
    _check(system, examples.texts)
    run = _Run(prepared, split, out, watcher, running, asked_of(plan, examples, prepared.validation, prepared.seed, ""))
    if (out / CHECKPOINT).exists():
        run.resume()
    data = _read(prepared, split.train)
    _find_layers(run, data)
    said_NF = _said(system, run.layers, data)
    _train_last(run, data, said_NF)
    run.save()
    return _finish(run)


def _check(system: Any, texts: Sequence[Any]) -> None:
    there, asked = {text.corpus for text in texts}, set(system.config.collections)
    if there != asked:
        raise GivenError(
            f"settings.collections names {', '.join(sorted(asked))}, and the plan's texts are {', '.join(sorted(there))}: "
            "name the same in both"
        )


def _read(prepared: Prepared, which: Sequence[int]) -> _Data:
    texts = [prepared.examples.texts[n] for n in which]
    names = list(prepared.system.config.collections)
    target_NH = torch.stack([prepared.examples.text_target(n) for n in which]).numpy()
    kind_N = np.array([names.index(text.corpus) for text in texts])
    # Texts of one wording lie in one half, or a layer would be asked about what it has read.
    half_N = np.array([int(share_of(text.text.casefold()) * 2.0**20) % 2 for text in texts])
    return _Data(Grams(*ragged([text.text for text in texts])), target_NH, kind_N, half_N)


def _find_layers(run: _Run, data: _Data) -> None:
    """Each layer on all of its texts, and on each half of them for what it says of the other."""
    config, saved_at = run.prepared.system.config, time.monotonic()
    sizes = {KINDS: config.kinds, **config.collections}
    one_hot = np.eye(len(config.collections), dtype=np.float32)[data.kind_N]
    for kind, (name, size) in enumerate(sizes.items(), -1):
        target_NC = one_hot if name == KINDS else data.target_NH
        for half in (*HALVES, WHOLE):
            full = f"{name} {half}"
            if full in run.layers:
                continue
            chosen = data.part(kind, half)
            problem = Problem(data.grams.of(chosen), target_NC[chosen], size, config.strength)
            last = float("inf")
            if run.open:
                problem.restore(run.open["problem"])
                last = run.open["last"]
            for number in range(run.place.step, config.rounds):
                loss = problem.round()
                run.place.step = number + 1
                if last - loss < SETTLED:
                    break
                last = loss
                run.open = {"problem": problem.states(), "last": last}
                run.watcher.step(run.place.step, config.rounds, full)
                saved_at = run.pause(saved_at)
            run.layers[full] = problem.layer()
            run.open, run.place.step = {}, 0
            run.tell({"layer": full, "texts": len(chosen), "loss": round(last, 4)})
            saved_at = run.pause(saved_at)


def _said(system: Any, layers: Mapping[str, Layer], data: _Data) -> Array:
    """[N, F], as `Words.say` has it, but of each text what layers say that never saw it."""
    texts = len(data.kind_N)
    names = [KINDS, *system.config.collections]
    for name, layer in zip(names, (system.kinds, *system.each), strict=True):
        whole = layers[f"{name} {WHOLE}"]
        layer.keep(whole.tag_K, whole.weight_KC, whole.bias_C)
    many_N = np.diff(data.grams.start_N).astype(np.float32)
    logits, shares = [], [np.log1p(many_N)]
    for kind, (name, net) in enumerate(zip(names, (system.kinds, *system.each), strict=True), -1):
        whole = layers[f"{name} {WHOLE}"]
        rounded = Layer(whole.tag_K, net.weights().numpy(), whole.bias_C)
        said_NC, share_N = apply(rounded, data.grams), found(rounded, data.grams)
        for half in HALVES:
            seen = (data.half_N == half) if kind < 0 else (data.half_N == half) & (data.kind_N == kind)
            rows = np.flatnonzero(seen)
            said_NC[rows] = apply(layers[f"{name} {half}"], own := data.grams.of(rows))
            share_N[rows] = found(layers[f"{name} {half}"], own)
        logits.append(said_NC)
        shares.append(share_N)
    said_NF = np.concatenate((*logits, np.stack(shares, 1)), 1)
    assert said_NF.shape == (texts, system.said)
    return np.asarray(said_NF, np.float32)


def _train_last(run: _Run, data: _Data, said_NF: Array) -> None:
    """The last layers, on what the linear ones say."""
    system, config, seed = run.prepared.system, run.prepared.system.config, run.prepared.seed
    system.mean_F.copy_(torch.from_numpy(said_NF.mean(0)))
    system.deviation_F.copy_(torch.from_numpy(said_NF.std(0) + 1e-3))
    optimiser = torch.optim.AdamW(system.parameters(), config.learning_rate, weight_decay=0.01)
    if run.open:
        system.load_state_dict(run.open["system"])
        optimiser.load_state_dict(run.open["optimiser"])
    many_E = np.bincount(data.kind_N, minlength=len(config.collections)).clip(1)
    weight_N = (many_E ** -float(config.balance))[data.kind_N]
    weight_N = torch.from_numpy(weight_N / weight_N.mean()).float()
    masks = torch.stack([run.prepared.examples.masks[name] for name in config.collections])
    all_steps = config.epochs * -(-len(said_NF) // config.batch)
    saved_at = time.monotonic()
    for epoch in range(run.place.epoch, config.epochs):
        system.train()
        torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
        losses = []
        for step, rows in enumerate(
            _batches(len(said_NF), config.batch, seed, epoch), epoch * all_steps // config.epochs
        ):
            optimiser.param_groups[0]["lr"] = config.learning_rate * (1.0 - step / all_steps)
            kind_BE = torch.eye(len(masks))[data.kind_N[rows]] * (torch.rand(len(rows), 1) < config.told)
            logits_BH = system.answer(torch.from_numpy(said_NF[rows]), kind_BE).logits_BH
            target_BH = torch.from_numpy(data.target_NH[rows])
            loss_B = _each(logits_BH, target_BH, masks[data.kind_N[rows]], config.smoothing)
            loss = (loss_B * weight_N[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        run.place.epoch = epoch + 1
        run.open = {"system": system.state_dict(), "optimiser": optimiser.state_dict()}
        run.tell({"epoch": epoch, "loss": round(float(np.mean(losses)), 4)})
        run.watcher.step(run.place.epoch, config.epochs, "last layers")
        saved_at = run.pause(saved_at)
    system.eval()


def _batches(texts: int, size: int, seed: int, epoch: int) -> Iterator[Array]:
    order = np.random.default_rng((seed, epoch)).permutation(texts)
    for begin in range(0, texts, size):
        yield order[begin : begin + size]


def _each(logits_BH: Tensor, target_BH: Tensor, mask_BH: Tensor, smoothing: float) -> Tensor:
    """[B]: the cross-entropy of each text."""
    target_BH = as_distribution(target_BH, target_BH.shape[1], smoothing, mask_BH)
    # What a collection never says is ruled out for good: most texts are of one that has no neutral ones, and the others'
    # would be taken for something else.
    return -(target_BH * logits_BH.masked_fill(mask_BH != 0.0, RULED_OUT).log_softmax(1)).sum(1)


def _finish(run: _Run) -> dict[str, Any]:
    """Calibrates, judges, writes the folder."""
    prepared, out = run.prepared, run.out
    plan, examples, system = prepared.plan, prepared.examples, prepared.system
    calibration = calibrate(system, examples, run.parts.valid)
    about = Trained(
        system=plan.system, settings=plan.settings, heads=examples.heads, calibration=calibration, texts=plan.texts,
        seed=prepared.seed, plan=msgspec.to_builtins(plan),
    )  # fmt: skip
    path = saved.save(out, system, about)
    found_ = {"system": plan.system, "fold": "", "seed": prepared.seed}
    found_ |= results.figures(
        system, examples, prepared.fold, prepared.validation, plan, calibration=calibration, out=out,
        device=run.running.device,
    )  # fmt: skip
    found_["digest"] = saved.about_of(path).digest
    if plan.onnx:
        exported = export(system, out / "model.onnx", about)
        found_["onnx"] = {"parity": exported.parity, "size_bytes": exported.size_bytes}
    page.write(out / "page.html", about, [line for line in run.place.lines if "epoch" in line], found_)
    (out / "results.json").write_text(json.dumps(found_, indent=1) + "\n", encoding="utf-8")
    run.watcher.line(f"{out}: done")
    return found_
