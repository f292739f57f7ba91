"""A trained system's figures for who was held out, calibrated, for strangers and for speakers it has heard before.

Letters: N clips, H heads, X what is known of a speaker.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from clser.models.answers import logits_of
from clser.models.batches import Examples
from clser.models.enrolment import enrolment
from clser.models.measures import classes_of, mean_uar, rows, text_rows
from clser.models.saved import Calibration

__all__ = ["calibrated", "classes_of", "enrolled", "mean_uar", "rows", "text_rows"]

Array = np.ndarray[Any, Any]


def calibrated(logits_NH: Array, calibration: Calibration) -> Array:
    """Logits whose softmax is the probability."""
    offsets = np.array(calibration.offsets) if calibration.offsets else 0.0
    return np.asarray(logits_NH / calibration.temperature + offsets, np.float32)


def enrolled(
    system: Any, examples: Examples, on: Sequence[int], counts: Sequence[int],
    *, calibration: Calibration, limited: Mapping[str, float], device: str,
) -> tuple[dict[str, Any], dict[str, Array]]:  # fmt: skip
    """The same clips scored after none and after K others of their speaker were heard; those heard are never scored.

    Figures by K, and the calibrated logits of all of `on` by `after_K`: not numbers where the clip was heard.
    """
    assert examples.clean_NX is not None
    heard, scored = enrolment([examples.clips[n] for n in on])
    scored_on = [on[n] for n in scored]
    clips = [examples.clips[n] for n in scored_on]
    found, answers = {}, {}
    for many in (0, *counts):
        known_NX = torch.zeros(len(scored_on), examples.clean_NX.shape[1])
        for place, clip in enumerate(clips):
            for other in heard[clip.who][:many]:
                known_NX[place] += examples.clean_NX[on[other]]
        logits_NH = logits_of(system, examples, scored_on, known_NX=known_NX, device=device)
        logits_NH = calibrated(logits_NH, calibration)
        each = rows(logits_NH, clips, examples.heads, limited)
        found[str(many)] = {"mean_uar": mean_uar(each), "rows": each}
        if many:
            answers[f"after_{many}"] = np.full((len(on), len(examples.heads)), np.nan, np.float32)
            answers[f"after_{many}"][scored] = logits_NH
    return found, answers


def paired(
    system: Any, examples: Examples, on: Sequence[int], texts: Sequence[int], *, limited: Mapping[str, float],
    device: str, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The same clips with their voice alone, with a held-out text of their label alone, and with both.

    The text is not what was said: it says what a system makes of a voice and words that agree, and no more.
    """
    of_label: dict[str, list[int]] = {}
    for index in texts:
        if len(examples.texts[index].emotions) == 1:
            of_label.setdefault(examples.texts[index].emotions[0], []).append(index)
    scored = [index for index in on if examples.clips[index].emotion in of_label]
    random = np.random.default_rng(seed)
    said = [int(random.choice(of_label[examples.clips[index].emotion])) for index in scored]
    clips = [examples.clips[index] for index in scored]
    found = {}
    for name, voice, words in (("voice", scored, ()), ("words", (), said), ("both", scored, said)):
        logits_NH = logits_of(system, examples, voice, words, device=device)
        each = rows(logits_NH, clips, examples.heads, limited)
        found[name] = {"mean_uar": mean_uar(each), "rows": each}
    return found
