"""HuMP-CAT: every path and pair, missing sources, company, repeated clips, the margin, speakers heard before, export."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from trials import learns

from clser.models.answers import answer
from clser.models.batches import Batch
from clser.models.errors import GivenError
from clser.models.export import export
from clser.models.features.fronts import front
from clser.models.layers.cat import StridedConv, joined, repeated
from clser.models.live import live, windows
from clser.models.losses import AmSoftmax
from clser.models.plan import Loss, load
from clser.models.saved import Trained
from clser.models.systems import build, logit_margin, speaker_numbers
from clser.models.tensors import Sequences
from clser.models.train import loss_of
from clser.models.zoo.hump_cat import PAIRS

pytestmark = pytest.mark.torch

HEADS = ("anger", "joy", "sad", "neutral")
TRACK = "disvoice_track"
EACH = {"logmel": 1, "prosody": 4, TRACK: 4, "mfcc_40_20": 2, "lpcc_40_20": 2, "spectrogram_40_20": 2}
HUB = "hub:some/encoder@1,9"
SMALL = {
    "speech_width": 32, "width": 8, "attention_heads": 2, "feed_forward": 16, "layer_hidden": 8, "functionals_hidden": 16,
    "clip_s": 1.0,
}  # fmt: skip
KINDS = {
    "as_published": {},
    "hub": {"speech": HUB, "hand": ("prosody", "mfcc")},
    "hub_mean": {"speech": HUB, "layer_attention": False},
    "speech_only": {"hand": ()},
    "speech_and_mfcc": {"hand": ("mfcc",)},
    "manner": {"hand": ("manner", "mfcc")},
    "usual": {"hand": ("manner", "prosody"), "usual": True, "speech": "none"},
    "cross_entropy": {"loss": "cross_entropy"},
    **{name: {"speech": "none", "hand": pair} for name, pair in PAIRS.items()},
    **{f"{name}_only": {"speech": "none", "hand": (name,)} for name in ("prosody", "manner", "spectrogram")},
}


def small(**changed):
    net = build("hump_cat", {**SMALL, **changed}, HEADS).eval()
    net.fit_inputs(frames([12, 20, 9, 15]))
    return net


def frames(lengths, steps=None):
    """What the fronts might give; padding is loud, and must not be heard."""
    steps, length = steps or max(lengths), torch.tensor(lengths)
    widths = {**{name: front(name).width for name in EACH}, HUB: 64}
    made = {}
    for name, width in widths.items():
        each = EACH.get(name, 2)
        x = torch.randn(len(lengths), steps * each, width)
        if name == TRACK:
            x = torch.cat((1.0 + 0.1 * x[..., :1].cumsum(1), 0.3 * x[..., 1:] - 1.5), 2) * (x[..., :1] > -1.0)
        for row, count in enumerate(lengths):
            x[row, count * each :] = 70.0
        made[name] = Sequences(x, length * each)
    return made


def rows_of(made, rows):
    """Those rows alone, as short as the longest of them."""
    return {name: Sequences(x[rows, : int(length[rows].max())], length[rows]) for name, (x, length) in made.items()}


def without(made, gone, row):
    """The same, and that row lacks what stands in `gone`."""
    keep = torch.ones(len(made[TRACK].length_B), dtype=torch.int64)
    keep[row] = 0
    return {name: Sequences(x, length * keep if name in gone else length) for name, (x, length) in made.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_and_a_row_in_company_is_as_alone(kind):
    net = small(**KINDS[kind])
    made = frames([14, 3, 60, 25, 1])
    with torch.no_grad():
        many, state = net(made, net.start(5))
        assert many.shape == (5, 1, 4) and many.isfinite().all() and state == ()
        for row in range(5):
            one, _ = net(rows_of(made, slice(row, row + 1)), ())
            assert torch.allclose(one[0], many[row], atol=1e-4)


@pytest.mark.parametrize("kind", ["as_published", "hub", "usual"])
def test_missing_sources_have_no_say(kind):
    net = small(**KINDS[kind])
    made = frames([14, 14])
    for gone in ((TRACK,), ("mfcc_40_20",), (HUB, "logmel", "prosody"), tuple(made)):
        less = without(made, gone, 1)
        loud = {
            name: Sequences(x + 9.0 * (name in gone) * torch.tensor([0, 1])[:, None, None], n)
            for name, (x, n) in less.items()
        }
        with torch.no_grad():
            said, again = net(less, ())[0], net(loud, ())[0]
        assert said.isfinite().all() and torch.allclose(said, again, atol=1e-5)
        assert torch.allclose(said[0], net(made, ())[0][0], atol=1e-5)
    # nobody in the batch has any
    made["mfcc_40_20"] = Sequences(made["mfcc_40_20"].x_BTD[:, :0], torch.zeros(2, dtype=torch.int64))
    assert net(made, ())[0].isfinite().all()


def test_a_recording_may_end_within_a_frame():
    odd = {"logmel": 13, "prosody": 49, TRACK: 49, "mfcc_40_20": 25}
    ends = {name: Sequences(torch.randn(1, n, front(name).width), torch.tensor([n])) for name, n in odd.items()}
    assert small()(ends, ())[0].shape == (1, 1, 4)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=30)
def test_short_clips_are_repeated_from_their_own_steps(lengths, steps, padding):
    x = torch.randn(len(lengths), max(lengths) + padding, 2)
    long, length = repeated(Sequences(x, torch.tensor(lengths)), steps)
    for row, count in enumerate(lengths):
        assert length[row] == (steps if count else 0)
        if count:
            wanted = x[row, :count].repeat(steps // count + 1, 1)[:steps]
            assert torch.equal(long[row], wanted)


def test_what_is_joined_has_no_gap():
    one, other = torch.ones(3, 4, 2), 2 * torch.ones(3, 2, 2)
    both = joined(Sequences(one, torch.tensor([4, 0, 4])), Sequences(other, torch.tensor([2, 2, 0])))
    assert both.length_B.tolist() == [6, 2, 4]
    assert both.x_BTD[0, :, 0].tolist() == [1, 1, 1, 1, 2, 2] and both.x_BTD[1, :2, 0].tolist() == [2, 2]
    assert both.x_BTD[2, :4, 0].tolist() == [1, 1, 1, 1]


def test_the_papers_sizes():
    """Seven seconds of HuBERT's base size."""
    conv = StridedConv(768)
    assert conv(torch.zeros(2, 349, 768)).shape == (2, 85, 251) and conv.width == 251
    net = build("hump_cat", {"speech": "hub:facebook/hubert-base-ls960@1,9", "speech_width": 768}, HEADS)
    assert net.window_s == 7.0 and net.fronts[0] == "hub:facebook/hubert-base-ls960@1,9"
    assert isinstance(net.head, AmSoftmax) and net.head.weight_CD.shape == (4, 64)
    assert sum(p.numel() for p in net.parameters()) == 125_205


def test_each_step_shares_its_layers_anew_and_attention_can_be_left_out():
    net = small(**KINDS["hub"]).source_of["speech"]
    x = torch.randn(1, 5, 64)
    assert net.weigh(x).shape == (1, 5, 32)
    assert small(**KINDS["hub_mean"]).source_of["speech"].weigh is None
    one = build("hump_cat", {**SMALL, "speech": "hub:some/encoder", "hand": ()}, HEADS)  # its last layer
    assert one.source_of["speech"].weigh is None


def test_the_margin_is_that_of_am_softmax():
    net = small(source_drop=0.0, drop=0.0, functionals_drop=0.0)
    made, target = frames([9, 12]), torch.eye(4)[[1, 3]]
    batch = Batch({name: made[name] for name in net.fronts}, torch.tensor([9, 12]), torch.zeros(2, 4), target, None)
    seen = []
    net.head.register_forward_hook(lambda head, given, said: seen.append(given[0]))
    asked = Loss(smoothing=0.0)
    found = loss_of(net, batch, asked, 1)
    assert torch.allclose(found, net.head.loss(seen[0], target), atol=1e-5)
    assert logit_margin(net) == pytest.approx(30.0 * 0.35)
    plain = small(loss="cross_entropy")
    assert logit_margin(plain) == 0.0 and isinstance(plain.head, torch.nn.Linear)


@pytest.mark.parametrize("kind", ["as_published", "hub", "usual"])
def test_it_learns_a_tiny_batch_and_every_parameter_is_reached(kind):
    net = small(**KINDS[kind], drop=0.0, source_drop=0.0, functionals_drop=0.0).train()
    made = frames([12, 9, 12, 11])
    speaker = torch.randn(4, speaker_numbers(net)).abs() if speaker_numbers(net) else None
    batch = Batch(
        {name: made[name] for name in net.fronts}, made["logmel"].length_B, torch.zeros(4, 4), torch.eye(4), speaker
    )
    learns(net, lambda: loss_of(net, batch, Loss(smoothing=0.0), 1), 1e-2)


def test_training_leaves_sources_out_but_never_all():
    net = small(source_drop=0.5).train()
    left = net._dropped(torch.ones(500, 3, dtype=torch.bool))
    assert left.any(1).all() and 0.5 < left.float().mean() < 0.7
    assert net.eval()._dropped(torch.ones(5, 3, dtype=torch.bool)).all()


def test_a_speaker_who_was_heard_before_counts_and_a_stranger_is_nobody():
    net = small(**KINDS["usual"])
    made = frames([14, 9])
    at = torch.tensor([[13], [8]])
    told = net.tell(made, at)[:, 0]
    assert told.shape == (2, speaker_numbers(net)) and told[:, 0].tolist() == [1.0, 1.0]
    batch = Batch({name: made[name] for name in net.fronts}, torch.tensor([14, 9]), *2 * (torch.zeros(2, 4),), None)
    known = batch._replace(speaker_BX=told.flip(0) * 3)
    strange = batch._replace(speaker_BX=torch.zeros_like(told))
    with torch.no_grad():
        stranger, nobody, friend = (answer(net, each, at) for each in (batch, strange, known))
    assert torch.allclose(stranger, nobody, atol=1e-6) and not torch.allclose(friend, nobody, atol=1e-2)
    assert net.hear(made, ())[0][:, 0, : told.shape[1]].equal(told)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"speech": "hubert"}, "own, none"),
        ({"speech": "none", "hand": ()}, "leave one in"),
        ({"hand": ("mfcc", "mfcc")}, "but once"),
        ({"hand": ("mfcc",), "usual": True}, "no prosody"),
        ({"width": 9}, "two directions"),
        ({"clip_s": 0.1}, "convolution"),
        ({"speech_width": 10}, "convolution"),
        ({"hand": ("pitch",)}, "hand"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed, told):
    with pytest.raises(GivenError, match=told):
        build("hump_cat", {**SMALL, **changed}, HEADS)


class Flat(torch.nn.Module):
    """As an engine holds it: how many frames, and each front's as plain tensors."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, frames_B, *fed):
        made = {name: Sequences(x, frames_B * EACH[name]) for name, x in zip(self.net.fronts, fed, strict=True)}
        return self.net(made, ())[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["as_published", "usual"])
def test_it_exports_with_any_number_of_rows_and_frames(kind, exported):
    net = small(**KINDS[kind])
    names = list(net.fronts)
    axes = {name: {0: "B", 1: f"T_{name}"} for name in names} | {"frames": {0: "B"}, "logits": {0: "B"}}

    def fed(lengths):
        made = frames(lengths)
        return made, (torch.tensor(lengths), *(made[name].x_BTD for name in names))

    play = exported(Flat(net), fed([12, 9])[1], ["frames", *names], ["logits"], axes)
    for lengths in ([30, 4, 0], [1], [60, 25]):
        made, tensors = fed(lengths)
        with torch.no_grad():
            wanted = net(made, ())[0]
        np.testing.assert_allclose(play(tensors)[0].softmax(-1).numpy(), wanted.softmax(-1).numpy(), atol=2e-4)


@pytest.mark.slow
def test_with_its_fronts_it_is_one_file_and_hears_a_window(tmp_path):
    net = build("hump_cat", SMALL, HEADS).eval()
    net.fit_inputs(frames([12, 20]))
    assert windows(net) == (25, 25)
    done = export(net, tmp_path / "model.onnx", Trained("hump_cat", {}, HEADS))
    assert done.parity < 1e-4
    said = live(net)(0.1 * torch.randn(2, 30 * net.frame_samples), torch.tensor([30, 4]))
    assert said.shape == (2, 1, 4) and said.isfinite().all()


def test_the_shipped_plan_builds_it():
    plan = load("hump_cat")
    net = build(plan.system, plan.settings, HEADS)
    assert net.heads == HEADS and net.window_s == 7.0
