"""What a text tells, by the shipped text model: it runs beside the recogniser, and its numbers travel with the words.

Letters: N texts, C published classes, X numbers of a text.
"""

from collections.abc import Sequence

import numpy as np

from clser.engine.backends import Numbers
from clser.engine.backends.join import WORDS_FILE
from clser.engine.jobs import CLASSES
from clser.engine.shipped import checked, folder
from clser.models import words_live
from clser.models.encoders.words import words
from clser.models.labels import PUBLISHED


class Reader:
    def __init__(self, model: words_live.Reader) -> None:
        assert set(model.heads) == set(PUBLISHED)
        self._model = model
        self._order = [model.heads.index(name) for name in PUBLISHED]
        self.tells = CLASSES + int(model.about["vector"])
        """Numbers of a text."""

    def read(self, texts: Sequence[str], trust: float | Sequence[float] = 1.0) -> Numbers:
        """[N, tells]: logits by published class, about their mean, times how far the text can be trusted; then its vector. Zeros
        of a text without a word."""
        told = np.zeros((len(texts), self.tells), np.float32)
        there = [n for n, text in enumerate(texts) if words(text)]
        if there:
            logits_NC, vector_NX = self._model.read([texts[n] for n in there])
            logits_NC = logits_NC[:, self._order]
            logits_NC = logits_NC - logits_NC.mean(1, keepdims=True)
            trust_N = np.broadcast_to(np.asarray(trust, np.float32), len(texts))[there]
            told[there] = np.concatenate((logits_NC * trust_N[:, None], vector_NX), 1)
        return told


def open_reader() -> Reader | None:
    """The shipped text model; None where it is not installed."""
    path = folder() / WORDS_FILE
    return Reader(words_live.Reader(checked(path))) if path.is_file() else None
