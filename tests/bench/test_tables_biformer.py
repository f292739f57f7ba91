"""The bimodal family's table: every row has a run that can be built, ranks and claims are read off what was found."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from clser.bench import workshop
from clser.bench.tables import biformer
from clser.bench.workshop import Lines, Score, Workshop
from clser.models import systems

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", biformer.ROWS)
def test_every_row_has_a_run_whose_system_can_be_built(name):
    asked = biformer.plan_of(name)
    made = systems.build(asked.system, asked.settings, biformer.FOUR)
    assert bool(asked.texts) == bool(made.words)
    assert sum(p.numel() for p in made.parameters()) < 600_000


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Whose scores are made up: the later a row stands in the table, the better, whatever the corpus and the seed."""

    def scored(shop, name, seed):
        uar = 40.0 + list(biformer.ROWS).index(name) + 0.1 * seed
        return {c: Score(uar, uar, uar, uar - 1.0, 100, 5, {}) for c in biformer.UNHEARD}

    monkeypatch.setattr(biformer, "scores_of", scored)
    return Workshop(Path(tmp_path), Path(tmp_path), (0, 1), Lines())


def test_rows_ranks_and_claims(shop):
    found = workshop.measure("biformer", shop, ())
    metrics = [row for row in found["rows"] if row["name"] != "ranks"]
    assert len(metrics) == 6 * len(biformer.ROWS)
    ranks = {row["corpus"]: row["values"][0] for row in found["rows"] if row["name"] == "ranks"}
    assert ranks["biformer_sds_ls_llm"] == 1.0 and ranks["voice"] == 12.0
    assert ranks["all"] < 1e-6
    held = {claim["said"]: claim["held"] for claim in found["claims"]}
    assert held["SDS helps"] is True and held["Mamba is the best of the voice's encoders"] is False
    assert len(held) == 12


def test_one_row_alone(shop):
    found = workshop.measure("biformer", shop, ["bimamba"])
    assert {row["name"] for row in found["rows"]} == {"bimamba"}
    first = found["rows"][0]
    assert (first["published"], len(first["values"]), first["metric"]) == (66.30, 2, "uar")
    assert "label" in first["here"]


def test_what_is_generated_lies_beside_the_corpora(shop, tmp_path, monkeypatch):
    (tmp_path / "given" / "emodb").mkdir(parents=True)
    said = []
    monkeypatch.setattr(biformer, "Espeak", lambda: "nobody")
    monkeypatch.setattr(biformer, "generate", lambda entries, *rest, **more: said.append(len(entries)))
    more = biformer.with_generated(Workshop(tmp_path / "given", tmp_path / "kept", (0,)), 0)
    assert (more.corpora / "emodb").is_symlink() and said[0] >= len(biformer.FOUR)
    assert biformer.with_generated(Workshop(tmp_path / "given", tmp_path / "kept", (0,)), 0).corpora == more.corpora
