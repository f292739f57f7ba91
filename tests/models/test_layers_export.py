"""Layers that answer at the end only: an exported graph plays the same at other sizes than the traced ones."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import pytest

torch = pytest.importorskip("torch")


from clser.models.layers.attention import AdditiveAttention, CrossAttention
from clser.models.layers.gating import PairGate, SigmoidGates, WeightedFusion
from clser.models.layers.recurrent import Lstm
from clser.models.layers.transformer import Transformer
from clser.models.losses import AmSoftmax
from clser.models.tensors import Sequences

pytestmark = pytest.mark.torch


def present(rows, sources):
    return torch.arange(rows * sources).reshape(rows, sources) % 3 > 0


def sequence(rows, steps):
    return torch.randn(rows, steps, 8), (torch.arange(rows) * steps) // max(1, rows - 1)


class Cross(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = CrossAttention(8, 2, 16)

    def forward(self, *given):
        return self.layer(Sequences(*given[:2]), Sequences(*given[2:])).x_BTD


class First(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *given):
        return self.layer(*given)[0]


MADE = {
    "both ways": (lambda: First(Lstm(8, 6, 2, bidirectional=True)), sequence),
    "transformer": (lambda: First(Transformer(8, 2, 2, 16)), sequence),
    "cross-attention": (Cross, lambda rows, steps: (*sequence(rows, steps), *sequence(rows, steps + 2))),
    "additive attention": (lambda: AdditiveAttention(8, 4), sequence),
    "gates": (lambda: First(SigmoidGates(8, 3)), lambda rows, _: (torch.randn(rows, 3, 8), present(rows, 3))),
    "pair": (
        lambda: First(PairGate(8, 5, 6, 7)),
        lambda rows, _: (torch.randn(rows, 8), torch.randn(rows, 5), present(rows, 2)),
    ),
    "fusion": (lambda: WeightedFusion(3, 7), lambda rows, _: (torch.randn(rows, 3, 7), present(rows, 3))),
    "additive margin": (lambda: AmSoftmax(8, 5), lambda rows, _: (torch.randn(rows, 8),)),
}


@pytest.mark.parametrize("name", MADE)
def test_an_exported_graph_plays_the_same_at_other_sizes(name, exported):
    make, arguments = MADE[name]
    net, given = make().eval(), arguments(2, 3)
    inputs = [f"given_{n}" for n in range(len(given))]
    axes = {one: {0: "B", 1: f"T{one}"} if x.dim() == 3 else {0: "B"} for one, x in zip(inputs, given, strict=True)}
    if name in ("gates", "fusion"):
        axes["given_0"] = {0: "B"}
    play = exported(net, given, inputs, None, axes)
    for rows, steps in ((4, 7), (1, 2), (3, 1)):
        given = arguments(rows, steps)
        (played,) = play(given)
        with torch.no_grad():
            assert (played - net(*given)).abs().max() < 1e-4
