"""ACMF-Net: every ablation, missing sources, company, streaming, and what the gates tell."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from trials import learns, names_the

from clser.models.errors import GivenError
from clser.models.features.fronts import front
from clser.models.systems import build
from clser.models.tensors import Sequences, leaves, like, names
from clser.models.zoo.acmf_net import ABLATIONS, MFCC, PROSODY

pytestmark = pytest.mark.torch

HEADS = ("anger", "joy", "sad", "neutral")
SMALL = {
    "speech_width": 32, "width": 16, "encoder_width": 16, "feed_forward": 32, "gate_hidden": 8, "hidden": 16,
    "mfcc_reach": 12, "prosody_reach": 4,
}  # fmt: skip
SPEECH = ("logmel", "prosody")
WIDTH = {name: front(name).width for name in (*SPEECH, MFCC, PROSODY)}
EACH = {"logmel": 5, "prosody": 20, MFCC: 20, PROSODY: 2}


def small(**changed):
    return build("acmf_net", {**SMALL, **changed}, HEADS).eval()


def frames(lengths, steps=None):
    """What the fronts might give; padding is loud, and must not be heard."""
    steps, length = steps or max(lengths), torch.tensor(lengths)
    made = {}
    for name, each in EACH.items():
        x = torch.randn(len(lengths), steps * each, WIDTH[name])
        for row, count in enumerate(lengths):
            x[row, count * each :] = 7.0
        made[name] = Sequences(x, length * each)
    return made


def rows_of(made, rows, steps=None):
    return {
        name: Sequences(x[rows, : None if steps is None else steps * EACH[name]], length[rows])
        for name, (x, length) in made.items()
    }


def without(made, gone, row):
    """The same, and that row lacks what stands in `gone`."""
    keep = torch.ones(len(made["logmel"].length_B), dtype=torch.int64)
    keep[row] = 0
    return {name: Sequences(x, length * keep if name in gone else length) for name, (x, length) in made.items()}


@pytest.mark.parametrize("attention", ["full", "causal"])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_runs_ragged_and_alone(ablation, attention):
    net = small(**ABLATIONS[ablation], attention=attention)
    made = frames([4, 1, 3, 0])
    with torch.no_grad():
        many, _ = net(made, net.start(4))
        assert many.shape == ((4, 4, 4) if attention == "causal" else (4, 1, 4)) and many.isfinite().all()
        for row, count in enumerate([4, 1, 3]):
            one, _ = net(rows_of(made, slice(row, row + 1), count), net.start(1))
            assert torch.allclose(one[0, -1], many[row, count - 1 if attention == "causal" else 0], atol=1e-4)


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_one_of_many_is_as_one_alone(attention):
    net = small(attention=attention)
    made = frames([1 + row % 3 for row in range(64)])
    with torch.no_grad():
        many, _ = net(made, net.start(64))
        for row in (0, 17, 62):
            one, _ = net(rows_of(made, slice(row, row + 1)), net.start(1))
            last = row % 3 if attention == "causal" else 0
            assert torch.allclose(one[0, last], many[row, last], atol=1e-4)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 6), max_size=3), st.sampled_from(list(ABLATIONS)))
def test_streamed_equals_whole(cuts, ablation):
    torch.manual_seed(len(cuts))
    net = small(**ABLATIONS[ablation], attention="causal")
    made = {name: made for name, made in frames([6, 4]).items() if name in net.fronts}
    with torch.no_grad():
        whole, end = net(made, net.start(2))
        state, parts = net.start(2), []
        bounds = sorted([0, *cuts, 6])
        for first, last in pairwise(bounds):
            if first == last:
                continue
            left = {name: (length // EACH[name] - first).clamp(0, last - first) for name, (_, length) in made.items()}
            part = {
                name: Sequences(x[:, first * EACH[name] : last * EACH[name]], left[name] * EACH[name])
                for name, (x, _) in made.items()
            }
            said, state = net(part, state)
            parts.append(said)
        together = torch.cat(parts, 1)
        assert torch.allclose(together[0], whole[0], atol=1e-4)
        assert torch.allclose(together[1, :4], whole[1, :4], atol=1e-4)
        assert [
            name
            for name, a, b in zip(names(state), leaves(state), leaves(end), strict=True)
            if not torch.allclose(a, b, atol=1e-3, rtol=1e-4)
        ] == []
        asked, _ = net(made, net.start(2), torch.tensor([[0, 5], [3, 1]]))
        assert torch.allclose(asked, torch.stack((whole[0, [0, 5]], whole[1, [3, 1]])), atol=1e-5)


@pytest.mark.parametrize("attention", ["full", "causal"])
@pytest.mark.parametrize("gone", [SPEECH, (MFCC,), (PROSODY,), (*SPEECH, MFCC), (*SPEECH, MFCC, PROSODY)])
def test_a_missing_source_has_no_gate_and_no_say(attention, gone):
    net = small(attention=attention)
    made = without(frames([3, 3]), gone, 1)
    loud = {
        name: Sequences(x + 50.0 * (name in gone) * torch.tensor([0, 1])[:, None, None], n)
        for name, (x, n) in made.items()
    }
    with torch.no_grad():
        said, again = net(made, net.start(2))[0], net(loud, net.start(2))[0]
        assert said.isfinite().all()
        assert torch.allclose(said, again, atol=1e-5)
        gates = net.gates(made)
    order = [SPEECH[0], MFCC, PROSODY]
    assert (gates[0] > 0).all()
    assert [bool(gate) for gate in gates[1] > 0] == [name not in gone for name in order]


def test_a_batch_of_which_all_lack_a_source_or_frames():
    net = small()
    made = frames([2, 2])
    made[MFCC] = Sequences(made[MFCC].x_BTD[:, :0], torch.zeros(2, dtype=torch.int64))
    assert net(made, ())[0].isfinite().all()
    # a recording that ends within a frame: 270 ms
    odd = {"logmel": 6, "prosody": 27, MFCC: 27, PROSODY: 2}
    ends = {name: Sequences(torch.randn(1, steps, WIDTH[name]), torch.tensor([steps])) for name, steps in odd.items()}
    streaming = small(attention="causal")
    assert streaming(ends, streaming.start(1))[0].shape == (1, 2, 4)


def test_gates_are_told_where_there_are_gates():
    net = small()
    gates = net.gates(frames([3, 2]))
    assert gates.shape == (2, 3) and (gates > 0).all() and (gates < 1).all()
    with pytest.raises(GivenError, match="gates"):
        small(fusion="concat").gates(frames([1]))


def test_training_leaves_sources_out_but_never_all():
    net = small(source_drop=0.5).train()
    present = torch.ones(500, 1, 3, dtype=torch.bool)
    left = net._dropped(present)
    assert left.any(2).all() and 0.55 < left.float().mean() < 0.7
    assert net.eval()._dropped(present).all()


def test_inputs_become_z_scores():
    net = small()
    made = {name: Sequences(5.0 + 3.0 * x, length) for name, (x, length) in frames([6, 6]).items()}
    net.fit_inputs(made)
    for name in (MFCC, PROSODY):
        source = net.source_of["mfcc" if name == MFCC else "prosody"]
        plain = source.standard(made[name].x_BTD).flatten(0, 1)
        assert torch.allclose(plain.mean(0), torch.zeros(WIDTH[name]), atol=1e-4)
        assert torch.allclose(plain.std(0), torch.ones(WIDTH[name]), atol=1e-3)
    assert net.encoder.mean_M.any()
    # and they are saved with the weights
    other = small()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.source_of["mfcc"].standard.mean_D, net.source_of["mfcc"].standard.mean_D)


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_it_learns_a_tiny_batch_and_every_parameter_is_reached(attention):
    net = small(attention=attention, drop=0.0, source_drop=0.0).train()
    made, target = frames([2, 1, 2, 1]), torch.tensor([0, 1, 2, 3])
    at = torch.tensor([[1], [0], [1], [0]])
    learns(net, names_the(net, made, target, at), 5e-3)


def test_a_pretrained_encoder_takes_the_speech_encoders_place():
    net = small(speech="hub:some/encoder", speech_width=24)
    assert net.fronts == ("hub:some/encoder", MFCC, PROSODY) and net.streams == "window"
    made = frames([2, 1])
    made["hub:some/encoder"] = Sequences(torch.randn(2, 19, 24), torch.tensor([19, 9]))
    assert net(made, ())[0].shape == (2, 1, 4)
    net.fit_inputs(made)
    assert net.source_of["speech"].standard.mean_D.any()


@pytest.mark.parametrize(
    ("settings_", "told"),
    [
        ({"speech": "whisper"}, "hub:NAME"),
        ({"speech": "hub:"}, "hub:OWNER"),
        ({"speech": "hub:a/b", "speech_width": 8, "attention": "causal"}, "speech own"),
        ({"attention_heads": 5}, "shared"),
        ({"mfcc": "lstm"}, "acmf_net"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings_, told):
    with pytest.raises(GivenError, match=told):
        small(**settings_)


class Flat(torch.nn.Module):
    """As an engine holds it: each front's frames, how many, and the state as plain tensors."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, frames_B, logmel, prosody, mfcc, windows, *flat):
        fronts = zip((*SPEECH, MFCC, PROSODY), (logmel, prosody, mfcc, windows), strict=True)
        made = {name: Sequences(x, frames_B * EACH[name]) for name, x in fronts}
        logits, state = self.net(made, like(self.net.start(1), iter(flat)))
        return (logits, *leaves(state))


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_it_exports_with_any_number_of_rows_and_frames(attention, exported):
    net = small(attention=attention)
    state = net.start(2)
    labels = [f"state_{name}" for name in names(state)]
    inputs = ["frames", *SPEECH, MFCC, PROSODY, *labels]
    outputs = ["logits", *(f"next_{name}" for name in labels)]
    axes = {name: {0: "B", **({1: f"T_{name}"} if name in EACH else {})} for name in (*inputs, *outputs)}
    axes["logits"][1] = "T"
    fed = (torch.tensor([3, 2]), *(x for x, _ in frames([3, 2]).values()), *leaves(state))
    play, state = exported(Flat(net), fed, inputs, outputs, axes), net.start(3)
    for lengths in ([5, 1, 2], [1, 1, 0]):
        made = frames(lengths)
        fed = (torch.tensor(lengths), *(x for x, _ in made.values()), *leaves(state))
        said, *after = play(fed)
        with torch.no_grad():
            expected, state = net(made, state)
        for row, count in enumerate(lengths):
            upto = count if attention == "causal" else 1
            np.testing.assert_allclose(said[row, :upto], expected[row, :upto].numpy(), atol=1e-4)
        for got, leaf in zip(after, leaves(state), strict=True):
            np.testing.assert_allclose(got, leaf.numpy(), atol=1e-3, rtol=1e-4)
