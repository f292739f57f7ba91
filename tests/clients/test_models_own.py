"""`clser-models list` and `show` of what lies in the user's own folder."""

import json
import sys
from pathlib import Path

import pytest

from clser.clients.commands import models
from clser.models.labels import HEADS


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that learnt nothing, one that was exported, and one whose file is broken."""
    pytest.importorskip("torch")
    from clser.models import saved, systems

    settings = {"width": 32, "layers": 1, "words_width": 16, "words_inner": 8, "attention_heads": 2}
    made = tmp_path / "models"
    system = systems.build("biformer", settings, HEADS)
    saved.save(made / "mine", system, saved.Trained("biformer", settings, HEADS))
    for name, file in (("broken", "model.safetensors"), ("exported", "model.onnx")):
        (made / name).mkdir()
        (made / name / file).write_bytes(b"nothing")
    monkeypatch.setenv("CLSER_MODELS", str(made))
    return made


def said(capsys: pytest.CaptureFixture[str], action: str, *arguments: str) -> tuple[str, str]:
    assert models.ACTIONS[action](models._parser(action).parse_args([action, *arguments])) == 0
    told = capsys.readouterr()
    return told.out, told.err


@pytest.mark.torch
def test_ones_own_models_are_listed_and_a_broken_one_hides_no_other(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, errors = said(capsys, "list", "--json")
    found = json.loads(listed)["own"]
    assert [(model["name"], model["system"]) for model in found] == [("exported", ""), ("mine", "biformer")]
    assert found[1]["file"] == str(own / "mine" / "model.safetensors")
    assert "broken" in errors
    assert any(line.startswith("mine ") and "yours  biformer" in line for line in said(capsys, "list")[0].splitlines())


@pytest.mark.torch
def test_a_name_of_ones_own_is_shown(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(said(capsys, "show", "mine", "--json")[0])["system"] == "biformer"


@pytest.mark.torch
def test_without_torch_names_and_files_are_listed(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = json.loads(said(capsys, "list", "--json")[0])["own"]
    assert [model["name"] for model in found] == ["broken", "exported", "mine"]
