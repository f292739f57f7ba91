"""Adapting a system to a few clips: it learns them, keeps what it knew, changes nothing it was given, and can be kept as a delta."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")
from torch import nn

from clser.models import adapt, delta, deltas, judged, refit, saved, shots, systems
from clser.models.adapt import Adapting
from clser.models.data.manifests import read_manifest
from clser.models.errors import GivenError
from clser.models.losses import AmSoftmax
from clser.models.saved import Calibration, Trained

pytestmark = pytest.mark.torch
HEADS = ("anger", "calm", "neutral", "sadness")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tiny.corpora(tmp_path_factory.mktemp("adapt"), names=("one",), speakers=4, each=3)
    return read_manifest(folder / "one")


def small(streams="exactly", enrols=False):
    torch.manual_seed(1)
    settings = {"streams": streams, "enrols": enrols}
    system = systems.build("small_system", settings, HEADS, [HERE]).eval()
    offsets = (0.1, -0.1, 0.0, 0.2)
    about = Trained(
        "small_system", settings, HEADS, Calibration(1.3, offsets), 0.2, digest=saved.digest_of(system.state_dict())
    )
    return system, about


def right(system, about, clips):
    said = judged.logits(system, about, clips)[0].argmax(1)
    return float(np.mean([about.heads[n] == clip.emotion for n, clip in zip(said, clips, strict=True)]))


@pytest.mark.parametrize("streams", ["exactly", "window", "end"])
@pytest.mark.parametrize("enrols", [False, True])
def test_it_learns_its_clips_and_leaves_what_it_was_given(clips, streams, enrols):
    system, about = small(streams, enrols and streams == "exactly")
    before = {name: part.clone() for name, part in system.state_dict().items()}
    changed, told = adapt.adapted(system, about, clips, Adapting(reach_nats=30.0))
    assert right(changed, told, clips) > max(0.6, right(system, about, clips))
    assert all(torch.equal(part, before[name]) for name, part in system.state_dict().items())
    assert all(parameter.requires_grad for parameter in system.parameters())
    assert all(parameter.requires_grad for parameter in changed.parameters())
    differing = {name for name, part in changed.state_dict().items() if not torch.equal(part, before[name])}
    assert differing == {"leave.weight", "leave.bias"}
    assert told.trained_on == ("one",)


def test_the_less_it_may_reach_the_less_changes(clips):
    system, about = small()
    far = []
    for reach in (0.01, 0.3, 3.0):
        changed, _ = adapt.adapted(system, about, clips[:6], Adapting(reach_nats=reach))
        far.append(float((changed.leave.weight - system.leave.weight).detach().norm()))
    assert far[0] < far[1] < far[2]
    assert far[0] < 1e-3


def test_what_is_replayed_is_what_the_system_says(clips):
    """Refitted parameters, put into the system, give the very logits that the fit was about."""
    system, about = small(enrols=True)
    heard = adapt.Heard.of(system, clips)
    (recorded, _), (known, _) = adapt._recorded(system, heard, 0.5)
    parts = {name: part + 0.3 for name, part in refit.parts_of(system, ["leave"]).items()}
    replayed = refit.said_by(system, recorded, parts)
    assert not torch.allclose(refit.said_by(system, known, parts), replayed, atol=1e-3)
    with torch.no_grad():
        for name, part in parts.items():
            system.get_parameter(name).copy_(part)
    plain = msgspec.structs.replace(about, calibration=Calibration())
    assert np.allclose(judged.logits(system, plain, clips)[0], replayed.detach().numpy(), atol=1e-4)


def test_all_weights_move_a_little_and_towards_the_clips(clips):
    system, about = small()
    changed, told = adapt.adapted(
        system, about, clips, Adapting(part="all", epochs=4, learning_rate=3e-3, reach_nats=30.0)
    )
    assert not torch.equal(changed.enter.weight, system.enter.weight)
    assert right(changed, told, clips) > 0.6
    assert not changed.training
    again, _ = adapt.adapted(system, about, clips, Adapting(part="all", epochs=4, learning_rate=3e-3, reach_nats=30.0))
    assert all(torch.equal(part, again.state_dict()[name]) for name, part in changed.state_dict().items())
    pulled, _ = adapt.adapted(system, about, clips, Adapting(part="all", epochs=4, learning_rate=3e-3, pull=1.0))
    assert torch.allclose(pulled.enter.weight, system.enter.weight, atol=1e-3)


def test_unlabelled_clips_that_it_is_sure_of_count(clips):
    system, about = small()
    alone, _ = adapt.adapted(system, about, clips[:9], Adapting(reach_nats=10.0))
    more, _ = adapt.adapted(system, about, clips[:9], Adapting(reach_nats=10.0), clips[9:])
    none, _ = adapt.adapted(system, about, clips[:9], Adapting(reach_nats=10.0, sure=1.0), clips[9:])
    assert not torch.equal(more.leave.weight, alone.leave.weight)
    assert torch.equal(none.leave.weight, alone.leave.weight)


def test_a_class_it_has_no_head_for_and_no_clips_at_all_are_refused(clips):
    system, about = small()
    other = msgspec.structs.replace(about, heads=("anger", "calm", "neutral", "fear"))
    with pytest.raises(GivenError, match="sadness: small_system has no head for it"):
        adapt.adapted(system, other, clips)
    with pytest.raises(GivenError, match="no clips to adapt to"):
        adapt.adapted(system, about, [])


def test_a_delta_makes_the_adapted_system_of_its_base_again(clips, tmp_path):
    system, about = small()
    saved_at = saved.save(tmp_path / "base", system, about, half=True)
    base, about = saved.load(saved_at, [HERE])
    changed, told = adapt.adapted(base, about, clips)
    said, kept = deltas.delta_of(base, about, changed, told, shots=clips, seed=3)
    path = deltas.save(tmp_path / "mine.safetensors", said, kept)
    again, found = deltas.load_with(saved_at, path, [HERE])
    assert all(torch.equal(part, again.state_dict()[name]) for name, part in changed.state_dict().items())
    assert (found.calibration, found.trained_on) == (told.calibration, ("one",))
    assert found.digest.startswith(about.digest + "+")
    read, _ = delta.read(path)
    assert (read.name, read.corpora, read.tells_anew) == ("mine", ("one",), False)
    assert read.shots == {"anger": 12, "neutral": 12, "sadness": 12}
    assert path.stat().st_size < 4000
    with pytest.raises(GivenError, match=r"for the weights .* and these are"):
        deltas.with_delta(base, msgspec.structs.replace(about, digest="0" * 16), said, kept)
    with pytest.raises(GivenError, match=r"must end in \.safetensors"):
        deltas.save(tmp_path / "mine.onnx", said, kept)


class Naming(nn.Module):
    """Classes as directions, behind a factor for each row; beside it a layer whose way out is bent."""

    def __init__(self):
        super().__init__()
        self.heads = ("a", "b", "c")
        self.straight, self.bent = AmSoftmax(4, 3), nn.Linear(4, 3)

    def forward(self, x_ND):
        return x_ND[:, :1] * self.straight(x_ND) + torch.tanh(self.bent(x_ND))


def test_layers_other_than_linear_ones_are_fitted_and_bent_ways_are_left():
    net, x_ND = Naming(), torch.randn(30, 4)
    assert refit.naming(net) == ("straight", "bent")
    recorded = refit.record(net, refit.naming(net), lambda: net(x_ND))
    assert set(recorded.asked) == {"straight"}
    target_N = (x_ND[:, 1] > 0).long()
    rows = [refit.Labelled(recorded, target_N, torch.ones(30))]
    fitted = refit.refit(net, rows, torch.zeros(3), Calibration(), 10.0)
    before, after = (refit.said_by(net, recorded, parts).detach() for parts in ({}, fitted))
    loss = nn.functional.cross_entropy
    assert loss(after, target_N) < 0.5 * loss(before, target_N)


@pytest.mark.parametrize("asked", [{"shots": 2}, {"share": 0.4}, {"speakers": 0.5}])
def test_shots_are_drawn_and_others_are_left_to_test_on(clips, asked):
    drawn = shots.draw(clips, **asked, seed=1)
    assert not set(drawn.shots) & set(drawn.tested)
    assert drawn == shots.draw(clips, **asked, seed=1)
    assert {clips[n].emotion for n in drawn.shots} == {"anger", "neutral", "sadness"}
    apart = not {clips[n].who for n in drawn.shots} & {clips[n].who for n in drawn.tested}
    assert apart == drawn.apart
    if "shots" in asked:
        assert len(drawn.shots) == 6
        assert drawn.apart
    if "speakers" in asked:
        assert len(drawn.shots) == 18


def test_too_few_clips_of_a_class_are_told_by_name(clips):
    with pytest.raises(GivenError, match=r"too few clips of sadness \(1\)"):
        shots.draw([c for c in clips if c.emotion != "sadness"] + [clips[-1]], shots=2)
