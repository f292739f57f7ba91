"""Functionals against numpy in double precision, over voiced frames and over ten minutes."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clser.models.features.functionals import (
    STATISTICS,
    WINDOW_STATISTICS,
    UtteranceFunctionals,
    WindowFunctionals,
)

pytestmark = pytest.mark.torch


def by_numpy(x, weight, slope_frames):
    """The seven statistics of one column, in double precision."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    if weight.sum() == 0:
        return [0.0] * 7
    mean = np.average(x, weights=weight)
    off = x - mean
    t = np.arange(len(x)) / slope_frames
    t = t - np.average(t, weights=weight)
    second, third, fourth = (np.average(off**k, weights=weight) for k in (2, 3, 4))
    spread = (weight * t * t).sum()
    heavy = x[weight >= 0.5]
    return [
        mean,
        np.sqrt(second),
        heavy.min(),
        heavy.max(),
        (weight * t * off).sum() / spread if spread > 0 else 0.0,
        third / second**1.5 if second > 1e-6 else 0.0,
        fourth / second**2 - 3 if second > 1e-6 else 0.0,
    ]


def track(frames, seed=0):
    """A voice's log pitch, its voicing 0..1, and an energy far from zero that drifts."""
    random = np.random.default_rng(seed)
    voicing = np.clip(0.5 + 0.6 * np.sin(np.arange(frames) / 9) + 0.1 * random.standard_normal(frames), 0, 1)
    pitch = np.where(voicing >= 0.5, 5.0 + 0.2 * random.standard_normal(frames), 0.0)
    energy = -60.0 + 8 * random.standard_gamma(2.0, frames) + 0.001 * np.arange(frames)
    return np.stack((pitch, voicing, energy), 1).astype(np.float32)


def lengths(x_TD):
    return torch.tensor([len(x_TD)])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("window", "hop"), [(20, 10), (8, 3)])
def test_windows_are_as_numpy_has_them_and_frames_before_the_start_count_for_nothing(soft, window, hop):
    x_TD = track(20 * hop)
    layer = WindowFunctionals(3, window, hop, {0: 1}, soft)
    y = layer(torch.from_numpy(x_TD)[None], lengths(x_TD), layer.start(1))[0][0].numpy().reshape(20, 5, 3)
    assert layer.width == 15
    for j in range(20):
        frames = x_TD[max(0, (j + 1) * hop - window) : (j + 1) * hop]
        voiced = frames[:, 1] if soft else (frames[:, 1] >= 0.5)
        for column in range(3):
            weight = voiced if column == 0 else np.ones(len(frames))
            if column == 0 and not (weight >= 0.5).any():
                assert not y[j, 2:4, column].any()
                continue
            expected = by_numpy(frames[:, column], weight, window)[: len(WINDOW_STATISTICS)]
            np.testing.assert_allclose(y[j, :, column], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("soft", [False, True])
def test_an_utterances_statistics_after_any_frame_are_as_numpy_has_them(soft):
    x_TD = track(300)
    layer = UtteranceFunctionals(3, {0: 1}, flags=(1,), soft=soft)
    y_TF = layer(torch.from_numpy(x_TD)[None], lengths(x_TD), layer.start(1))[0][0].numpy()
    assert y_TF.shape == (300, layer.width) == (300, 22)
    for n in (1, 2, 3, 50, 300):
        voiced = x_TD[:n, 1] if soft else (x_TD[:n, 1] >= 0.5)
        for column in range(3):
            weight = voiced if column == 0 else np.ones(n)
            expected = by_numpy(x_TD[:n, column], weight, 100.0)
            found = y_TF[n - 1, : 3 * len(STATISTICS)].reshape(-1, 3)[:, column]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert y_TF[n - 1, -1] == pytest.approx((x_TD[:n, 1] >= 0.5).mean())


def test_ten_minutes_in_small_parts_lose_no_digits_that_matter():
    x_TD = track(60_000)
    layer = UtteranceFunctionals(3, {0: 1}, flags=(1,))
    state = layer.start(1)
    for part in torch.from_numpy(x_TD)[None].split(100, 1):
        y, state = layer(part, torch.tensor([100]), state)
    found = y[0, -1, :21].reshape(7, 3).numpy()
    for column in range(3):
        weight = x_TD[:, 1] >= 0.5 if column == 0 else np.ones(60_000)
        np.testing.assert_allclose(found[:, column], by_numpy(x_TD[:, column], weight, 100.0), rtol=1e-3, atol=1e-4)
    whole = layer(torch.from_numpy(x_TD)[None], lengths(x_TD), layer.start(1))[0][0, -1]
    assert torch.allclose(whole, y[0, -1], atol=1e-4, rtol=1e-4)


def test_what_never_was_voiced_has_no_statistics_and_a_constant_no_shape():
    x_TD = np.stack((np.full(40, 7.0), np.zeros(40), np.full(40, -0.1)), 1).astype(np.float32)
    for layer in (WindowFunctionals(3, 20, 10, {0: 1}), UtteranceFunctionals(3, {0: 1})):
        y = layer(torch.from_numpy(x_TD)[None], lengths(x_TD), layer.start(1))[0][0, -1]
        y = y.reshape(-1, 3)
        assert not y[:, 0].any()
        assert y[0, 2] == pytest.approx(-0.1)
        assert y[2:4, 2].tolist() == pytest.approx([-0.1, -0.1])
        assert y[1, 2] == pytest.approx(0.0, abs=1e-6)
        assert y[4:, 2].abs().max() < 1e-4


def test_a_flag_that_is_on_in_a_third_of_the_frames():
    x_TD = torch.zeros(30, 2)
    x_TD[::3, 1] = 1.0
    layer = UtteranceFunctionals(2, flags=(1,))
    y = layer(x_TD[None], torch.tensor([30]), layer.start(1))[0][0]
    assert y[[0, 1, 29], -1].tolist() == pytest.approx([1.0, 0.5, 1 / 3])


@pytest.mark.parametrize("layer", [WindowFunctionals(2, 10, 5, {0: 1}), UtteranceFunctionals(2, {0: 1})])
def test_gradients_are_finite_even_where_nothing_varies(layer):
    x_BTD = torch.zeros(1, 20, 2)
    x_BTD[:, 10:] = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    x_BTD.requires_grad_()
    layer(x_BTD, torch.tensor([20]), layer.start(1))[0].square().sum().backward()
    assert x_BTD.grad.isfinite().all()
    assert x_BTD.grad.any()
