"""MPAF-Net and its rivals: counts, company, missing sources, streaming, learning, ONNX."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from trials import learns, names_the

from clser.models import plan
from clser.models.encoders.text import tokenise
from clser.models.errors import GivenError
from clser.models.layers.pairs import Pairs, Products
from clser.models.live import live
from clser.models.optimise import rate
from clser.models.systems import FACES, WORDS, build, faces_seen
from clser.models.tensors import Sequences, leaves, like, names
from clser.models.zoo.mpaf_net import MFCC, RIVALS

pytestmark = pytest.mark.torch

HEADS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SMALL = {
    "width": 12, "words_width": 10, "speech_hidden": 9, "face_hidden": 7, "words_hidden": 6, "balance_hidden": 8,
    "hidden": 16, "narrow": 3, "early_steps": 8, "buckets": 256, "numbers": 8, "faces": 5,
}  # fmt: skip
HUB = {"speech": "hub:some/voice", "speech_width": 24, "words": "hub:some/words", "words_width": 16, "words_tuned": 0}
FUSIONS = ("mpaf", *RIVALS)
TEXTS = ["so glad to see you", "", "那太好了", "no", "I did not want to go there, not at all, and you know it"]
SEEN = [3, 0, 5, 1, 4]


def small(**changed):
    return build("mpaf_net", {**SMALL, **changed}, HEADS).eval()


def made_of(frames, texts, seen):
    """Voice, words and faces; padding is loud, and must not be heard."""
    voice = torch.randn(len(frames), 2 * max(frames), 40)
    faces = torch.randint(0, 256, (len(seen), max(1, *seen), 64, 64), dtype=torch.uint8)
    for row, count in enumerate(frames):
        voice[row, 2 * count :] = 7.0
    return {
        MFCC: Sequences(voice, 2 * torch.tensor(frames)), WORDS: tokenise(texts), FACES: Sequences(faces, torch.tensor(seen))
    }  # fmt: skip


def alone(made, texts, row):
    voice, faces = made[MFCC], made[FACES]
    many, seen = (int(one.length_B[row]) for one in (voice, faces))
    return {
        MFCC: Sequences(voice.x_BTD[row : row + 1, :many], voice.length_B[row : row + 1]),
        WORDS: tokenise([texts[row]]),
        FACES: Sequences(faces.x_BTD[row : row + 1, : max(1, seen)], faces.length_B[row : row + 1]),
    }


def count(module):
    return sum(p.numel() for p in module.parameters())


def linear(width, to):
    return width * to + to


def lstm(width, hidden):
    return 4 * hidden * (width + hidden + 2)


def test_the_parameters_of_the_published_sizes():
    """BERT's [CLS] of 768, frozen; 40 cepstra; 64 x 64 faces; seven classes. The paper tells no count."""
    published = {"words": "hub:bert", "words_width": 768, "words_tuned": 0}
    sources = lstm(40, 128) + lstm(4096, 256)
    widths = (768, 128, 256)
    pairs = sum(
        linear(one, 256) + linear(two, 256) + linear(one + two + 512, 256) + linear(256, 1)
        for one, two in ((768, 128), (768, 256), (128, 256))
    )
    last = linear(256, 7)
    expected = {
        "mpaf": sources + pairs + linear(sum(widths) + 3 * 256, 256) + last,
        "baseline": sources + linear(sum(widths), 256) + last,
        "lf_lstm": sources + lstm(768, 128) + linear(128 + 128 + 256, 256) + last,
        "tfn": sources + sum(linear(width, 32) for width in widths) + linear(33**3, 256) + last,
        "ef_lstm": lstm(768 + 40 + 4096, 256) + linear(256, 256) + last,
    }
    for fusion, many in expected.items():
        assert count(build("mpaf_net", {**published, "fusion": fusion}, HEADS)) == many


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_ragged_rows_in_company_are_as_alone(fusion, pooling):
    net = small(fusion=fusion, pooling=pooling)
    lengths = [7, 3, 1, 12, 5]
    made = made_of(lengths * 4, TEXTS * 4, SEEN * 4)
    with torch.no_grad():
        many, _ = net(made, net.start(20))
        assert many.shape == (20, 1 if fusion == "ef_lstm" else 12, 7) and many.isfinite().all()
        for row in range(5):
            one, _ = net(alone(made, TEXTS * 4, row), net.start(1))
            last = 0 if fusion == "ef_lstm" else lengths[row] - 1
            assert torch.allclose(one[0, -1], many[row, last], atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_any_source_may_be_missing_and_what_stands_in_its_place_is_not_heard(fusion):
    net = small(fusion=fusion)
    made = made_of([6] * 5, ["so it is"] * 5, [4] * 5)
    here = {MFCC: [1, 0, 1, 1, 0], WORDS: [1, 1, 0, 1, 0], FACES: [1, 1, 1, 0, 0]}
    made = {name: Sequences(one.x_BTD, one.length_B * torch.tensor(here[name])) for name, one in made.items()}
    with torch.no_grad():
        said = net(made, net.start(5))[0][:, -1]
        assert said.isfinite().all()
        other = {**made, FACES: Sequences(255 - made[FACES].x_BTD, made[FACES].length_B)}
        other[WORDS] = Sequences(
            torch.where(made[WORDS].length_B[:, None, None] > 0, made[WORDS].x_BTD, 5), made[WORDS].length_B
        )
        again = net(other, net.start(5))[0][:, -1]
        assert torch.allclose(again[3:], said[3:], atol=1e-5)
        # a source that is given to no row at all is the same as one of no length
        for name in (WORDS, FACES):
            without = {key: one for key, one in made.items() if key != name}
            row = here[name].index(0)
            assert torch.allclose(net(without, net.start(5))[0][row, -1], said[row], atol=1e-5)
        no_step = Sequences(made[MFCC].x_BTD[:, :0], made[MFCC].length_B * 0)
        assert torch.allclose(net({**made, MFCC: no_step}, net.start(5))[0][1, -1], said[1], atol=1e-5)
    for one, two in ((0, 1), (0, 2), (0, 3), (1, 2), (3, 4)):
        assert (said[one] - said[two]).abs().max() > 1e-5


def test_pairs_by_hand():
    layer = Pairs((3, 5, 4), 6, 8, 0.0).eval()
    x = [torch.randn(4, width) for width in (3, 5, 4)]
    here = torch.ones(4, 3, dtype=torch.bool)
    here[1, 0] = here[2, 1] = here[2, 2] = False
    out, shares = layer(x, here), layer.shares(x, here)
    assert out.shape == (4, layer.width) and layer.width == 12 + 18 and layer.of == ((0, 1), (0, 2), (1, 2))
    gate = layer.gates[1]
    p1, p2 = torch.relu(gate.first(x[0])), torch.relu(gate.second(x[2]))
    alpha = torch.sigmoid(gate.balance(torch.cat((x[0], x[2], p1, p2), 1)))
    assert torch.allclose(out[0, 18:24], (alpha * p1 + (1 - alpha) * p2)[0], atol=1e-6)
    assert torch.allclose(shares[0, 1], alpha[0, 0])
    assert not out[1, :3].any() and torch.equal(out[1, 12:18], torch.relu(layer.gates[0].second(x[1]))[1])
    assert torch.equal(out[2, 12:18], torch.relu(layer.gates[0].first(x[0]))[2]) and not out[2, 24:].any()
    assert shares[1, :2].tolist() == [0.0, 0.0] and shares[2, :2].tolist() == [1.0, 1.0]


def test_products_by_hand():
    layer = Products((3, 5, 4), 2, 0.0).eval()
    x = [torch.randn(3, width) for width in (3, 5, 4)]
    here = torch.ones(3, 3, dtype=torch.bool)
    here[1] = torch.tensor([True, False, True])
    z = [torch.cat((torch.relu(enter(one)), torch.ones(3, 1)), 1) for enter, one in zip(layer.enter, x, strict=True)]
    z[1][1, :2] = 0.0
    expected = torch.einsum("na,nb,nc->nabc", *z).flatten(1)
    assert layer.width == 27 and torch.allclose(layer(x, here), expected, atol=1e-6)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 12), max_size=4), st.sampled_from(["last", "mean"]))
def test_it_streams_as_it_hears_whole(cuts, pooling):
    torch.manual_seed(len(cuts))
    net = small(pooling=pooling)
    assert net.streams == "exactly"
    made = made_of([12, 8], ["oh no", ""], [2, 0])
    with torch.no_grad():
        whole, end = net(made, net.start(2))
        state, parts, length = net.start(2), [], made[MFCC].length_B
        for first, last in pairwise(sorted({0, *cuts, 12})):
            left = (length - 2 * first).clamp(0, 2 * (last - first))
            part = {**made, MFCC: Sequences(made[MFCC].x_BTD[:, 2 * first : 2 * last], left)}
            said, state = net(part, state)
            parts.append(said)
        together = torch.cat(parts, 1)
        assert torch.allclose(together[0], whole[0], atol=1e-5)
        assert torch.allclose(together[1, :8], whole[1, :8], atol=1e-5)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(leaves(state), leaves(end), strict=True))
        asked, _ = net(made, net.start(2), torch.tensor([[11, 0], [7, 2]]))
        assert torch.allclose(asked, torch.stack((whole[0, [11, 0]], whole[1, [7, 2]])), atol=1e-5)


def test_training_hears_what_is_heard_afterwards():
    net = small(drop=0.0, source_drop=0.0, gram_drop=0.0)
    made, start = made_of([6, 3], ["well", ""], [3, 0]), net.start(2)
    with torch.no_grad():
        said, _ = net(made, start)
        taught, state = net.train()(made, start)
    assert torch.allclose(taught, said, atol=1e-6)
    assert torch.equal(state.lstm.cell_BLD, start.lstm.cell_BLD)  # nobody goes on from there, so it was not computed


def test_how_much_of_each_pair_is_its_first():
    net = small()
    made = made_of([6, 3, 4], ["well", "", "yes"], [3, 2, 0])
    with torch.no_grad():
        shares = net.shares(made)
    assert (
        shares.shape == (3, 3)
        and net.fusion.of == ((0, 1), (0, 2), (1, 2))
        and tuple(net.sources) == (WORDS, "voice", FACES)
    )
    assert ((shares[0] > 0.0) & (shares[0] < 1.0)).all()
    assert shares[1, :2].tolist() == [0.0, 0.0] and shares[2, 1:].tolist() == [1.0, 1.0]
    with pytest.raises(GivenError, match="mpaf"):
        small(fusion="tfn").shares(made)


def test_the_voice_becomes_z_scores():
    net = small()
    made = made_of([30, 30], ["", ""], [0, 0])
    net.fit_inputs({MFCC: Sequences(5.0 + 3.0 * made[MFCC].x_BTD, made[MFCC].length_B)})
    assert torch.allclose(net.standard.mean_D, torch.full((40,), 5.0), atol=1.0)
    assert torch.allclose(net.standard.deviation_D, torch.full((40,), 3.0), atol=1.0)


@pytest.mark.parametrize("changed", [{}, {"faces": 0}, {"speech": "none", "faces": 0}, {"words": "none"}])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_learns_a_tiny_batch_and_every_parameter_is_reached(fusion, changed):
    net = small(fusion=fusion, drop=0.0, gram_drop=0.0, source_drop=0.0, **changed).train()
    made, target = (
        made_of([5, 3, 4, 2], ["so glad", "how awful", "yes", "well now"], [2, 3, 0, 1]),
        torch.tensor([3, 1, 2, 0]),
    )
    made = {name: one for name, one in made.items() if name in net.sources or name in net.fronts}
    at = torch.tensor([[4], [2], [3], [1]]) if net.streams == "exactly" else None
    learns(net, names_the(net, made, target, at), 1e-2, 100)


def test_sources_left_out_in_training_never_all_of_a_row():
    net = small(source_drop=0.9).train()
    here = torch.tensor([[[True, True, True]], [[False, True, False]]]).repeat(200, 1, 1)
    left = net._left(here)
    assert left.any(2).all() and not (left & ~here).any() and (~left[::2]).any()
    assert torch.equal(net.eval()._left(here), here)


def test_pretrained_features_take_our_own_encoders_place():
    for fusion in FUSIONS:
        net = build("mpaf_net", {**SMALL, **HUB, "fusion": fusion}, HEADS).eval()
        assert (net.fronts, net.words, net.streams) == (("hub:some/voice",), "hub:some/words", "window")
        made = {
            "hub:some/voice": Sequences(torch.randn(2, 20, 24), torch.tensor([20, 8])),
            WORDS: Sequences(torch.randn(2, 14, 16), torch.tensor([14, 0])),
        }
        with torch.no_grad():
            said, _ = net(made, ())
            first = {**made, WORDS: Sequences(made[WORDS].x_BTD[:, :1], torch.tensor([1, 0]))}
            same = torch.allclose(net(first, ())[0], said, atol=1e-5)
        assert said.shape == (2, 1, 7)
        assert same is (fusion in ("mpaf", "baseline", "tfn"))  # of the words [CLS] alone is looked at
    words_only = small(speech="none", faces=0)
    assert (words_only.fronts, words_only.streams, faces_seen(words_only)) == ((), "end", 0)


@pytest.mark.parametrize(
    ("settings_", "told"),
    [
        ({"speech": "theirs"}, "hub:NAME"),
        ({"words": "bpe"}, "hashed"),
        ({"speech": "none"}, "faces: 0"),
        ({"speech": "none", "words": "none", "faces": 0}, "both none"),
        ({"fusion": "best"}, "mpaf_net"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings_, told):
    with pytest.raises(GivenError, match=told):
        small(**settings_)


def test_live_it_hears_and_sees_nobody():
    net = small()
    running = live(net)
    pcm, frames = 0.1 * torch.randn(2, 9 * 640), torch.tensor([9, 6])
    with torch.no_grad():
        whole = running(pcm, frames, *leaves(running.start(2)))[0]
        heard = running.hear(pcm, frames)
        assert FACES not in heard
        assert torch.allclose(running.answer(heard)[:, 0], whole[[0, 1], [8, 5]], atol=1e-5)


class Flat(torch.nn.Module):
    """As an engine holds it: frames, words, lengths, and the state as plain tensors. No faces: there are none live."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, steps_B, voice, words_B, words, *flat):
        state = like(self.net.start(1), iter(flat))
        logits, state = self.net({MFCC: Sequences(voice, steps_B), WORDS: Sequences(words, words_B)}, state)
        return (logits, *leaves(state))


@pytest.mark.parametrize(
    ("fusion", "pooling"),
    [("mpaf", "last"), ("mpaf", "mean"), ("lf_lstm", "last"), ("ef_lstm", "mean"), ("tfn", "last")],
)
def test_it_exports_with_any_number_of_rows_frames_and_words(fusion, pooling, exported):
    net = small(fusion=fusion, pooling=pooling)
    state = net.start(2)
    labels = [f"state_{name}" for name in names(state)]
    inputs, outputs = (
        ["steps", "voice", "words_count", "words", *labels],
        ["logits", *(f"next_{name}" for name in labels)],
    )
    axes = {name: {0: "B"} for name in (*inputs, *outputs)}
    axes["voice"][1], axes["logits"][1], axes["words"] = "T", "A", {0: "B", 1: "L", 2: "G"}

    def fed(lengths, texts, before):
        made = {name: one for name, one in made_of(lengths, texts, [0, 0]).items() if name != FACES}
        return made, (*made[MFCC][::-1], *made[WORDS][::-1], *leaves(before))

    play, state = exported(Flat(net), fed([5, 3], TEXTS[:2], state)[1], inputs, outputs, axes), net.start(3)
    for lengths, texts in (([8, 0, 3], TEXTS[2:]), ([1, 1, 0], ["", "a", ""])):
        made, tensors = fed(lengths, texts, state)
        said, *after = play(tensors)
        with torch.no_grad():
            expected, state = net(made, state)
        for row, n in enumerate(lengths):
            upto = n if net.streams == "exactly" else 1
            np.testing.assert_allclose(said[row, :upto], expected[row, :upto].numpy(), atol=1e-4)
        for got, leaf in zip(after, leaves(state), strict=True):
            np.testing.assert_allclose(got, leaf.numpy(), atol=1e-4)


def test_the_rate_rises_over_epochs_and_falls_in_a_cosine():
    asked = plan.Optimiser(epochs=10, warmup_epochs=3, schedule="cosine")
    rates = [rate(asked, step, 4) for step in range(40)]
    assert rates[0] == pytest.approx(1 / 12) and rates[11] == 1.0 and rates[12] == 1.0
    assert rates[26] == pytest.approx(0.5) and rates[39] < 0.01
    assert rate(plan.Optimiser(epochs=10, warmup=0.1), 3, 4) == 1.0  # without it, the share of all steps as ever
