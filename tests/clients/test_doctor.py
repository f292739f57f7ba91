"""What `clser-models doctor` says of recognisers, whatever is installed on the machine that runs this."""

from pathlib import Path

import pytest

from clser.clients.commands import doctor
from clser.engine.backends import recognisers, whisper


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Of the hub, with nothing in it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def found() -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor._recognisers()}


def test_where_there_is_nothing_it_says_how_to_get_each(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(recognisers, "installed", lambda kind: False)
    said = found()
    assert not any(finding.ok or finding.needed for finding in said.values())
    assert said["sphinx"].hint.endswith("pip install 'clser-stream[sphinx]'")
    assert said["whisper"].hint.endswith("pip install 'clser-stream[whisper]'")
    assert (said["whisper models"].found, said["whisper models"].hint[:32]) == (
        "none",
        "clser-models pull whisper:base (",
    )
    assert said["--asr auto"].found.startswith("off: no recogniser is here")


def test_what_is_here_is_named_and_what_would_be_taken(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(recognisers, "installed", lambda kind: True)
    assert found()["--asr auto"].found.startswith("sphinx: ")
    for name in ("tiny", "small.en"):
        pulled = cache / f"models--Systran--faster-whisper-{name}"
        (pulled / "refs").mkdir(parents=True)
        (pulled / "refs" / "main").write_text("abc")
        (pulled / "snapshots" / "abc").mkdir(parents=True)
        for file in whisper.FILES:
            (pulled / "snapshots" / "abc" / file).touch()
    said = found()
    assert (said["whisper models"].ok, said["whisper models"].found) == (True, "tiny, small.en")
    assert "faster-whisper-tiny" in said["--asr auto"].found
    assert said["--asr auto"].found.startswith("whisper ")
    assert said["--asr auto"].ok
