import numpy as np
import pytest

from clser.bench.scene import Phrase
from clser.bench.vad import Found, figures, segment
from clser.bench.vad_scenes import Excerpt
from clser.engine.config import load

RATE, FRAME = 16_000, 320


def excerpt(*phrases: tuple[float, float], seconds: float = 60.0) -> Excerpt:
    voiced = np.zeros(round(seconds * 200), np.bool_)
    for start, end in phrases:
        voiced[round(start * 200) : round(end * 200)] = True
    labels = tuple(Phrase(round(start * RATE), round(end * RATE), "") for start, end in phrases)
    return Excerpt("clean", np.zeros(round(seconds * RATE), np.int16), labels, voiced)


def test_figures_of_spans_laid_by_hand() -> None:
    sound = excerpt((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), (20.0, 21.0))
    spans = [(1.1, 2.2), (2.95, 3.4), (3.5, 4.1), (5.0, 8.3), (30.0, 31.0)]
    found = Found(sound, np.zeros(3000, np.float32), [(round(a * RATE), round(b * RATE)) for a, b in spans])
    told = figures([found], FRAME)
    assert (told.phrases, told.missed, told.split, told.merged) == (5, 1, 1, 1)
    assert told.false_starts == 1.0
    # onsets: +100, -50, 0, -2000; offsets: +200, +100, +2300, +300
    assert told.onset_error_ms.p50 == pytest.approx(75)
    assert told.onset_error_ms.signed == pytest.approx(-25)
    assert told.offset_error_ms.p50 == told.offset_error_ms.signed == pytest.approx(250)


def test_the_curve_is_taken_over_frames() -> None:
    sound = excerpt((1.0, 2.0), seconds=10.0)
    scores = sound.frame_labels(FRAME).astype(np.float32)
    assert figures([Found(sound, scores, [])], FRAME).auc == 1.0
    assert figures([Found(sound, 1 - scores, [])], FRAME).auc == 0.0


def test_the_whole_chain_finds_what_the_scores_say() -> None:
    sound = excerpt((1.0, 2.0), (4.0, 4.1), seconds=8.0)  # the second is too short to be kept
    config = load()
    (span,) = segment(sound, sound.frame_labels(FRAME).astype(np.float32), config.vad, config, FRAME)
    assert span == (RATE, 2 * RATE)


def test_a_cut_of_the_too_long_is_mended() -> None:
    sound = excerpt((1.0, 40.0), seconds=45.0)
    config = load()
    (span,) = segment(sound, sound.frame_labels(FRAME).astype(np.float32), config.vad, config, FRAME)
    assert span == (RATE, 40 * RATE)
