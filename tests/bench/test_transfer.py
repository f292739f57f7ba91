"""Transfer: who is trained on and who is tested never meet, and of a speaker only what came before is known."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from clser.bench.tables.hump_cat import FOUR, MOVED, WITHIN, claims, plan_of
from clser.bench.transfer import Draw, _less_usual, earlier, parted
from clser.bench.workshop import Row
from clser.models.data.clips import Clip
from clser.models.systems import build

pytestmark = pytest.mark.torch

CLIPS = [
    Clip(Path(f"{corpus}{n}.wav"), corpus, f"s{n % 5}", "", FOUR[n % 4]) for corpus in ("a", "b") for n in range(40)
]


def test_speakers_are_dealt_by_seed_and_keep_apart():
    dealt = [parted(CLIPS, Draw("b", 2, seed)) for seed in range(6)]
    for theirs, tested in dealt:
        whos = [{CLIPS[n].who for n in part} for part in (theirs, tested)]
        assert len(whos[0]) == 2 and len(whos[1]) == 3 and not whos[0] & whos[1]
        assert sorted(theirs + tested) == list(range(40, 80))
    assert dealt == [parted(CLIPS, Draw("b", 2, seed)) for seed in range(6)]
    assert len({tuple(theirs) for theirs, _ in dealt}) > 1


def test_only_what_came_before_is_known():
    _, tested = parted(CLIPS, Draw("b", 2, 0))
    before = earlier(CLIPS, tested, 3)
    assert sorted(before) == tested
    for n, heard in before.items():
        assert n not in heard and {CLIPS[m].who for m in heard} <= {CLIPS[n].who}
        assert all(n not in before[m] for m in heard)
    assert sorted(map(len, before.values())) == sorted([0, 1, 2, 3, 4, 5, 6, 7] * 3)


def test_the_usual_of_whom_is_tested_grows_and_of_the_others_is_whole():
    random = np.random.default_rng(0)
    x = random.standard_normal((80, 3)) + 5.0 * np.array([int(clip.speaker[1]) % 3 for clip in CLIPS])[:, None]
    theirs, tested = parted(CLIPS, Draw("b", 2, 0))
    trained = [*range(40), *theirs]
    plain, less = (_less_usual(x, CLIPS, trained, tested, seed) for seed in (None, 3))
    before = earlier(CLIPS, tested, 3)
    for n in tested:
        if not before[n]:
            assert np.array_equal(plain[n], less[n])
    own = [n for n in trained if CLIPS[n].who == CLIPS[0].who]
    assert np.allclose(plain[0] - less[0], plain[own].sum(0) / (len(own) + 3.0))


@pytest.mark.parametrize("name", WITHIN)
def test_every_row_within_corpora_is_a_plan_whose_system_is_built(name):
    plan = plan_of({**WITHIN[name][1], "speech_width": 128}, ("emodb",))
    assert build(plan.system, plan.settings, FOUR).heads == FOUR


def test_claims_are_read_off_the_rows():
    rows = [
        Row("", name, corpus, "uar", (50.0 + n,), 1, 1)
        for n, name in enumerate((*WITHIN, *MOVED))
        for corpus in ("emodb", "emovo")
    ]
    found = {claim.said: claim for claim in claims(rows)}
    assert found["EMODB 88.69 after fine-tuning"].held is False
    assert found["prosody and MFCC are the best pair of hand-crafted features"].held is False
    assert found["three paths beat the encoder alone"].held is True
