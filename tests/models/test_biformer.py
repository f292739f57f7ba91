"""BiFormer: the published counts, both modes, every part, missing voices and words, company, streaming."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from trials import TEXTS, exports_alike, learns, names_the, row_alone, voice_and_words

from clser.models.errors import GivenError
from clser.models.layers.crossing import CrossLayer, stretched
from clser.models.systems import WORDS, build
from clser.models.tensors import Sequences, leaves

pytestmark = pytest.mark.torch

HEADS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SMALL = {
    "width": 16, "words_width": 16, "words_inner": 16, "attention_heads": 4, "layers": 2, "steps": 9, "hidden": 16,
    "buckets": 256, "numbers": 8,
}  # fmt: skip
HUB = {"speech": "hub:some/voice", "speech_width": 1024, "words": "hub:some/words", "words_width": 1024}
MODES = ("paper", "as_released")
PARTS = ("both", "voice", "words", "wpf")


def small(**changed):
    return build("biformer", {**SMALL, **changed}, HEADS).eval()


def count(module, without="missing"):
    return sum(p.numel() for name, p in module.named_parameters() if without not in name)


def test_the_papers_parameters():
    """Pretrained features of 1024 numbers, seven classes. The encoders with their own last layer; the fusion alone,
    behind the encoders, without our two vectors for a missing voice and missing words."""
    assert count(build("biformer", {**HUB, "part": "voice", "mode": "as_released"}, HEADS)) == 791_559
    for mode in MODES:
        assert count(build("biformer", {**HUB, "part": "words", "mode": mode}, HEADS)) == 3_275_783
        both = build("biformer", {**HUB, "mode": mode}, HEADS)
        assert count(both.fusions["biformer"]) == 4_403_463
        assert count(both.fusions["biformer"], "nothing") == 4_403_463 + 2 * 256
    # the paper gives no true state space's count: this is what ours comes to
    assert count(build("biformer", {**HUB, "part": "voice"}, HEADS)) == 702_471
    weighed = build("biformer", {**HUB, "part": "wpf"}, HEADS)
    assert weighed.weights.score_KC.shape == (3, 7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", PARTS)
def test_every_part_ragged_in_company_and_alone(part, mode):
    net = small(part=part, mode=mode)
    lengths = [7, 3, 1, 12, 5]
    made = voice_and_words(lengths * 13, TEXTS * 13)
    with torch.no_grad():
        many, _ = net(made, net.start(65))
        assert many.shape == (65, 12 if net.streams == "exactly" else 1, 7) and many.isfinite().all()
        for row in range(5):
            one, _ = net(row_alone(made, TEXTS * 13, row), net.start(1))
            last = lengths[row] - 1 if net.streams == "exactly" else 0
            assert torch.allclose(one[0, -1], many[row, last], atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", ["both", "wpf"])
def test_rows_with_both_with_one_and_with_none_stand_in_one_batch(part, mode):
    net = small(part=part, mode=mode)
    texts = [TEXTS[0], "", TEXTS[0], ""]
    made = voice_and_words([6, 6, 6, 6], texts)
    for name in ("logmel", "prosody"):
        x, length = made[name]
        made[name] = Sequences(x, length * torch.tensor([1, 1, 0, 0]))
    with torch.no_grad():
        said, _ = net(made, ())
        assert said.isfinite().all()
        # words given as no batch at all, and a voice of which there is not even padding
        voice_only, _ = net({name: made[name] for name in ("logmel", "prosody")}, ())
        assert torch.allclose(voice_only[1], said[1], atol=1e-4)
        none = {name: Sequences(made[name].x_BTD[:, :0], made[name].length_B * 0) for name in ("logmel", "prosody")}
        words_only, _ = net({**none, WORDS: made[WORDS]}, ())
        assert torch.allclose(words_only[2:], said[2:], atol=1e-4)
    apart = [said[a] - said[b] for a, b in ((0, 1), (0, 2), (1, 2), (2, 3))]
    assert all(difference.abs().max() > 1e-4 for difference in apart)


def test_a_weighed_models_say_goes_to_the_others_where_it_is_missing():
    net = small(part="wpf", wpf_of=("voice", "words"))
    torch.nn.init.normal_(net.weights.score_KC)
    made = voice_and_words([4, 4], ["well", ""])
    with torch.no_grad():
        said, _ = net(made, ())
        (voice, _), (words, _) = net._logits(made)
        share = net.weights.score_KC.softmax(0)
        assert torch.allclose(said[0, 0], share[0] * voice[0] + share[1] * words[0], atol=1e-5)
        assert torch.allclose(said[1, 0], voice[1], atol=1e-5)


def test_a_stretched_row_is_what_torch_interpolates():
    x = torch.randn(4, 13, 5)
    lengths = [13, 9, 1, 3]
    ours = stretched(Sequences(x, torch.tensor(lengths)), 9)
    for row, n in enumerate(lengths):
        theirs = torch.nn.functional.interpolate(x[row : row + 1, :n].transpose(1, 2), size=9, mode="linear")
        assert torch.allclose(ours[row], theirs[0].T, atol=1e-5)


def test_released_layers_take_their_values_from_the_asking_side():
    x, other = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    for released in (False, True):
        layer = CrossLayer(16, 4, 0.0, released).eval()
        # keys all alike: the mean of the values, whichever they are
        torch.nn.init.zeros_(layer.attention.key.weight)
        changed = (layer(x, other) - layer(x, other + 1.0 * torch.randn(2, 6, 16))).abs().max() > 1e-5
        assert bool(changed) is not released


def test_the_two_modes_differ():
    made = voice_and_words([6, 4], ["so it is", "no"])
    for part in PARTS:
        nets = []
        for mode in MODES:
            torch.manual_seed(1)
            nets.append(small(part=part, mode=mode))
        assert (nets[0](made, nets[0].start(2))[0] - nets[1](made, nets[1].start(2))[0]).abs().max() > 1e-4


@settings(max_examples=10)
@given(st.lists(st.integers(0, 12), max_size=4), st.sampled_from(MODES))
def test_the_voice_alone_streams_as_it_hears_whole(cuts, mode):
    torch.manual_seed(len(cuts))
    net = small(part="voice", mode=mode)
    assert net.streams == "exactly"
    made = voice_and_words([12, 8], ["", ""])
    (logmel, length), prosody = made["logmel"], made["prosody"].x_BTD
    with torch.no_grad():
        whole, end = net(made, net.start(2))
        state, parts = net.start(2), []
        for first, last in pairwise(sorted({0, *cuts, 12})):
            left = (length - first).clamp(0, last - first)
            part = {
                "logmel": Sequences(logmel[:, first:last], left),
                "prosody": Sequences(prosody[:, 4 * first : 4 * last], 4 * left),
            }
            said, state = net(part, state)
            parts.append(said)
        together = torch.cat(parts, 1)
        assert torch.allclose(together[0], whole[0], atol=1e-4)
        assert torch.allclose(together[1, :8], whole[1, :8], atol=1e-4)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(leaves(state), leaves(end), strict=True))
        asked, _ = net(made, net.start(2), torch.tensor([[11, 0], [7, 2]]))
        assert torch.allclose(asked, torch.stack((whole[0, [11, 0]], whole[1, [7, 2]])), atol=1e-5)


def test_a_late_prosody_or_none_of_a_last_frame():
    net = small(part="voice")
    for steps in (19, 23):
        made = {
            "logmel": Sequences(torch.randn(1, 5, 240), torch.tensor([5])),
            "prosody": Sequences(torch.randn(1, steps, 9), torch.tensor([steps])),
        }
        assert net(made, net.start(1))[0].shape == (1, 5, 7)


def test_our_own_frames_become_z_scores():
    net = small()
    made = voice_and_words([30, 30], ["", ""])
    made["logmel"] = Sequences(5.0 + 3.0 * made["logmel"].x_BTD, made["logmel"].length_B)
    net.fit_inputs(made)
    plain = net._voice_given(made).x_BTD.flatten(0, 1)
    assert torch.allclose(plain.mean(0), torch.zeros(276), atol=1e-4)
    assert torch.allclose(plain.std(0), torch.ones(276), atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", PARTS)
def test_it_learns_a_tiny_batch_and_every_parameter_is_reached(part, mode):
    quiet = {"layers": 1, "drop": 0.0, "voice_drop": 0.0, "gram_drop": 0.0}
    net = small(part=part, mode=mode, **quiet).train()
    texts = ["so glad", "how awful", "yes" if part == "words" else "", "well now"]
    made, target = voice_and_words([5, 3, 4, 2], texts), torch.tensor([3, 1, 2, 0])
    if part != "voice":
        for name in ("logmel", "prosody"):
            made[name] = Sequences(made[name].x_BTD, made[name].length_B * torch.tensor([1, 1, 1, 0]))
    at = torch.tensor([[4], [2], [3], [1]]) if net.streams == "exactly" else None
    learns(net, names_the(net, made, target, at), 8e-3)


def test_pretrained_features_take_our_encoders_place():
    net = build("biformer", {**SMALL, **HUB, "speech_width": 24, "words_width": 16}, HEADS).eval()
    assert (net.fronts, net.words, net.streams) == (("hub:some/voice",), "hub:some/words", "window")
    made = {
        "hub:some/voice": Sequences(torch.randn(2, 20, 24), torch.tensor([20, 8])),
        WORDS: Sequences(torch.randn(2, 14, 16), torch.tensor([14, 0])),
    }
    assert net(made, ())[0].shape == (2, 1, 7)
    assert build("biformer", {**SMALL, "part": "words"}, HEADS).fronts == ()
    assert build("biformer", {**SMALL, "part": "voice"}, HEADS).words == ""


@pytest.mark.parametrize(
    ("settings_", "told"),
    [
        ({"speech": "theirs"}, "hub:NAME"),
        ({"words": "bpe"}, "hashed"),
        ({"part": "wpf", "wpf_of": []}, "wpf_of"),
        ({"attention_heads": 5}, "shared"),
        ({"mode": "best"}, "biformer"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings_, told):
    with pytest.raises(GivenError, match=told):
        small(**settings_)


@pytest.mark.parametrize(("part", "mode"), [("wpf", "paper"), ("voice", "paper"), ("voice", "as_released")])
def test_it_exports_with_any_number_of_rows_frames_and_words(part, mode, exported):
    net = small(part=part, mode=mode)
    exports_alike(net, exported)
