"""What a trained system answers for recordings of any manifest, some at a time.

Letters: N clips, H heads, X what is known of a speaker.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clser.models.answers import known_of, logits_of, tokeniser_of
from clser.models.data.cache import Features, Take
from clser.models.data.clips import Clip, read_sound
from clser.models.data.corpora import Text
from clser.models.data.faces import Look, open_faces
from clser.models.data.front_features import compute_of, samples_of
from clser.models.data.takes import clean_take
from clser.models.examples import Examples, TakeFeatures
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.saved import Trained
from clser.models.systems import faces_seen

Array = np.ndarray[Any, Any]
AT_ONCE = 256


def logits(
    system: Any, about: Trained, clips: Sequence[Clip], *, known_NX: Tensor | None = None, words: bool = False,
    take: Take | None = None,
) -> tuple[Array, float]:  # fmt: skip
    """[N, H] calibrated, and the seconds of computing per second of sound. `words`: what `text` says is read too.
    `take`: how the recordings are changed before; as an engine cuts them, if none is given."""
    parts, heard_s, busy_s = [], 0.0, 0.0
    for first, examples, sound_s, features_s in some_at_once(system, clips, words, take):
        began = time.perf_counter()
        here = range(len(examples.clips))
        known = None if known_NX is None else known_NX[first : first + len(here)]
        parts.append(logits_of(system, examples, here if system.fronts else (), here if words else (), known_NX=known))
        heard_s += sound_s
        busy_s += features_s + time.perf_counter() - began
    return about.calibration.apply(np.concatenate(parts)), busy_s / max(heard_s, 1e-9)


def known(system: Any, clips: Sequence[Clip]) -> Tensor:
    """[N, X]: what each clip tells of its speaker."""
    parts = []
    for _, examples, _, _ in some_at_once(system, clips, words=False):
        assert examples.clean is not None
        parts.append(known_of(system, examples.clean, examples.ratios))
    return torch.cat(parts)


def some_at_once(
    system: Any, clips: Sequence[Clip], words: bool, take: Take | None = None
) -> Iterator[tuple[int, Examples, float, float]]:
    """So many clips, cut about their speech as an engine cuts utterances: where they begin, their features, the seconds of
    sound and those it took to compute the features."""
    cut = (take or clean_take()).change
    assert cut is not None
    computing = {name: compute_of(name) for name in system.fronts}
    ratios = {name: system.frame_samples // samples_of(name) for name in system.fronts}
    tokenise = tokeniser_of(system.words) if system.words else None
    for first in range(0, len(clips), AT_ONCE):
        some = clips[first : first + AT_ONCE]
        features, sound_s, features_s = None, 0.0, 0.0
        if system.fronts:
            sounds = [cut(read_sound(clip), n, np.random.default_rng(first + n)) for n, clip in enumerate(some)]
            sound_s = sum(len(sound) for sound in sounds) / SAMPLE_RATE_HZ
            began = time.perf_counter()
            made = {name: [compute(sound) for sound in sounds] for name, compute in computing.items()}
            features = TakeFeatures.of({name: _joined(rows) for name, rows in made.items()}, ratios)
            features_s = time.perf_counter() - began
        texts = [Text(c.corpus, c.language, "", c.text, (c.emotion,)) for c in some]
        examples = Examples(
            tuple(system.heads), some, features, (), (), ratios, system.frame_samples, texts, tokenise=tokenise,
            look=_look(system, some),
        )  # fmt: skip
        yield first, examples, sound_s, features_s


def _look(system: Any, clips: Sequence[Clip]) -> Look | None:
    """At most so many faces of each as the system was trained with; nobody is told how far the search in videos is."""
    return open_faces(clips, faces_seen(system), None, lambda told: None) if faces_seen(system) else None


def _joined(rows: Sequence[Array]) -> Features:
    return Features(np.concatenate(rows), np.cumsum([0, *(len(row) for row in rows)]))
