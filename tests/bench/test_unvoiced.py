"""Emotions named where nobody speaks: what is counted, through an engine on fakes."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes import FakePool, ManualClock

from clser.bench import command, plot, unvoiced
from clser.bench.card import Setup
from clser.engine.api import Engine
from clser.engine.config import Config
from clser.models.data.unvoiced import Sources

MADE = ("music", "hush", "machines", "weather", "phones")
NONE = Sources((), (), tested=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unvoiced, "STREAM_S", 4.0)
    monkeypatch.setattr(unvoiced, "PIECE_S", (1.0, 2.0))


def engine(threshold: float = 0.0) -> Callable[[Config], Engine]:
    def start(config: Config) -> Engine:
        fuse = msgspec.structs.replace(config.fuse, abstain_below=threshold)
        return Engine(msgspec.structs.replace(config, fuse=fuse), ManualClock(), FakePool())

    return start


def rows(line: dict[str, object], way: str) -> dict[str, unvoiced.Row]:
    found = line["rows"]
    assert isinstance(found, list)
    return {row.kind: row for row in found if row.vad == way}


def test_every_kind_is_heard_with_voice_activity_and_without(quick: None) -> None:
    line = unvoiced.measure(Setup(), 0.1, engine())
    on, forced = rows(line, "on"), rows(line, "open")
    assert tuple(on) == tuple(forced) == MADE
    for kind in MADE:
        assert on[kind].minutes == pytest.approx(0.1)
        # forced open, all of it is utterances of 4 s at most: one of 4 s and one of 2 s at least
        assert forced[kind].finals >= 2
        assert forced[kind].false == forced[kind].finals  # a model that always has a label
        assert forced[kind].false_per_minute == pytest.approx(forced[kind].false / 0.1)
    assert on["hush"].finals == 0
    assert len(unvoiced.table(line)) == 1 + len(MADE)


def test_who_abstains_names_nothing_falsely(quick: None) -> None:
    line = unvoiced.measure(Setup(), 0.1, engine(1.0))
    assert sum(row.finals for row in rows(line, "open").values()) >= 10
    assert all(row.false == 0 for row in rows(line, "open").values())


def test_a_stream_is_so_long_and_no_two_are_alike(quick: None) -> None:
    each = list(unvoiced.streams("machines", 0.1, NONE, 0))
    assert [len(sound) for sound in each] == [4 * 16_000, 2 * 16_000]
    again = list(unvoiced.streams("machines", 0.1, NONE, 0))
    assert all(np.array_equal(one, other) for one, other in zip(each, again, strict=True))
    assert not np.array_equal(each[0][: len(each[1])], each[1])
    (other,) = unvoiced.streams("machines", 1 / 30, NONE, 1)
    assert not np.array_equal(each[1], other)


def test_the_command_names_the_model_and_the_picture_is_drawn(tmp_path: Path) -> None:
    given = command._parser().parse_args(["unvoiced", "--model", "voice", "--minutes", "2"])
    assert given.set == ["model.voice=voice"]
    assert given.minutes == 2.0
    counted = [unvoiced.row(kind, way, 960_000, []) for kind in MADE for way in ("on", "open")]
    line = {
        "bench": "unvoiced",
        "machine": {"processor": "a processor", "cores": 2},
        "model": {"digest": "0123456789abcdef"},
        "rows": [msgspec.structs.asdict(row) for row in counted],
    }
    assert plot.draw(line, {}, tmp_path) == f"drawn: {tmp_path / 'unvoiced.png'}"
