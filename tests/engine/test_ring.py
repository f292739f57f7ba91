import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clser.engine.ring import Ring


def counted(start: int, count: int) -> np.ndarray:
    """Samples that say where they are."""
    return (np.arange(start, start + count) % 30_000).astype(np.int16)


@given(st.integers(1, 50), st.lists(st.integers(0, 120), max_size=20), st.integers(0, 1000))
def test_the_newest_samples_are_held_under_their_own_indices(capacity: int, packets: list[int], at: int) -> None:
    ring, end = Ring(capacity, at), at
    for count in packets:
        ring.append(counted(end, count))
        end += count
        assert ring.end == end
        assert ring.start == max(at, end - capacity)
        assert ring.read(ring.start, end).tolist() == counted(ring.start, end - ring.start).tolist()


@given(st.data())
def test_any_stretch_that_is_held_can_be_read(data: st.DataObject) -> None:
    ring = Ring(40)
    ring.append(counted(0, data.draw(st.integers(0, 100))))
    start = data.draw(st.integers(ring.start, ring.end))
    end = data.draw(st.integers(start, ring.end))
    assert ring.read(start, end).tolist() == counted(start, end - start).tolist()


@pytest.mark.parametrize(("start", "end"), [(4, 8), (10, 31), (20, 15)])
def test_reading_what_is_not_held_is_our_mistake(start: int, end: int) -> None:
    ring = Ring(20)
    ring.append(counted(0, 30))
    with pytest.raises(AssertionError):
        ring.read(start, end)


def test_what_was_read_stays_as_it_was() -> None:
    ring = Ring(20)
    ring.append(counted(0, 20))
    read = ring.read(0, 20)
    ring.append(counted(20, 20))
    assert read.tolist() == counted(0, 20).tolist()


def test_after_a_restart_nothing_old_can_be_read() -> None:
    ring = Ring(20)
    ring.append(counted(0, 33))
    ring.restart(1_000_007)
    assert ring.start == ring.end == 1_000_007
    ring.append(counted(1_000_007, 30))
    assert ring.start == 1_000_017
    assert ring.read(1_000_017, 1_000_037).tolist() == counted(1_000_017, 20).tolist()
