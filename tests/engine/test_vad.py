from hypothesis import given
from hypothesis import strategies as st

from clser.engine.vad import Gate, VadConfig

SHARES = st.floats(0, 1)


def test_between_the_thresholds_it_stays_as_it_was() -> None:
    gate = Gate(VadConfig(on=0.5, off=0.35))
    assert [gate.push(p) for p in (0.4, 0.49, 0.5, 0.4, 0.35, 0.34, 0.4, 0.5)] == [
        False,
        False,
        True,
        True,
        True,
        False,
        False,
        True,
    ]


def test_reset_forgets_that_it_was_voiced() -> None:
    gate = Gate(VadConfig(on=0.5, off=0.35))
    assert gate.push(0.9)
    gate.reset()
    assert not gate.push(0.4)


@given(st.lists(SHARES), SHARES, SHARES)
def test_at_on_it_is_voiced_and_below_off_it_is_not_whatever_came_before(
    probabilities: list[float], on: float, off: float
) -> None:
    gate = Gate(VadConfig(on=on, off=off))
    for probability in probabilities:
        voiced = gate.push(probability)
        if probability >= on:
            assert voiced
        if probability < min(on, off):
            assert not voiced


@given(st.lists(SHARES), SHARES)
def test_an_off_above_on_counts_as_on(probabilities: list[float], on: float) -> None:
    gate = Gate(VadConfig(on=on, off=1.0))
    assert [gate.push(p) for p in probabilities] == [p >= on for p in probabilities]
