import numpy as np
import pytest

from clser.bench.stats import distribution, medians_per_second, roc_auc, rounded, slope


def test_percentiles_of_numbers_worked_by_hand() -> None:
    of = distribution(range(1, 102))
    assert (of.p50, of.p95, of.p99, of.n) == (51, 96, 100, 101)


def test_a_p99_of_few_values_would_be_their_maximum_and_is_not_given() -> None:
    assert distribution([1, 2, 3]).p99 is None
    assert distribution(range(200), p99=False).p99 is None


def test_nothing_measured_is_no_number() -> None:
    assert (distribution([]).p50, distribution([]).n) == (None, 0)


def test_slope_and_its_error() -> None:
    # y = 0, 1, 1 over x = 0, 1, 2: slope 1/2, residuals -1/6, 1/3, -1/6, error sqrt((1/6) / 1 / 2)
    line = slope([0, 1, 2], [0, 1, 1])
    assert line.per_s == pytest.approx(0.5)
    assert line.error == pytest.approx(np.sqrt(1 / 6 / 2))


@pytest.mark.parametrize("at", [[], [1.0, 2.0], [3.0, 3.0, 3.0]])
def test_no_slope_from_too_little(at: list[float]) -> None:
    assert slope(at, at).per_s is None


def test_the_medians_of_each_second() -> None:
    at, middle = medians_per_second([0.1, 0.2, 0.9, 2.5], [1, 100, 3, 7])
    assert at.tolist() == [0.5, 2.5]
    assert middle.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.1], [0, 1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        ([0.3], [1], None),
    ],
)
def test_area_under_the_curve(scores: list[float], labels: list[int], expected: float | None) -> None:
    assert roc_auc(scores, labels) == expected


def test_what_is_printed_is_cut_to_what_is_worth_reading() -> None:
    assert rounded({"a": [1.23456, "text", {"b": 2}], "c": None}) == {"a": [1.235, "text", {"b": 2}], "c": None}
