"""The default voice's recipe: its figures add up, and it runs on the same training as everything else."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")

from clser.models import plan, recipe, verdict
from clser.models.data.clips import Clip
from clser.models.labels import HEADS, NONE

pytestmark = pytest.mark.torch
TEN = (*HEADS, NONE)


def said(who, wrong=0.0, seed=0):
    """Sure answers of a fold whose speakers are `who`; a share of them wrong, and as sure."""
    random = np.random.default_rng(seed)
    clips = [
        Clip(Path("x"), corpus, f"{corpus}{speaker}", "male" if speaker % 2 else "female", emotion)
        for corpus in ("one", "two")
        for speaker in who
        for emotion in ("anger", "happiness", "neutral", "sadness", "fear")
        for _ in range(4)
    ]
    true_N = np.array([TEN.index(clip.emotion) for clip in clips])
    other_N = np.where(random.random(len(clips)) < wrong, random.permutation(true_N), true_N)
    logits = (6.0 * np.eye(len(TEN))[other_N]).astype(np.float32)
    return verdict.Said(TEN, clips, {0: logits, 10: logits})


def test_the_figures_of_perfect_answers():
    table = verdict.table([said((0, 1)), said((2, 3))], {"one": said((0, 1))})
    assert [row["uar"] for row in table["inside"]["0"]["rows"]] == [1.0, 1.0]
    assert table["left_out"]["10"]["mean_uar"] == 1.0
    assert table["trust"]["0"]["error"] == 0.0
    assert table["trust"]["0"]["speech_taken_for_none"] == 0.0
    assert table["by_gender"]["0"]["one"] == {"female": 1.0, "male": 1.0}
    assert table["offsets"].keys() == set(TEN)


def test_answers_that_are_too_sure_are_made_less_so():
    folds = [said((who, who + 1), wrong=0.4, seed=who) for who in range(0, 8, 2)]
    calibration, threshold = verdict.calibrated(folds)
    assert calibration.temperature > 1.5
    assert 0.2 < threshold < 0.9
    assert verdict.table(folds, {"one": folds[0]})["trust"]["0"]["ece"] < 0.2


def test_a_part_that_does_not_exist(tmp_path):
    made = recipe.Recipe(tmp_path, tmp_path, tmp_path, plan.load("voice"))
    with pytest.raises(recipe.GivenError, match=r"there are speakers_0, .*voice_licensed, without_emodb"):
        made.part("all")


@pytest.mark.slow
def test_a_rebuild_from_the_corpora_to_the_files_that_ship(tmp_path):
    """As small as it gets: two corpora of tones."""
    folder = tiny.corpora(tmp_path / "corpora", speakers=3, each=1, emotions=HEADS, seconds=0.7)
    changes = ["corpora=[one, two]", "takes={count: 1, noise: 0.0}", "sampling={rows_per_epoch: 16, batch: 8}"]
    changes += ["optimiser.epochs=1", "folds={count: 2, validation: 0.0}", "settings={width: 32, hidden: 8, manner: 8}"]
    changes += ["acquaintance={steps: 5, batch: 8}", "unvoiced=false"]
    rebuilt = recipe.Recipe(folder, tmp_path / "out", tmp_path / "cache", plan.load("voice", changes))
    table = rebuilt.run()
    assert [row["corpus"] for row in table["inside"]["0"]["rows"]] == ["one", "two"]
    for name in ("voice", "voice_licensed"):
        assert (tmp_path / "out" / f"{name}.onnx").exists()
        assert table["shipped"][name]["parity"] < 1e-4
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == table
    before = (tmp_path / "out" / "speakers_1" / "model.safetensors").stat().st_mtime_ns
    rebuilt.run()
    assert (tmp_path / "out" / "speakers_1" / "model.safetensors").stat().st_mtime_ns == before
