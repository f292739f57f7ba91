"""How good a system is between epochs, on what one chooses by.

Letters: N asked, H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clser.models import evaluate
from clser.models.answers import logits_of
from clser.models.examples import Examples


@dataclass(frozen=True, slots=True)
class Validation:
    """By what one chooses: clips, texts, or both."""

    clips: Sequence[int] = ()
    texts: Sequence[int] = ()


def judge(system: Any, examples: Examples, validation: Validation, device: str) -> dict[str, Any]:
    """The mean over corpora of the UAR over each one's own classes, and the likelihood; voices and words count alike."""
    system.eval()
    uars, nlls = [], []
    by_corpus: dict[str, float] = {}
    kinds: tuple[tuple[Sequence[int], Sequence[Any], bool], ...] = (
        (validation.clips, examples.clips, True),
        (validation.texts, examples.texts, False),
    )
    for asked, records, voiced in kinds:
        if not len(asked):
            continue
        logits_NH = logits_of(system, examples, asked if voiced else (), () if voiced else asked, device=device)
        corpora = [records[n].corpus for n in asked]
        target = examples.target if voiced else examples.text_target
        true_N = np.array([int(target(n).argmax()) for n in asked])
        mask_NH = np.stack([examples.masks[corpus].numpy() for corpus in corpora])
        probability_NH = evaluate.softmax(np.where(mask_NH == 0.0, logits_NH, -np.inf))
        each = evaluate.uar_by(corpora, true_N, probability_NH.argmax(1), len(examples.heads))
        by_corpus |= each
        uars.append(float(np.mean(list(each.values()))))
        nlls.append(evaluate.nll(probability_NH, true_N))
    if not uars:
        return {}
    rounded = {corpus: round(value, 4) for corpus, value in by_corpus.items()}
    return {
        "valid_uar": round(float(np.mean(uars)), 4),
        "valid_nll": round(float(np.mean(nlls)), 4),
        "by_corpus": rounded,
    }
