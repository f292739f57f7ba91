"""Trains the voice network on several corpora at once, one fold or all, from features kept on disk.

Letters: B rows, T frames, F features, H heads, M mel bands.
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clser.models.data.corpora import Clip
from clser.models.data.variants import Variant
from clser.models.features.constants import HOPS
from clser.models.features.logmel import BANDS
from clser.models.labels import HEADS
from clser.models.layers.pooling import PoolingState
from clser.models.zoo.voice_gru import SPEECH_LEVEL, VoiceGru

UNASKED = -3.0
"""What is added to the logit of a class that a corpus lacks, in nats. Minus infinity would teach that head nothing there,
and then it speaks up: never told to be silent, boredom and calm took nearly two in five answers on another corpus."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A training run, all of it."""

    epochs: int = 24
    clips_per_epoch: int = 7000
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    warmup: float = 0.05
    smoothing: float = 0.05
    partial_weight: float = 0.3
    """How much the answer after a random earlier frame counts beside the last one's."""
    balance: float = 0.7
    """0: clips are drawn as they come; 1: every corpus as often as every other."""
    averaging: float = 0.995
    longest_frames: int = 120
    least_frames: int = 12
    drop: float = 0.15
    seed: int = 0


class Batch(NamedTuple):
    """Rows of padded features; how long each is, which heads its corpus knows, what it is."""

    features_BTF: Tensor
    frames_B: Tensor
    mask_BH: Tensor
    true_B: Tensor


@dataclass(frozen=True, slots=True)
class Examples:
    """What training draws from: clips, their takes, and which heads each corpus knows."""

    clips: Sequence[Clip]
    takes: Sequence[Variant]
    indices: Sequence[int]


def class_masks(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Per corpus [H]: 0 for a class it has, `UNASKED` for one it lacks: hardly any gradient, but not none."""
    masks: dict[str, Tensor] = {}
    for clip in clips:
        masks.setdefault(clip.corpus, torch.full((len(HEADS),), UNASKED))[HEADS.index(clip.emotion)] = 0.0
    return masks


def train(examples: Examples, settings: Settings, out: Path, report: Callable[[str], None]) -> VoiceGru:
    """The averaged network after the last epoch.

    Resumes from `out/checkpoint.pt`; a line an epoch goes to `out/progress.jsonl`.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    net = VoiceGru(drop=settings.drop)
    net.prior_M.copy_(prior_of(examples))
    steps = math.ceil(settings.clips_per_epoch / settings.batch)
    optimiser = torch.optim.AdamW(_groups(net, settings.weight_decay), lr=settings.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine(settings.epochs * steps, settings.warmup))
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.averaging)
    )
    whole = {"net": net, "average": average, "optimiser": optimiser, "schedule": schedule}
    masks = class_masks(examples.clips)
    for epoch in range(_resume(out / "checkpoint.pt", whole, settings), settings.epochs):
        began = time.monotonic()
        torch.manual_seed(settings.seed * 1000 + epoch)
        net.train()
        losses = []
        for batch in batches(examples, masks, settings, epoch):
            loss = loss_of(net, batch, settings)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            average.update_parameters(net)
            losses.append(float(loss.detach()))
        line = {"epoch": epoch, "loss": round(float(np.mean(losses)), 4), "took_s": round(time.monotonic() - began, 1)}
        with (out / "progress.jsonl").open("a", encoding="utf-8") as progress:
            progress.write(json.dumps(line) + "\n")
        report(f"{out.name}: epoch {epoch + 1}/{settings.epochs} loss {line['loss']} in {line['took_s']} s")
        _save(out / "checkpoint.pt", whole, settings, epoch + 1)
    trained: VoiceGru = average.module
    trained.eval()
    return trained


def predict(net: VoiceGru, variant: Variant, indices: Sequence[int], batch: int = 64) -> np.ndarray[Any, Any]:
    """[N, H] logits after the last frame of each clip, before the temperature."""
    order = sorted(indices, key=lambda index: len(variant.clip(index)))
    logits = {}
    with torch.inference_mode():
        for begin in range(0, len(order), batch):
            some = order[begin : begin + batch]
            features_BTF, frames_B = pad([variant.clip(index) for index in some])
            sums, _ = net.encode(features_BTF, net.start(len(some)))
            for index, row in zip(some, net.answer(_at(sums, frames_B[:, None] - 1))[:, 0].numpy(), strict=True):
                logits[index] = row
    return np.stack([logits[index] for index in indices])


def batches(examples: Examples, masks: dict[str, Tensor], settings: Settings, epoch: int) -> Iterator[Batch]:
    """An epoch: clips drawn evenly by corpus and class, takes drawn at random, rows of like length together."""
    random = np.random.default_rng((settings.seed, epoch))
    drawn = random.choice(examples.indices, settings.clips_per_epoch, p=_chances(examples, settings.balance))
    rows = [
        (int(index), _cut(examples.takes[int(random.integers(len(examples.takes)))].clip(index), settings, random))
        for index in drawn
    ]
    pool = 16 * settings.batch
    for begin in range(0, len(rows), pool):
        near = sorted(rows[begin : begin + pool], key=lambda row: len(row[1]))
        groups = [near[first : first + settings.batch] for first in range(0, len(near), settings.batch)]
        for which in random.permutation(len(groups)):
            group = groups[which]
            features_BTF, frames_B = pad([_mask(features, random) for _, features in group])
            clips = [examples.clips[index] for index, _ in group]
            true_B = torch.tensor([HEADS.index(clip.emotion) for clip in clips])
            yield Batch(features_BTF, frames_B, torch.stack([masks[clip.corpus] for clip in clips]), true_B)


def pad(rows: Sequence[np.ndarray[Any, Any]]) -> tuple[Tensor, Tensor]:
    """Rows of any length -> [B, T, F] float32 and the frames that are real."""
    out = np.zeros((len(rows), max(len(row) for row in rows), rows[0].shape[1]), np.float32)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(out), torch.tensor([len(row) for row in rows])


def prior_of(examples: Examples) -> Tensor:
    """[M]: the mean log-mel bands of speech, over a thousand clips."""
    random = np.random.default_rng(0)
    some = random.choice(examples.indices, min(1000, len(examples.indices)), replace=False)
    frames = np.concatenate([examples.takes[0].clip(index) for index in some]).astype(np.float32)
    bands = frames[:, : HOPS * BANDS].reshape(-1, HOPS, BANDS).mean(1)
    return torch.from_numpy(bands[bands.mean(1) > SPEECH_LEVEL].mean(0))


def loss_of(net: VoiceGru, batch: Batch, settings: Settings) -> Tensor:
    """Smoothed cross-entropy of the answers after the last frame and after a random earlier one."""
    features_BTF, frames_B, mask_BH, true_B = batch
    sums, _ = net.encode(features_BTF, net.start(len(frames_B)))
    last_B = frames_B - 1
    early_B = torch.minimum(last_B, settings.least_frames + (torch.rand(len(frames_B)) * last_B).long())
    logits_B2H = net.answer(_at(sums, torch.stack((last_B, early_B), 1))) + mask_BH[:, None]
    log_B2H = logits_B2H.log_softmax(-1)
    present_BH = (mask_BH == 0.0).float()
    # Smoothing spreads over the classes that the corpus has.
    target_BH = present_BH / present_BH.sum(1, keepdim=True) * settings.smoothing
    target_BH = target_BH + (1.0 - settings.smoothing) * nn.functional.one_hot(true_B, len(HEADS))
    loss_B2 = -(target_BH[:, None] * log_B2H.clamp_min(-100.0)).sum(-1)
    return (loss_B2[:, 0].mean() + settings.partial_weight * loss_B2[:, 1].mean()) / (1.0 + settings.partial_weight)


def _at(sums: PoolingState, frames_BK: Tensor) -> PoolingState:
    rows = torch.arange(len(frames_BK))[:, None]
    return PoolingState(*(sum_[rows, frames_BK] for sum_ in sums))


def _cut(features: np.ndarray[Any, Any], settings: Settings, random: np.random.Generator) -> np.ndarray[Any, Any]:
    """Now and then only a part: an utterance may begin or be cut anywhere."""
    frames = len(features)
    size = min(frames, settings.longest_frames)
    if random.random() < 0.25 and size > 30:
        size = int(random.integers(max(25, size // 2), size))
    begin = int(random.integers(frames - size + 1))
    return features[begin : begin + size]


def _mask(features: np.ndarray[Any, Any], random: np.random.Generator) -> np.ndarray[Any, Any]:
    """Another gain and colour of the microphone; a few bands, lags and frames blanked (Park et al. 2019)."""
    out = features.astype(np.float32)
    bands = out[:, : HOPS * BANDS].reshape(len(out), HOPS, BANDS)
    knots = random.normal(0.0, 0.35, 6)
    bands += np.interp(np.linspace(0, 5, BANDS), np.arange(6), knots).astype(np.float32) + np.float32(
        random.normal(0.0, 0.5)
    )
    for _ in range(2):
        width = int(random.integers(1, 7))
        first = int(random.integers(0, BANDS - width))
        bands[:, :, first : first + width] = bands[:, :, first : first + width].mean()
    for _ in range(2):
        length = int(random.integers(0, max(2, len(out) // 8)))
        start = int(random.integers(0, len(out) - length))
        out[start : start + length] = out.mean(0)
    return out


def _chances(examples: Examples, balance: float) -> np.ndarray[Any, Any]:
    chosen = [examples.clips[index] for index in examples.indices]
    corpora = Counter(clip.corpus for clip in chosen)
    classes = Counter((clip.corpus, clip.emotion) for clip in chosen)
    kinds = Counter(corpus for corpus, _ in classes)
    weight = np.array(
        [corpora[c.corpus] ** (1.0 - balance) / kinds[c.corpus] / classes[c.corpus, c.emotion] for c in chosen]
    )
    return np.asarray(weight / weight.sum())


def _cosine(steps: int, warmup: float) -> Callable[[int], float]:
    warm = max(1, round(steps * warmup))

    def scale(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm)))

    return scale


def _groups(net: VoiceGru, weight_decay: float) -> list[dict[str, Any]]:
    decayed = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _save(path: Path, whole: dict[str, Any], settings: Settings, epoch: int) -> None:
    state = {name: part.state_dict() for name, part in whole.items()}
    partial = path.with_suffix(".partial")
    torch.save({"epoch": epoch, "settings": asdict(settings), **state}, partial)
    partial.replace(path)


def _resume(path: Path, whole: dict[str, Any], settings: Settings) -> int:
    """The epoch to go on with."""
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    if saved["settings"] != asdict(settings):
        raise ValueError(f"{path} was begun with other settings: {saved['settings']}; remove it or ask for the same")
    for name, part in whole.items():
        part.load_state_dict(saved[name])
    return int(saved["epoch"])
