"""A trained system on disk: what goes in comes out, and what was changed is noticed."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import json

import msgspec
import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clser.models import saved, systems
from clser.models.errors import GivenError, MissingError
from clser.models.saved import Calibration, Trained

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return [tiny.zoo(tmp_path_factory.mktemp("zoo"))]


@pytest.fixture
def system(zoo):
    torch.manual_seed(0)
    return systems.build("tiny", {"drop": 0.3}, tiny.EMOTIONS, zoo)


@pytest.fixture
def about():
    return Trained(
        "tiny", {"drop": 0.3}, tiny.EMOTIONS, Calibration(1.5, (0.1, 0.0, -0.1)), trained_on=("one",), seed=4
    )


def again(path, change):
    """The file with its metadata changed."""
    with safe_open(str(path), "pt") as file:
        said = json.loads(file.metadata()["clser"])
    change(said)
    save_file(load_file(str(path)), str(path), {"clser": json.dumps(said)})


def test_it_comes_back_as_it_was(system, about, zoo, tmp_path):
    path = saved.save(tmp_path / "out", system, about)
    assert path == tmp_path / "out" / "model.safetensors"
    for where in (path, tmp_path / "out"):
        back, said = saved.load(where, zoo)
        assert said.heads == tiny.EMOTIONS
        assert said.calibration == about.calibration
        assert said.streams == "exactly"
        assert said.settings == {"drop": 0.3}
        assert not back.training
        for name, part in system.state_dict().items():
            assert torch.equal(part, back.state_dict()[name])
    assert msgspec.structs.replace(said, digest="") == msgspec.structs.replace(saved.about_of(path), digest="")


def test_others_may_read_it(system, about, tmp_path):
    path = saved.save(tmp_path / "a.safetensors", system, about)
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_the_digest_is_of_the_weights_alone(system, about, tmp_path):
    one = saved.about_of(saved.save(tmp_path / "a.safetensors", system, about)).digest
    other = saved.about_of(
        saved.save(tmp_path / "b.safetensors", system, msgspec.structs.replace(about, seed=9))
    ).digest
    assert one == other
    with torch.no_grad():
        system.leave.bias[0] += 1e-6
    assert saved.about_of(saved.save(tmp_path / "c.safetensors", system, about)).digest != one


def test_changed_weights_are_noticed(system, about, zoo, tmp_path):
    path = saved.save(tmp_path, system, about)
    weights = load_file(str(path))
    with safe_open(str(path), "pt") as file:
        said = file.metadata()
    weights["leave.bias"] = weights["leave.bias"] + 1.0
    save_file(weights, str(path), said)
    with pytest.raises(GivenError, match="not those it was saved with"):
        saved.load(path, zoo)


@pytest.mark.parametrize(
    "change_told",
    [
        (lambda said: said["fronts"].update(logmel="0123"), "trained on another logmel"),
        (lambda said: said.update(heads=["anger", "neutral"]), "do not fit"),
        (lambda said: said.update(system="huge"), "'huge' is unknown"),
        (lambda said: said.update(format=99), "format 99"),
        (lambda said: said.pop("heads"), "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused(system, about, zoo, tmp_path_factory, change_told):
    change, told = change_told
    path = saved.save(tmp_path_factory.mktemp("changed"), system, about)
    again(path, change)
    with pytest.raises((GivenError, MissingError), match=told):
        saved.load(path, zoo)


def test_what_is_no_trained_system_is_refused(zoo, tmp_path):
    with pytest.raises(MissingError, match="no trained system there"):
        saved.load(tmp_path, zoo)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(GivenError, match="no safetensors file"):
        saved.load(tmp_path, zoo)
    save_file({"x": torch.zeros(2)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(GivenError, match="does not say what it is"):
        saved.load(tmp_path, zoo)


def test_a_float_of_any_kind_and_no_size_has_a_digest():
    parts = {"half": torch.zeros(3, dtype=torch.bfloat16), "one": torch.tensor(1.0), "none": torch.zeros(0, 4)}
    assert len(saved.digest_of(parts)) == 16
    assert saved.digest_of(parts) == saved.digest_of(dict(reversed(parts.items())))
    assert np.unique([saved.digest_of({name: part}) for name, part in parts.items()]).size == 3
