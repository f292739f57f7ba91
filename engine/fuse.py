"""What the model said -> what is published: heads folded into the seven classes, a label or an abstention, arousal and valence. Pure."""

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from clser.engine.jobs import VoiceCard
from clser.engine.records import Emotion, Probabilities, samples
from clser.models.labels import CIRCUMPLEX, PUBLISHED, PUBLISHED_AS

UNSURE = "unsure"
TOO_SHORT = "too_short"
NOT_YET = "not_yet"


class FuseConfig(Struct, frozen=True, forbid_unknown_fields=True):
    abstain_below: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Less confidence than this and no label is given; unset, the model's own threshold counts."""


class Opinion(Struct, frozen=True):
    """What a model holds at one moment."""

    probabilities: Probabilities
    arousal: float
    valence: float


class Judge:
    """Knows the model's heads."""

    def __init__(self, config: FuseConfig, card: VoiceCard) -> None:
        self._threshold = card.abstain_below if config.abstain_below is None else config.abstain_below
        self._least_samples = samples(card.least_s * 1000)
        self._fold = np.zeros((len(card.heads), len(PUBLISHED)))
        for row, head in enumerate(card.heads):
            self._fold[row, PUBLISHED.index(PUBLISHED_AS[head])] = 1
        self._affect = np.array([CIRCUMPLEX[head] for head in card.heads])

    def opinion(self, logits: NDArray[np.float32]) -> Opinion:
        shifted = np.exp(logits.astype(np.float64) - logits.max())
        heads = shifted / shifted.sum()
        arousal, valence = (heads @ self._affect).tolist()
        return Opinion(
            dict(zip(PUBLISHED, np.round(heads @ self._fold, 4).tolist(), strict=True)),
            round(arousal, 4),
            round(valence, 4),
        )

    def emotion(self, opinion: Opinion, speech_samples: int, asked: bool = True) -> Emotion:
        """The label, unless too little speech was heard, no class stands out, or the model has not been asked yet."""
        best = max(opinion.probabilities, key=opinion.probabilities.__getitem__)
        confidence = opinion.probabilities[best]
        too_short = speech_samples < self._least_samples
        unsure = NOT_YET if not asked else UNSURE if confidence < self._threshold else None
        reason = TOO_SHORT if too_short else unsure
        return Emotion(
            label=None if reason else best,
            confidence=confidence,
            abstained=reason is not None,
            reason=reason,
            too_short=too_short,
            probabilities=opinion.probabilities,
        )
