"""The half that goes by the speaker's manner: it learns what only shows against what is usual for somebody."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

from clser.models import plan
from clser.models.acquaint import acquaint, told
from clser.models.data.cache import Features
from clser.models.data.clips import Clip
from clser.models.examples import Examples, TakeFeatures, class_masks

pytestmark = pytest.mark.torch
HEADS = ("anger", "sadness")
WIDTH, FRAMES = 4, 6
PLAN = plan.from_values({"system": "x", "acquaintance": {"steps": 300, "batch": 32, "learning_rate": 1e-2}}, "a test")


class Glancing(nn.Module):
    """What is told of an utterance is the mean of its frames."""

    speaker_numbers = 1 + WIDTH

    def __init__(self, members=2):
        super().__init__()
        self.members = nn.ModuleList([nn.Linear(2 * WIDTH, len(HEADS)) for _ in range(members)])

    def tell(self, given, at_BK):
        x_BTD = given["f"].x_BTD
        means = [x_BTD[row, : int(at) + 1].mean(0) for row, each in enumerate(at_BK) for at in each]
        mean_BKD = torch.stack(means).reshape(*at_BK.shape, WIDTH)
        return torch.cat((torch.ones_like(mean_BKD[..., :1]), mean_BKD), 2)

    def glance(self, member, told_BKX, speaker_BX):
        usual_B1F = speaker_BX[:, None, 1:] / (speaker_BX[:, None, :1] + 1.0)
        f_BKF = told_BKX[..., 1:]
        return member(torch.cat((f_BKF - usual_B1F, usual_B1F.expand_as(f_BKF)), 2))


def examples(speakers=12, each=8):
    """Speakers lie far apart; anger is a little above each one's own middle, sadness a little below."""
    random = np.random.default_rng(0)
    clips, rows = [], []
    for who in range(speakers):
        middle = random.normal(0.0, 3.0, WIDTH)
        for n in range(each):
            emotion = HEADS[n % 2]
            clips.append(Clip(Path(f"{who}_{n}.wav"), "one", str(who), "", emotion))
            offset = 0.8 if emotion == "anger" else -0.8
            rows.append(middle + offset + 0.2 * random.normal(0.0, 1.0, (FRAMES, WIDTH)))
    features = Features(np.concatenate(rows).astype(np.float32), np.arange(0, FRAMES * (len(rows) + 1), FRAMES))
    take = TakeFeatures.of({"f": features}, {"f": 1})
    indices = range(len(clips))
    return Examples(HEADS, clips, take, (take,), indices, {"f": 1}, 160, masks=class_masks(HEADS, clips))


def right(system, held, many):
    """How often it is right after `many` other clips of the speaker."""
    everything = told(system, held, 1)[0][:, 0]
    hits = []
    for index, clip in enumerate(held.clips):
        others = [n for n, other in enumerate(held.clips) if other.who == clip.who and n != index]
        known = everything[others[:many]].sum(0, keepdim=True) if many else torch.zeros(1, 1 + WIDTH)
        logits = torch.stack([system.glance(m, everything[index][None, None], known) for m in system.members]).mean(0)
        hits.append(HEADS[int(logits.argmax())] == clip.emotion)
    return float(np.mean(hits))


def made(seed=0):
    torch.manual_seed(seed)
    system = Glancing()
    acquaint(system, examples(), PLAN, 1, seed)
    return system


def test_who_is_known_is_told_apart_by_what_differs_from_the_usual():
    system, held = made(), examples()
    with torch.no_grad():
        assert right(system, held, 6) > 0.95
        assert right(system, held, 0) < 0.85


def test_the_same_seed_gives_the_same_members_and_they_differ_from_one_another():
    one, other = made(), made()
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert not torch.equal(one.members[0].weight, one.members[1].weight)


def test_what_is_told_is_that_of_the_end_and_of_some_earlier_frame():
    held = examples(speakers=2)
    told_NKX = told(Glancing(), held, 2)[0]
    whole = torch.from_numpy(held.takes[0].by_front["f"].clip(3)).mean(0)
    assert torch.allclose(told_NKX[3, 0, 1:], whole, atol=1e-5)
    assert told_NKX.shape == (16, 2, 1 + WIDTH)
    assert not torch.allclose(told_NKX[:, 0], told_NKX[:, 1])
