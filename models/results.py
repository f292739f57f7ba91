"""What `results.json` and `answers.npz` of a run hold: a trained system's calibrated figures for who was held out, for
strangers and for speakers it has heard before; those of texts, and of texts beside voices, as they come.

Letters: N clips, H heads, X what is known of a speaker.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clser.models import calibrate
from clser.models.answers import logits_of
from clser.models.data.clips import Clip
from clser.models.data.splits import Fold
from clser.models.data.takes import limits_s
from clser.models.enrolment import enrolment
from clser.models.examples import Examples
from clser.models.measures import mean_uar, rows, text_rows
from clser.models.plan import Plan
from clser.models.saved import Calibration
from clser.models.validation import Validation

Array = np.ndarray[Any, Any]


def calibration_of(system: Any, examples: Examples, validation: Validation, plan: Plan, device: str) -> Calibration:
    """A temperature (and offsets) under which the validation speakers' classes are likeliest."""
    if plan.calibration == "none" or not len(validation.clips):
        return Calibration()
    logits_NH = logits_of(system, examples, validation.clips, device=device)
    clips = [examples.clips[n] for n in validation.clips]
    return calibrate.fit(logits_NH, clips, heads=examples.heads, offsets=plan.calibration == "offsets")


def figures(
    system: Any, examples: Examples, fold: Fold, validation: Validation, plan: Plan,
    *, calibration: Calibration, out: Path, device: str,
) -> dict[str, Any]:  # fmt: skip
    """For the fold's speakers, else the validation's; the answers behind them go to `out/answers.npz`."""
    on = fold.test if fold.test and examples.clean is not None else validation.clips
    found: dict[str, Any] = {"on": "test" if fold.test else "validation"}
    limited = limits_s(examples.clips)
    if len(on):
        clips = [examples.clips[n] for n in on]
        logits_NH = calibration.apply(logits_of(system, examples, on, device=device))
        found["rows"] = rows(logits_NH, clips, examples.heads, limited)
        found["mean_uar"] = mean_uar(found["rows"])
        answers = {"logits": logits_NH}
        if examples.clean_NX is not None:
            found["enrolled"], after = enrolled(
                system, examples, on, plan.enrolled_test, calibration=calibration, limited=limited, device=device
            )
            answers |= after
        _keep(out / "answers.npz", answers, clips, examples.heads)
    if len(validation.texts):
        logits_NH = logits_of(system, examples, (), validation.texts, device=device)
        if len(on):
            found["paired"] = paired(system, examples, on, validation.texts, limited=limited, device=device)
        found["texts"] = text_rows(logits_NH, [examples.texts[n] for n in validation.texts], examples.heads)
    return found


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
        logits_NH = calibration.apply(logits_NH)
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
    of_label = examples.texts_of_labels(texts)
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


def _keep(path: Path, answers: Mapping[str, Array], clips: Sequence[Clip], heads: Sequence[str]) -> None:
    """The answers themselves, for what compares systems clip by clip."""
    told = {
        name: np.array([getattr(clip, name) for clip in clips]) for name in ("name", "corpus", "speaker", "emotion")
    }
    np.savez(path, heads=np.array(heads), allow_pickle=False, **told, **answers)
