"""The shipped network's recipe: its table adds up, and it runs on the same training as everything else."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")

from clser.models import plan, recipe
from clser.models.data.clips import Clip
from clser.models.labels import HEADS
from clser.models.measures import classes_of
from clser.models.recipe import summary

pytestmark = pytest.mark.torch


def test_the_table_of_perfect_answers():
    corpora = ("emodb", "emovo", "casia", "ravdess", "nemo")
    clips = [
        Clip(Path("x"), corpus, f"{corpus}{who}", "male", emotion, corpus == "emodb" and emotion == "fear")
        for corpus in corpora
        for who in range(3)
        for emotion in ("anger", "happiness", "neutral", "sadness", "fear")
    ]
    true = np.array([HEADS.index(clip.emotion) for clip in clips])
    table = summary(10.0 * np.eye(len(HEADS))[true], clips)
    assert [row["uar"] for row in table["rows"]] == [1.0] * 5
    assert [row["uar_published"] for row in table["rows"]] == [1.0] * 5
    assert [row["clips"] for row in table["rows"]] == [12, 15, 15, 15, 15]
    assert table["risk_of_all"] == 0.0
    # some clips of it are cut at a length, which gives them away
    assert "fear" not in {HEADS[c] for c in classes_of("emodb", clips, HEADS)}


@pytest.mark.slow
def test_a_rebuild_from_the_corpora_to_the_file_that_ships(tmp_path):
    """As small as it gets: two corpora of tones. The heads are those that occur."""
    folder = tiny.corpora(tmp_path / "corpora", speakers=3, each=1, emotions=HEADS, seconds=0.7)
    changes = ["corpora=[one, two]", "takes={count: 1, noise: 0.0}", "sampling={rows_per_epoch: 16, batch: 8}"]
    changes += ["optimiser.epochs=1", "folds.count=2", "settings={channels: 8, hidden: 8}"]
    rebuilt = recipe.Recipe(folder, tmp_path / "out", plan.load("voice_gru", changes))
    table = rebuilt.run()
    assert [row["corpus"] for row in table["rows"]] == ["one", "two"]
    assert table["offsets"].keys() == set(HEADS)
    assert (tmp_path / "out" / "voice_gru.onnx").exists()
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == table
    before = (tmp_path / "out" / "fold1" / "model.safetensors").stat().st_mtime_ns
    rebuilt.run()
    assert (tmp_path / "out" / "fold1" / "model.safetensors").stat().st_mtime_ns == before
