"""Tables of published systems: rows, what is kept of them, and how the folder of tables is asked."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch")

from clser.bench import plot, shots, table_page, workshop
from clser.bench.workshop import Claim, Row, Workshop
from clser.engine.errors import GivenError
from clser.models.data.clips import Clip

pytestmark = pytest.mark.torch


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, tmp_path / "cache", (0, 1))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("made")
    made.ABOUT = "A paper"

    def rows(shop: Workshop, wanted: workshop.Wanted) -> Iterator[Row]:
        for name, published in (("one", 50.0), ("two", None)):
            if wanted(name):
                values = tuple(
                    shop.kept((name, seed), lambda n=name, s=seed: {"uar": len(n) * 10.0 + s})["uar"]
                    for seed in shop.seeds
                )
                yield Row("1", name, "emodb", "uar", values, 10, 2, published, "IEMOCAP" if published else "")

    made.rows = rows
    made.claims = lambda found: [
        Claim("one is better", workshop.value(found, "one") > 0, "because"),
        Claim("untold", None, "-"),
    ]
    monkeypatch.setattr(workshop, "table_file", lambda _: made)
    return made


def test_a_table_has_mean_spread_and_the_command_of_each_row(shop: Workshop, table: ModuleType) -> None:
    found = workshop.measure("made", shop, [])
    one, two = found["rows"]
    assert one["values"] == (30.0, 31.0)
    assert one["mean"] == 30.5
    assert one["spread"] == pytest.approx(np.std([30, 31], ddof=1))
    assert one["command"] == "clser-bench accuracy --table made --row one --seeds 2 --corpora DIR"
    assert two["published"] is None
    text = "\n".join(workshop.lines(json.loads(json.dumps(found))))
    assert "published 50 on IEMOCAP" in text
    assert "held: one is better" in text
    assert "left open: untold" in text


def test_a_table_for_people(shop: Workshop, table: ModuleType, tmp_path: Path) -> None:
    found = workshop.measure("made", shop, [])
    machine = {"processor": "a processor", "cores": 2}
    line = {"bench": "accuracy", "version": "1", "started": "2026-01-01T00:00:00", "machine": machine, **found}
    page = table_page.markdown(line)
    assert "# A paper" in page
    assert "| `one` | 30.5 ± 0.7 | 50 (IEMOCAP) | - |" in page
    assert "| `two` | 30.5 ± 0.7 | - | as above |" in page
    assert "| one is better | held | because |" in page
    assert "* `clser-bench accuracy --table made --row two --seeds 2 --corpora DIR`" in page
    pytest.importorskip("matplotlib")
    plot.draw(line, {}, tmp_path)
    assert (tmp_path / "made.png").stat().st_size > 1000


def test_rows_can_be_asked_for_and_claims_need_all_of_them(shop: Workshop, table: ModuleType) -> None:
    found = workshop.measure("made", shop, ["two"])
    assert [row["name"] for row in found["rows"]] == ["two"]
    assert found["claims"] == []
    with pytest.raises(GivenError, match="no such row; it has one, two"):
        workshop.measure("made", shop, ["three"])


@pytest.mark.parametrize(
    ("ours", "theirs", "held"),
    [((60.0, 62.0), (50.0, 51.0), True), ((50.0, 52.0), (60.0, 61.0), False), ((50.0, 62.0), (51.0, 60.0), None)],
)
def test_a_claim_is_decided_where_the_differences_are_larger_than_chance(ours, theirs, held) -> None:
    rows = [Row("1", "one", corpus, "uar", ours, 1, 1) for corpus in ("emodb", "emovo", "mean")]
    rows += [Row("1", "two", corpus, "uar", theirs, 1, 1) for corpus in ("emodb", "emovo", "casia")]
    rows += [Row("1", "three", "emodb", "uar", (10.0, 10.0), 1, 1)]
    claim = workshop.better(rows, "one wins", "one", "two", "three", but="mean")
    assert claim.held is held
    assert "points of uar over two, 4 corpora and seeds" in claim.because
    assert workshop.better(rows, "it wins", "one", "nobody").held is None


def test_what_was_made_once_is_not_made_again(shop: Workshop) -> None:
    made = []
    for _ in range(2):
        assert shop.kept(("a", 1), lambda: made.append(1) or {"x": 1.5}) == {"x": 1.5}
    assert made == [1]
    assert shop.kept(("a", 2), lambda: {"x": 2}) == {"x": 2}


def test_tables_are_the_files_of_a_folder() -> None:
    assert "acmf_net" in workshop.tables()
    for name in workshop.tables():
        assert workshop.table_file(name).ABOUT
    with pytest.raises(GivenError, match="there are "):
        workshop.table_file("nothing")


def test_folds_are_counted_together() -> None:
    one = {"classes": ["anger", "sadness"], "confusion": [[3, 1], [0, 4]], "speakers": 1}
    two = {"classes": ["sadness"], "confusion": [[2]], "speakers": 2}
    score = workshop.together([one, two])
    assert (score.clips, score.speakers) == (10, 3)
    assert score.per_class == {"anger": 75.0, "sadness": 100.0}
    assert score.uar == pytest.approx(87.5)
    assert score.war == pytest.approx(90.0)


def clips() -> list[Clip]:
    return [
        Clip(Path(f"{speaker}_{emotion}_{n}.wav"), "corpus", speaker, "", emotion)
        for speaker in "abcd"
        for emotion in ("anger", "neutral", "sadness")
        for n in range(4)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_nobody_who_gave_a_shot_is_tested(seed: int) -> None:
    own = clips()
    few, many = shots.draw(own, 2, seed), shots.draw(own, 0, seed)
    giving = {own[n].who for n in few.shots}
    assert sorted(own[n].emotion for n in few.shots) == sorted(["anger", "neutral", "sadness"] * 2)
    assert giving.isdisjoint(own[n].who for n in few.tested)
    assert few.tested == many.tested == shots.draw(own, 3, seed).tested
    assert set(few.shots) | set(few.others) == set(many.shots)
    assert not set(few.shots) & set(few.others)
    assert len(few.tested) + len(many.shots) == len(own)
