"""Mamba layers stream as they were trained, and what is padding stays outside."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clser.models.layers.mamba import Mamba, MambaDual
from clser.models.tensors import leaves

pytestmark = pytest.mark.torch
LAYERS = {
    "mamba": lambda: Mamba(12, 32, numbers=4),
    "as released": lambda: Mamba(12, 32, numbers=4, released=True),
    "dual": lambda: MambaDual(12, expand=2, numbers=4, width=8),
}


def layer(name, seed=0):
    torch.manual_seed(seed)
    return LAYERS[name]().eval()


def worst(a, b):
    return max(
        (float((x - y).abs().max()) for x, y in zip(leaves(a), leaves(b), strict=True) if x.numel()), default=0.0
    )


@pytest.mark.parametrize("name", LAYERS)
@given(cuts=st.lists(st.integers(0, 40), max_size=5))
def test_streamed_equals_whole(name, cuts):
    net, steps = layer(name), 40
    x = torch.randn(2, steps, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, end = net(x, torch.tensor([steps, steps]), net.start(2))
        state, parts, begin = net.start(2), [], 0
        for cut in [*sorted(cuts), steps]:
            part, state = net(x[:, begin:cut], torch.full((2,), cut - begin), state)
            parts.append(part)
            begin = cut
    assert worst(torch.cat(parts, 1), whole) < 1e-5
    assert worst(state, end) < 1e-5


@pytest.mark.parametrize("name", LAYERS)
def test_company_and_padding_change_nothing(name):
    net = layer(name)
    x = torch.randn(4, 30, 12, generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([30, 11, 0, 1])
    with torch.no_grad():
        together, after = net(x, lengths, net.start(4))
        for row, length in enumerate(lengths.tolist()):
            alone, left = net(x[row : row + 1, :length], torch.tensor([length]), net.start(1))
            assert worst(together[row : row + 1, :length], alone) < 1e-5
            assert worst(type(after)(*(part[row : row + 1] for part in after)), left) < 1e-5


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_reach_every_parameter(name):
    net = layer(name)
    y, _ = net(torch.randn(3, 20, 12), torch.full((3,), 20), net.start(3))
    y.square().sum().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_what_was_said_is_remembered_beyond_the_convolution():
    for name in LAYERS:
        net = layer(name)
        x = torch.randn(1, 20, 12, generator=torch.Generator().manual_seed(3))
        other = x.clone()
        other[:, 5] += 1.0
        with torch.no_grad():
            y, _ = net(x, torch.tensor([20]), net.start(1))
            z, _ = net(other, torch.tensor([20]), net.start(1))
        changed = (y - z).abs().amax(2)[0]
        assert not changed[:5].any()
        assert changed[12] > 1e-6, name


def test_its_size_is_that_of_the_published_text_encoder():
    layers = 2 * (sum(p.numel() for p in Mamba(1024, 512).parameters()) + 1024)  # and a norm before each
    assert layers + 1024 * 7 + 7 == 3_275_783
