"""What `both` learns from: a voice's answers for speakers it never heard, and what words say of texts they never read.

No corpus here has both voices that feel and words that do. So a clip is paired with a text of the same label, at random:
the text is not what was said, nor always in its language. Figures from such pairs say what is made of a voice and words
that agree, or that do not, and no more.

Letters: N clips or texts, H heads of the voice, C of the words, X numbers of a text, K texts of a label.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from clser.models import calibrate
from clser.models.data.clips import Clip
from clser.models.data.corpora import Text, read_texts
from clser.models.data.text_parts import parts
from clser.models.errors import GivenError, MissingError
from clser.models.labels import NONE, PUBLISHED, PUBLISHED_AS
from clser.models.saved import Calibration
from clser.models.words_live import Read

Array = np.ndarray[Any, Any]
ANSWERS = "answers.npz"
KNOWN = "after_10"
"""Of the answers: those after ten other clips of the speaker were heard."""
MOST = 600
"""Texts of one label from one collection."""
BATCH = 64
KINDS = ("right", "right_suspect", "wrong", "wrong_suspect", "none")
"""What a clip is paired with: a text of its label or of another, trusted or mistrusted; or nothing."""


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often each kind of pair is trained on. They are shares of their sum."""

    right: float = 0.50
    right_suspect: float = 0.10
    wrong: float = 0.10
    wrong_suspect: float = 0.15
    none: float = 0.15

    def shares(self) -> Array:
        """[5], by `KINDS`."""
        share = np.array([getattr(self, kind) for kind in KINDS])
        if share.min() < 0 or share.sum() <= 0:
            raise GivenError(f"mix {share.tolist()}: no share may be negative, and one must be above 0")
        return np.asarray(share / share.sum())


class Voices(NamedTuple):
    """Answers for clips with an emotion."""

    logits_NH: Array
    known_NH: Array
    """The same where the speaker is known; not numbers where he is not."""
    clips: tuple[Clip, ...]
    fold_N: Array
    """In which folder an answer was found: each has its own speakers."""
    heads: tuple[str, ...]

    def of(self, rows: Array) -> "Voices":
        """Some of them."""
        clips = tuple(self.clips[n] for n in rows)
        return Voices(self.logits_NH[rows], self.known_NH[rows], clips, self.fold_N[rows], self.heads)

    def calibrated(self, by: Calibration) -> "Voices":
        """As sure as they are right."""
        return self._replace(logits_NH=by.apply(self.logits_NH), known_NH=by.apply(self.known_NH))

    def true(self) -> Array:
        """[N]: the published class of each."""
        return np.array([PUBLISHED.index(PUBLISHED_AS[clip.emotion]) for clip in self.clips])


class Words(NamedTuple):
    """What is said of texts with one label."""

    logits_NC: Array
    vector_NX: Array
    true_N: Array
    """The published class of each."""
    corpus_N: Array
    heads: tuple[str, ...]


class Pairs(NamedTuple):
    """Clips, each with a text or none."""

    voice_NH: Array
    words_NC: Array
    vector_NX: Array
    there_N: Array
    suspect_N: Array
    text_N: Array
    """Its place among the texts; -1: none."""

    def inputs(self) -> tuple[Array, ...]:
        """As the network takes them."""
        return self.voice_NH, self.words_NC, self.vector_NX, self.there_N, self.suspect_N


class Reads(Protocol):
    """A text model: `clser.models.words_live.Reader`."""

    about: dict[str, Any]
    heads: tuple[str, ...]

    def read(self, texts: Sequence[str]) -> Read:
        """Logits and vectors."""


def read_answers(folders: Sequence[Path]) -> Voices:
    """The answers that runs left for the speakers they held out. Clips without an emotion of ours are left out."""
    found: list[Voices] = []
    speaker_of: dict[tuple[str, str], Path] = {}
    for number, folder in enumerate(folders):
        path = folder / ANSWERS if folder.is_dir() else folder
        if not path.is_file():
            raise MissingError(f"{path}: no answers there; give folders of `clser-models train --fold K`")
        with np.load(path, allow_pickle=False) as file:
            told = dict(file)
        here = tuple(map(str, told["heads"]))
        if found and here != found[0].heads:
            before = ", ".join(found[0].heads)
            raise GivenError(f"{path}: heads {', '.join(here)}, and before {before}: give runs of one plan")
        clips = tuple(
            Clip(Path(str(name)), str(corpus), str(speaker), "", str(emotion))
            for name, corpus, speaker, emotion in zip(
                *(told[key] for key in ("name", "corpus", "speaker", "emotion")), strict=True
            )
        )
        rows = np.array([n for n, clip in enumerate(clips) if clip.emotion != NONE], np.int64)
        known_NH = told.get(KNOWN, np.full_like(told["logits"], np.nan))
        one = Voices(told["logits"], known_NH, clips, np.full(len(clips), number), here).of(rows)
        for who in {clip.who for clip in one.clips}:
            if speaker_of.setdefault(who, path) != path:
                raise GivenError(
                    f"{path}: speaker {who[1]} of {who[0]} is in {speaker_of[who]}, too; give each fold once"
                )
        found.append(one)
    if not found:
        raise GivenError("no answers: give at least one folder of `clser-models train --fold K`")
    return Voices(
        np.concatenate([one.logits_NH for one in found]), np.concatenate([one.known_NH for one in found]),
        tuple(clip for one in found for clip in one.clips), np.concatenate([one.fold_N for one in found]), found[0].heads,
    )  # fmt: skip


def calibration_of(voices: Voices, offsets: bool) -> Calibration:
    """Of a voice that left these answers: a temperature, and with `offsets` one of them a head, too."""
    return calibrate.fit(voices.logits_NH, voices.clips, heads=voices.heads, offsets=offsets)


def read_words(reader: Reads, corpora: Path, judged_on: Sequence[str], seed: int = 0) -> tuple[Words, Words]:
    """Of texts that the text model was not trained on: those to learn from, of all its collections, and those of
    `judged_on` that its makers, and theirs, kept for tests."""
    texts = [_published(text) for text in read_texts(corpora, reader.about["trained_on"])]
    split = parts(texts)
    wanted = {name if name.startswith("text_") else f"text_{name}" for name in judged_on}
    tests = [texts[n] for n in split.test if texts[n].corpus in wanted]
    return said_of(reader, [texts[n] for n in split.valid], seed), said_of(reader, tests, seed)


def said_of(reader: Reads, texts: Sequence[Text], seed: int = 0) -> Words:
    """What the model says of texts with one label, of each label of a collection no more than so many."""
    chosen = [text for group in _groups(texts).values() for text in _some(group, seed)]
    if not chosen:
        raise GivenError("no text with exactly one label: give a text model of collections that have some held out")
    said = [reader.read([text.text for text in chosen[n : n + BATCH]]) for n in range(0, len(chosen), BATCH)]
    return Words(
        np.concatenate([one.logits_BH for one in said]), np.concatenate([one.vector_BD for one in said]),
        np.array([PUBLISHED.index(text.emotions[0]) for text in chosen]), np.array([text.corpus for text in chosen]),
        reader.heads,
    )  # fmt: skip


def _groups(texts: Sequence[Text]) -> dict[tuple[str, str], list[Text]]:
    found: dict[tuple[str, str], list[Text]] = {}
    for text in texts:
        if len(text.emotions) == 1:
            found.setdefault((text.corpus, text.emotions[0]), []).append(text)
    return found


def _some(texts: Sequence[Text], seed: int) -> Iterator[Text]:
    order = np.random.default_rng(seed).permutation(len(texts))
    return (texts[n] for n in sorted(order[:MOST].tolist()))


def _published(text: Text) -> Text:
    emotions = tuple(dict.fromkeys(PUBLISHED_AS[emotion] for emotion in text.emotions))
    return replace(text, emotions=emotions)


class Library:
    """Texts by label, for drawing: first a collection that has the label, then one of its texts."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self._of: list[list[Array]] = []
        for label in range(len(PUBLISHED)):
            own = np.flatnonzero(words.true_N == label)
            self._of.append([own[words.corpus_N[own] == name] for name in sorted(set(words.corpus_N[own]))])
        lacking = [name for name, each in zip(PUBLISHED, self._of, strict=True) if not each]
        if lacking:
            raise GivenError(f"no text that is {', '.join(lacking)}: give a text model of more collections")

    def draw(self, label_N: Array, random: np.random.Generator) -> Array:
        """[N]: a text of each label."""
        drawn = []
        for label in label_N:
            own = self._of[int(label)]
            from_ = own[random.integers(len(own))]
            drawn.append(int(from_[random.integers(len(from_))]))
        return np.array(drawn, np.int64)

    def other(self, label_N: Array, random: np.random.Generator) -> Array:
        """[N]: another label than each of these."""
        return np.asarray((label_N + random.integers(1, len(PUBLISHED), len(label_N))) % len(PUBLISHED))


def pairs(voice_NH: Array, true_N: Array, library: Library, kind_N: Array, random: np.random.Generator) -> Pairs:
    """Each answer with a text of its kind (by its place in `KINDS`)."""
    named = np.array(KINDS)[kind_N]
    there_N, suspect_N = named != "none", np.char.endswith(named, "_suspect")
    label_N = np.where(np.char.startswith(named, "wrong"), library.other(true_N, random), true_N)
    text_N = np.where(there_N, library.draw(label_N, random), -1)
    words = library.words
    words_NC = np.where(there_N[:, None], words.logits_NC[text_N], 0.0)
    vector_NX = np.where(there_N[:, None], words.vector_NX[text_N], 0.0)
    given = (part.astype(np.float32) for part in (voice_NH, words_NC, vector_NX, there_N, suspect_N))
    return Pairs._make((*given, text_N))


def weights(voices: Voices) -> Array:
    """[N], mean 1: every published class counts alike, and of it every corpus that has it."""
    keys = list(zip(voices.true().tolist(), (clip.corpus for clip in voices.clips), strict=True))
    clips_of = Counter(keys)
    corpora_of = Counter(label for label, _ in clips_of)
    weight_N = np.array([1.0 / clips_of[key] / corpora_of[key[0]] for key in keys])
    return np.asarray(weight_N / weight_N.mean())
