"""`clser-models pull`: what is asked of the hub, what is said, and what it takes. Nothing is downloaded here."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clser.clients.commands import models, pull
from clser.engine.errors import MissingError

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


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in (FETCHER, "clser.models.encoders.found"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MissingError, match=r"needs torch: pip install 'clser-stream\[train\]'"):
        pulled("some/encoder")


def test_no_name_is_a_wrong_argument() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "clser.clients.commands.models", "pull"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "NAME" in ended.stderr
