"""Calibration finds again what was done to honest logits."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clser.models import calibrate
from clser.models.data.corpora import Clip
from clser.models.evaluate import ece, published, softmax
from clser.models.labels import HEADS, NONE, PUBLISHED, PUBLISHED_AS

pytestmark = pytest.mark.torch


def clip_of(emotion, corpus="nemo"):
    return Clip(Path("x"), corpus, "x", "male", emotion, False)


@pytest.fixture(scope="module")
def honest():
    """Logits, and clips drawn by them; every class about as often as any other."""
    random = np.random.default_rng(0)
    logits = random.normal(0.0, 1.5, (6000, len(HEADS)))
    return logits, [clip_of(HEADS[random.choice(len(HEADS), p=p)]) for p in softmax(logits)]


def test_the_temperature_is_found_again(honest):
    logits, clips = honest
    found = calibrate.fit(2.5 * logits, clips)
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert np.abs(found.offsets).max() < 0.25


def test_a_head_that_was_never_told_not_to_is_quietened(honest):
    logits, clips = honest
    boredom = HEADS.index("boredom")
    louder = logits + 3.0 * np.eye(len(HEADS))[boredom]
    true = np.array([PUBLISHED.index(PUBLISHED_AS[clip.emotion]) for clip in clips])
    found = calibrate.fit(louder, clips)
    assert found.offsets[boredom] < -1.0
    before, after = (ece(published(softmax(x)), true) for x in (louder, found.apply(louder)))
    assert after < 0.05 < before


def test_weights_count_corpora_and_classes_alike():
    clips = [clip_of("anger")] * 6 + [clip_of("fear")] * 2 + [clip_of("anger", "emovo")]
    weight = calibrate.balance(clips)
    assert weight.sum() == pytest.approx(1.0)
    assert [weight[:6].sum(), weight[6:8].sum(), weight[8]] == pytest.approx([0.25, 0.25, 0.5])


def test_a_head_for_no_voice_is_calibrated_beside_the_published_classes():
    random = np.random.default_rng(1)
    heads = (*HEADS, NONE)
    logits = random.normal(0.0, 1.5, (4000, len(heads)))
    clips = [clip_of(heads[random.choice(len(heads), p=p)]) for p in softmax(logits)]
    found = calibrate.fit(2.0 * logits, clips, heads=heads)
    assert found.temperature == pytest.approx(2.0, rel=0.1)
    assert len(found.offsets) == len(heads)
    assert np.abs(found.offsets).max() < 0.3
    seven = published(softmax(logits), heads)
    assert seven.shape == (4000, len(PUBLISHED))
    assert seven.sum(1) == pytest.approx(1.0 - softmax(logits)[:, -1])
