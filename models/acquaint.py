"""Trains the half of a system that goes by the speaker's manner, once the other half is done: from what whole utterances tell,
computed once, so that thousands of steps take seconds.

Letters: B rows, N clips, K places in a clip, T takes, X what is told of a speaker, P others of the speaker, M members, H heads.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clser.models.answers import sound_of
from clser.models.batches import chances, others_of
from clser.models.examples import Examples, ordered
from clser.models.plan import Plan

Array = np.ndarray[Any, Any]
ROWS = 96
AVERAGING = 0.99


def told(system: Any, examples: Examples, least_frames: int, seed: int = 0) -> list[Tensor]:
    """[N, 2, X] for each take."""
    random = np.random.default_rng(seed)
    takes = []
    for take in examples.takes:
        told_NKX = torch.zeros(len(take.lengths), 2, system.speaker_numbers)
        with torch.inference_mode():
            for rows in ordered(take.lengths, ROWS):
                frames_B = take.lengths[rows]
                early_B = np.minimum(
                    frames_B - 1, least_frames + (random.random(len(rows)) * frames_B).astype(np.int64)
                )
                at_BK = torch.from_numpy(np.maximum(0, np.stack((frames_B - 1, early_B), 1)))
                told_NKX[rows] = system.tell(sound_of(take, examples.ratios, rows, frames_B), at_BK)
        takes.append(told_NKX.clone())
    return takes


def acquaint(system: Any, examples: Examples, plan: Plan, least_frames: int, seed: int = 0) -> None:
    """Trains `system.members`, each from its own beginning, on the same rows."""
    asked = plan.acquaintance
    takes = torch.stack(told(system, examples, least_frames, seed))
    trained = [parameter for member in system.members for parameter in member.parameters()]
    decayed, plain = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": asked.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, asked.learning_rate)
    rows = _Rows(examples, plan, seed)
    system.members.train()
    torch.manual_seed(seed)
    average = [parameter.detach().clone() for parameter in trained]
    for step in range(asked.steps):
        rate = min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / asked.steps))
        for group in optimiser.param_groups:
            group["lr"] = asked.learning_rate * rate
        told_BX, speaker_BX, mask_BH, target_BH = rows.drawn(takes)
        loss = torch.stack([
            _loss(system.glance(member, told_BX[:, None], speaker_BX)[:, 0] + mask_BH, target_BH, plan.loss.smoothing)
            for member in system.members
        ]).sum()  # fmt: skip
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        kept = min(AVERAGING, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.data for p in trained], 1.0 - kept)
    with torch.no_grad():
        for parameter, mean in zip(trained, average, strict=True):
            parameter.copy_(mean)
    system.members.eval()


def _loss(logits_BH: Tensor, target_BH: Tensor, smoothing: float) -> Tensor:
    smooth_BH = (1.0 - smoothing) * target_BH + smoothing / target_BH.shape[1]
    return -(smooth_BH * logits_BH.log_softmax(1)).sum(1).mean()


class _Rows:
    """Draws clips as the training does, each with some others of its speaker from the same take."""

    def __init__(self, examples: Examples, plan: Plan, seed: int) -> None:
        self.asked, self.random = plan.acquaintance, np.random.default_rng(seed)
        self.indices = np.array(examples.indices)
        kinds = [(examples.clips[n].corpus, examples.clips[n].emotion) for n in examples.indices]
        self.chances = chances(kinds, plan.sampling.balance)
        others = others_of(examples)
        self.others = {int(n): others.get(int(n), np.zeros(0, np.int64)) for n in self.indices}
        self.target_NH = torch.stack([examples.target(n) for n in range(len(examples.clips))])
        self.mask_NH = torch.stack([examples.masks[clip.corpus] for clip in examples.clips])

    def drawn(self, takes_TNKX: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the rows tell, what is known of their speakers, masks and targets."""
        asked, random = self.asked, self.random
        index_B = random.choice(self.indices, asked.batch, p=self.chances)
        take_B = random.integers(len(takes_TNKX), size=asked.batch)
        place_B = (random.random(asked.batch) < asked.early).astype(np.int64)
        other_BP = np.zeros((asked.batch, asked.most), np.int64)
        there_BP = np.zeros((asked.batch, asked.most), np.float32)
        many_B = np.where(random.random(asked.batch) < asked.known, random.integers(1, asked.most + 1, asked.batch), 0)
        for row, (index, many) in enumerate(zip(index_B, many_B, strict=True)):
            others = self.others[int(index)]
            if many and len(others):
                other_BP[row, :many] = others[random.integers(len(others), size=many)]
                there_BP[row, :many] = 1.0
        told_BX = takes_TNKX[take_B, index_B, place_B]
        speaker_BX = (takes_TNKX[take_B[:, None], other_BP, 0] * torch.from_numpy(there_BP)[..., None]).sum(1)
        return told_BX, speaker_BX, self.mask_NH[index_B], self.target_NH[index_B]
