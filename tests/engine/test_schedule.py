from hypothesis import given
from hypothesis import strategies as st

from clser.engine.schedule import Schedule

OFFERS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60)


@given(OFFERS)
def test_a_key_waits_once_and_urgent_ones_go_first_each_in_the_order_they_came(offers: list[tuple[int, bool]]) -> None:
    schedule: Schedule[int] = Schedule()
    for key, urgent in offers:
        schedule.offer(key, urgent)
    urgent_keys = list(dict.fromkeys(key for key, urgent in offers if urgent))
    others = list(dict.fromkeys(key for key, _ in offers if key not in urgent_keys))
    assert len(schedule) == len(urgent_keys) + len(others)
    assert schedule.take(100) == urgent_keys + others
    assert len(schedule) == 0


@given(OFFERS, st.integers(1, 5))
def test_taking_a_few_at_a_time_loses_and_doubles_nobody(offers: list[tuple[int, bool]], most: int) -> None:
    schedule: Schedule[int] = Schedule()
    for key, urgent in offers:
        schedule.offer(key, urgent)
    taken: list[int] = []
    while schedule:
        some = schedule.take(most)
        assert 0 < len(some) <= most
        taken += some
    assert sorted(taken) == sorted({key for key, _ in offers})


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 20))
def test_keys_that_always_have_work_take_turns(keys: int, most: int, rounds: int) -> None:
    schedule: Schedule[int] = Schedule()
    for key in range(keys):
        schedule.offer(key)
    turns = dict.fromkeys(range(keys), 0)
    for _ in range(rounds * keys):
        for key in schedule.take(most):
            turns[key] += 1
            schedule.offer(key)
        assert max(turns.values()) - min(turns.values()) <= 1


def test_becoming_urgent_moves_a_key_up_and_nothing_moves_it_down() -> None:
    schedule: Schedule[str] = Schedule()
    for key in "abc":
        schedule.offer(key)
    schedule.offer("c", urgent=True)
    schedule.offer("c")
    assert schedule.take(10) == ["c", "a", "b"]


def test_who_withdraws_does_not_wait() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.offer("a")
    schedule.offer("b", urgent=True)
    schedule.withdraw("a")
    schedule.withdraw("b")
    schedule.withdraw("never came")
    assert schedule.take(10) == []
