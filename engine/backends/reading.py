"""The joiner of a system that reads words itself: it hears the sound once more, beside the text, and answers about both.

Its frames are those that the voice lane computed, where they are about the same sound; only the system is run again, and
once more on the words alone.

Shapes: B rows, H heads, C published classes, E heads that are emotions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clser.engine.backends import Numbers, run_alike
from clser.engine.backends.join import by_published, softmax, unknown
from clser.engine.backends.torch import TorchVoice
from clser.engine.jobs import Joins, Row
from clser.engine.records import Samples
from clser.models.systems import WORDS
from clser.models.tensors import Sequences
from clser.models.words_now import Texts

ALIKE = 1e-6
"""Two answers are the same, in nats of divergence."""


class Read:
    joins: Joins = "text"
    tells = 0

    def __init__(self, voice: TorchVoice) -> None:
        assert voice.words, "it reads words"
        self._voice, self._texts = voice, voice.beside(Texts(voice.words))
        voice.keeps = True

    def run(self, rows: Sequence[Row], pcm: Samples, told: Numbers, texts: Sequence[str]) -> Numbers:
        """As `Joiner`. The voice's own logits are taken as they come; what a text model told is not."""
        heads = len(self._voice.card.heads)
        voice_BH = told[:, :heads]
        joined_BH, alone_BC = voice_BH.copy(), unknown(len(rows))
        weights_B2 = np.tile(np.array([1.0, 0.0], np.float32), (len(rows), 1))
        counts_B, words = np.array([row.frames for row in rows]), self._read(texts)
        spoken_B = words.length_B.cpu().numpy() > 0
        if spoken_B.any():
            words_BH = self._of_words(words, len(rows))
            alone_BC[spoken_B] = by_published(words_BH, self._voice.card.heads)[spoken_B]
        heard_B = spoken_B & (counts_B > 0) & ~np.array([row.suspect for row in rows])
        if heard_B.any():
            joined_BH[heard_B] = said_BH = self._of_both(rows, pcm, words, heard_B)
            weights_B2[heard_B] = shares(said_BH, voice_BH[heard_B], words_BH[heard_B])
        return np.concatenate((joined_BH, alone_BC, weights_B2), 1)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not followed
    def _read(self, texts: Sequence[str]) -> Sequences:
        words: Sequences = self._texts(texts)
        return words

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not followed
    def _of_words(self, words: Sequences, rows: int) -> Numbers:
        """[B, H]: what the system says where it hears nothing."""
        return _numbers(self._voice.answer({**self._voice.silence(rows), WORDS: words}))

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not followed
    def _of_both(self, rows: Sequence[Row], pcm: Samples, words: Sequences, heard_B: NDArray[np.bool_]) -> Numbers:
        """[those of `heard_B`, H]."""
        card = self._voice.card
        places = np.flatnonzero(heard_B).tolist()
        sounds = np.split(pcm, np.cumsum([row.frames * card.frame_samples for row in rows])[:-1])
        # numbered, so that a call knows which texts are its own
        asked = [Row(n, rows[place].frames, True) for n, place in enumerate(places)]

        def call(some: Sequence[Row], counts_B: NDArray[np.int64], sounds: list[Numbers]) -> Numbers:
            own = [places[row.slot] for row in some]
            given = self._voice.heard([rows[place] for place in own], counts_B, sounds)
            at_B = torch.tensor(own, device=words.length_B.device)
            text = Sequences(words.x_BTD.index_select(0, at_B), words.length_B.index_select(0, at_B))
            return _numbers(self._voice.answer({**given, WORDS: text}))[:, None]

        return run_alike(asked, np.concatenate([sounds[place] for place in places]), card, call)


def shares(joined_BH: Numbers, voice_BH: Numbers, words_BH: Numbers) -> Numbers:
    """[B, 2]: what voice and words counted. The answer to both is as near to one's own answer as that one counted."""
    from_voice_B, from_words_B = divergence(joined_BH, voice_BH), divergence(joined_BH, words_BH)
    apart_B = from_voice_B + from_words_B
    voice_B = np.where(apart_B > ALIKE, from_words_B / np.maximum(apart_B, ALIKE), 0.5)
    return np.stack((voice_B, 1.0 - voice_B), 1).astype(np.float32)


def divergence(one_BH: Numbers, other_BH: Numbers) -> NDArray[np.float64]:
    """[B]: Jensen and Shannon's, of logits, in nats: 0 to log 2."""
    one, other = softmax(one_BH), softmax(other_BH)
    middle = (one + other) / 2
    return (_kl(one, middle) + _kl(other, middle)).clip(0.0) / 2


def _kl(p_BH: NDArray[np.float64], q_BH: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((p_BH * np.log(np.maximum(p_BH, 1e-30) / np.maximum(q_BH, 1e-30))).sum(1))


def _numbers(logits: Tensor) -> Numbers:
    return np.asarray(logits.float().cpu().numpy())
