"""The voice network: streamed equals whole, rows keep to themselves, and it learns."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import pytest

torch = pytest.importorskip("torch")

from clser.models.features.constants import FRAME_SAMPLES
from clser.models.features.logmel import BANDS, FEATURES, LogMel, mel_matrix
from clser.models.labels import HEADS
from clser.models.layers.pooling import AttentivePooling, PoolingState
from clser.models.live import live
from clser.models.tensors import Sequences
from clser.models.zoo.voice_gru import Config, VoiceGru

pytestmark = pytest.mark.torch
CLOSE = 1e-4
SMALL = Config(channels=32, queries=2, hidden=16)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return live(VoiceGru(SMALL)).eval()


def sound(rows, frames, seed=0):
    return 0.1 * torch.randn(rows, frames * FRAME_SAMPLES, generator=torch.Generator().manual_seed(seed))


def start(net, rows):
    return [torch.zeros(rows, *shape) for shape in net.shapes()]


def whole(net, pcm_BS):
    frames = pcm_BS.shape[1] // FRAME_SAMPLES
    with torch.no_grad():
        logits, *state = net(pcm_BS, torch.full((len(pcm_BS),), frames), *start(net, len(pcm_BS)))
    return logits, state


@pytest.mark.parametrize("seed", range(5))
def test_streamed_equals_whole_for_any_split(net, seed):
    frames = 23
    pcm_BS = sound(2, frames, seed)
    logits, state = whole(net, pcm_BS)
    cuts = torch.randperm(frames - 1, generator=torch.Generator().manual_seed(seed))[:6].sort().values + 1
    carried, parts = start(net, 2), []
    with torch.no_grad():
        for part_BS in pcm_BS.split(torch.tensor([0, *cuts, frames]).diff().mul(FRAME_SAMPLES).tolist(), 1):
            answer, *carried = net(part_BS, torch.full((2,), part_BS.shape[1] // FRAME_SAMPLES), *carried)
            parts.append(answer)
    assert (torch.cat(parts, 1) - logits).abs().max() < CLOSE
    assert all(torch.allclose(a, b, atol=CLOSE, rtol=CLOSE) for a, b in zip(carried, state, strict=True))


def test_a_row_in_a_batch_answers_as_it_does_alone_however_long_the_others_are(net):
    pcm_BS = sound(4, 9)
    frames_B = torch.tensor([9, 4, 0, 1])
    with torch.no_grad():
        logits, *state = net(pcm_BS, frames_B, *start(net, 4))
    for row, frames in enumerate(frames_B.tolist()):
        if frames == 0:
            assert all(not tensor[row].any() for tensor in state)
            continue
        alone, state_alone = whole(net, pcm_BS[row : row + 1, : frames * FRAME_SAMPLES])
        assert (logits[row, :frames] - alone[0]).abs().max() < CLOSE
        assert all(
            torch.allclose(a[row], b[0], atol=CLOSE, rtol=CLOSE) for a, b in zip(state, state_alone, strict=True)
        )


def test_what_padding_holds_changes_nothing(net):
    pcm_BS = sound(2, 6)
    louder_BS = pcm_BS.clone()
    louder_BS[:, 3 * FRAME_SAMPLES :] = 1.0
    with torch.no_grad():
        _, *state = net(pcm_BS, torch.tensor([3, 3]), *start(net, 2))
        _, *other = net(louder_BS, torch.tensor([3, 3]), *start(net, 2))
    assert all(torch.equal(a, b) for a, b in zip(state, other, strict=True))


def test_the_past_matters_and_the_future_does_not(net):
    pcm_BS = sound(1, 12)
    changed_BS = pcm_BS.clone()
    changed_BS[:, 5 * FRAME_SAMPLES : 6 * FRAME_SAMPLES] *= -3.0
    before, after = whole(net, pcm_BS)[0][0], whole(net, changed_BS)[0][0]
    assert (before[:5] - after[:5]).abs().max() < CLOSE
    assert ((before[5:] - after[5:]).abs().amax(1) > 1e-6).all()


@torch.no_grad()
def test_answers_that_are_asked_for_are_those_of_their_frames(net):
    given = {"logmel": Sequences(torch.randn(3, 20, FEATURES), torch.tensor([20, 12, 5]))}
    every, after = net.system(given, net.system.start(3))
    at_BK = torch.tensor([[19, 3], [11, 0], [4, 4]])
    asked, same = net.system(given, net.system.start(3), at_BK)
    assert torch.allclose(asked, every[torch.arange(3)[:, None], at_BK], atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(after, same, strict=True))


def test_a_microphones_gain_fades_from_the_bands(net):
    """Four times louder is 2.8 in log power: the running mean takes nearly all of it away within six seconds."""
    soft_BS, frames_B, logmel = sound(1, 150), torch.tensor([150]), LogMel()
    starts = net.system.start(1)
    sounds = (logmel(pcm_BS, frames_B, logmel.start(1))[0] for pcm_BS in (soft_BS, 4 * soft_BS))
    soft, loud = (net.system._normalise(features, starts)[0][0, :, : 4 * BANDS] for features in sounds)
    difference = (loud - soft).mean(1)
    assert difference[-1] < 0.15 * difference[0]


def test_the_prior_mean_is_that_of_speech():
    net, features = VoiceGru(SMALL), torch.full((2, 10, FEATURES), -11.0)
    features[0, :4] = -3.0
    features[1, 2:] = 5.0  # padding
    net.fit_inputs({"logmel": Sequences(features, torch.tensor([10, 2]))})
    assert net.prior_M.tolist() == [-3.0] * BANDS


def test_weights_of_version_1_are_read(net):
    weights = net.system.state_dict()
    old = {name.replace("classes.", "heads."): tensor for name, tensor in weights.items()}
    other = VoiceGru(SMALL)
    other.load_state_dict(old)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in weights.items())


def test_gradients_reach_every_parameter(net):
    logits, *_ = net(sound(2, 8), torch.tensor([8, 8]), *start(net, 2))
    logits.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_tiny_batch_is_learnt():
    torch.manual_seed(0)
    net = VoiceGru(Config(channels=32, queries=2, hidden=16, drop=0.0))
    features = torch.randn(6, 20, FEATURES, generator=torch.Generator().manual_seed(1))
    given, last_B1 = {"logmel": Sequences(features, torch.full((6,), 20))}, torch.full((6, 1), 19)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(60):
        logits, _ = net(given, net.start(6), last_B1)
        loss = torch.nn.functional.cross_entropy(logits[:, 0], torch.arange(6))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05
    assert logits.shape == (6, 1, len(HEADS))


def test_mel_bands_agree_with_a_transform_of_the_usual_kind():
    logmel, pcm_BS = LogMel(), sound(1, 6)
    features, _ = logmel(pcm_BS, torch.tensor([6]), logmel.start(1))
    padded = torch.nn.functional.pad(pcm_BS[0], (240, 0)).unfold(0, 400, 160) * logmel.power.window_W
    expected = torch.log(torch.fft.rfft(padded).abs().square() @ mel_matrix() + 1e-5)
    assert torch.allclose(features[0, :, : 4 * BANDS].reshape(-1, BANDS), expected, atol=CLOSE)


@pytest.mark.parametrize("pitch_hz", [90.0, 150.0, 220.0, 400.0])
def test_the_correlogram_peaks_at_the_pitch(pitch_hz):
    logmel = LogMel()
    seconds = torch.arange(10 * FRAME_SAMPLES) / 16_000
    voice = sum(torch.sin(2 * torch.pi * pitch_hz * k * seconds) / k for k in range(1, 12))
    features, _ = logmel(0.1 * voice[None], torch.tensor([10]), logmel.start(1))
    lags = features[0, -1, 4 * BANDS :]
    found_hz = 60.0 * (500.0 / 60.0) ** (lags.argmax().item() / (len(lags) - 1))
    assert found_hz == pytest.approx(pitch_hz, rel=0.05)


def test_pooling_by_hand():
    """Equal weights: mean and deviation of 1 and 3 are 2 and 1."""
    pooling = AttentivePooling(1, 1)
    with torch.no_grad():
        pooling.score.weight.zero_()
        sums = pooling.sums(torch.tensor([[[1.0], [3.0]]]), pooling.start(1))
        read = pooling.read(PoolingState(*sums))
    assert read[0, 1].tolist() == pytest.approx([2.0, 1.001**0.5], abs=1e-5)
