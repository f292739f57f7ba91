"""`clser-models pull`: what is asked of the hub, what is said, and what it takes. Nothing is downloaded here."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clser.clients.commands import models, pull
from clser.engine.errors import GivenError, MissingError

FETCHER = "clser.models.encoders.pull"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What a hub that has everything was asked for."""
    asked: list[tuple[Any, ...]] = []

    def fetch(name: str, folder: Path | None, report: Any, revision: str | None, with_code: bool) -> Path:
        asked.append((name, folder, revision, with_code))
        report(f"{name}: 2 of 4 files to fetch, 6.0 MB")
        return folder or tmp_path

    monkeypatch.setitem(sys.modules, FETCHER, SimpleNamespace(pull=fetch))
    return asked


def pulled(*arguments: str) -> int:
    return pull.run(models._parser().parse_args(["pull", *arguments]))


def test_an_encoder_is_pulled_and_its_folder_said(
    hub: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pulled("some/encoder") == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(tmp_path)]
    assert told.err.splitlines() == ["some/encoder: 2 of 4 files to fetch, 6.0 MB"]
    assert hub == [("some/encoder", None, None, False)]


def test_what_was_asked_for_goes_along(
    hub: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    assert pulled("some/encoder", "--folder", str(mine), "--revision", "abc", "--with-code", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"name": "some/encoder", "folder": str(mine)}
    assert hub == [("some/encoder", mine, "abc", True)]


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("whisper:base", "Systran/faster-whisper-base"),
        ("whisper:small.en", "Systran/faster-whisper-small.en"),
        ("whisper:large", "Systran/faster-whisper-large-v3"),
        ("whisper:some/thing", "some/thing"),
    ],
)
def test_a_recogniser_is_pulled_by_its_size(
    hub: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str], name: str, repository: str
) -> None:
    assert pulled(name, "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == repository
    assert hub[0][0] == repository


def test_an_unknown_size_is_refused_with_the_known_ones(hub: list[tuple[Any, ...]]) -> None:
    with pytest.raises(GivenError, match=r"'whisper:huge': there is no such size.* base, small, tiny"):
        pulled("whisper:huge")
    assert not hub


CONVERTED = ["README.md", "config.json", "model.bin", "tokenizer.json", "vocabulary.txt", "preprocessor_config.json"]


def test_of_a_recogniser_that_is_fetched_which_is_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def snapshot_download(name: str, **options: Any) -> Any:
        asked.append((name, options))
        if options.get("dry_run"):
            files = [".gitattributes", *CONVERTED, "model.fp16.bin", "run.py"]
            return [SimpleNamespace(filename=file, file_size=1_000_000, will_download=True) for file in files]
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", SimpleNamespace())
    assert pulled("whisper:base") == 0
    assert [name for name, _ in asked] == ["Systran/faster-whisper-base"] * 2
    assert asked[1][1]["allow_patterns"] == sorted(CONVERTED)
    told = capsys.readouterr()
    assert told.err.splitlines()[0] == "Systran/faster-whisper-base: 6 of 6 files to fetch, 6.0 MB"
    assert told.out.splitlines() == [str(tmp_path)]


def test_without_the_hubs_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingError, match=r"needs the package huggingface_hub.*'clser-stream\[whisper\]' for a recog"):
        pulled("some/encoder")


def test_pulling_loads_no_torch() -> None:
    code = f"import sys, {FETCHER}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_no_name_is_a_wrong_argument() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "clser.clients.commands.models", "pull"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "NAME" in ended.stderr
