"""Whisper, heard while it is spoken: each step decodes an utterance's window anew, and what two steps agree on is committed.

Nothing of one utterance reaches the next: no prompt, no prefix, no language. Windows of many streams are one batch. Importing
this module imports no runtime; `open_recogniser` does.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays: S samples)

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from clser.engine.asr import AsrConfig
from clser.engine.backends import Recogniser, guards
from clser.engine.backends.agreement import Agreed, agree, cut, finish
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import RecogniserCard, Row, Word, Words
from clser.engine.records import Samples, samples

LEAST_SAMPLES = samples(200)  # less sound than this holds no word
TELLING_SAMPLES = samples(1000)  # so much sound tells the language, if one is likely
SETTLED_SAMPLES = samples(4000)  # and so much settles it
LIKELY = 0.5
LONGEST_SAMPLES = samples(10_000)  # a longer window is cut: else the cost of an utterance would grow with its square
CONTEXT_SAMPLES = samples(1500)  # committed sound that stays in a window that is cut: words are heard better in company
STEP_MS = 500  # the sooner two hypotheses follow each other, the more often both err alike

SIZES = ("base", "small", "tiny", "medium", "large-v3-turbo", "large-v3", "large-v2", "large-v1")
"""The best first: what keeps up with speech on a CPU, then what needs a GPU."""
OTHERS = {
    "large": "Systran/faster-whisper-large-v3",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}
ENGLISH = tuple(f"{size}.en" for size in ("base", "small", "tiny", "medium"))
NAMES = (*SIZES, *ENGLISH, *(name for name in OTHERS if name not in SIZES))
FILES = ("model.bin", "config.json", "tokenizer.json")


class Window(NamedTuple):
    """What is decoded: at most as much sound as the checkpoint hears at once."""

    sound_S: Samples
    language: str
    """Empty: to be detected."""
    most_tokens: int


class Hypothesis(NamedTuple):
    """What a checkpoint hears in a window."""

    words: tuple[Word, ...] = ()
    """Timed from the window's start."""
    tokens: int = 0
    log_probability: float = 0.0
    """The mean a token."""
    no_speech: float = 0.0
    language: str = ""
    certainty: float = 1.0
    """That it is that language."""


class Decoder(Protocol):
    """A checkpoint. It has no memory."""

    card: RecogniserCard
    window_samples: int
    languages: tuple[str, ...]

    def decode(self, windows: Sequence[Window]) -> list[Hypothesis]: ...


class Heard(NamedTuple):
    """What is kept of an utterance."""

    sound_S: Samples
    """The window, and what came since it was decoded."""
    begin: int = 0
    """Where the window begins, in samples since the utterance did,"""
    decoded: int = 0
    """and up to where it was decoded."""
    agreed: Agreed = Agreed()
    language: str = ""
    settled: bool = False
    doubt: str = ""

    @property
    def end(self) -> int:
        return self.begin + len(self.sound_S)


class Whisper:
    """`Recogniser` over any decoder: all that is about time, agreement and doubt."""

    def __init__(self, decoder: Decoder, config: AsrConfig) -> None:
        self.card = decoder.card
        self._decoder, self._config = decoder, config
        self._language = _known(config.language, decoder.languages)
        self._longest = min(LONGEST_SAMPLES, decoder.window_samples * 2 // 3)
        self._kept: dict[int, Heard] = {}

    def run(self, rows: Sequence[Row], pcm: Samples) -> list[Words]:
        sounds = np.split(pcm, np.cumsum([row.frames for row in rows])[:-1])
        heard = [self._before(row, sound_S) for row, sound_S in zip(rows, sounds, strict=True)]
        while due := [n for n, each in enumerate(heard) if each.decoded < each.end >= LEAST_SAMPLES]:
            windows = [self._window(heard[n], rows[n]) for n in due]
            for n, window, said in zip(due, windows, self._decoder.decode(windows), strict=True):
                heard[n] = self._hear(heard[n], window, said)
        out = []
        for row, each in zip(rows, heard, strict=True):
            kept = each._replace(agreed=finish(each.agreed)) if row.last else each
            self._kept[row.slot] = kept
            out.append(self._say(row, kept))
        return out

    def _before(self, row: Row, new_S: Samples) -> Heard:
        nothing = Heard(np.zeros(0, np.int16))
        heard = nothing if row.fresh else self._kept.get(row.slot, nothing)
        return heard._replace(sound_S=np.concatenate((heard.sound_S, new_S)))

    def _window(self, heard: Heard, row: Row) -> Window:
        sound_S = heard.sound_S[: self._decoder.window_samples]
        language = self._told(row) or (heard.language if heard.settled else "")
        return Window(sound_S, language, guards.most_tokens(len(sound_S), self._config))

    def _told(self, row: Row) -> str:
        """The language, as far as somebody says it. A checkpoint for one language hears that."""
        if len(self._decoder.languages) == 1:
            return self._decoder.languages[0]
        return _known(row.language, self._decoder.languages) or self._language

    def _hear(self, heard: Heard, window: Window, said: Hypothesis) -> Heard:
        """The state after a decode of its window."""
        size = len(window.sound_S)
        end = heard.begin + size
        words = () if said.no_speech > self._config.no_speech_above else said.words
        doubt = ""
        if words:
            doubt = guards.unsure(said.log_probability, said.tokens, window.most_tokens, self._config)
            doubt = doubt or guards.doubt(words, size, self._config)
        shifted = [Word(w.text, w.start + heard.begin, w.end + heard.begin, w.confidence) for w in words]
        agreed = agree(heard.agreed, shifted, end, trusted=not doubt)
        settled = heard.settled or (
            end >= TELLING_SAMPLES and (said.certainty >= LIKELY or end >= SETTLED_SAMPLES) and bool(words)
        )
        language = said.language if end >= TELLING_SAMPLES else ""
        after = heard._replace(decoded=end, agreed=agreed, language=language, settled=settled, doubt=doubt)
        return self._shortened(after, size)

    def _shortened(self, heard: Heard, size: int) -> Heard:
        """The window cut behind a committed word, once it is long; anywhere, where it is full and nothing was committed."""
        if size <= self._longest:
            return heard
        agreed, begin = heard.agreed, heard.begin
        if agreed.committed:
            keep = agreed.committed[-1].end
            agreed, begin = cut(agreed, begin, keep - CONTEXT_SAMPLES)
            if begin == heard.begin:
                agreed, begin = cut(agreed, begin, keep)
        if begin == heard.begin and size >= self._decoder.window_samples:
            begin = heard.decoded - LEAST_SAMPLES
            agreed = finish(agreed)  # its sound goes: nothing can change it any more
            agreed = agreed._replace(before=len(agreed.committed))
        return heard._replace(agreed=agreed, begin=begin, sound_S=heard.sound_S[begin - heard.begin :].copy())

    def _say(self, row: Row, heard: Heard) -> Words:
        words = heard.agreed.words
        confidence = float(np.mean([word.confidence for word in words])) if words else 0.0
        foreign = bool(row.language) and not _known(row.language, self._decoder.languages)
        doubt = foreign or heard.doubt or guards.doubt(words, heard.end, self._config)
        return Words(
            words=words,
            stable=len(heard.agreed.committed),
            language=self._told(row) or heard.language,
            confidence=confidence,
            suspect=bool(words) and bool(doubt),
            whole=heard.decoded == heard.end or heard.end < LEAST_SAMPLES,
        )


def open_recogniser(name: str, compute: str, config: AsrConfig) -> Recogniser:
    """`name`: empty (the best that is on this machine), a size, a name on the hub, or a folder in CTranslate2's format."""
    folder = Path(found(name, config.language))
    from clser.engine.backends.whisper_decode import open_decoder  # noqa: PLC0415 (imports the runtime)

    decoder = open_decoder(folder, _called(folder, name), compute, config.threads, STEP_MS)
    if config.language and not _known(config.language, decoder.languages):
        raise GivenError(
            f"asr.language {config.language!r}: the checkpoint {folder} knows {_listed(decoder.languages)}; "
            "give one of these, or another checkpoint"
        )
    return Whisper(decoder, config)


def available(name: str = "", language: str = "") -> str:
    """The folder that `name` means on this machine; empty where there is none. The language tells what an empty name may take."""
    if not name:
        english = language.partition("-")[0].casefold() == "en"
        choices = [each for size in SIZES for each in (f"{size}.en", size)[not english :] if each in NAMES]
        return next((have for each in choices if (have := available(each))), "")
    if _complete(folder := Path(name).expanduser()):
        return str(folder)
    repository = _repository(name)
    cached = _hub() / f"models--{repository.replace('/', '--')}"
    try:
        revision = (cached / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    snapshot = cached / "snapshots" / revision
    return str(snapshot) if repository and _complete(snapshot) else ""


def found(name: str, language: str = "") -> str:
    """`available`, or an error that says what to do."""
    if folder := available(name, language):
        return folder
    if not name:
        raise MissingError(
            "asr.recogniser 'whisper': no Whisper is on this machine; run `clser-models pull whisper:base`"
        )
    given = Path(name).expanduser()
    if given.is_dir() and name not in NAMES:
        lacking = next(file for file in FILES if not (given / file).is_file())
        raise GivenError(
            f"asr.recogniser: {given} is no Whisper in CTranslate2's format, {lacking} is not in it; give a folder that "
            "`clser-models pull` or CTranslate2's converter wrote"
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MissingError(f"asr.recogniser: there is no folder {name}; give one, or a size such as base")
    if not _repository(name):
        raise GivenError(
            f"asr.recogniser 'whisper:{name}': no such size; there are {_listed(NAMES)}; or give a name on the hub, or a folder"
        )
    pulled = f"whisper:{name}" if name in NAMES else name
    raise MissingError(f"asr.recogniser: the Whisper {name} is not on this machine; run `clser-models pull {pulled}`")


def _called(folder: Path, name: str) -> str:
    """What the checkpoint is called: as on the hub, or as the folder given."""
    cached = next((part for part in folder.parts if part.startswith("models--")), "")
    return _repository(name) or cached.removeprefix("models--").replace("--", "/") or folder.resolve().name


def _complete(folder: Path) -> bool:
    return all((folder / file).is_file() for file in FILES)


def _repository(name: str) -> str:
    """Where the hub has it; empty for what is neither a size nor a name there."""
    if name in NAMES:
        return OTHERS.get(name, f"Systran/faster-whisper-{name}")
    return name if name.count("/") == 1 and not name.startswith((".", "/", "~")) else ""


def _hub() -> Path:
    """The hub's cache, as its own library finds it."""
    environ = os.environ
    home = Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    where = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(where or Path(environ.get("HF_HOME") or home) / "hub").expanduser()


def _known(language: str, languages: Sequence[str]) -> str:
    """The code as the checkpoint writes it, without a country; empty if it does not know it."""
    code = language.partition("-")[0].partition("_")[0].casefold()
    return code if code in languages else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
