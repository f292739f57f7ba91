"""DisVoice's features of a track: the same numbers as those of a recording, in company too, whatever is padded."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from disvoice_cases import HOP, cases

from clser.models.features.disvoice import NAMES, disvoice
from clser.models.features.disvoice_track import FAINT, LATE, UNIT_DB, disvoice_of
from clser.models.features.fronts import front
from clser.models.features.prosody import NEUTRAL_HZ

pytestmark = pytest.mark.torch


def track(pcm, f0_T):
    """What the front gives, had it found that pitch."""
    hops = (pcm - pcm.mean()).reshape(-1, HOP)
    power, peak = (hops**2).mean(1), np.abs(hops).max(1) ** 2
    x = np.full((len(f0_T) + LATE, 3), -120.0)  # Hz and dB
    x[:, 0] = np.concatenate((np.full(LATE, 333.0), f0_T))
    x[: len(f0_T), 1:] = 10 * np.log10(np.stack((power, peak), 1) + FAINT**2)
    return torch.tensor(x / np.array([NEUTRAL_HZ, UNIT_DB, UNIT_DB]), dtype=torch.float32)


def mended(f0_T):
    """As `disvoice.pitch` mends its own contour, so that there is nothing left to mend."""
    from clser.models.features.disvoice import _mended

    return _mended(f0_T)


@pytest.mark.parametrize("name", cases())
def test_the_numbers_are_those_of_a_recording(name):
    pcm, f0_T = cases()[name]
    wanted = disvoice(pcm, mended(f0_T))
    found = disvoice_of(track(pcm, f0_T)[None], torch.tensor([len(f0_T) + LATE]))[0].numpy()
    # Errors of a line through two or three points are differences of rounding, whose moments mean nothing.
    sure = np.array(["mse" not in each or not each.startswith(("skw", "kurt", "F0mses", "F0msek")) for each in NAMES])
    np.testing.assert_allclose(found[sure], wanted[sure], rtol=2e-3, atol=2e-3, err_msg=str(np.array(NAMES)[sure]))


def test_rows_keep_to_themselves():
    tracks = [track(*case) for case in cases().values()]
    lengths = torch.tensor([0, *(len(one) for one in tracks)])
    x = torch.full((len(tracks) + 1, int(lengths.max()) + 5, 3), 77.0)
    for row, one in zip(x[1:], tracks, strict=True):
        row[: len(one)] = one
    many = disvoice_of(x, lengths)
    assert not many[0].any()
    for row, one in zip(many[1:], tracks, strict=True):
        alone = disvoice_of(one[None], torch.tensor([len(one)]))[0]
        assert torch.allclose(row, alone, rtol=1e-3, atol=1e-3)


def test_any_contour_is_finite():
    contour = (1.0 + 0.3 * torch.randn(40, 60).cumsum(1)) * (torch.rand(40, 60) > 0.3)
    x = torch.cat((contour[..., None], torch.randn(40, 60, 2) - 2.0), 2)
    for quantised in (x, x.half().float(), x.round()):
        assert disvoice_of(quantised, torch.full((40,), 60)).isfinite().all()


@pytest.mark.parametrize("hops", [0, 1, LATE, LATE + 1, LATE + 2])
def test_hardly_any_sound_is_finite(hops):
    for value in (0.0, 150.0):
        found = disvoice_of(torch.full((2, hops, 3), value), torch.tensor([hops, 0]))
        assert found.shape == (2, len(NAMES)) and found.isfinite().all()


def test_the_front_and_the_recording_agree_on_sound():
    pcm, _ = cases()["speech"]
    made = front("disvoice_track")
    frames = len(pcm) // HOP + LATE
    sound = torch.zeros(1, frames * HOP)
    sound[0, : len(pcm)] = torch.tensor(pcm, dtype=torch.float32)
    with torch.no_grad():
        x, _ = made(sound, torch.tensor([frames]), made.start(1))
    assert x.shape == (1, frames, 3)
    found, wanted = disvoice_of(x, torch.tensor([frames]))[0].numpy(), disvoice(pcm)
    for name in ("F0avg", "F0std", "F0max", "F0tiltavg", "avgEvoiced", "avgEunvoiced", "Vrate", "avgdurvoiced", "PVU"):
        at = NAMES.index(name)
        assert found[at] == pytest.approx(wanted[at], rel=0.02, abs=0.02), name


def test_it_exports_with_any_number_of_rows_and_hops(exported):
    class Net(torch.nn.Module):
        def forward(self, x, length):
            return disvoice_of(x, length)

    pcm, f0_T = cases()["shaky"]
    x = track(pcm, f0_T)
    axes = {"x": {0: "B", 1: "S"}, "length": {0: "B"}, "told": {0: "B"}}
    play = exported(Net(), (x[None], torch.tensor([len(x)])), ["x", "length"], ["told"], axes)
    for hops in (len(x), 40, 3):
        given = x[:hops].expand(2, -1, -1).contiguous(), torch.tensor([hops, hops // 2])
        np.testing.assert_allclose(play(given)[0].numpy(), disvoice_of(*given).numpy(), rtol=1e-3, atol=1e-3)
