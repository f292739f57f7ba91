"""The prosody track: right on signals whose answer is known, the same however it is cut, the same in ONNX Runtime."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from clser.models.features.prosody import FIELDS, PITCH_DELAY_MS, Prosody, ProsodyState, f0_hz
from clser.models.tensors import names

pytestmark = pytest.mark.torch

RATE_HZ, HOP = 16_000, 160
FRAMES = 60


@pytest.fixture(scope="module")
def net():
    return Prosody().eval()


def track(net, pcm):
    """The fields [T, F] of one recording."""
    frames = len(pcm) // HOP
    row = torch.as_tensor(np.asarray(pcm[: frames * HOP]), dtype=torch.float32)[None]
    with torch.no_grad():
        x_BTF, _ = net(row, torch.tensor([frames]), net.start(1))
    return x_BTF[0]


def field(x_TF, name):
    return x_TF[..., FIELDS.index(name)]


def harmonics(hz, seconds=0.6, tilt_db=6.0, first=1, level=0.1):
    """A buzz whose harmonics fall by `tilt_db` an octave; `hz` is a number or one for each sample."""
    hz = np.broadcast_to(hz, round(seconds * RATE_HZ)).astype(float)
    phase = 2 * np.pi * np.cumsum(hz) / RATE_HZ
    ranks = range(first, int(5_000 / hz.max()) + 1)
    return level * sum(10 ** (-tilt_db / 20 * np.log2(k)) * np.cos(k * phase + k * k) for k in ranks)


def pulses(hz, seconds=1.0, jitter=0.0, shimmer=0.0, seed=4):
    """Damped pulses whose distance varies by a share `jitter`, and their height by a share `shimmer`."""
    rng = np.random.default_rng(seed)
    pcm, at = np.zeros(round(seconds * RATE_HZ)), 0.0
    n = np.arange(400)
    while at < len(pcm) - 402:
        whole = int(at)
        t = (n - (at - whole)).clip(0) / RATE_HZ
        height = 0.3 * (1 + shimmer * rng.uniform(-1, 1))
        pcm[whole : whole + 400] += height * t * 3e3 * np.exp(-300 * t) * np.cos(2 * np.pi * 700 * t)
        at += RATE_HZ / hz * (1 + jitter * rng.uniform(-1, 1))
    return pcm


def speech_like(seed=0, seconds=FRAMES / 100):
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    voice = harmonics(140 + 50 * np.sin(5 * t), seconds) * (np.sin(2 * np.pi * 3.1 * t) > -0.4)
    return (voice + 0.003 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.mark.parametrize("hz", [80, 95, 120, 160, 210, 275, 330, 400])
@pytest.mark.parametrize("tilt_db", [3.0, 12.0])
def test_the_pitch_of_a_steady_voice(net, hz, tilt_db):
    f0 = f0_hz(track(net, harmonics(hz, tilt_db=tilt_db)))[15:]
    assert torch.all((f0 / hz - 1).abs() < 0.02)


@pytest.mark.parametrize("hz", [90, 180, 300])
def test_a_fundamental_too_weak_to_hear_is_no_octave_error(net, hz):
    pcm = harmonics(hz, tilt_db=2.0, first=2) + harmonics(hz, tilt_db=2.0, level=0.1 * 0.03)
    f0 = f0_hz(track(net, pcm))[15:]
    assert torch.all((f0 / hz - 1).abs() < 0.02)


def test_the_pitch_follows_a_glide_with_the_delay_it_states(net):
    t = np.arange(RATE_HZ) / RATE_HZ
    f0 = f0_hz(track(net, harmonics(120 * 2**t, seconds=1.0)))
    then = (torch.arange(100) + 1) / 100 - PITCH_DELAY_MS / 1e3
    assert torch.all((f0 / (120 * 2**then) - 1).abs()[15:] < 0.01)


def test_noise_and_silence_are_unvoiced(net):
    noise = 0.1 * np.random.default_rng(5).standard_normal(RATE_HZ)
    for pcm in (noise, np.zeros(RATE_HZ)):
        x_TF = track(net, pcm)
        assert (field(x_TF, "voicing") > 0.5).float().mean() < 0.03
        assert field(x_TF, "voicing").mean() < 0.15
        assert torch.all(f0_hz(x_TF)[field(x_TF, "voicing") <= 0.5] == 0)


def test_silence_after_speech_is_unvoiced_even_when_it_hums(net):
    hum = 1e-4 * np.sin(2 * np.pi * 100 * np.arange(RATE_HZ) / RATE_HZ)
    voicing = field(track(net, np.concatenate((harmonics(150), hum))), "voicing")
    assert torch.all(voicing[15:60] > 0.9)
    assert torch.all(voicing[70:] < 0.5)


def test_a_softer_recording_differs_in_energy_alone(net):
    pcm = 3 * speech_like(seconds=1.5)
    loud, soft = track(net, pcm), track(net, 0.1 * pcm)
    energy = FIELDS.index("energy")
    others = [n for n in range(len(FIELDS)) if n != energy]
    speech = loud[:, energy] > 0.5
    assert torch.allclose((loud - soft)[speech][:, energy], torch.tensor(1.0), atol=1e-2)
    assert torch.allclose(loud[speech][:, others], soft[speech][:, others], atol=2e-2)


def test_a_constant_in_the_samples_changes_nothing(net):
    pcm = speech_like()
    plain, shifted = track(net, pcm)[10:], track(net, pcm + 0.05)[10:]
    speech = field(plain, "energy") > 0.5
    assert torch.allclose(plain[speech], shifted[speech], atol=2e-2)


def test_rough_voices_show_in_jitter_and_shimmer(net):
    def roughness(**how):
        x_TF = track(net, pulses(130, **how))[20:95]
        return field(x_TF, "jitter").mean().item(), field(x_TF, "shimmer").mean().item()

    clean, jittery, shimmery = roughness(), roughness(jitter=0.04), roughness(shimmer=0.3)
    assert clean[0] < 0.3
    assert clean[1] < 0.3
    assert jittery[0] > 3 * clean[0] + 0.5
    assert shimmery[1] > 3 * clean[1] + 0.5


def test_harmonics_over_noise(net):
    rng = np.random.default_rng(1)
    voice = harmonics(150)
    means = [
        field(track(net, voice + share * voice.std() * rng.standard_normal(len(voice)))[15:], "hnr").mean()
        for share in (0.03, 0.3, 1.0, 3.0)
    ]
    assert means == sorted(means, reverse=True)
    assert means[0] > 2.0


def test_tilt_and_centroid_follow_the_spectrum(net):
    for tilt_db in (3.0, 6.0, 9.0, 12.0):
        tilt = field(track(net, harmonics(100, tilt_db=tilt_db))[15:], "tilt").mean()
        assert abs(10 * tilt + tilt_db) < 1.0
    centroid = field(track(net, 0.3 * np.sin(2 * np.pi * 1_500 * np.arange(RATE_HZ) / RATE_HZ))[15:], "centroid")
    assert torch.allclose(centroid, torch.tensor(1.5), atol=0.02)


def test_energy_is_in_units_of_20_db(net):
    sine = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ // 2) / RATE_HZ)
    energy = field(track(net, 0.1 * sine)[10:], "energy")  # -23 dB
    assert torch.allclose(energy, torch.tensor((50 - 23.01) / 20), atol=0.03)


@pytest.mark.parametrize("a_second", [2.5, 4.0, 6.0])
def test_the_rate_counts_syllables(net, a_second):
    t = np.arange(4 * RATE_HZ) / RATE_HZ
    pcm = harmonics(140, seconds=4.0) * (0.55 - 0.45 * np.cos(2 * np.pi * a_second * t)) ** 2
    rate = 4.0 * field(track(net, pcm), "rate")[300:]
    assert abs(rate.mean() - a_second) < 0.15 * a_second + 0.3


def test_the_rate_falls_to_nothing_in_silence(net):
    rate = field(track(net, np.concatenate((speech_like(), np.zeros(3 * RATE_HZ)))), "rate")
    assert rate[0] > 0.9
    assert rate[-1] < 0.2


@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, FRAMES - 1), max_size=8))
def test_any_split_gives_the_same(net, cuts):
    pcm = torch.from_numpy(np.stack((speech_like(1), speech_like(2))))
    with torch.no_grad():
        whole_BTF, end = net(pcm, torch.tensor([FRAMES, FRAMES]), net.start(2))
        state, parts = net.start(2), []
        edges = [0, *sorted(cuts), FRAMES]
        for first, last in itertools.pairwise(edges):
            lengths = torch.full((2,), last - first)
            part_BTF, state = net(pcm[:, first * HOP : last * HOP], lengths, state)
            parts.append(part_BTF)
    assert torch.allclose(torch.cat(parts, 1), whole_BTF, atol=1e-4)
    assert all(torch.allclose(mine, other, atol=1e-4) for mine, other in zip(state, end, strict=True))


def test_company_and_padding_make_no_difference(net):
    rows = [speech_like(seed) for seed in range(3)]
    frames = [FRAMES, 17, 0]
    padded = torch.from_numpy(np.stack(rows))
    with torch.no_grad():
        _, before = net(padded.flip(1), torch.tensor([FRAMES] * 3), net.start(3))
        x_BTF, after = net(padded, torch.tensor(frames), before)
        for row, count in enumerate(frames):
            alone = ProsodyState(*(part[row : row + 1] for part in before))
            if count:
                mine_BTF, alone = net(padded[row : row + 1, : count * HOP], torch.tensor([count]), alone)
                assert torch.allclose(mine_BTF[0], x_BTF[row, :count], atol=1e-4)
            kept = [part[row : row + 1] for part in after]
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(alone, kept, strict=True))


def test_onnx_runtime_says_the_same_of_other_rows_and_lengths(net, exported):
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, pcm_BS, frames_B, hops_BKC, past_BKC):
            x_BTF, state = self.net(pcm_BS, frames_B, ProsodyState(hops_BKC, past_BKC))
            return x_BTF, *state

    state_names = list(names(net.start(1)))
    given_names, told_names = ["pcm", "frames", *state_names], ["x", *(f"next_{name}" for name in state_names)]
    axes = {name: {0: "B"} for name in [*given_names, *told_names]}
    axes["pcm"][1], axes["x"][1] = "S", "T"
    traced = (torch.zeros(2, 4 * HOP), torch.tensor([4, 3]), *net.start(2))
    play, state = exported(Flat(), traced, given_names, told_names, axes), net.start(3)
    for step in range(3):
        pcm = torch.from_numpy(np.stack([speech_like(10 * step + row, 0.11) for row in range(3)]))
        frames = torch.tensor([11, 4, 0])
        said = play((pcm, frames, *state))
        with torch.no_grad():
            x_BTF, state = net(pcm, frames, state)
        for told, mine in zip(said, (x_BTF, *state), strict=True):
            assert torch.allclose(told, mine, atol=1e-4)


def test_the_range_of_pitch_can_be_set():
    narrow = Prosody(60.0, 350.0).eval()
    assert narrow.lags < Prosody().lags
    f0 = f0_hz(track(narrow, harmonics(220)))[15:]
    assert torch.all((f0 / 220 - 1).abs() < 0.02)


def test_strange_sound_gives_finite_numbers(net):
    clipped = np.sign(np.sin(2 * np.pi * 97 * np.arange(RATE_HZ) / RATE_HZ))
    click = np.zeros(RATE_HZ)
    click[8_000] = 1.0
    for pcm in (np.zeros(RATE_HZ), clipped, click, np.ones(RATE_HZ), 1e-6 * clipped):
        x_TF = track(net, pcm)
        assert torch.isfinite(x_TF).all()
        assert x_TF.abs().max() < 20
