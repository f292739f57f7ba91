"""What a run is judged by: labels dealt out anew, voices beside texts, and the benchmark that puts folds together."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from clser.bench import accuracy
from clser.engine.errors import FailedError, GivenError
from clser.models import checkpoint, results, runs, systems
from clser.models.data.corpora import Text
from clser.models.encoders.text import tokeniser
from clser.models.enrolment import enrolment
from clser.models.examples import Examples, TakeFeatures

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def examples():
    clips, features = tiny.clips_and_features()
    take = TakeFeatures.of({"logmel": features}, {"logmel": 1})
    return Examples(tiny.EMOTIONS, clips, take, [take], range(len(clips)), {"logmel": 1}, 640)


def test_shuffled_labels_stay_in_their_corpus_and_out_of_the_test(examples):
    clips = examples.clips
    to_train = range(0, len(clips), 2)
    dealt = runs.shuffled(clips, to_train, 0)
    assert [clip.path for clip in dealt] == [clip.path for clip in clips]
    assert all(dealt[n] == clips[n] for n in range(1, len(clips), 2))
    assert any(dealt[n] != clips[n] for n in to_train)
    for corpus in {clip.corpus for clip in clips}:
        before, after = (Counter(c.emotion for c in each if c.corpus == corpus) for each in (clips, dealt))
        assert before == after
    assert dealt == runs.shuffled(clips, to_train, 0)


def test_voice_words_and_both_are_judged_on_the_same_clips(examples, tmp_path):
    texts = [Text("books", "en", "dev", f"word {e}", (e,)) for e in tiny.EMOTIONS[:2]]
    reading = replace(examples, texts=texts, tokenise=tokeniser("hashed"))
    torch.manual_seed(0)
    system = systems.build("tiny", {"reads": True}, tiny.EMOTIONS, [tiny.zoo(tmp_path)]).eval()
    found = results.paired(system, reading, range(len(examples.clips)), (0, 1), limited={}, device="cpu")
    judged = {name: [(row["corpus"], row["clips"]) for row in each["rows"]] for name, each in found.items()}
    assert judged["voice"] == judged["words"] == judged["both"]
    asked = sum(clip.emotion in tiny.EMOTIONS[:2] for clip in examples.clips)
    assert sum(count for _, count in judged["both"]) == asked
    assert found["words"]["mean_uar"] in (0.5, 1.0)  # one text a label: each label is always or never right


def left(folder, clips, logits, fold, **others):
    """What training leaves of a fold."""
    folder.mkdir()
    (folder / "results.json").write_text(
        json.dumps({"system": "tiny", "fold": fold, "seed": 0, "on": "test", "digest": "0"})
    )
    told = {
        name: np.array([getattr(clip, name) for clip in clips]) for name in ("name", "corpus", "speaker", "emotion")
    }
    np.savez(folder / "answers.npz", heads=np.array(tiny.EMOTIONS), logits=logits, **told, **others)
    return folder


def test_folds_are_put_together_and_what_was_heard_is_not_scored(examples, tmp_path, monkeypatch):
    clips = examples.clips
    monkeypatch.setattr(accuracy, "read_speech", lambda *_, **__: clips)
    right = np.eye(len(tiny.EMOTIONS))[[tiny.EMOTIONS.index(clip.emotion) for clip in clips]]
    _, scored = enrolment(clips)
    after = np.where(np.isin(np.arange(len(clips)), scored)[:, None], right, np.nan)
    speakers = sorted({clip.who for clip in clips})
    folders = []
    for fold in (0, 1):
        own = [n for n, clip in enumerate(clips) if speakers.index(clip.who) % 2 == fold]
        wrong = right[own] if fold == 0 else -right[own]
        folders.append(left(tmp_path / str(fold), [clips[n] for n in own], wrong, str(fold), after_10=after[own]))
    line = accuracy.measure(tmp_path, folders, False, tmp_path)
    rows = {(row["enrol"], row["corpus"]): row for row in line["rows"]}
    assert {heard for heard, _ in rows} == {0, 10}
    for (many, corpus), row in rows.items():
        assert row["clips"] == sum(clips[n].corpus == corpus for n in scored)
        assert row["uar"] == (1.0 if many else pytest.approx(0.5, abs=0.26))
    assert len(accuracy.table(line)) == 3


def test_folds_of_unlike_plans_or_twice_the_same_are_refused(examples, tmp_path):
    clips = examples.clips[:4]
    a = left(tmp_path / "a", clips, np.zeros((4, len(tiny.EMOTIONS))), "0")
    b = left(tmp_path / "b", clips, np.zeros((4, len(tiny.EMOTIONS))), "0")
    with pytest.raises(GivenError, match="twice"):
        accuracy.read([a, b])
    with pytest.raises(GivenError, match="no finished run"):
        accuracy.read([tmp_path / "nowhere"])


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    checkpoint.write(path, checkpoint.Place(), {"seed": 0}, {})
    before = path.read_bytes()

    def full(_, out):
        out.write(b"half")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FailedError, match="make room"):
        checkpoint.write(path, checkpoint.Place(), {"seed": 0}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
