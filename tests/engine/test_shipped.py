"""Which file a model's name or path means, what plays it, and what is said where there is none."""

from pathlib import Path

import pytest

from clser.engine.errors import MissingError
from clser.engine.shipped import backend_for, folder, installed, model_path, own, own_folder


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: one that was trained, one exported, one both, one that is neither, and a shipped name."""
    home = tmp_path / "models"
    for name, files in (
        ("trained", ["model.safetensors", "results.json"]), ("exported", ["model.onnx"]),
        ("both", ["model.safetensors", "model.onnx"]), ("neither", ["notes.txt"]), ("voice", ["model.safetensors"]),
    ):  # fmt: skip
        (home / name).mkdir(parents=True)
        for file in files:
            (home / name / file).write_bytes(b"x")
    monkeypatch.setenv("CLSER_MODELS", str(home))
    return home


def test_a_shipped_name_comes_first(models: Path) -> None:
    assert model_path("voice") == folder() / "voice.onnx"
    assert own() == ["both", "exported", "trained"]
    assert "voice" in installed()


@pytest.mark.parametrize(
    ("name", "file", "backend"),
    [
        ("trained", "model.safetensors", "torch"),
        ("exported", "model.onnx", "onnx"),
        ("both", "model.safetensors", "torch"),
    ],
)
def test_a_name_of_the_users_and_a_path_to_it_are_the_same(models: Path, name: str, file: str, backend: str) -> None:
    for given in (name, str(models / name), str(models / name / file)):
        assert model_path(given) == models / name / file
        assert backend_for(given) == backend
    assert backend_for("voice") == "onnx"


@pytest.mark.parametrize(
    ("given", "message", "backend"),
    [
        ("absent.onnx", "there is no such file", "onnx"),
        ("absent.safetensors", "there is no such file", "torch"),
        ("neither", "is unknown: installed are .*voice, .*trained; or give the path", "onnx"),
        ("", "is unknown", "onnx"),
        ("../models/trained", "is unknown", "onnx"),
        ("nobody", "is unknown: installed are", "onnx"),
    ],
)
def test_what_is_not_there_is_missing(models: Path, given: str, message: str, backend: str) -> None:
    with pytest.raises(MissingError, match=message):
        model_path(given)
    assert backend_for(given) == backend


def test_a_folder_without_a_model_is_missing(models: Path) -> None:
    with pytest.raises(MissingError, match=r"no model\.safetensors and no model\.onnx in that folder"):
        model_path(str(models / "neither"))


def test_a_published_system_that_was_not_trained_says_how(models: Path) -> None:
    wanted = f"`clser-models train --config biformer --corpora DIR --out {models / 'biformer'}`"
    with pytest.raises(MissingError) as raised:
        model_path("biformer")
    assert wanted in str(raised.value)


def test_where_the_users_models_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLSER_MODELS", str(tmp_path / "a"))
    assert own_folder() == tmp_path / "a"
    assert own() == []
    monkeypatch.delenv("CLSER_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "b"))
    assert own_folder() == tmp_path / "b" / "clser-stream" / "models"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert own_folder() == Path.home() / ".local" / "share" / "clser-stream" / "models"
