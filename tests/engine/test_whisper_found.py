"""Which Whisper is taken, of those on this machine, and what is said where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest

from clser.engine.asr import AsrConfig
from clser.engine.backends.whisper import available, found, open_recogniser
from clser.engine.errors import GivenError, MissingError

CONFIG = AsrConfig()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def pulled(hub: Path, name: str, *lacking: str) -> Path:
    """A checkpoint as the hub's library lays it down."""
    folder = hub / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    for file in {"model.bin", "config.json", "tokenizer.json"} - set(lacking):
        (snapshot / file).write_text("{}")
    return snapshot


def test_the_best_that_is_there_is_taken(hub: Path) -> None:
    assert available() == ""
    tiny = pulled(hub, "Systran/faster-whisper-tiny")
    assert available() == available("tiny") == available("Systran/faster-whisper-tiny") == str(tiny)
    pulled(hub, "Systran/faster-whisper-base", "model.bin")
    english = pulled(hub, "Systran/faster-whisper-base.en")
    assert available() == available("", "de") == str(tiny)
    assert available("", "en") == available("", "en-GB") == str(english)
    assert available("base") == ""
    assert available(str(tiny)) == str(tiny)


def test_the_cache_is_where_the_hubs_library_looks(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled(tmp_path / "other" / "hub", "Systran/faster-whisper-tiny")
    assert available("tiny") == ""
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "other"))
    assert available("tiny") != ""


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("", MissingError, "clser-models pull whisper:base"),
        ("small", MissingError, "clser-models pull whisper:small"),
        ("some/where", MissingError, "clser-models pull some/where"),
        ("./nowhere", MissingError, "no folder"),
        ("enormous", GivenError, "tiny"),
    ],
)
def test_what_is_not_there_says_what_to_do(hub: Path, name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        found(name)


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(GivenError, match=r"model\.bin is not in it"):
        found(str(tmp_path))


def test_looking_for_one_imports_no_runtime() -> None:
    code = (
        "import sys, clser.engine.backends.whisper as w; w.available('base'); "
        "sys.exit(sum(name in sys.modules for name in ('faster_whisper', 'ctranslate2', 'torch', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_package(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled(hub, "Systran/faster-whisper-tiny")
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingError, match=r"clser-stream\[whisper\]"):
        open_recogniser("tiny", "cpu", CONFIG)


def test_a_broken_checkpoint(hub: Path) -> None:
    pytest.importorskip("faster_whisper", reason="needs the whisper extra")
    pulled(hub, "Systran/faster-whisper-tiny")
    with pytest.raises(GivenError, match="cannot be loaded"):
        open_recogniser("tiny", "cpu", CONFIG)
