"""Gates: what they add up, and that a missing source is really out."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import pytest

torch = pytest.importorskip("torch")

from clser.models.layers.gating import FeatureGate, PairGate, SigmoidGates, WeightedFusion

pytestmark = pytest.mark.torch


def reached(layer, *outputs):
    sum(output.square().sum() for output in outputs).backward()
    return [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()]


def test_sigmoid_gates_by_hand():
    layer, x = SigmoidGates(4, 3, hidden=8), torch.randn(5, 3, 4)
    fused, gates = layer(x)
    for k, gate in enumerate(layer.gates):
        assert torch.allclose(gates[:, k], torch.sigmoid(gate(x.reshape(5, 12)))[:, 0])
    assert torch.allclose(fused, sum(gates[:, k, None] * x[:, k] for k in range(3)), atol=1e-6)
    assert reached(layer, fused) == []


def test_a_missing_source_changes_nothing_whatever_stands_in_its_place():
    layer, x = SigmoidGates(4, 3, hidden=8), torch.randn(5, 3, 4)
    present = torch.tensor([[True, False, True]]).expand(5, 3)
    other = x.clone()
    other[:, 1] = torch.nan
    fused, gates = layer(x, present)
    again, _ = layer(other, present)
    assert torch.equal(fused, again)
    assert not gates[:, 1].any()
    assert torch.equal(layer(x, torch.ones(5, 3, dtype=torch.bool))[0], layer(x)[0])
    assert not layer(x, torch.zeros(5, 3, dtype=torch.bool))[0].any()


def test_the_pairs_balance_by_hand():
    layer = PairGate(3, 6, 4, hidden=8).eval()
    one, two = torch.randn(5, 3), torch.randn(5, 6)
    fused, share = layer(one, two)
    p1, p2 = torch.relu(layer.first(one)), torch.relu(layer.second(two))
    expected = torch.sigmoid(layer.balance(torch.cat((one, two, p1, p2), 1)))
    assert torch.allclose(share, expected)
    assert torch.allclose(fused, share * p1 + (1 - share) * p2)
    assert reached(layer, fused) == []


def test_a_pair_of_which_one_is_missing_is_the_other():
    layer = PairGate(3, 6, 4, hidden=8).eval()
    one, two = torch.randn(3, 3), torch.randn(3, 6)
    two[0], one[1] = torch.nan, torch.nan
    fused, share = layer(one, two, torch.tensor([[True, False], [False, True], [False, False]]))
    assert torch.equal(fused[0], torch.relu(layer.first(one))[0])
    assert torch.equal(fused[1], torch.relu(layer.second(two))[1])
    assert not fused[2].any()
    assert share[:2, 0].tolist() == [1.0, 0.0]


def test_the_feature_gate_shares_one_among_the_features():
    layer, one, two = FeatureGate(3, 6, 4), torch.randn(5, 3), torch.randn(5, 6)
    fused, share = layer(one, two)
    assert torch.allclose(share.sum(1), torch.ones(5))
    h1, h2 = torch.tanh(one @ layer.first.weight.T), torch.tanh(two @ layer.second.weight.T)
    assert torch.allclose(fused, share * h1 + (1 - share) * h2)
    assert sum(p.numel() for p in layer.parameters()) == 2 * (3 + 6) * 4
    assert reached(layer, fused) == []


def test_fused_answers_begin_as_their_mean_and_can_be_weighed():
    layer, logits = WeightedFusion(3, 7), torch.randn(5, 3, 7)
    assert torch.allclose(layer(logits), logits.mean(1), atol=1e-6)
    with torch.no_grad():
        layer.score_KC.normal_()
    weight = layer.score_KC.softmax(0)
    assert torch.allclose(layer(logits), torch.einsum("kc,bkc->bc", weight, logits), atol=1e-6)
    assert reached(layer, layer(logits)) == []


def test_a_missing_models_weight_goes_to_the_others_in_proportion():
    layer, logits = WeightedFusion(3, 7), torch.randn(2, 3, 7)
    with torch.no_grad():
        layer.score_KC.normal_()
    logits[0, 1] = torch.nan
    got = layer(logits, torch.tensor([[True, False, True], [False, False, False]]))
    weight = layer.score_KC.softmax(0)[[0, 2]]
    assert torch.allclose(got[0], (weight / weight.sum(0) * logits[0, [0, 2]]).sum(0), atol=1e-6)
    assert not got[1].any()
    assert reached(layer, got) == []
