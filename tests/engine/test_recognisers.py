"""Which recogniser is taken, whatever is installed on the machine that runs this."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clser.engine.asr import AsrConfig
from clser.engine.backends import recognisers, whisper
from clser.engine.backends.recognisers import Choice, choose, open_recogniser
from clser.engine.errors import ClserError, GivenError, MissingError

SPHINX, WHISPER = "clser.engine.backends.sphinx", "clser.engine.backends.whisper"
Here = Callable[..., None]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Says what is on this machine."""

    def be(*kinds: str, checkpoint: str = "") -> None:
        monkeypatch.setattr(recognisers, "installed", lambda kind: kind in kinds)
        monkeypatch.setattr(whisper, "available", lambda name="", language="": checkpoint)

    return be


def chosen(recogniser: str, language: str = "", compute: str = "cpu") -> Choice:
    return choose(AsrConfig(recogniser=recogniser, language=language, compute=compute))


def test_auto_takes_a_whisper_that_is_there(here: Here) -> None:
    here("whisper", "sphinx", checkpoint="/some/where")
    assert (chosen("auto").module, chosen("auto").name) == (WHISPER, "/some/where")
    assert chosen("auto", "de", "cuda:0").module == WHISPER


@pytest.mark.parametrize("language", ["", "en", "en-GB", "EN"])
def test_auto_takes_sphinx_for_english_where_no_whisper_is(here: Here, language: str) -> None:
    here("whisper", "sphinx")
    assert (chosen("auto", language).module, chosen("auto", language).name) == (SPHINX, "")


@pytest.mark.parametrize(
    ("kinds", "checkpoint", "language", "compute", "said"),
    [
        ((), "", "", "cpu", r"\[sphinx\]'` for English, or `pip install .*\[whisper\]'` and `clser-models pull whisper:base`$"),
        ((), "/some/where", "", "cpu", r"a Whisper lies in /some/where.*pip install 'clser-stream\[whisper\]'$"),
        (("sphinx",), "", "de", "cpu", r"\[whisper\]'` and `clser-models pull whisper:base` for 'de'$"),
        (("whisper", "sphinx"), "", "de", "cpu", "here: `clser-models pull whisper:base` for 'de'$"),
        (("whisper", "sphinx"), "", "", "cuda:0", "here: `clser-models pull whisper:base` for cuda:0$"),
    ],
)  # fmt: skip
def test_auto_takes_none_else_and_says_what_to_do(  # noqa: PLR0917 (a table's columns)
    here: Here, kinds: tuple[str, ...], checkpoint: str, language: str, compute: str, said: str
) -> None:
    here(*kinds, checkpoint=checkpoint)
    none = chosen("auto", language, compute)
    assert (none.module, none.name) == ("", "")
    assert re.search(said, none.why), none.why


def test_off_is_off(here: Here) -> None:
    here("whisper", "sphinx", checkpoint="/some/where")
    assert chosen("off") == Choice(why="asr.recogniser is off")


@pytest.mark.parametrize(
    ("recogniser", "kinds", "kind", "said"),
    [
        ("sphinx", ("whisper",), MissingError, r"pocketsphinx is not installed; run `pip install 'clser-stream\[sphinx\]'`"),
        ("whisper", ("sphinx",), MissingError, r"faster_whisper is not installed; run `pip install 'clser-stream\[whisper\]'`"),
        ("whisper:base", (), MissingError, "faster_whisper is not installed"),
        ("whisper", ("whisper",), MissingError, "`clser-models pull whisper:base`"),
        ("whisper:tiny", ("whisper",), MissingError, "`clser-models pull whisper:tiny`"),
        ("whisper:some/thing", ("whisper",), MissingError, "`clser-models pull some/thing`"),
        ("whisper:huge", ("whisper",), GivenError, "no such size"),
        ("vosk", ("whisper",), GivenError, "give auto, off, sphinx, whisper, or whisper:NAME"),
        ("sphinx:large", ("sphinx",), GivenError, "'sphinx:large' is none"),
        ("whisper:", ("whisper",), GivenError, "'whisper:' is none"),
        ("", (), GivenError, "give auto, off"),
    ],
)  # fmt: skip
def test_what_was_asked_for_and_is_not_there_is_an_error(
    here: Here, recogniser: str, kinds: tuple[str, ...], kind: type[ClserError], said: str
) -> None:
    here(*kinds)
    with pytest.raises(kind, match=said):
        chosen(recogniser)


def test_what_was_asked_for_is_taken(here: Here) -> None:
    here("whisper", "sphinx", checkpoint="/some/where")
    assert chosen("sphinx").module == SPHINX
    assert (chosen("whisper:base").module, chosen("whisper:base").name) == (WHISPER, "/some/where")


def test_a_module_elsewhere_is_taken_and_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    module = type(sys)("tests_of.recognisers")
    monkeypatch.setattr(module, "open_recogniser", lambda *given: asked.append(given), raising=False)
    monkeypatch.setitem(sys.modules, "tests_of", type(sys)("tests_of"))
    monkeypatch.setitem(sys.modules, "tests_of.recognisers", module)
    config = AsrConfig(recogniser="tests_of.recognisers")
    open_recogniser(choose(config), "cpu", config)
    assert asked == [("", "cpu", config)]


def test_installed_looks_and_does_not_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pocketsphinx.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pocketsphinx", raising=False)
    assert recognisers.installed("sphinx")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    assert not recognisers.installed("sphinx")


def test_choosing_imports_no_runtime() -> None:
    code = (
        "import sys; from clser.engine.asr import AsrConfig; from clser.engine.backends.recognisers import choose; "
        "choose(AsrConfig(recogniser='auto')); "
        "sys.exit(any(name in sys.modules for name in ('pocketsphinx', 'faster_whisper', 'ctranslate2', 'torch', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
