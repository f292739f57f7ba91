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


@pytest.fixture(scope="module")
def answers():
    random = np.random.default_rng(0)
    logits = random.normal(0.0, 1.0, (400, 4))
    true = random.integers(4, size=400)
    logits[np.arange(400), true] += 1.2
    return evaluate.softmax(logits), true


def test_the_same_as_scikit_learn(answers):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is of the dev extra")
    probability, true = answers
    said = probability.argmax(1)
    counts = evaluate.confusion(true, said, 4)
    assert counts.tolist() == sklearn.confusion_matrix(true, said).tolist()
    assert evaluate.uar(counts) == pytest.approx(sklearn.balanced_accuracy_score(true, said))
    assert evaluate.war(counts) == pytest.approx(sklearn.accuracy_score(true, said))
    assert evaluate.macro_f1(counts) == pytest.approx(sklearn.f1_score(true, said, average="macro"))
    assert evaluate.weighted_f1(counts) == pytest.approx(sklearn.f1_score(true, said, average="weighted"))
    assert evaluate.nll(probability, true) == pytest.approx(sklearn.log_loss(true, probability))
    assert evaluate.brier(probability, true) == pytest.approx(
        sum(sklearn.brier_score_loss(true == c, probability[:, c]) for c in range(4))
    )
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(true, said)
    for c, one in enumerate(evaluate.per_class(counts)):
        assert [one[k] for k in ("precision", "recall", "f1")] == pytest.approx([precision[c], recall[c], f1[c]])
        assert one["n"] == support[c]


def test_measures_of_a_class_that_does_not_occur_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is of the dev extra")
    true, said = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 1, 1, 0])
    counts = evaluate.confusion(true, said, 3)
    assert evaluate.weighted_f1(counts) == pytest.approx(
        sklearn.f1_score(true, said, average="weighted", zero_division=0)
    )
    assert evaluate.per_class(counts)[2] == {"recall": 0.0, "precision": 0.0, "f1": 0.0, "n": 0}


def test_risk_and_coverage_by_hand():
    """Sure and right, sure and wrong, unsure and right: risks 0, 1/2, 1/3."""
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    coverage, risk = evaluate.risk_coverage(probability, np.array([0, 0, 0]))
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert risk.tolist() == pytest.approx([0.0, 1 / 2, 1 / 3])
    assert evaluate.aurc(probability, np.array([0, 0, 0])) == pytest.approx((1 / 2 + 1 / 3) / 3)


def test_answers_that_are_equally_sure_share_their_risk_in_any_order():
    probability = np.array([[0.8, 0.2]] * 4)
    for true in ([0, 0, 1, 1], [1, 1, 0, 0]):
        assert evaluate.aurc(probability, np.array(true)) == pytest.approx(0.5)


def test_luck_is_taken_off_the_calibration_error():
    """Of a model that says just what is so, little is left; of one that is too sure, nearly all."""
    random = np.random.default_rng(1)
    sure = random.uniform(0.5, 1.0, 200)
    probability = np.stack((sure, 1.0 - sure), 1)
    honest = np.where(random.random(200) < sure, 0, 1)
    assert evaluate.ece(probability, honest) > 0.04
    assert evaluate.ece_corrected(probability, honest) < 0.02
    wrong = np.where(random.random(200) < 0.5, 0, 1)
    assert evaluate.ece_corrected(probability, wrong) > 0.15


def test_the_uar_by_group():
    found = evaluate.uar_by(["b", "b", "a"], np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    assert found == {"b": 0.5, "a": 1.0}


def test_a_difference_on_the_same_clips_is_surer_than_the_two_intervals():
    random = np.random.default_rng(2)
    true = np.tile([0, 1], 60)
    speakers = [f"s{n // 6}" for n in range(120)]
    hard = np.repeat(random.random(20) < 0.5, 6)  # some speakers are hard for both
    worse = np.where(hard, 1 - true, true)
    better = worse.copy()
    better[::6] = true[::6]  # a little better with everybody who is hard
    difference, low, high = evaluate.paired_bootstrap(true, better, worse, speakers, 2)
    assert difference == pytest.approx(
        evaluate.uar(evaluate.confusion(true, better, 2)) - evaluate.uar(evaluate.confusion(true, worse, 2))
    )
    assert 0.0 < low < difference < high
    apart = evaluate.bootstrap(true, worse, speakers, 2)
    assert high - low < apart[1] - apart[0]
    assert evaluate.paired_bootstrap(true, worse, worse, speakers, 2) == (0.0, 0.0, 0.0)
