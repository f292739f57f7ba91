"""What voice and words say together: the lane `both`.

Three ways, by what the voice model is. A network that was fitted to this very voice and to the text model reads both opinions.
Any other voice is pooled with the words. A system that reads words itself is asked again, with the text.
In each of them the answer without words is the voice's own, bit for bit, and a suspect text weighs less, or nothing.

Letters: B rows, H heads of the voice, E those that are emotions, C published classes, X numbers of a text.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from clser.engine.backends import Numbers, VoiceModel
from clser.engine.errors import FailedError
from clser.engine.jobs import CLASSES, Joins, Row
from clser.engine.records import Samples
from clser.engine.shipped import checked, digest, folder
from clser.models.both_live import Fuser
from clser.models.labels import NONE, PUBLISHED, PUBLISHED_AS

WORDS_FILE, BOTH_FILE = "words.onnx", "both.onnx"
WEIGHT, WEIGHT_SUSPECT = 0.5, 0.15
"""What a nat of the words' counts, where nothing was fitted: a text is mistaken oftener than it is sure of itself, and a mistrusted
one says next to nothing."""
MOST_NATS = 3.0
"""Words say no more than this for or against a class."""
LEAST = 1e-6
"""A class is never less probable: how impossible it is would drown all else."""

Float = NDArray[np.float64]


class Joiner(Protocol):
    joins: Joins
    tells: int
    """So many numbers of a text it takes, behind the voice's."""

    def run(self, rows: Sequence[Row], pcm: Samples, told: Numbers, texts: Sequence[str]) -> Numbers:
        """[rows, H + C + 2]: the joined answer's logits, calibrated; the log-probabilities that the words have by themselves,
        by published class; how much voice and words counted, 1 together.

        told: [rows, H + C + X], the voice's logits, and what a text model told: logits by published class and a vector, all
        zeros where there are no words. pcm: the rows' sound, for those that join the `text`.
        """


def open_joiner(voice: VoiceModel) -> Joiner | None:
    """How this voice is joined with words; None where no words can be read."""
    if getattr(voice, "words", ""):  # only a backend that plays systems has any, so torch is here
        return cast(Joiner, import_module("clser.engine.backends.reading").Read(voice))
    if not (folder() / WORDS_FILE).is_file():
        return None
    fuser = _fitted(voice.card.heads)
    return Pooled(voice.card.heads) if fuser is None else Opinions(fuser)


def _fitted(heads: Sequence[str]) -> Fuser | None:
    """The shipped network, if it was fitted to such heads and to the shipped text model."""
    if not (folder() / BOTH_FILE).is_file():
        return None
    fuser = Fuser(checked(folder() / BOTH_FILE))
    fits = fuser.heads == tuple(heads) and fuser.about.get("words") == digest(folder() / WORDS_FILE)
    return fuser if fits else None


class Opinions:
    """By the network that was fitted to both."""

    joins: Joins = "opinions"

    def __init__(self, fuser: Fuser) -> None:
        self._fuser, self._heads = fuser, len(fuser.heads)
        self.tells = CLASSES + fuser.vector
        self._order = [PUBLISHED.index(head) for head in fuser.words_heads]

    def run(self, rows: Sequence[Row], pcm: Samples, told: Numbers, texts: Sequence[str]) -> Numbers:
        del pcm, texts
        if told.shape[1] != self._heads + self.tells:
            raise FailedError(
                f"{told.shape[1]} numbers of voice and words where {self._heads + self.tells} belong: "
                "the text model is not the one that this network was fitted to"
            )
        voice_BH, words_BC, vector_BX = np.split(told, (self._heads, self._heads + CLASSES), axis=1)
        there_B = there(told, self._heads)
        suspect_B = np.array([row.suspect for row in rows], np.float32)
        fused = self._fuser.fuse(voice_BH, words_BC[:, self._order], vector_BX, there_B, suspect_B)
        joined_BH = np.where(there_B[:, None], fused.logits_BH, voice_BH)
        return np.concatenate((joined_BH, log_softmax(words_BC), fused.weights_B2), 1).astype(np.float32)


class Pooled:
    """A log-linear pool: to the voice's log-probabilities, those of the words, weighed, over an even prior.

    Whether there is a voice to judge at all (the head `none`) stays the voice's affair.
    """

    joins: Joins = "opinions"
    tells = CLASSES

    def __init__(self, heads: Sequence[str]) -> None:
        self._heads = tuple(heads)
        self._emotion_E = np.flatnonzero([head != NONE for head in heads])
        self._fold_EC = fold(heads)

    def run(self, rows: Sequence[Row], pcm: Samples, told: Numbers, texts: Sequence[str]) -> Numbers:
        del pcm, texts
        count = len(self._heads)
        voice_BH = told[:, :count]
        there_B = there(told, count)
        own_BC = log_softmax(told[:, count : count + CLASSES]) if told.shape[1] > count else unknown(len(rows))
        weight_B1 = np.where([row.suspect for row in rows], WEIGHT_SUSPECT, WEIGHT)[:, None]
        said_BC = (weight_B1 * (own_BC + np.log(CLASSES))).clip(-MOST_NATS, MOST_NATS)
        own_BE = log_softmax(voice_BH[:, self._emotion_E])
        shift_BE = log_softmax(own_BE + said_BC @ self._fold_EC.T) - own_BE
        joined_BH = voice_BH.copy()
        joined_BH[:, self._emotion_E] += np.where(there_B[:, None], shift_BE, 0.0).astype(np.float32)
        by_voice_B = _spread(by_published(voice_BH, self._heads))
        by_words_B = there_B * _spread(said_BC)
        words_B = by_words_B / (by_voice_B + by_words_B + LEAST)
        return np.concatenate((joined_BH, own_BC, np.stack((1.0 - words_B, words_B), 1)), 1).astype(np.float32)


def there(told: Numbers, heads: int) -> NDArray[np.bool_]:
    """[B]: whether a text model told anything."""
    return np.asarray((told[:, heads:] != 0).any(1))


def fold(heads: Sequence[str]) -> Float:
    """[E, C]: what each head that is an emotion is published as."""
    emotions = [head for head in heads if head != NONE]
    return np.array([[float(PUBLISHED_AS[head] == name) for name in PUBLISHED] for head in emotions])


def by_published(logits_BH: Numbers, heads: Sequence[str]) -> Numbers:
    """[B, C]: log-probabilities of the published classes, if it is speech at all."""
    emotion_E = np.flatnonzero([head != NONE for head in heads])
    probability_BC = softmax(logits_BH[:, emotion_E]) @ fold(heads)
    return np.asarray(np.log(probability_BC.clip(LEAST)), np.float32)


def unknown(rows: int) -> Numbers:
    """[B, C]: log-probabilities where nothing is known."""
    return np.full((rows, CLASSES), -np.log(CLASSES), np.float32)


def softmax(logits_BX: NDArray[np.floating]) -> Float:
    return np.exp(log_softmax(logits_BX))


def log_softmax(logits_BX: NDArray[np.floating]) -> Float:
    shifted = logits_BX.astype(np.float64) - logits_BX.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _spread(log_BC: NDArray[np.floating]) -> Float:
    """[B]: the classes' standard deviation."""
    return np.asarray(log_BC.astype(np.float64).std(1))
