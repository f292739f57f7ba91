"""The resonance field of SERE: every equation by hand, whatever its parts, and what has no frames."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import math

import pytest

torch = pytest.importorskip("torch")

from clser.models.layers.resonance import (
    Voices,
    aligned,
    irf,
    partners,
    prototypes,
    pulled,
    resonance,
    standard,
    strengths,
)

pytestmark = pytest.mark.torch


def voices(lengths, width=5, seed=0):
    random, steps = torch.Generator().manual_seed(seed), max(lengths)
    z, b = (torch.randn(len(lengths), steps, *more, generator=random) for more in ((width,), ()))
    for row, count in enumerate(lengths):
        z[row, count:], b[row, count:] = 9.0, 9.0
    return Voices(z, b, torch.tensor(lengths))


def by_hand(s, t, tau):
    """Equations 4 to 6, one pair, number by number."""
    field = [
        [
            float(torch.cosine_similarity(a, b, dim=0)) * math.exp(-abs(float(p - q)) / tau)
            for b, q in zip(*t, strict=True)
        ]
        for a, p in zip(*s, strict=True)
    ]
    at = [max(range(len(row)), key=row.__getitem__) for row in field]
    return torch.stack([t[0][j] for j in at]).mean(0), sum(row[j] for row, j in zip(field, at, strict=True)) / len(
        field
    )


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_the_field_is_what_the_equations_say_whatever_its_parts(tau):
    s, t = voices([4, 2, 3]), voices([3, 5, 1, 2], seed=1)
    whole = irf(s, t, tau)
    for most in (1, 30, 1 << 20):
        assert torch.allclose(irf(s, t, tau, most=most), whole, atol=1e-6)
    for n, own in enumerate(s.length_N):
        for m, other in enumerate(t.length_N):
            one, two = (s.z_NSD[n, :own], s.b_NS[n, :own]), (t.z_NSD[m, :other], t.b_NS[m, :other])
            r, value = by_hand(one, two, tau)
            assert float(whole[n, m]) == pytest.approx(value, abs=1e-5)
            told, again = resonance(s.of(torch.tensor([n])), t.of(torch.tensor([m])), tau)
            assert torch.allclose(told[0], r, atol=1e-5) and float(again) == pytest.approx(value, abs=1e-5)
    a, best = partners(s, t, tau)
    assert torch.equal(a, whole.argmax(1)) and torch.equal(best, whole.amax(1))
    half = irf(s, t, tau, half=True)
    assert torch.allclose(half, whole, atol=2e-3)


def test_what_has_no_frames_resonates_with_nothing():
    s, t = voices([3, 0]), voices([2, 0], seed=1)
    assert (irf(s, t)[1] == -1.0).all() and (irf(s, t)[:, 1] == -1.0).all() and irf(s, t)[0, 0] > -1.0
    r, value = resonance(s, t)
    assert r[0].any() and not r[1].any() and float(value[1]) == -1.0
    assert irf(s.of(torch.tensor([], dtype=torch.long)), t).shape == (0, 2)


def test_straight_slopes_change_no_value_and_reach_the_strengths():
    s, t = voices([3, 2]), voices([4, 3], seed=1)
    t = t._replace(b_NS=t.b_NS.requires_grad_())
    hard, _ = resonance(s, t)
    soft, _ = resonance(s, t, straight=0.1)
    assert torch.allclose(hard, soft, atol=1e-6)
    soft.square().sum().backward()
    assert t.b_NS.grad.any()


def test_strengths_and_their_scores():
    b = strengths(torch.tensor([[[1.0, -2.0, 0.0, 4.0]]]), torch.tensor([1.0, 0.5, 3.0, 0.25]))
    assert float(b) == pytest.approx(3.0)
    plain = standard(torch.tensor([[1.0, 3.0, 99.0], [5.0, 99.0, 99.0]]), torch.tensor([2, 1]))
    spread = math.sqrt(8 / 3)
    assert torch.allclose(plain, torch.tensor([[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]) / spread)


def test_prototypes_and_the_losses():
    e, label = torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1])
    u, partner = torch.tensor([[2.0, 2.0], [6.0, 2.0]]), torch.tensor([0, 1])
    p = prototypes(e, label, u, partner, classes=3)
    # (0 + (2 + 0) / 2) / 2 and (4 + (6 + 4) / 2) / 2; nobody is of the third class
    assert torch.allclose(p, torch.tensor([[0.5, 0.5], [4.5, 0.5], [0.0, 0.0]]))
    assert torch.allclose(prototypes(e, label, u, partner, classes=2, share=0.0)[0], torch.tensor([1.0, 1.0]))
    r = torch.tensor([[0.5, 0.5]])
    far = torch.tensor([0.0, 4.0])
    told = pulled(r, p[:2], torch.tensor([1]))
    assert float(told) == pytest.approx(float(-(-far).log_softmax(0)[1]), abs=1e-3)
    assert float(pulled(r, p[:2], torch.tensor([1]), squared=True)) == pytest.approx(16.0, abs=1e-3)
    assert float(aligned(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))) == pytest.approx(1.0)
    assert float(pulled(r[:0], p, label[:0])) == float(aligned(r[:0], r[:0])) == 0.0
