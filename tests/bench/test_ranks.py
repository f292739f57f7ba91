"""Mean ranks and Friedman's test, against values that scipy 1.17 gave."""

import numpy as np
import pytest

from clser.bench.ranks import above, friedman

SCORES = [[72.0, 96, 88, 92], [69, 81, 85, 90], [80, 91, 91, 95], [70, 90, 84, 90], [66, 71, 75, 70], [68, 80, 79, 82]]
STATISTIC, P = 12.465517241379322, 0.005947302704784986
CHI_SQUARE = [
    (0.5, 1, 0.47950012218695337),
    (7.8, 3, 0.050331097859853326),
    (30.0, 11, 0.0015845952573066058),
    (2.0, 20, 0.9999998885745217),
]


def test_it_is_what_scipy_says():
    found = friedman(SCORES)
    assert found.statistic == pytest.approx(STATISTIC, rel=1e-12)
    assert found.p == pytest.approx(P, rel=1e-9)
    np.testing.assert_allclose(found.ranks_K, [4.0, 24 / 12, 29 / 12, 19 / 12])


@pytest.mark.parametrize(("statistic", "degrees", "p"), CHI_SQUARE)
def test_the_tail_of_chi_square(statistic, degrees, p):
    assert above(statistic, degrees) == pytest.approx(p, rel=1e-9)


def test_the_best_is_first_and_equals_share():
    assert friedman([[3, 2, 1], [30, 20, 10]]).ranks_K.tolist() == [1.0, 2.0, 3.0]
    assert friedman([[1, 1, 0], [1, 1, 0]]).ranks_K.tolist() == [1.5, 1.5, 3.0]
    assert friedman([[1, 1], [2, 2]])[1:] == (0.0, 1.0)
