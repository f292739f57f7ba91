"""What the model said -> what is published: heads folded into the seven classes, a label or an abstention, arousal and valence. Pure.

A head `none` says that there is no voice to judge. It is taken out first; what is left is told of the emotions alone.
"""

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from clser.engine.jobs import VoiceCard
from clser.engine.records import Emotion, Probabilities, samples
from clser.models.labels import CIRCUMPLEX, NONE, PUBLISHED, PUBLISHED_AS

TOO_SHORT = "too_short"
NOT_YET = "not_yet"
NOT_SPEECH = "not_speech"
UNSURE = "unsure"
TELLS_NOTHING = (TOO_SHORT, NOT_SPEECH)
"""Reasons of answers about sound that is not worth learning from who speaks."""


class FuseConfig(Struct, frozen=True, forbid_unknown_fields=True):
    abstain_below: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Less confidence than this and no label is given; unset, the model's own threshold counts."""


class Opinion(Struct, frozen=True):
    """What a model holds at one moment."""

    probabilities: Probabilities
    arousal: float
    valence: float
    none: float = 0.0
    """Probability that there is no voice to judge; the others are what holds if there is."""


class Judge:
    """Knows the model's heads."""

    def __init__(self, config: FuseConfig, card: VoiceCard) -> None:
        self._threshold = card.abstain_below if config.abstain_below is None else config.abstain_below
        self._least_samples = samples(card.least_s * 1000)
        self._none_above = card.none_above
        self._none = np.array([head == NONE for head in card.heads])
        emotions = [head for head in card.heads if head != NONE]
        self._fold = np.zeros((len(emotions), len(PUBLISHED)))
        for row, head in enumerate(emotions):
            self._fold[row, PUBLISHED.index(PUBLISHED_AS[head])] = 1
        self._affect = np.array([CIRCUMPLEX[head] for head in emotions])

    def opinion(self, logits: NDArray[np.float32]) -> Opinion:
        heads = _softmax(logits[~self._none])
        none = float(_softmax(logits)[self._none].sum())
        arousal, valence = (heads @ self._affect).tolist()
        return Opinion(
            dict(zip(PUBLISHED, np.round(heads @ self._fold, 4).tolist(), strict=True)),
            round(arousal, 4),
            round(valence, 4),
            round(none, 4),
        )

    def emotion(self, opinion: Opinion, speech_samples: int, asked: bool = True) -> Emotion:
        """The label, unless too little speech was heard, the model has not been asked yet, it was no speech, or no class
        stands out."""
        best = max(opinion.probabilities, key=opinion.probabilities.__getitem__)
        confidence = opinion.probabilities[best]
        too_short = speech_samples < self._least_samples
        reason = None
        if too_short:
            reason = TOO_SHORT
        elif not asked:
            reason = NOT_YET
        elif self._none.any() and opinion.none >= self._none_above:
            reason, confidence = NOT_SPEECH, opinion.none
        elif confidence < self._threshold:
            reason = UNSURE
        return Emotion(
            label=None if reason else best,
            confidence=confidence,
            abstained=reason is not None,
            reason=reason,
            too_short=too_short,
            probabilities=opinion.probabilities,
        )


def told(log_probabilities: NDArray[np.float32]) -> Probabilities:
    """By published class, as a worker told them of words."""
    return dict(zip(PUBLISHED, np.round(_softmax(log_probabilities), 4).tolist(), strict=True))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(shifted / shifted.sum())
