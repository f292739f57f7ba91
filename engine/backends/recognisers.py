"""Which recogniser is taken, and opening it. Choosing imports no runtime: it looks whether there is one."""

from importlib import import_module
from importlib.util import find_spec
from typing import cast

from msgspec import Struct

from clser.engine.asr import AUTO, OFF, AsrConfig
from clser.engine.backends import Recogniser, whisper
from clser.engine.errors import GivenError, MissingError

SPHINX, WHISPER = "sphinx", "whisper"
HERE = "clser.engine.backends"
PACKAGES = {SPHINX: "pocketsphinx", WHISPER: "faster_whisper"}
INSTALL = {SPHINX: "pip install 'clser-stream[sphinx]'", WHISPER: "pip install 'clser-stream[whisper]'"}
PULL = "clser-models pull whisper:base"


class Choice(Struct, frozen=True):
    """What was chosen; the defaults: none."""

    module: str = ""
    name: str = ""
    """What the module is to open; empty: what it thinks best."""
    why: str = ""


def choose(config: AsrConfig) -> Choice:
    """A recogniser that is there, or none where that was left open; an error where one was asked for that is not."""
    kind, _, name = config.recogniser.partition(":")
    if config.recogniser == OFF:
        return Choice(why="asr.recogniser is off")
    if config.recogniser == AUTO:
        return _whatever_is_here(config)
    if config.recogniser == SPHINX:
        _need(SPHINX)
        return Choice(f"{HERE}.{SPHINX}", why="asr.recogniser says so")
    if kind == WHISPER and (name or config.recogniser == WHISPER):
        _need(WHISPER)
        return Choice(f"{HERE}.{WHISPER}", whisper.found(name, config.language), "asr.recogniser says so")
    if "." in config.recogniser and ":" not in config.recogniser:
        return Choice(config.recogniser, why="asr.recogniser names a module")
    raise GivenError(
        f"asr.recogniser {config.recogniser!r} is none: give auto, off, sphinx, whisper, or whisper:NAME with a size such as "
        "base, a name on the hub or a folder"
    )


def open_recogniser(choice: Choice, compute: str, config: AsrConfig) -> Recogniser:
    try:
        opener = import_module(choice.module).open_recogniser
    except ModuleNotFoundError as error:
        raise MissingError(
            f"asr.recogniser {choice.module!r}: {error}; install it, or put it where Python looks"
        ) from error
    except AttributeError as error:
        raise GivenError(
            f"asr.recogniser {choice.module!r} has no open_recogniser; docs/words.md says what belongs there"
        ) from error
    return cast(Recogniser, opener(choice.name, compute, config))


def installed(kind: str) -> bool:
    """Whether the package that runs it is there. It is not imported."""
    return find_spec(PACKAGES[kind]) is not None


def english(language: str) -> bool:
    """Or not said."""
    return language.partition("-")[0].casefold() in ("", "en")


def _whatever_is_here(config: AsrConfig) -> Choice:
    folder = whisper.available("", config.language)
    if folder and installed(WHISPER):
        return Choice(f"{HERE}.{WHISPER}", folder, "a Whisper is on this machine")
    if installed(SPHINX) and english(config.language) and config.compute == "cpu":
        return Choice(f"{HERE}.{SPHINX}", why="Sphinx is installed, and no Whisper is here to hear better")
    return Choice(why=f"no recogniser is here: {_how_to_get_one(folder, config)}")


def _how_to_get_one(folder: str, config: AsrConfig) -> str:
    if folder:
        return f"a Whisper lies in {folder}, but what runs it does not; {INSTALL[WHISPER]}"
    better = f"`{PULL}`" if installed(WHISPER) else f"`{INSTALL[WHISPER]}` and `{PULL}`"
    if not english(config.language):
        return f"{better} for {config.language!r}"
    if config.compute != "cpu":
        return f"{better} for {config.compute}"
    return f"`{INSTALL[SPHINX]}` for English, or {better}"


def _need(kind: str) -> None:
    if not installed(kind):
        raise MissingError(
            f"asr.recogniser {kind!r}: the package {PACKAGES[kind]} is not installed; run `{INSTALL[kind]}`, "
            "or set asr.recogniser=off"
        )
