from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from made import START_US, account, heartbeat, ledger, result

from clser.bench import overload
from clser.bench.card import Setup
from clser.bench.crowd import AGAIN, Crowd, Crush, Door, Stranger
from clser.bench.losses import Losses
from clser.bench.overload import Step, check, ladder, relieved_s, report, stretches, table
from clser.bench.rig import Cpu, Press, Rig
from clser.bench.scene import bundled_takes, circle, phases, talking
from clser.bench.stats import Distribution, settled_after
from clser.engine.config import load
from clser.engine.errors import GivenError
from clser.engine.records import ENGINE, Status

CRUSH = Crush(per_s=25.0, seconds=4.0, left=1, after_s=2.0)


class Bouncer:
    """Stands for a microphone whose engine lets in so many and refuses the rest."""

    room = 2

    def __init__(self) -> None:
        self.said: list[str] = []
        self.answers: list[dict[str, str]] = []
        self.refused = 0

    def say(self, op: str) -> None:
        self.said.append(op)
        if op == "open":
            inside = type(self).room > 0
            type(self).room -= inside
            self.answers.append({"op": "opened"} if inside else {"op": "refused", "reason": "overloaded"})

    def replies(self) -> Iterator[dict[str, str]]:
        while self.answers:
            yield self.answers.pop(0)


def strangers(count: int, room: int) -> list[Stranger]:
    Bouncer.room = room
    return [Stranger(Bouncer(), 0, shift, np.zeros(300, np.int64)) for shift in range(count)]  # type: ignore[arg-type]


def test_streams_come_one_after_another_and_ask_again_when_refused() -> None:
    crowd = strangers(4, room=2)
    door = Door(list(crowd), CRUSH)
    for number in range(10):
        door.look(number)
    assert [stranger.first for stranger in crowd] == [2, 4, None, None]  # asked in 0, 2, 4, 6; let in a round later
    assert [stranger.turned_away for stranger in crowd] == [0, 0, 1, 1]
    assert door.reason == "overloaded"
    Bouncer.room = 1
    for number in range(10, 10 + 2 * AGAIN):
        door.look(number)
    assert [stranger.first is not None for stranger in crowd] == [True, True, True, False]
    assert crowd[2].first is not None
    assert AGAIN <= crowd[2].first - 5 <= AGAIN + 2
    assert crowd[3].turned_away == 3
    assert [len(door.inside), len(door.outside)] == [3, 1]


def test_those_who_came_last_leave_first_and_nobody_asks_any_more() -> None:
    crowd = strangers(4, room=3)
    door = Door(list(crowd), CRUSH)
    for number in range(12):
        door.look(number)
    door.fall()
    assert [stranger.left for stranger in crowd] == [False, True, True, False]
    assert door.inside == crowd[:1]
    Bouncer.room = 5
    for number in range(12, 12 + 3 * AGAIN):
        door.look(number)
    assert door.inside == crowd[:1]
    assert crowd[3].microphone.said == ["open"]  # type: ignore[attr-defined]


def test_a_refusal_of_somebody_inside_is_counted_apart() -> None:
    crowd = strangers(1, room=1)
    door = Door(list(crowd), CRUSH)
    for number in range(3):
        door.look(number)
    crowd[0].microphone.answers.append({"op": "refused", "reason": "late"})  # type: ignore[attr-defined]
    for number in range(3, 120):
        door.look(number)
    assert (crowd[0].turned_away, crowd[0].microphone.refused) == (0, 1)
    assert door.inside == crowd


def status(seq: int, event: str, step: int) -> Status:
    return Status(
        stream=ENGINE, seq=seq, unix_us=0, state="degraded", event=event, counters={"overload_step": float(step)}
    )


def climbed(*more: tuple[float, Status]):
    return account(
        (500.0, heartbeat(1, overload_step=0.0)),
        (1_000.0, status(2, "overload", 1)),
        (2_000.0, status(3, "overload", 2)),
        (4_000.0, status(4, "relief", 1)),
        *more,
    )


def test_the_ladder_and_when_it_was_left() -> None:
    told = climbed((6_000.0, status(5, "relief", 0)), (7_000.0, heartbeat(6, overload_step=0.0)))
    assert ladder(told, START_US) == [
        Step(1.0, 1, "overload"),
        Step(2.0, 2, "overload"),
        Step(4.0, 1, "relief"),
        Step(6.0, 0, "relief"),
    ]
    assert relieved_s(told, START_US + 3_000_000) == 3.0
    assert relieved_s(told, START_US + 6_500_000) == 0.0
    assert relieved_s(climbed(), START_US + 3_000_000) is None
    again = climbed(
        (6_000.0, status(5, "relief", 0)), (8_000.0, status(6, "overload", 1)), (9_000.0, status(7, "relief", 0))
    )
    assert relieved_s(again, START_US + 3_000_000) == 6.0
    assert relieved_s(account((1.0, heartbeat(1, streams=3.0))), START_US) is None  # an engine without a ladder


def test_lag_has_settled_when_it_stays_low_for_a_while() -> None:
    at = np.arange(40) + 0.5
    lag = np.array([10.0] * 5 + [900.0] * 6 + [10.0] * 2 + [200.0] + [10.0] * 26)
    assert settled_after(at, lag, 9.0, 50.0) == 5.0  # two low seconds are no recovery
    assert settled_after(at, lag, 15.0, 50.0) == 0.0
    lag[30] = 60.0  # a hiccup much later is none of it
    assert settled_after(at, lag, 9.0, 50.0) == 5.0
    assert settled_after(at, lag, 15.0, 50.0) == 0.0
    assert settled_after(at, lag, 25.0, 50.0) == 6.0
    lag[-1] = 60.0
    assert settled_after(at, lag, 35.0, 50.0) is None
    assert settled_after(at, lag, 50.0, 50.0) is None


def crushed() -> dict[str, object]:
    """Two of four streams let in; four seconds, most leave, and two seconds more."""
    book = ledger(streams=4, packets=300)
    book.start_us[2:] = np.nan
    book.sent_us[2:] = 0
    late = sorted((at * 100 + (2000.0 if 20 <= at < 45 else 10.0), at * 1600) for at in range(1, 100))
    partials = [(at_ms, result(1, "partial", 0, end, seq)) for seq, (at_ms, end) in enumerate(late, 1)]
    statuses = [
        (1_900.0, status(1, "overload", 1)),
        (5_000.0, status(2, "relief", 0)),
        (5_900.0, heartbeat(3, overload_step=0.0)),
    ]
    told = account(*sorted([*partials, *statuses], key=lambda entry: entry[0]))
    crowd = Crowd(book, np.array([0, 0, 3, 4]), START_US, START_US + 4e6, "too late")
    return report(
        told, Press(crowd, Cpu(1.0, 1.0, 0.1, 0.2, 6.0)), load(), 100, Losses(5, 4, 1, 0, 0, 0, ("stream 1: ...",))
    )


def test_a_crush_in_figures() -> None:
    line = crushed()
    assert [line[name] for name in ("offered", "accepted", "refused", "refused_at_first", "refusals")] == [
        4,
        2,
        2,
        2,
        7,
    ]
    assert line["refused_because"] == "too late"
    assert line["recover_to_step_0_s"] == 1.0
    assert line["recover_to_normal_lag_s"] == 2.0  # what was said until 4.4 arrives until 6.4, newer things between
    assert line["recover_s"] == 2.0
    assert (line["finals"], line["lost"], line["doubled"]) == (4, 1, 0)
    text = "\n".join(table({**line, "factor": 2.0, "capacity": 2}))
    assert "1 at 1.9 s, 0 at 5.0 s" in text
    assert text.endswith("stream 1: ...")
    built = msgspec.to_builtins(line)
    assert built["ladder"] == [[1.9, 1, "overload"], [5.0, 0, "relief"]]
    assert set(built["after_endpoint_ms"]) == {"rising", "over", "after"}


def test_every_final_falls_into_one_stretch() -> None:
    crowd = Crowd(ledger(), np.zeros(40, np.int64), START_US, START_US + 10e6, "")
    (_, _, come), (_, begin, fall), (_, left, _) = stretches(crowd)
    assert come == begin == START_US + 40 / overload.PER_S * 1e6
    assert fall == left == START_US + 10e6
    assert isinstance(crushed()["lag_ms"], Distribution)


@pytest.mark.parametrize(
    ("carried", "factor", "seconds", "said"),
    [
        (0, 2.0, 100.0, "--capacity is not given"),
        (100, 1.0, 100.0, "100 streams where 100 are carried"),
        (1000, 3.0, 500.0, "at most 2000"),
        (100, 2.0, 5.0, "take 10 s to come"),
    ],
)
def test_what_cannot_be_tried_is_refused(carried: int, factor: float, seconds: float, said: str) -> None:
    with pytest.raises(GivenError, match=said):
        check(carried, factor, seconds)
    assert check(100, 2.0, 120.0) == 200


@pytest.mark.slow
def test_strangers_at_the_door_of_a_real_engine() -> None:
    scene = circle(talking(bundled_takes(), 0.6, 5.0, 0, ""), 0)
    setup = Setup(overrides=("ingest.most_streams=2",))
    with Rig(setup, 4.0, brief=True) as rig:
        press = rig.press(scene, phases(scene.packets, 4), Crush(per_s=25.0, seconds=2.0, left=1, after_s=1.0))
    crowd = press.crowd
    assert np.isnan(crowd.ledger.start_us).tolist() == [False, False, True, True]
    assert (crowd.turned_away[:2] == 0).all()
    assert (crowd.turned_away[2:] >= 2).all()
    assert "2 streams are open" in crowd.reason
    assert (crowd.ledger.closed, crowd.ledger.blocked, crowd.ledger.refused) == (2, 0, 0)
    assert 2.0e6 <= crowd.fall_us - crowd.begin_us < 10.0e6
    sent = (crowd.ledger.sent_us > 0).sum(axis=1)
    assert (sent[2:] == 0).all()
    assert sent[0] > sent[1] + 40  # the first stayed for another second
    assert press.cpu.engine > 0
    assert rig.account.finals >= 2
    assert rig.account.missed == 0
