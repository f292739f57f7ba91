"""`clser-models`: what is listed and shown, with torch and without it, and what is exported."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from clser.clients.commands import export, models, systems
from clser.engine.errors import ClserError, GivenError, MissingError

ZOO = Path(__file__).parent.parent / "models" / "small_system.py"


def said(capsys: pytest.CaptureFixture[str], action: str, *arguments: str) -> str:
    given = models._parser(action).parse_args([action, *arguments])
    act = models.ACTIONS[action] if action in models.ACTIONS else models._elsewhere()[action].run
    assert act(given) == 0
    return capsys.readouterr().out


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    folder.mkdir()
    shutil.copy(ZOO, folder / "running_mean.py")
    return folder


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


def test_without_torch_the_models_are_listed_and_the_rest_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_torch(monkeypatch)
    lines = said(capsys, "list").splitlines()
    assert lines[0].startswith("voice ")
    assert lines[-1] == systems.NEEDS_TORCH
    assert "pip install 'clser-stream[torch]'" in lines[-1]
    assert json.loads(said(capsys, "list", "--json"))["systems"] is None
    assert "digest" in said(capsys, "show", "voice")
    with pytest.raises(MissingError, match=r"model 'acmf' is unknown.*pip install"):
        said(capsys, "show", "acmf")
    for arguments in (("show", "voice", "--system"), ("export", "--model", "voice", "--onnx", "x.onnx")):
        with pytest.raises(MissingError, match="pip install"):
            said(capsys, *arguments)


def test_a_model_is_shown_as_it_describes_itself(capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(said(capsys, "show", "voice", "--json"))
    assert (shown["name"], shown["streams"], shown["contract"]) == ("voice", "exactly", 1)
    assert shown["bytes"] == Path(shown["file"]).stat().st_size
    assert said(capsys, "show", shown["file"]) == said(capsys, "show", "voice")
    assert said(capsys, "card", "voice").startswith("#")


def test_listing_does_not_load_what_other_actions_need() -> None:
    code = (
        "import sys; from clser.clients.commands import models; models._parser('list'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'clser.clients.commands.train', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_every_action_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        models._parser().parse_args(["--help"])
    offered = capsys.readouterr().out
    for action in ("list", "show", "card", "doctor", "train", "export"):
        assert f"\n    {action} " in offered


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "int"),
        (Annotated[int, msgspec.Meta(ge=1)], "int >= 1"),
        (Annotated[float, msgspec.Meta(ge=0, lt=1)], "float >= 0 < 1"),
        (Literal["full", "causal"], "full | causal"),
        (float | None, "float | none"),
        (tuple[int, ...], "tuple of int"),
        (dict[str, int], "dict of str, int"),
    ],
)
def test_types_are_written_as_people_do(hint: Any, words: str) -> None:
    assert systems.kind(hint) == words


# --- with torch -------------------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_systems_are_listed_with_what_they_are(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    (zoo / "broken.py").write_text("import nothing_of_this_name\n")
    (zoo / "hollow.py").write_text("ABOUT = 1\n")
    assert models.ACTIONS["list"](models._parser("list").parse_args(["list", "--json", "--zoo", str(zoo)])) == 0
    out, told = capsys.readouterr()
    listed = json.loads(out)
    found = {system["name"]: system for system in listed["systems"]}
    assert [model["name"] for model in listed["models"]] == ["voice", "voice_licensed"]
    assert {"voice", "running_mean"} <= set(found)
    assert not {"broken", "hollow"} & set(found)
    ours = found["running_mean"]
    assert (ours["streams"], ours["fronts"], ours["words"], ours["frame_samples"]) == ("exactly", ["logmel"], "", 1280)
    assert ours["parameters"] == sum(ours["parts"].values()) == 240 * 12 + 12 + 12 * 9 + 9
    assert "system broken: ModuleNotFoundError" in told
    assert "system hollow: " in told
    assert "no Config, build in it" in told


@pytest.mark.torch
def test_a_system_is_shown_with_its_settings(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    shown = json.loads(said(capsys, "show", "running_mean", "--json", "--zoo", str(zoo)))
    assert (shown["title"], shown["reference"]) == ("A running mean", "a test")
    assert shown["settings"][:2] == [
        {"name": "streams", "type": "exactly | window | end", "default": "exactly"},
        {"name": "width", "type": "int", "default": 12},
    ]
    lines = said(capsys, "show", "running_mean", "--zoo", str(zoo)).splitlines()
    assert "streams          exactly: an answer every 80 ms" in lines
    assert any(line.split() == ["width", "12", "int"] for line in lines)
    both = said(capsys, "show", "voice"), said(capsys, "show", "--system", "voice")
    assert "digest" in both[0]
    assert "manner_drop" in both[1]
    with pytest.raises(MissingError, match="model 'nothing' is unknown"):
        said(capsys, "show", "nothing")


def test_how_it_streams_in_words() -> None:
    system = {"streams": "window", "frame_samples": 640, "window_frames": 100, "hop_frames": 25}
    assert systems.streaming(system) == "window: an answer every 1 s about the last 4 s"
    assert systems.streaming({**system, "streams": "end"}).startswith("end: an answer when an utterance is over")


@pytest.mark.torch
def test_a_trained_folder_is_shown_and_exported(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from clser.models import saved
    from clser.models.labels import HEADS
    from clser.models.systems import build

    settings = {"streams": "window"}
    about = saved.Trained("running_mean", settings, HEADS, abstain_below=0.3, trained_on=("emodb",))
    trained = saved.save(tmp_path / "trained", build("running_mean", settings, HEADS, [zoo]), about)
    shown = json.loads(said(capsys, "show", str(tmp_path / "trained"), "--json"))
    assert (shown["system"], shown["settings"], shown["trained_on"]) == ("running_mean", settings, ["emodb"])
    for model in (trained.parent, trained):
        made = said(
            capsys, "export", "--model", str(model), "--onnx", str(tmp_path / "x.onnx"), "--zoo", str(zoo), "--json"
        )
        assert json.loads(made)["parity"] < 1e-4
    shown = json.loads(said(capsys, "show", str(tmp_path / "x.onnx"), "--json"))
    assert (shown["name"], shown["streams"], shown["contract"]) == ("running_mean", "window", 2)
    assert (shown["window_frames"], shown["hop_frames"], shown["abstain_below"]) == (20, 5, 0.3)


@pytest.mark.torch
def test_the_shipped_model_is_exported_with_8_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    told = said(capsys, "export", "--model", "voice", "--onnx", str(tmp_path / "small.onnx"), "--int8")
    assert "8-bit weights: " in told
    small, full = (json.loads(said(capsys, "show", name, "--json")) for name in (str(tmp_path / "small.onnx"), "voice"))
    assert small["bytes"] < full["bytes"]
    assert {small[key] == full[key] for key in ("name", "version", "heads", "abstain_below", "licence")} == {True}


@pytest.mark.torch
@pytest.mark.parametrize(
    ("model", "onnx", "kind", "words"),
    [
        ("voice", "x.bin", GivenError, "must end in .onnx"),
        ("some.onnx", "x.onnx", GivenError, "that is an ONNX file already"),
        ("nothing", "x.onnx", MissingError, "model 'nothing' is unknown"),
        ("nothing.safetensors", "x.onnx", MissingError, "no trained system there"),
    ],
)
def test_what_cannot_be_exported_is_said(
    model: str, onnx: str, kind: type[ClserError], words: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    given = models._parser().parse_args(["export", "--model", model, "--onnx", str(tmp_path / onnx)])
    with pytest.raises(kind, match=words):
        export.run(given)
    assert not list(tmp_path.iterdir())
