"""What every layer that streams promises: any split gives the same, rows keep to themselves, padding is not heard."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from clser.models.layers.pooling import AttentivePooling
from clser.models.layers.recurrent import Lstm
from clser.models.layers.transformer import Transformer
from clser.models.layers.xlstm import XLstm
from clser.models.tensors import leaves, like, names

pytestmark = pytest.mark.torch
WIDTH = 8
CLOSE = 1e-5


def causal(**given):
    return Transformer(WIDTH, 2, 2, 16, mode="causal", **given)


MADE = {
    "lstm": lambda: Lstm(WIDTH, 6),
    "lstm of two layers": lambda: Lstm(WIDTH, 6, 2),
    "pre-norm transformer": lambda: causal(reach=4),
    "post-norm transformer": lambda: causal(reach=3, norm="post", activation="relu"),
    "transformer of little reach": lambda: causal(reach=1, positions=False),
    "s": lambda: XLstm(WIDTH, ("s",), heads=2),
    "m": lambda: XLstm(WIDTH, ("m",), heads=2),
    "xlstm": lambda: XLstm(WIDTH, ("s", "m", "m"), heads=4),
    "pooling": lambda: AttentivePooling(WIDTH, 2),
}
every_layer = pytest.mark.parametrize("name", MADE)


def made(name, seed=0):
    """A layer with no weight at zero or one, where much would look right that is not."""
    torch.manual_seed(seed)
    net = MADE[name]().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def run(net, x, state=None, length=None):
    rows, steps = x.shape[:2]
    length = torch.full((rows,), steps) if length is None else torch.tensor(length)
    with torch.no_grad():
        return net(x, length, net.start(rows) if state is None else state)


def apart(one, other):
    return max(((a - b).abs() / (1.0 + b.abs())).max().item() for a, b in zip(leaves(one), leaves(other), strict=True))


@every_layer
@settings(max_examples=6)
@given(cuts=st.lists(st.integers(1, 22), max_size=6, unique=True).map(sorted), seed=st.integers(0, 99))
def test_streamed_equals_whole_for_any_split(name, cuts, seed):
    net = made(name)
    x = torch.randn(2, 23, WIDTH, generator=torch.Generator().manual_seed(seed))
    whole, after = run(net, x)
    state, parts = net.start(2), []
    for part in x.tensor_split(cuts, 1):
        y, state = run(net, part, state)
        parts.append(y)
    assert apart(torch.cat(parts, 1), whole) < CLOSE
    assert apart(state, after) < CLOSE


@every_layer
def test_a_row_in_a_batch_answers_as_it_does_alone_twice_over(name):
    """The second chunk starts each row at another place."""
    net, state = made(name), None
    alone = [net.start(1) for _ in range(4)]
    for lengths in ([9, 4, 0, 1], [2, 0, 9, 5]):
        x = torch.randn(4, 9, WIDTH)
        y, state = run(net, x, state, lengths)
        for row, steps in enumerate(lengths):
            if steps:
                expected, alone[row] = run(net, x[row : row + 1, :steps], alone[row])
                assert apart(y[row : row + 1, :steps], expected) < CLOSE
            assert not y[row, steps:].any()
            own = like(state, iter([leaf[row : row + 1] for leaf in leaves(state)]))
            assert apart(own, alone[row]) < CLOSE


@every_layer
def test_what_padding_holds_changes_nothing(name):
    net, x = made(name), torch.randn(2, 6, WIDTH)
    worse = x.clone()
    worse[:, 3:] = 1e30
    one, other = run(net, x, None, [3, 3]), run(net, worse, None, [3, 3])
    assert all(torch.equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


@every_layer
def test_a_chunk_of_nothing_but_padding_leaves_the_state_as_it_was(name):
    net = made(name)
    _, state = run(net, torch.randn(2, 5, WIDTH))
    y, after = run(net, torch.randn(2, 3, WIDTH), state, [0, 0])
    assert not y.any()
    assert all(torch.equal(a, b) for a, b in zip(leaves(state), leaves(after), strict=True))


@every_layer
def test_the_past_matters_and_the_future_does_not(name):
    net, x = made(name), torch.randn(1, 12, WIDTH)
    changed = x.clone()
    changed[:, 5] = torch.randn(WIDTH)
    before, after = run(net, x)[0][0], run(net, changed)[0][0]
    assert (before[:5] - after[:5]).abs().max() < CLOSE
    assert ((before[5:] - after[5:]).abs().amax(1)[:3] > 1e-6).all()


@every_layer
def test_gradients_reach_every_parameter_and_are_numbers(name):
    net = made(name).train()
    y, state = net(torch.randn(3, 9, WIDTH), torch.tensor([9, 6, 0]), net.start(3))
    y, _ = net(torch.randn(3, 5, WIDTH), torch.tensor([0, 5, 5]), state)
    (y.square() * torch.rand_like(y)).sum().backward()
    # A key's bias adds the same to all that a step compares: its gradient is zero but for rounding.
    weights = {n: p.grad for n, p in net.named_parameters() if not n.endswith("attention.key.bias")}
    assert [n for n, gradient in weights.items() if gradient is None or not gradient.any()] == []
    assert all(gradient.isfinite().all() for gradient in weights.values())


@every_layer
def test_an_exported_graph_plays_the_same_at_other_sizes(name, exported):
    net = made(name)

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, length, *state):
            y, after = self.net(x, length, like(net.start(2), iter(state)))
            return (y, *leaves(after))

    kept = list(names(net.start(2)))
    inputs, outputs = ["x", "length", *kept], ["y", *(f"next_{one}" for one in kept)]
    axes = {one: {0: "B"} for one in (*inputs, *outputs)}
    axes["x"][1] = axes["y"][1] = "T"
    traced = (torch.randn(2, 3, WIDTH), torch.tensor([3, 2]), *leaves(net.start(2)))
    play, state = exported(Flat(), traced, inputs, outputs, axes), net.start(4)
    for steps, lengths in ((5, [5, 4, 0, 1]), (1, [1, 0, 1, 1]), (9, [9, 9, 2, 5])):
        x = torch.randn(4, steps, WIDTH)
        played = play([x, torch.tensor(lengths), *leaves(state)])
        y, state = run(net, x, state, lengths)
        assert apart(played, [y, *leaves(state)]) < 1e-4
