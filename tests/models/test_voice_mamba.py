"""Our speech encoder and the voice system on it: streaming, causal, and better acquainted with whom it has heard."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.models.features.fronts import front
from clser.models.labels import HEADS
from clser.models.systems import build
from clser.models.tensors import Sequences, leaves

pytestmark = pytest.mark.torch
FRONTS = ("logmel", "prosody")


def system(seed=0):
    torch.manual_seed(seed)
    return build("voice_mamba", {"width": 32, "hidden": 16}, HEADS).eval()


def frames(rows, count, seed=0):
    """What the fronts might say of speech."""
    torch.manual_seed(seed)
    logmel = torch.randn(rows, count, front("logmel").width) - 4.0
    prosody = torch.randn(rows, 4 * count, front("prosody").width)
    return of(logmel, prosody, torch.full((rows,), count))


def of(logmel, prosody, length):
    return {"logmel": Sequences(logmel, length), "prosody": Sequences(prosody, 4 * length)}


def cut(given, begin, end, length=None):
    logmel, prosody = (given[name].x_BTD for name in FRONTS)
    rows = logmel.shape[0]
    return of(
        logmel[:, begin:end],
        prosody[:, 4 * begin : 4 * end],
        torch.full((rows,), end - begin) if length is None else length,
    )


def worst(a, b):
    return max(float((x - y).abs().max()) for x, y in zip(leaves(a), leaves(b), strict=True))


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 30), max_size=4))
def test_streamed_equals_whole(cuts):
    net, sound = system(), frames(2, 30)
    with torch.no_grad():
        whole, end = net(sound, net.start(2))
        state, parts, begin = net.start(2), [], 0
        for stop in [*sorted(cuts), 30]:
            part, state = net(cut(sound, begin, stop), state)
            parts.append(part)
            begin = stop
    assert worst(torch.cat(parts, 1), whole) < 1e-4
    assert worst(state, end) < 1e-4


def test_company_and_padding_change_nothing():
    net, sound, lengths = system(), frames(4, 20, 1), torch.tensor([20, 7, 0, 1])
    with torch.no_grad():
        together, after = net(cut(sound, 0, 20, lengths), net.start(4))
        for row, length in enumerate(lengths.tolist()):
            mine = {name: Sequences(part.x_BTD[row : row + 1], part.length_B[:1]) for name, part in sound.items()}
            alone, left = net(cut(mine, 0, length), net.start(1))
            assert length == 0 or worst(together[row : row + 1, :length], alone) < 1e-4
            assert (
                max(float((x[row] - y[0]).abs().max()) for x, y in zip(leaves(after), leaves(left), strict=True)) < 1e-4
            )


def test_it_does_not_hear_what_is_to_come():
    net, sound = system(), frames(1, 20, 2)
    other = cut(sound, 0, 20)
    other["logmel"].x_BTD[:, 12:] += 1.0  # slices share their sound
    with torch.no_grad():
        changed, _ = net(other, net.start(1))
        other["logmel"].x_BTD[:, 12:] -= 1.0
        plain, _ = net(sound, net.start(1))
    assert torch.allclose(changed[:, :12], plain[:, :12], atol=1e-4)
    assert not torch.allclose(changed[:, 12:], plain[:, 12:], atol=1e-3)


def test_asked_frames_are_those_of_all_frames():
    net, sound, asked = system(), frames(3, 15, 3), torch.tensor([[0, 14], [3, 4], [7, 7]])
    with torch.no_grad():
        every, _ = net(sound, net.start(3))
        some, _ = net(sound, net.start(3), asked)
    assert torch.allclose(some, every[torch.arange(3)[:, None], asked], atol=1e-6)


def test_gradients_reach_every_parameter():
    net = system()
    known = net.enrol(frames(3, 40, 4))
    logits, _ = net(frames(3, 15, 5), net.knowing(net.start(3), known))
    logits.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_tiny_batch_is_learnt():
    net, sound, wanted = system(), frames(6, 15, 6), torch.arange(6)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(80):
        logits, _ = net(sound, net.start(6), torch.full((6, 1), 14))
        loss = torch.nn.functional.cross_entropy(logits[:, 0], wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.1


def test_what_a_speaker_is_known_by_adds_up():
    """Two clips, heard one by one or as one row after the other: the same knowledge, and an answer it changes."""
    net, sound = system(), frames(2, 40, 7)
    each = net.enrol(sound)
    logmel, prosody = (sound[name].x_BTD for name in FRONTS)
    both = net.enrol(of(logmel.flatten(0, 1)[None], prosody.flatten(0, 1)[None], torch.tensor([80])))
    assert torch.allclose(each.sum(0), both[0], rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        stranger, _ = net(frames(1, 10, 8), net.start(1))
        nobody, _ = net(frames(1, 10, 8), net.knowing(net.start(1), torch.zeros(1, each.shape[1])))
        friend, _ = net(frames(1, 10, 8), net.knowing(net.start(1), both))
    assert torch.equal(stranger, nobody)
    assert not torch.allclose(stranger, friend, atol=1e-3)


def test_the_prior_is_that_of_speech_alone():
    net, sound = system(), frames(8, 60, 9)
    sound["logmel"].x_BTD[:, 30:] = -11.0  # silence, half of the time
    net.fit_inputs(sound)
    mean = net.encoder.usual.mean_F[:48]
    assert abs(float(mean.mean()) + 4.0) < 0.1
    plain = net.encoder.usual.plain(torch.cat((mean, net.encoder.usual.mean_F[48:]))[None, None])
    assert float(plain.abs().max()) < 1e-5
