"""LSTM against its equations, both ways, and rows of unequal length."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import pytest

torch = pytest.importorskip("torch")

from clser.models.layers.recurrent import Lstm

pytestmark = pytest.mark.torch
CLOSE = 1e-5


def plain(lstm, x_TD):
    """One layer, one way, in doubles."""
    parts = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    w, u, b, c = (getattr(lstm, part).double() for part in parts)
    hidden = cell = torch.zeros(u.shape[1]).double()
    answers = []
    for x in x_TD.double():
        let_in, forget, value, out = (w @ x + u @ hidden + b + c).chunk(4)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(let_in) * torch.tanh(value)
        hidden = torch.sigmoid(out) * torch.tanh(cell)
        answers.append(hidden)
    return torch.stack(answers), cell


@pytest.mark.parametrize("lengths", [[9, 9], [9, 4], [0, 7]])
def test_the_equations_step_by_step(lengths):
    net, x = Lstm(5, 6), torch.randn(2, 9, 5)
    with torch.no_grad():
        y, state = net(x, torch.tensor(lengths), net.start(2))
        for row, steps in enumerate(lengths):
            if steps:
                answers, cell = plain(net.there[0], x[row, :steps])
                assert (y[row, :steps] - answers).abs().max() < CLOSE
                assert (state.hidden_BLD[row, 0] - answers[-1]).abs().max() < CLOSE
                assert (state.cell_BLD[row, 0] - cell).abs().max() < CLOSE
            assert not y[row, steps:].any()


@pytest.mark.parametrize("lengths", [[7, 7, 7], [7, 3, 0]])
def test_both_ways_each_row_from_its_own_end(lengths):
    net, x = Lstm(5, 6, bidirectional=True), torch.randn(3, 7, 5)
    assert (net.streams, net.width, net.start(3)) == ("end", 12, ())
    with torch.no_grad():
        y, state = net(x, torch.tensor(lengths), net.start(3))
        for row, steps in enumerate(lengths):
            if steps:
                there, _ = plain(net.there[0], x[row, :steps])
                back, _ = plain(net.back[0], x[row, :steps].flip(0))
                assert (y[row, :steps] - torch.cat((there, back.flip(0)), 1)).abs().max() < CLOSE
            assert not y[row, steps:].any()
    assert state == ()


def test_both_ways_gradients_reach_every_parameter():
    net = Lstm(5, 6, 2, bidirectional=True)
    net(torch.randn(3, 7, 5), torch.tensor([7, 3, 0]))[0].square().sum().backward()
    assert [name for name, p in net.named_parameters() if not p.grad.any()] == []


def test_one_that_streams_is_not_called_without_its_state():
    with pytest.raises(AssertionError, match="state"):
        Lstm(5, 6)(torch.randn(1, 2, 5), torch.tensor([2]))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_two_layers_are_torchs_own(bidirectional):
    net = Lstm(5, 6, 2, bidirectional=bidirectional)
    theirs = torch.nn.LSTM(5, 6, 2, batch_first=True, bidirectional=bidirectional)
    for layers, suffix in ((net.there, ""), (net.back, "_reverse")):
        for n, layer in enumerate(layers):
            for name, value in layer.state_dict().items():
                theirs.state_dict()[name.replace("l0", f"l{n}") + suffix].copy_(value)
    x = torch.randn(3, 7, 5)
    y, state = net(x, torch.tensor([7, 7, 7]), net.start(3))
    expected, (hidden, cell) = theirs(x)
    assert torch.allclose(y, expected, atol=CLOSE)
    if not bidirectional:
        assert torch.allclose(state.hidden_BLD, hidden.transpose(0, 1), atol=CLOSE)
        assert torch.allclose(state.cell_BLD, cell.transpose(0, 1), atol=CLOSE)


@pytest.mark.parametrize("forget", [-6.0, 0.0, 6.0])
def test_what_is_kept_is_exact_after_a_long_time(forget):
    net, x = Lstm(5, 6), torch.randn(1, 1500, 5)
    with torch.no_grad():
        net.there[0].bias_ih_l0[6:12] = forget
        _, state = net(x, torch.tensor([1400]), net.start(1))
        _, cell = plain(net.there[0], x[0, :1400])
    assert (state.cell_BLD[0, 0] - cell).abs().max() < CLOSE * (1.0 + cell.abs().max())
