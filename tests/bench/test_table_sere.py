"""SERE's table: who is heard and who is tested, rows that can be built, what is kept, what the claims read."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from clser.bench.tables import sere
from clser.bench.workshop import Row, Workshop
from clser.models.data.clips import Clip
from clser.models.sere_loss import Transfer
from clser.models.sere_run import by_speaker
from clser.models.systems import build
from clser.models.tensors import Sequences

pytestmark = pytest.mark.torch


def clips_of(corpus, speakers=4, each=6):
    return [
        Clip(Path(f"{corpus}-{who}-{emotion}-{n}.wav"), corpus, str(who), "f", emotion)
        for who in range(speakers)
        for emotion in sere.FOUR
        for n in range(each)
    ]


@pytest.fixture
def made(monkeypatch):
    """Corpora whose classes show in the frames, and are moved from one to the other."""
    monkeypatch.setattr(sere, "clips_of", lambda shop, corpus, classes: clips_of(corpus))

    def coarse(self, corpus, classes, kind):
        clips = self.clips(corpus, classes)
        random = torch.Generator().manual_seed(len(corpus))
        label = torch.tensor([classes.index(clip.emotion) for clip in clips])
        x = torch.randn(len(clips), 4, 128, generator=random) + 4.0 * torch.eye(128)[label][:, None]
        x += 0.5 * (corpus == "casia")
        length = torch.full((len(clips),), 4)
        dynamics = torch.rand(len(clips), 4, 4, generator=random)
        given = {kind.settings["speech"]: Sequences(x, length), "dynamics": Sequences(dynamics, length)}
        return by_speaker(given, clips, (kind.settings["speech"],)) if kind.speakers else given

    monkeypatch.setattr(sere.Sides, "coarse", coarse)
    monkeypatch.setattr(sere, "PAIRS", ("BC",))


def test_who_is_tested_was_not_heard_and_everybody_is_tested_once():
    clips = clips_of("emodb")
    parts = sere._parts(clips, whole=False)
    assert len(parts) == 4
    for adapt, test in parts:
        assert not {clips[n].who for n in adapt} & {clips[n].who for n in test}
    assert sorted(n for _, test in parts for n in test) == list(range(len(clips)))
    ((adapt, test),) = sere._parts(clips, whole=True)
    assert len(adapt) == len(test) == len(clips)


@pytest.mark.parametrize("name", sere.KINDS)
def test_every_row_is_a_system_and_a_training(name):
    kind = sere.KINDS[name]
    build("sere", kind.settings, sere.FOUR)
    assert Transfer(**kind.asked).steps > 0 and kind.says


def test_rows_are_made_once_and_of_the_asked_ones_alone(made, tmp_path, monkeypatch):
    shop = Workshop(tmp_path, tmp_path / "cache", (0,))
    asked = ("without_both", "balanced", "by_speaker_without_both")
    found = list(sere.rows(shop, lambda name: name in asked))
    # each pair and their mean, held out and transductive; of `balanced` the latter alone
    assert [row.name for row in found] == ["without_both"] * 4 + ["by_speaker_without_both"] * 4 + ["balanced"] * 2
    first = found[0]
    assert (first.corpus, first.clips, first.speakers, first.published) == ("BC", 96, 4, 41.77)
    assert found[1].corpus == "mean of six" and min(row.mean for row in found) > 45.0
    monkeypatch.setattr(sere, "_made", lambda *_, **__: pytest.fail("it was there already"))
    assert list(sere.rows(shop, lambda name: name in asked)) == found


def test_claims_read_the_means():
    means = {"full": 55.0, "source_only": 50.0, "without_gpr": 56.0, "by_speaker_balanced": 53.0}
    rows = [
        Row("1", name, corpus, metric, (means.get(name, 54.0),), 9, 3)
        for name in (*sere.KINDS, sere.OPENSMILE)
        for metric in (sere.HELD_OUT, sere.TRANSDUCTIVE)
        for corpus in ("BC", "CB", "mean of six")
    ]
    told = SimpleNamespace(**{f"n{k}": claim for k, claim in enumerate(sere.claims(rows))})
    assert told.n0.held and told.n1.held and not told.n2.held
    verdicts = {claim.said: claim.held for claim in vars(told).values()}
    assert verdicts["pulling to prototypes (L_GPR) helps"] is False and verdicts["it beats DAN"] is True
