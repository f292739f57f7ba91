"""SERE: each equation by hand, company, missing speech, learning, transfer, export, and the resonance field in parts."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clser.models import sere_run
from clser.models.errors import GivenError
from clser.models.export import export
from clser.models.features.fronts import front
from clser.models.saved import Trained, load, save
from clser.models.sere_loss import Shots, Transfer, loss_of, mmd, offsets
from clser.models.sere_run import rows, transfer
from clser.models.systems import build
from clser.models.tensors import Sequences

pytestmark = pytest.mark.torch

HEADS = ("anger", "joy", "sad", "neutral")
HUB = "hub:some/encoder"
SMALL = {"speech": HUB, "speech_width": 12, "width": 16, "drop": 0.0}
LENGTHS = [6, 3, 5, 4, 6, 2, 5, 6]


def small(**changed):
    return build("sere", {**SMALL, **changed}, HEADS).eval()


def frames(lengths, names=((HUB, 12), ("dynamics", 4)), loud=7.0, seed=0):
    """What the fronts might give; padding is loud, and must not be heard."""
    made, random = {}, torch.Generator().manual_seed(seed)
    for name, width in names:
        x = torch.randn(len(lengths), max(lengths), width, generator=random)
        if name == "dynamics":
            x = x.abs() + 0.1
            x[..., 0] *= (torch.rand(x.shape[:2], generator=random) > 0.3) * 100.0
        for row, count in enumerate(lengths):
            x[row, count:] = loud
        made[name] = Sequences(x, torch.tensor(lengths))
    return made


def test_how_many_parameters():
    net = build("sere", {"speech": HUB, "speech_width": 768}, ("a", "b", "c", "d", "e"))
    # projection and its norm, a gate for each feature, what each counts, 256 + 4 to the classes
    assert sum(p.numel() for p in net.parameters()) == 768 * 256 + 3 * 256 + 256 * 4 + 4 + 4 + 260 * 5 + 5
    assert torch.nn.functional.softplus(net.alpha_K).tolist() == pytest.approx([0.25] * 4, abs=1e-5)


VARIANTS = (
    {}, {"every": 2}, {"dynamics": False}, {"gate": "frame"}, {"gate": "none", "alpha": "equal"},
    {"unlabelled": "mfcc_40_20"}, {"unlabelled": "mfcc_40_20", "answer": "both", "every": 3},
)  # fmt: skip
TWO = ((HUB, 12), ("dynamics", 4), ("mfcc_40_20", 39))


@pytest.mark.parametrize("changed", VARIANTS)
def test_one_of_many_is_as_one_alone_and_none_is_no_harm(changed):
    net, lengths = small(**changed), [6, 1, 4, 0]
    made = frames(lengths, TWO)
    net.fit_inputs(frames([6, 6], TWO, seed=3))
    with torch.no_grad():
        many, state = net({name: made[name] for name in net.fronts}, ())
        assert many.shape == (4, 1, 4) and many.isfinite().all() and state == ()
        for row, count in enumerate(lengths[:3]):
            one = {
                name: Sequences(made[name].x_BTD[row : row + 1, :count], torch.tensor([count])) for name in net.fronts
            }
            assert torch.allclose(net(one, ())[0][0], many[row], atol=1e-5)
    assert torch.allclose(many[3, 0], net.answer.bias)


def test_without_dynamics_given_it_still_answers():
    net, made = small(), frames([4, 3])
    made["dynamics"] = Sequences(made["dynamics"].x_BTD, torch.tensor([0, 3]))
    assert net(made, ())[0].isfinite().all()


def test_our_own_encoder_fills_the_socket():
    net = build("sere", {"speech_width": 16, "width": 8, "every": 2}, HEADS).eval()
    assert net.fronts == ("logmel", "prosody", "dynamics") and net.frame_samples == 640
    each = {"logmel": 1, "prosody": 4, "dynamics": 2}
    sizes = tuple((name, front(name).width) for name in net.fronts)
    made = {
        name: Sequences(torch.randn(2, 5 * each[name], width).abs(), torch.tensor([5, 3]) * each[name])
        for name, width in sizes
    }
    net.fit_inputs(made)
    many, _ = net(made, ())
    alone = {name: Sequences(x[1:, : int(length[1])], length[1:]) for name, (x, length) in made.items()}
    assert torch.allclose(net(alone, ())[0][0], many[1], atol=1e-4)


def test_it_learns_a_tiny_batch_from_labels_alone():
    net, made, target = small().train(), frames([4, 3, 4, 2]), torch.tensor([0, 1, 2, 3])
    net.fit_inputs(made)
    optimiser = torch.optim.Adam(net.parameters(), 2e-2)
    for _ in range(80):
        loss = torch.nn.functional.cross_entropy(net(made, ())[0][:, 0], target)
        optimiser.zero_grad()
        loss.backward()
        # what a feature counts in the strength is told by what resonates, not by labels
        assert [name for name, p in net.named_parameters() if p.grad is None] == ["alpha_K"]
        optimiser.step()
    assert loss < 0.1


@pytest.mark.parametrize(
    ("settings_", "told"),
    [
        ({"speech": "whisper"}, "hub:NAME"),
        ({"unlabelled": HUB}, "leave it empty"),
        ({"unlabelled": "own"}, "one length"),
        ({"speech": "mfcc_25_10"}, "one length"),
        ({"gate": "many"}, "sere"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings_, told):
    with pytest.raises(GivenError, match=told):
        small(**settings_)


@pytest.mark.parametrize("every", [1, 3])
def test_it_exports_for_windows_of_any_length(every, tmp_path):
    net = build("sere", {"speech": "mfcc_40_20", "width": 16, "every": every}, HEADS).eval()
    made = export(net, tmp_path / "sere.onnx", Trained(system="sere", settings={}, heads=HEADS))
    assert made.parity < 1e-4


# across languages


def sides(net, shift=0.0, seed=0, names=TWO):
    """Eight clips a class, which shows in the first numbers, and how they are labelled."""
    label = torch.arange(32) % 4
    made = frames([LENGTHS[n % 8] for n in range(32)], names, seed=seed)
    for name, _ in names:
        if name != "dynamics":
            made[name].x_BTD[..., :4] += 2.0 * torch.eye(4)[label][:, None]
            made[name].x_BTD.add_(shift)
    with torch.no_grad():
        return net.coarse({name: made[name] for name in net.fronts}), label


@pytest.mark.parametrize("changed", [{}, {"unlabelled": "mfcc_40_20"}])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"resonant": "theirs", "follow": "chain"},
        {"follow": "direct", "squared": True},
        {"pull": "source", "mmd": 1.0},
    ],
)
def test_every_parameter_is_reached_where_resonance_is_learnt(changed, asked):
    net = small(**changed).train()
    (source, label), (target, _) = sides(net), sides(net, 1.0, 1)
    net.fit_domain(source, ("source", "target"))
    which = torch.arange(8)
    loss = loss_of(net, Shots(rows(source, which), label[which]), (source, target), Transfer(**asked))
    loss.backward()
    assert (
        loss.isfinite()
        and [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    )


def test_it_crosses_a_shift_between_domains_and_comes_out_the_same_every_time():
    told = []
    for _ in range(2):
        torch.manual_seed(1)
        net = small()
        (source, label), (target, hidden) = sides(net), sides(net, 3.0, 1)
        shots = Shots(rows(source, torch.arange(8)), label[:8])
        losses = transfer(net, shots, source, target, Transfer(steps=40, batch=16, learning_rate=1e-2), seed=2)
        logits = sere_run.logits_of(net, target)
        told.append(logits)
        assert len(losses) == 40 and losses[-1] < losses[0]
    assert np.array_equal(*told)
    assert (torch.from_numpy(told[0]).argmax(1) == hidden).float().mean() > 0.8


def test_the_targets_labels_and_company_do_not_matter():
    net = small()
    (source, label), (target, _) = sides(net), sides(net, 1.0, 1)
    transfer(net, Shots(rows(source, torch.arange(8)), label[:8]), source, target, Transfer(steps=4, batch=8))
    whole = sere_run.logits_of(net, target)
    assert np.allclose(sere_run.logits_of(net, rows(target, torch.tensor([5])))[0], whole[5], atol=1e-5)


def test_shots_are_drawn_by_class_and_seed():
    class Said:
        corpus = "here"

        def __init__(self, emotion):
            self.emotion = emotion

    clips = [Said(name) for name in ("joy", "sad", "joy", "sad", "joy", "sad", "sad")]
    first = sere_run.shots_of(clips, ("joy", "sad"), 2, 0)
    assert [clips[n].emotion for n in first] == ["joy", "joy", "sad", "sad"]
    assert torch.equal(first, sere_run.shots_of(clips, ("joy", "sad"), 2, 0))
    with pytest.raises(GivenError, match="3 clips of joy"):
        sere_run.shots_of(clips, ("joy", "sad"), 4, 0)


def test_balanced_offsets_make_classes_equally_likely():
    logits = torch.randn(200, 4) + torch.tensor([2.0, 0.0, -1.0, 0.0])
    even = (logits + offsets(logits)).softmax(1).mean(0)
    assert torch.allclose(even, torch.full((4,), 0.25), atol=1e-3)
    net = small()
    (source, label), (target, _) = sides(net), sides(net, 1.0, 1)
    asked = Transfer(steps=6, batch=8, balanced=True)
    transfer(net, Shots(rows(source, torch.arange(8)), label[:8]), source, target, asked)
    told = torch.from_numpy(sere_run.logits_of(net, target)).softmax(1).mean(0)
    assert torch.allclose(told, torch.full((4,), 0.25), atol=1e-2)


def test_speakers_lose_what_is_theirs():
    class Who:
        def __init__(self, who):
            self.who = who

    made = frames([4, 3, 4, 2])
    made[HUB].x_BTD[2:] += 5.0
    plain = sere_run.by_speaker(made, [Who("a"), Who("a"), Who("b"), Who("b")], (HUB,))
    for one, other in ((0, 1), (2, 3)):
        x = torch.cat([plain[HUB].x_BTD[n, : int(made[HUB].length_B[n])] for n in (one, other)])
        assert torch.allclose(x.mean(0), torch.zeros(12), atol=1e-5)
        assert torch.allclose(x.std(0), torch.ones(12), atol=1e-5)
    assert plain["dynamics"] is made["dynamics"]


def test_a_trained_one_is_saved_and_says_the_same(tmp_path):
    made = build("sere", {"speech": "mfcc_40_20", "width": 8}, HEADS).eval()
    given = frames([4, 3], (("mfcc_40_20", 39), ("dynamics", 4)))
    made.fit_domain(made.coarse(given), ("target",))
    settings = {"speech": "mfcc_40_20", "width": 8}
    again, about = load(save(tmp_path, made, Trained(system="sere", settings=settings, heads=HEADS)))
    assert about.system == "sere" and torch.equal(again(given, ())[0], made(given, ())[0])


@pytest.mark.parametrize(
    ("wrong", "told"), [("nothing.steps=3", "nothing"), ("transfer.stepz=3", "stepz"), ("steps=3", "steps")]
)
def test_a_wrong_setting_of_the_command_is_refused(wrong, told, tmp_path, monkeypatch):
    monkeypatch.setenv("CLSER_CORPORA", str(tmp_path))
    with pytest.raises(GivenError, match=told):
        sere_run.main(["--source", "a", "--target", "b", "--out", str(tmp_path / "out"), "--set", wrong])


def test_domains_that_are_alike_are_near():
    one, other = torch.randn(40, 3), torch.randn(50, 3)
    assert float(mmd(one, one)) == pytest.approx(0.0, abs=1e-6)
    assert float(mmd(one, other + 2.0)) > 3 * float(mmd(one, other)) > 0.0
