"""Selective scans: whatever the way they are computed, they are the recurrence that defines them."""

import pytest
import torch
from torch import nn

from clser.models.layers import scan as scans

pytestmark = pytest.mark.torch
CLOSE = 1e-5


def inputs(rows, steps, seed=0):
    channels, numbers = 24, 8  # few enough for chunks
    torch.manual_seed(seed)
    double = {"dtype": torch.float64}
    x = torch.randn(rows, steps, channels, **double)
    delta = nn.functional.softplus(torch.randn(rows, steps, channels, **double) - 2.0)
    decay = -torch.arange(1, numbers + 1, **double).repeat(channels, 1)
    into, out = torch.randn(2, rows, steps, numbers, **double)
    return [scans.Steps(x, delta, into, out), decay, torch.randn(rows, channels, numbers, **double)]


def dual_inputs(rows, steps, seed=0):
    (x, delta, into, out), _, state = inputs(rows, steps, seed=seed)
    decay = -torch.rand(3, dtype=torch.float64) * 4.0
    return [scans.Steps(x.unflatten(2, (3, 8)), delta[..., :3], into, out), decay, state.unflatten(1, (3, 8))]


def single(arguments):
    steps, decay, state = arguments
    return [scans.Steps(*(part.float() for part in steps)), decay.float(), state.float()]


def worst(got, wanted):
    return max(float((a - b).abs().max()) if a.numel() else 0.0 for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("steps", [0, 1, 2, 63, 64, 65, 500])
def test_in_chunks_it_is_the_sequential_one(steps):
    arguments = inputs(2, steps)
    assert worst(scans.chunked(*single(arguments)), scans.sequential(*arguments)) < CLOSE


@pytest.mark.parametrize("steps", [1, 2, 63, 64, 65, 500])
def test_the_dual_is_the_sequential_one(steps):
    arguments = dual_inputs(2, steps)
    assert worst(scans.dual(*single(arguments)), scans.dual_sequential(*arguments)) < 2 * CLOSE


@pytest.mark.parametrize(
    ("run", "made"), [(scans.scan, inputs), (scans.dual, dual_inputs)], ids=["each channel", "each head"]
)
def test_a_long_memory_stays_finite_and_right(run, made):
    steps, *rest = made(1, 3000)
    delta = steps.delta_BTD * 20.0  # all is forgotten within a step, or
    delta[:, ::2] *= 1e-4  # hardly anything is
    arguments = [steps._replace(delta_BTD=delta), *rest]
    slow = scans.sequential if run is scans.scan else scans.dual_sequential
    got = run(*single(arguments))
    assert all(torch.isfinite(part).all() for part in got)
    assert worst(got, slow(*arguments)) < 1e-3 * float(slow(*arguments)[0].abs().max())


@pytest.mark.parametrize(("run", "made"), [(scans.scan, inputs), (scans.dual, dual_inputs)])
def test_gradients_are_those_of_the_sequential_one(run, made):
    slow = scans.sequential if run is scans.scan else scans.dual_sequential
    grads = []
    for way in (run, slow):
        steps, decay, state = made(2, 80)
        leaves = [part.clone().requires_grad_() for part in (*steps, decay, state)]
        answers, after = way(scans.Steps(*leaves[:4]), *leaves[4:])
        (answers.square().sum() + after.square().sum()).backward()
        grads.append([leaf.grad for leaf in leaves])
    for got, wanted in zip(*grads, strict=True):
        assert float((got - wanted).abs().max()) <= 1e-9 * (1.0 + float(wanted.abs().max()))


@pytest.mark.parametrize(("run", "made"), [(scans.scan, inputs), (scans.dual, dual_inputs)])
def test_what_is_past_is_heard_and_what_is_to_come_is_not(run, made):
    steps, *rest = made(1, 100)
    before, _ = run(steps, *rest)
    x = steps.x_BTD.clone()
    x[:, 50] += 1.0
    after, _ = run(steps._replace(x_BTD=x), *rest)
    changed = (after - before).abs().flatten(2).amax(2)[0]
    assert not changed[:50].any()
    assert (changed[50:60] > 1e-6).all()


@pytest.mark.parametrize(("run", "made"), [(scans.scan, inputs), (scans.dual, dual_inputs)])
def test_a_step_of_no_delta_leaves_the_state_alone(run, made):
    steps, decay, state = made(2, 30)
    steps.delta_BTD[1, 20:] = 0.0
    _, long = run(steps, decay, state)
    _, short = run(scans.Steps(*(part[1:, :20] for part in steps)), decay, state[1:])
    assert torch.allclose(long[1:], short, atol=1e-12)


class Play(nn.Module):
    def __init__(self, run, decay):
        super().__init__()
        self.run, self.decay = run, decay

    def forward(self, x, delta, into, out, state):
        return self.run(scans.Steps(x, delta, into, out), self.decay, state)


@pytest.mark.parametrize(("run", "made"), [(scans.scan, inputs), (scans.dual, dual_inputs)])
def test_exported_it_takes_any_rows_and_steps(run, made, exported):
    def arguments(rows, steps, seed):
        each, decay, state = single(made(rows, steps, seed=seed))
        return decay, (*each, state)

    decay, traced = arguments(2, 5, 0)
    names = ["x", "delta", "in", "out", "state"]
    axes = {name: {0: "B", 1: "T"} for name in names[:4]} | {"state": {0: "B"}}
    play = exported(Play(run, decay), traced, names, ["y", "after"], axes)
    for rows, steps in ((1, 1), (3, 40)):
        _, given = arguments(rows, steps, 1)
        wanted = run(scans.Steps(*given[:4]), decay, given[4])
        assert max((a - b).abs().max() for a, b in zip(play(given), wanted, strict=True)) < 1e-4
