"""Training: resumes where it stopped, draws what it should, and the table adds up."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clser.models.data.corpora import Clip
from clser.models.data.variants import Variant
from clser.models.features.logmel import FEATURES
from clser.models.labels import HEADS
from clser.models.recipe import classes_of, summary
from clser.models.train import UNASKED, Examples, Settings, batches, class_masks, pad, predict, train

pytestmark = pytest.mark.torch
SMALL = Settings(epochs=2, clips_per_epoch=24, batch=8, warmup=0.2)


@pytest.fixture
def examples():
    random = np.random.default_rng(0)
    clips = [
        Clip(Path(f"{n}.ogg"), "casia" if n < 12 else "emovo", f"speaker{n % 3}", "male", HEADS[n % 4], False)
        for n in range(18)
    ]
    lengths = random.integers(20, 40, len(clips))
    features = random.normal(-3.0, 1.0, (lengths.sum(), FEATURES)).astype(np.float16)
    return Examples(clips, [Variant(features, np.cumsum([0, *lengths]))], range(len(clips)))


def weights(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_a_stopped_training_goes_on_as_if_it_had_not_been_stopped(examples, tmp_path, monkeypatch):
    lines = []
    whole = train(examples, SMALL, tmp_path / "whole", lines.append)

    def stop(line):
        raise InterruptedError(line)

    with pytest.raises(InterruptedError):
        # The second epoch's report comes before its checkpoint: only the first is kept.
        train(examples, SMALL, tmp_path / "parts", lambda line: stop(line) if "2/2" in line else lines.append(line))
    resumed = train(examples, SMALL, tmp_path / "parts", lines.append)
    assert torch.equal(weights(whole), weights(resumed))
    assert len((tmp_path / "whole" / "progress.jsonl").read_text().splitlines()) == 2


def test_other_settings_do_not_go_on_from_a_checkpoint(examples, tmp_path):
    train(examples, replace(SMALL, epochs=1), tmp_path, [].append)
    with pytest.raises(ValueError, match="other settings"):
        train(examples, SMALL, tmp_path, [].append)


def test_corpora_of_unlike_size_are_drawn_evenly_when_asked(examples):
    settings = Settings(clips_per_epoch=4000, batch=50, balance=1.0)
    masks = class_masks(examples.clips)
    masks["emovo"] = masks["emovo"] - 1.0  # a mark by which to tell a row's corpus
    drawn = torch.cat([batch.mask_BH[:, 0] for batch in batches(examples, masks, settings, 0)])
    assert len(drawn) == 4000
    assert (drawn == -1.0).float().mean() == pytest.approx(0.5, abs=0.04)


def test_a_class_that_a_corpus_lacks_is_unlikely_and_not_impossible(examples):
    mask = class_masks(examples.clips)["casia"]
    assert [mask[HEADS.index(name)] for name in ("anger", "boredom")] == [0.0, UNASKED]
    assert -10.0 < UNASKED < 0.0


def test_a_batch_holds_each_row_and_its_length(examples):
    features, frames = pad([np.ones((3, 2)), np.ones((5, 2))])
    assert features.shape == (2, 5, 2)
    assert features.sum((1, 2)).tolist() == [6.0, 10.0]
    assert frames.tolist() == [3, 5]


def test_prediction_keeps_the_order_it_was_asked_in(examples, tmp_path):
    net = train(examples, replace(SMALL, epochs=1), tmp_path, [].append)
    variant = examples.takes[0]
    together = predict(net, variant, [5, 2, 9], batch=2)
    alone = np.concatenate([predict(net, variant, [index]) for index in (5, 2, 9)])
    assert np.abs(together - alone).max() < 1e-4


def test_the_table_of_perfect_answers():
    corpora = ("emodb", "emovo", "casia", "ravdess", "nemo")
    clips = [
        Clip(Path("x"), corpus, f"{corpus}{who}", "male", emotion, False)
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
    assert "fear" not in {HEADS[c] for c in classes_of("emodb", clips)}
