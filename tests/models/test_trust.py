"""What confidence is worth, against values worked by hand and against models whose calibration is known."""

import json

import numpy as np
import pytest

from clser.models import evaluate, trust


def answers(sure, right):
    """Two classes; the answer is always the first."""
    sure = np.asarray(sure, float)
    return np.stack((sure, 1.0 - sure), 1), np.where(right, 0, 1)


def honest(many, seed, off=0.0):
    """Right as often as it says, or by `off` less often."""
    random = np.random.default_rng(seed)
    sure = random.uniform(0.55, 0.95, many)
    return answers(sure, random.random(many) < sure - off)


def test_bins_by_hand():
    bins = trust.reliability(*answers([0.62, 0.68, 0.68, 0.95], [1, 1, 0, 1]), bins=10)
    assert len(bins) == 10
    assert bins[6] == pytest.approx((0.6, 0.7, 3, (0.62 + 0.68 + 0.68) / 3, 2 / 3))
    assert bins[9] == pytest.approx((0.9, 1.0, 1, 0.95, 1.0))
    assert bins[0] == (0.0, 0.1, 0, 0.0, 0.0)


def test_the_squared_error_by_hand():
    """Four at 0.9, three of them right: (0.75 - 0.9)^2 less 0.75 * 0.25 / 3. The single one at 0.6 has no variance to know."""
    given = answers([0.9] * 4 + [0.6], [1, 1, 1, 0, 0])
    assert trust.squared_error(*given) == pytest.approx(0.15**2 - 0.75 * 0.25 / 3)
    assert trust.rms_gap(*given) == 0.0
    assert trust.squared_error(*answers([0.6], [1])) == 0.0


def test_of_an_honest_model_nothing_is_left_though_its_ece_is_not_0():
    found = [honest(300, seed) for seed in range(300)]
    assert np.mean([evaluate.ece(*each) for each in found]) > 0.04
    squared = np.array([trust.squared_error(*each) for each in found])
    plain = np.mean(
        [np.square([b.confidence - b.right for b in trust.reliability(*each) if b.answers]).mean() for each in found]
    )
    assert abs(squared.mean()) < 3 * squared.std() / np.sqrt(len(found))
    assert abs(squared.mean()) < plain / 10
    assert trust.rms_gap(*honest(20_000, 1)) < 0.01


@pytest.mark.parametrize("many", [100, 1_000])
@pytest.mark.parametrize("off", [0.1, 0.25])
def test_a_gap_is_found_however_few_answers_there_are(many, off):
    squared = [trust.squared_error(*honest(many, seed, off)) for seed in range(300)]
    assert np.mean(squared) == pytest.approx(off**2, abs=0.004)


def test_the_error_of_the_surest_by_hand():
    given = answers([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1])
    assert trust.error_at(*given, 1.0) == pytest.approx(0.25)
    assert trust.error_at(*given, 0.75) == pytest.approx(1 / 3)
    assert trust.error_at(*given, 0.5) == 0.0


def test_a_threshold_gives_no_more_than_was_asked_for():
    probability, true = answers([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1])
    assert trust.threshold(probability, 0.75) == pytest.approx(0.7)
    assert evaluate.risk_at(probability, true, trust.threshold(probability, 0.75)) == pytest.approx((0.75, 1 / 3))
    assert trust.threshold(probability, 1.0) == 0.0
    ties, true = answers([0.9, 0.7, 0.7, 0.7], [1, 1, 1, 1])
    assert evaluate.risk_at(ties, true, trust.threshold(ties, 0.75))[0] == 0.25
    assert evaluate.risk_at(ties[1:], true[1:], trust.threshold(ties[1:], 0.5))[0] == 0.0


def test_the_curve_ends_at_the_error_of_all():
    probability, true = honest(500, 2)
    points = trust.curve(probability, true)
    assert points[-1] == (1.0, pytest.approx((probability.argmax(1) != true).mean()))
    assert len(points) == trust.POINTS
    assert points[5][1] < points[-1][1]
    assert trust.curve(*answers([0.9], [1]))[-1] == (1.0, 0.0)


def test_intervals_hold_the_figure_and_are_wider_where_speakers_differ():
    probability, true = honest(400, 3)
    alike = [f"s{n % 10}" for n in range(400)]
    each = trust.intervals(probability, true, alike, draws=100)
    assert set(each) == set(trust.figures(probability, true))
    for name in ("error", "aurc", "error_at_75"):
        low, high = each[name]
        assert low < trust.figures(probability, true)[name] < high
    sorted_by_luck = np.argsort(probability.argmax(1) != true, kind="stable")
    unlike = np.empty(400, object)
    unlike[sorted_by_luck] = [f"s{n // 40}" for n in range(400)]
    wide = trust.intervals(probability, true, [str(name) for name in unlike], draws=100)
    assert trust.figures(probability, true) == pytest.approx(trust.figures(*trust._bare(probability, true)))
    assert trust.figures(probability, true)["aurc"] == pytest.approx(evaluate.aurc(probability, true))
    assert np.diff(wide["error"])[0] > 2 * np.diff(each["error"])[0]
    assert trust.intervals(probability, true, alike, draws=100) == each


def test_two_systems_are_compared_on_the_same_clips():
    probability, true = honest(400, 4)
    speakers = [f"s{n % 10}" for n in range(400)]
    # the same answers, said much too surely: nothing else may differ
    shouted = evaluate.softmax(4.0 * np.log(probability))
    found = trust.compared(shouted, probability, true, speakers, draws=100)
    assert found["error"] == (0.0, 0.0, 0.0)
    difference, low, high = found["ece"]
    assert 0.0 < low < difference < high
    assert difference == pytest.approx(evaluate.ece(shouted, true) - evaluate.ece(probability, true))


def test_all_of_it_goes_into_a_document():
    probability, true = honest(200, 5)
    found = trust.worth(probability, true, [f"s{n % 5}" for n in range(200)], draws=20)
    assert json.loads(json.dumps(found)) == found
    assert found["error_at_75"] < found["error"]
    assert found["spared_at_75"] == pytest.approx(found["error"] - found["error_at_75"], abs=2e-4)
    assert sum(one["answers"] for one in found["bins"]) == found["answers"] == 200
    assert "intervals" not in trust.worth(probability, true)
