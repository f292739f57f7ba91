"""MPAF-Net's table: every row has a run behind it, rows come by metric, and what held is read off them."""

import pytest

pytest.importorskip("torch")

from clser.bench.tables import mpaf_net as table
from clser.bench.workshop import Score

pytestmark = pytest.mark.torch


class Shop:
    """Every run scores the same, but for one."""

    seeds = (0, 1)

    def __init__(self):
        self.asked = []

    def scores(self, plan, folds, seed, given):
        self.asked.append((plan.settings.get("fusion", "mpaf"), given))
        right = 60.0 if plan.settings.get("fusion") == "tfn" else 50.0
        right -= 10.0 * (given != "both")
        return {corpus: Score(right, right, right, right, 10, 2, {}) for corpus in table.UNHEARD}


def test_every_row_of_the_published_table_and_of_ours():
    shop = Shop()
    rows = list(table.rows(shop, lambda name: name != table.SHARES))
    assert {row.name for row in rows if row.published} == set(table.TABLE_5)
    assert {row.name for row in rows if row.table == "ours"} == set(table.DIFFERS)
    assert len(rows) == 3 * 3 * (len(table.SETTINGS) + 2)
    groups = [(row.table, row.metric) for row in rows]
    assert len(dict.fromkeys(groups)) == sum(a != b for a, b in zip(groups, [*groups[1:], None], strict=True))
    held = {claim.said: claim for claim in table.claims(rows)}
    assert held["words beside the voice help"].held and not held["pairs beat tfn"].held
    assert "-10.0 ± 0.0 points of war over tfn, 6 corpora and seeds" in held["pairs beat tfn"].because


def test_only_what_is_asked_for_is_made():
    shop = Shop()
    rows = list(table.rows(shop, lambda name: name == "words_alone"))
    assert {row.name for row in rows} == {"words_alone"} and shop.asked == [("mpaf", "words")] * 2


def test_each_row_differs_from_the_network_in_what_it_is_named_for():
    whole = table.plan_of("mpaf")
    assert (whole.loss.kind, whole.loss.gamma, whole.optimiser.schedule) == ("focal", 2.0, "cosine")
    assert table.plan_of("cross_entropy").loss.kind == "cross_entropy"
    constant = table.plan_of("constant_rate").optimiser
    assert constant.schedule == "plateau" and constant.plateau_epochs > constant.epochs
    assert table.plan_of("small_encoder").settings["speech"].startswith("hub:")
