"""Measures against values worked by hand."""

import numpy as np
import pytest

from clser.models import evaluate
from clser.models.labels import HEADS, PUBLISHED


def test_recalls_accuracy_and_f1_by_hand():
    counts = evaluate.confusion(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0]), 3)
    assert counts.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert evaluate.uar(counts) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert evaluate.war(counts) == pytest.approx(4 / 6)
    assert evaluate.macro_f1(counts) == pytest.approx((6 / 8 + 2 / 4) / 2)


def test_calibration_by_hand():
    """Four answers at 0.9, three of them right; one at 0.6, wrong: 4/5 of |0.75 - 0.9| and 1/5 of |0 - 0.6|."""
    probability = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]])
    true = np.array([0, 0, 0, 1, 0])
    assert evaluate.ece(probability, true) == pytest.approx(0.8 * 0.15 + 0.2 * 0.6)


def test_likelihood_by_hand():
    assert evaluate.nll(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])) == pytest.approx(np.log(8) / 2)


def test_restricting_renormalises():
    probability = evaluate.softmax(evaluate.restrict(np.log(np.array([[0.5, 0.3, 0.2]])), [1, 2]))
    assert probability[0].tolist() == pytest.approx([0.0, 0.6, 0.4])


def test_boredom_and_calm_are_published_as_neutral():
    probability = np.zeros((1, len(HEADS)))
    probability[0, [HEADS.index("boredom"), HEADS.index("calm"), HEADS.index("neutral")]] = 0.2, 0.3, 0.1
    seven = evaluate.published(probability)
    assert seven[0, PUBLISHED.index("neutral")] == pytest.approx(0.6)
    assert seven.sum() == pytest.approx(0.6)


def test_risk_at_a_threshold():
    probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.6, 0.4]])
    assert evaluate.risk_at(probability, np.array([0, 1, 1, 0]), 0.6) == pytest.approx((3 / 4, 1 / 3))
    assert evaluate.risk_at(probability, np.array([0, 1, 1, 0]), 0.95) == (0.0, 0.0)


def test_the_interval_is_one_value_when_all_speakers_are_alike_and_wide_when_not():
    true = np.array([0, 1] * 4)
    speakers = [name for name in "abcd" for _ in range(2)]
    assert evaluate.bootstrap(true, true, speakers, 2) == (1.0, 1.0)
    half_wrong = np.where(np.arange(8) < 4, true, 1 - true)
    low, high = evaluate.bootstrap(true, half_wrong, speakers, 2)
    assert low < 0.2
    assert high > 0.8
