"""Losses against slow ones in plain Python, and against one another where they must agree."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import math

import pytest

torch = pytest.importorskip("torch")

from clser.models import losses

pytestmark = pytest.mark.torch
ABSENT = -1e9


def softmax(row):
    top = max(row)
    powers = [math.exp(x - top) for x in row]
    return [power / sum(powers) for power in powers]


def test_weighted_cross_entropy_is_torchs_own():
    logits, true, weight = torch.randn(7, 5), torch.randint(5, (7,)), torch.rand(5) + 0.1
    expected = torch.nn.functional.cross_entropy(logits, true, weight)
    assert losses.cross_entropy(logits, true, weight_C=weight) == pytest.approx(expected.item(), rel=1e-5)


def test_soft_labels_by_hand():
    logits, target, weight = torch.randn(4, 3), torch.rand(4, 3).softmax(1), torch.tensor([1.0, 2.0, 0.5])
    total = share = 0.0
    for row, wanted in zip(logits.tolist(), target.tolist(), strict=True):
        for p, y, w in zip(softmax(row), wanted, weight.tolist(), strict=True):
            total -= w * y * math.log(p)
            share += w * y
    assert losses.cross_entropy(logits, target, weight_C=weight).item() == pytest.approx(total / share, rel=1e-5)


def test_soft_labels_that_are_certain_are_hard_labels():
    logits, true = torch.randn(6, 4), torch.randint(4, (6,))
    soft = torch.nn.functional.one_hot(true, 4).float()
    for loss in (losses.cross_entropy, losses.focal, losses.AmSoftmax(4, 4).loss):
        assert torch.allclose(loss(logits, soft), loss(logits, true))


def test_smoothing_spreads_over_the_classes_that_are_there():
    mask = torch.tensor([[0.0, 0.0, ABSENT, 0.0]])
    spread = losses.as_distribution(torch.tensor([1]), 4, 0.3, mask)
    assert spread[0].tolist() == pytest.approx([0.1, 0.8, 0.0, 0.1])
    assert losses.as_distribution(torch.tensor([1]), 4, 0.4)[0].tolist() == pytest.approx([0.1, 0.7, 0.1, 0.1])


@pytest.mark.parametrize("ruled_out", [ABSENT, -torch.inf])
@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_an_absent_class_is_as_if_it_did_not_exist(name, ruled_out):
    loss = getattr(losses, name)
    logits, true = torch.randn(5, 4, requires_grad=True), torch.tensor([0, 1, 0, 1, 1])
    mask = torch.zeros(5, 4)
    mask[:, 3] = ruled_out
    got = loss(logits, true, mask_BC=mask, smoothing=0.1)
    assert got.item() == pytest.approx(loss(logits[:, :3], true, smoothing=0.1).item(), rel=1e-5)
    got.backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[:, 3].any()
    assert logits.grad[:, :3].all()


def test_rows_may_lack_different_classes():
    logits, true = torch.randn(2, 4), torch.tensor([0, 3])
    mask = torch.tensor([[0.0, 0.0, ABSENT, ABSENT], [ABSENT, 0.0, 0.0, 0.0]])
    one = losses.cross_entropy(logits[:1, :2], torch.tensor([0]))
    two = losses.cross_entropy(logits[1:, 1:], torch.tensor([2]))
    assert torch.allclose(losses.cross_entropy(logits, true, mask_BC=mask), (one + two) / 2)


def test_focal_without_focus_is_cross_entropy():
    logits, true = torch.randn(8, 5), torch.randint(5, (8,))
    assert torch.allclose(losses.focal(logits, true, gamma=0.0), losses.cross_entropy(logits, true))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_by_hand(gamma):
    logits, true, alpha = torch.randn(6, 3), torch.randint(3, (6,)), torch.tensor([4.0, 1.0, 1.0])
    total = 0.0
    for row, label in zip(logits.tolist(), true.tolist(), strict=True):
        p = softmax(row)[label]
        total -= alpha[label].item() / 2.0 * (1 - p) ** gamma * math.log(p)
    assert losses.focal(logits, true, gamma=gamma, alpha_C=alpha).item() == pytest.approx(total / 6, rel=1e-5)
    assert torch.allclose(losses.focal(logits, true, alpha_C=alpha), losses.focal(logits, true, alpha_C=1e-4 * alpha))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_is_calm_where_the_answer_is_certain(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    loss = losses.focal(logits, torch.tensor([0, 0]), gamma=gamma)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_class_weights_are_one_on_average_and_even_the_classes_out():
    weight = losses.inverse_frequency(torch.tensor([10, 30, 0, 60]))
    assert weight[[0, 1, 3]].mean().item() == pytest.approx(1.0)
    assert weight[2] == 1.0
    assert (weight * torch.tensor([10, 30, 0, 60]))[[0, 1, 3]].tolist() == pytest.approx([20.0] * 3)


def test_additive_margin_without_a_margin_is_cross_entropy_of_scaled_cosines():
    head, x, true = losses.AmSoftmax(6, 4, margin=0.0), torch.randn(5, 6), torch.randint(4, (5,))
    cosine = torch.nn.functional.cosine_similarity(x[:, None], head.weight_CD[None], dim=-1)
    assert torch.allclose(head(x), 30.0 * cosine, atol=1e-4)
    assert torch.allclose(head.loss(x, true), losses.cross_entropy(30.0 * cosine, true), atol=1e-5)


def test_additive_margin_by_hand():
    head, x, true = losses.AmSoftmax(6, 4), torch.randn(5, 6), torch.randint(4, (5,))
    total = 0.0
    for cosines, label in zip((head(x) / 30.0).tolist(), true.tolist(), strict=True):
        won = math.exp(30.0 * (cosines[label] - 0.35))
        total -= math.log(won / (won + sum(math.exp(30.0 * c) for j, c in enumerate(cosines) if j != label)))
    assert head.loss(x, true).item() == pytest.approx(total / 5, rel=1e-4)
    head.loss(x, true).backward()
    assert head.weight_CD.grad.any()


def contrast_by_hand(x, label, group, temperature):
    x = torch.nn.functional.normalize(x, dim=1).tolist()
    near = [[sum(p * q for p, q in zip(a, b, strict=True)) / temperature for b in x] for a in x]
    kept = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i and (group is None or group[j] != group[i])]
        alike = [j for j in others if label[j] == label[i]]
        if alike:
            below = sum(math.exp(near[i][a]) for a in others)
            kept.append(-sum(math.log(math.exp(near[i][p]) / below) for p in alike) / len(alike))
    return sum(kept) / len(kept)


@pytest.mark.parametrize("grouped", [False, True])
def test_supervised_contrast_by_hand(grouped):
    x, label = torch.randn(8, 5), torch.tensor([0, 1, 0, 2, 1, 1, 3, 0])  # 2 and 3 have nobody alike
    group = torch.tensor([0, 0, 1, 1, 0, 1, 0, 0]) if grouped else None
    expected = contrast_by_hand(x, label.tolist(), None if group is None else group.tolist(), 0.2)
    got = losses.supervised_contrast(x, label, group_B=group, temperature=0.2)
    assert got.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("group", [None, torch.zeros(3, dtype=torch.long)])
def test_contrast_without_any_positive_is_zero_and_has_a_gradient(group):
    x = torch.randn(3, 4, requires_grad=True)
    loss = losses.supervised_contrast(x, torch.arange(3), group_B=group)
    loss.backward()
    assert loss == 0.0
    assert x.grad.isfinite().all()


def test_contrast_of_one_row_is_zero():
    assert losses.supervised_contrast(torch.randn(1, 4), torch.tensor([0])) == 0.0
