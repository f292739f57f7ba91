"""The pitch benchmark: its errors are counted right, and what it was tuned on is not what it is tested on."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from clser.bench.prosody import CORPORA, Contour, agreement, ours, sample
from clser.models.data.corpora import Clip
from clser.models.features.prosody import Prosody

pytestmark = pytest.mark.torch


def test_errors_of_contours_laid_by_hand() -> None:
    times_s = np.arange(10) * 0.01
    wanted = Contour(times_s, np.array([0, 0, 100, 100, 100, 100, 100, 0, 0, 0.0]))
    mine = Contour(times_s + 0.004, np.array([0, 90, 101, 101, 200, 50, 0, 0, 0, 0.0]))
    told = agreement([(mine, wanted)])
    assert (told.gross, told.too_high, told.too_low) == (50.0, 25.0, 25.0)
    assert (told.voicing, told.missed, told.invented) == (20.0, 10.0, 10.0)
    assert told.fine_cents == pytest.approx(1200 * np.log2(1.01))
    assert agreement([]).gross is None


def test_tuned_and_tested_clips_are_others_and_every_corpus_is_there() -> None:
    clips = [
        Clip(Path(f"{corpus}{n}"), corpus, f"{corpus}_{n}", "", "anger", False) for corpus in CORPORA for n in range(40)
    ]
    tested, tuned = sample(clips, 0, 60), sample(clips, 0, 60, tuned=True)
    assert len(tested) == len(tuned) == 60
    assert not {clip.path for clip in tested} & {clip.path for clip in tuned}
    assert {clip.corpus for clip in tested} == set(CORPORA)
    assert tested == sample(clips, 0, 60)


def test_our_contour_stands_where_the_sound_does() -> None:
    time_s = np.arange(16_000) / 16_000
    inside = (time_s > 0.3) & (time_s < 0.7)
    pcm = (0.1 * inside * sum(np.cos(2 * np.pi * 150 * k * time_s) / k for k in range(1, 9))).astype(np.float32)
    contour, _ = ours(Prosody().eval(), pcm)
    voiced_s = contour.times_s[contour.f0_hz > 0]
    assert voiced_s[0] == pytest.approx(0.3, abs=0.025)
    assert voiced_s[-1] == pytest.approx(0.7, abs=0.025)
