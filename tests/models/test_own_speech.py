"""A voice of ours in a pretrained encoder's place."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clser.models import saved, systems  # noqa: E402
from clser.models.data import front_features  # noqa: E402
from clser.models.encoders.hub_frames import HUB_SAMPLES, hub_width, taken_apart  # noqa: E402
from clser.models.encoders.pretrained_speech import open_frames  # noqa: E402
from clser.models.errors import GivenError, MissingError  # noqa: E402
from clser.models.live import live  # noqa: E402
from clser.models.saved import Trained  # noqa: E402

pytestmark = pytest.mark.torch
SHIPPED = "hub:clser/voice_licensed"
HEADS = ("anger", "happiness", "neutral", "sadness")


def sound(rows: int, samples: int) -> "torch.Tensor":
    return torch.from_numpy(np.random.default_rng(0).normal(0.0, 0.05, (rows, samples)).astype(np.float32))


def test_frames_of_20_ms_do_not_depend_on_the_company() -> None:
    encoder, pcm_BS = open_frames(SHIPPED), sound(2, 24_000)
    together = encoder(pcm_BS, torch.tensor([24_000, 15_000]))
    alone = encoder(pcm_BS[1:, :15_000], torch.tensor([15_000]))
    assert together.length_B.tolist() == [72, 44]
    assert encoder.width == together.x_BTD.shape[2] == hub_width(SHIPPED) == 128
    torch.testing.assert_close(together.x_BTD[1, :44], alone.x_BTD[0], atol=1e-5, rtol=0)
    assert not together.x_BTD[1, 44:].any()


def test_layers_stand_side_by_side() -> None:
    pcm_BS, samples_B = sound(1, 16_000), torch.tensor([16_000])
    both = open_frames(f"{SHIPPED}@1,2")(pcm_BS, samples_B).x_BTD
    one = open_frames(f"{SHIPPED}@1")(pcm_BS, samples_B).x_BTD
    assert both.shape[2] == hub_width(f"{SHIPPED}@1,2") == 256
    torch.testing.assert_close(both[..., :128], one)
    torch.testing.assert_close(both[..., 128:], open_frames(SHIPPED)(pcm_BS, samples_B).x_BTD)


def test_too_little_sound_has_no_frame() -> None:
    told = open_frames(SHIPPED)(sound(1, 900), torch.tensor([900]))
    assert told.length_B.tolist() == [0]


def test_wrong_names() -> None:
    with pytest.raises(MissingError, match="no such voice is shipped"):
        open_frames("hub:clser/nobody")
    with pytest.raises(GivenError, match="numbers of layers"):
        taken_apart("hub:somebody/hubert@one")
    with pytest.raises(GivenError, match="layers must be"):
        open_frames(f"{SHIPPED}@1,9")


def test_a_system_without_frames_is_refused(tmp_path: Path) -> None:
    system = systems.build("acmf_net", {"speech": "none"}, HEADS)
    saved.save(tmp_path, system, Trained("acmf_net", {"speech": "none"}, HEADS))
    with pytest.raises(GivenError, match="gives no frames"):
        open_frames(f"hub:{tmp_path}")


def test_another_system_stands_on_it_trained_and_live() -> None:
    """The frames of the cache are those that it hears live, and drawing its weights is not disturbed by asking how wide."""
    torch.manual_seed(0)
    asked = systems.build("acmf_net", {"speech": SHIPPED, "mfcc": "none", "prosody": "none"}, HEADS)
    torch.manual_seed(0)
    told = systems.build("acmf_net", {"speech": SHIPPED, "mfcc": "none", "prosody": "none", "speech_width": 128}, HEADS)
    assert all(torch.equal(a, b) for a, b in zip(asked.parameters(), told.parameters(), strict=True))
    pcm_BS = sound(1, 32_000)
    kept = front_features.compute_of(SHIPPED)(pcm_BS[0].numpy())
    assert front_features.samples_of(SHIPPED) == HUB_SAMPLES
    heard = live(asked.eval()).hear(pcm_BS, torch.tensor([10]))[SHIPPED]
    np.testing.assert_allclose(heard.x_BTD[0].numpy(), kept, atol=1e-5)


def test_other_weights_are_another_front_in_the_cache(tmp_path: Path) -> None:
    keys = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        saved.save(tmp_path, systems.build("voice", {"width": 32}, HEADS), Trained("voice", {"width": 32}, HEADS))
        keys.add(front_features.key_of(f"hub:{tmp_path}"))
    assert len(keys) == 2
