"""Soft labels (LS-LLM): where they come from, what becomes of them in a batch, and that what is missing keeps its label."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import tiny
import torch

from clser.models import row_texts
from clser.models.batches import Drawer
from clser.models.data.corpora import Text
from clser.models.data.soft_labels import Asked, OwnReader, Table, ask, open_source
from clser.models.encoders.text import tokeniser
from clser.models.errors import GivenError, MissingError
from clser.models.examples import UNASKED, Examples, Soft, TakeFeatures, class_masks
from clser.models.losses import cross_entropy, softened
from clser.models.plan import Plan, Sampling, SoftLabels

pytestmark = pytest.mark.torch
HEADS = ("anger", "happiness", "neutral")
PUBLISHED = """video_name,text,neutral,happy,sad,anger
a,Good to know.,0.8,0.15,0.05,-0.00001
b,What now?,0.1,0.1,0.0,0.8
c,what  NOW?,0.3,0.1,0.0,0.6
"""


def test_a_table_as_the_paper_has_it_is_read(tmp_path):
    path = tmp_path / "llm.csv"
    path.write_text(PUBLISHED)
    rows = [Asked("good to KNOW.", "", ("neutral",)), Asked("What now?", "", ("anger",)), Asked("Else", "", ("anger",))]
    said = ask(Table(path), rows, HEADS)
    assert said[:2] == pytest.approx(np.array([[0.0, 0.15 / 0.95, 0.8 / 0.95], [0.7, 0.1, 0.2]]), abs=1e-6)
    assert np.isnan(said[2]).all()


def test_a_table_of_files_and_of_labels(tmp_path):
    path = tmp_path / "llm.jsonl"
    path.write_text(
        '{"file": "one/a.wav", "anger": 1, "neutral": 3}\n{"text": "hi", "emotion": "joy", "happiness": 1}\n'
        '{"text": "hi", "neutral": 1}\n{"file": "b.wav", "disgust": 1}\n'
    )
    table = Table(path)
    asked = [Asked("", f"/data/{name}", ("anger",)) for name in ("one/a.wav", "two/a.wav", "one/b.wav")]
    asked += [Asked("Hi", "", ("happiness",)), Asked("Hi", "", ("anger", "neutral"))]
    said = ask(table, asked, HEADS)
    assert said[[0, 3, 4]].tolist() == [[0.25, 0.0, 0.75], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert np.isnan(said[[1, 2]]).all()  # another file, and a class that is no head


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "text,anger\nhi,much\n", "a.csv:2: anger is 'much'"),
        ("a.csv", "text,anger\nhi,0\n", "no probability above 0"),
        ("a.csv", "text,word\nhi,0\n", "a column for each class"),
        ("a.csv", "anger\n1\n", "a text or a file is needed"),
        ("a.jsonl", "{", "a.jsonl:1: no JSON"),
        ("a.jsonl", "[1]", "an object a line"),
    ],
)
def test_faults_of_a_table_are_told_with_their_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(GivenError, match=message):
        Table(tmp_path / name)
    with pytest.raises(MissingError, match="no such file"):
        open_source(SoftLabels(source=str(tmp_path / "other.csv")), tmp_path, print)


def test_our_own_text_model_reads():
    reader = OwnReader()
    said = ask(reader, [Asked("I hate you, how dare you!", "", ("anger",)), Asked(" ", "", ("anger",))], HEADS)
    assert said[0].sum() == pytest.approx(1.0)
    assert said[0].argmax() == 0
    assert np.isnan(said[1]).all()
    soft = ask(OwnReader(temperature=4.0), [Asked("I hate you, how dare you!", "", ("anger",))], HEADS)
    assert soft[0].max() < said[0].max()
    boring = ask(reader, [Asked("hm", "", ("boredom",))], ("boredom", "neutral", "anger"))
    assert boring[0, 0] == 0.0  # it knows no boredom
    assert np.isnan(ask(reader, [Asked("hm", "", ("calm",))], ("boredom", "calm"))).all()


def test_anybodys_function_is_checked(tmp_path, monkeypatch):
    (tmp_path / "my_labels.py").write_text(
        "def even(asked, heads):\n    return [[1.0] * len(heads) for row in asked]\n"
        "def odd(asked, heads):\n    return [[1.0]]\n"
        "def below(asked, heads):\n    return [[2.0, -1.0, 0.0] for row in asked]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    row = Asked("hi", "", ("anger",))
    said = ask(open_source(SoftLabels(source="my_labels:even"), tmp_path, print), [row], HEADS)
    assert said == pytest.approx(np.full((1, 3), 1 / 3))
    for name, message in (("odd", "were asked for"), ("below", "0 or more")):
        with pytest.raises(GivenError, match=message):
            ask(open_source(SoftLabels(source=f"my_labels:{name}"), tmp_path, print), [row, row], HEADS)


def test_what_is_seen_replaces_the_label_within_the_classes_that_the_corpus_has():
    target = torch.eye(3)[[0, 0, 1, 2]]
    mask = torch.tensor([[0.0, 0.0, 0.0], [0.0, UNASKED, 0.0], [0.0, 0.0, UNASKED], [0.0, 0.0, 0.0]])
    seen = np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0], [np.nan] * 3], np.float32)
    soft = softened(target, mask, seen, "paper")
    assert torch.allclose(soft, torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.0, 0.6], [0, 1, 0], [0, 0, 1]]))
    hard = softened(target, mask, seen, "as_released")
    assert hard.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]]
    logits = torch.randn(4, 3)
    assert cross_entropy(logits, hard) == cross_entropy(logits, torch.tensor([1, 2, 1, 2]))
    assert torch.equal(softened(target, mask, np.full((4, 3), np.nan), "paper"), target)


@pytest.fixture(scope="module")
def examples():
    clips, features = tiny.clips_and_features()
    take = TakeFeatures.of({"logmel": features}, {"logmel": 1})
    texts = [Text("books", "en", "train", f"word {e} {n}", (e,)) for e in tiny.EMOTIONS for n in range(4)]
    return Examples(
        tiny.EMOTIONS, clips, take, [take], range(len(clips)), {"logmel": 1}, 640, texts, range(len(texts)),
        masks=class_masks(tiny.EMOTIONS, clips, texts), tokenise=tokeniser("hashed"),
    )  # fmt: skip


def plan(chance=1.0, mode="paper", source="some.csv", **sampling):
    return Plan(
        "tiny", sampling=Sampling(rows_per_epoch=400, batch=400, words_only=0.5, **sampling),
        soft_labels=SoftLabels(source=source, chance=chance, mode=mode),
    )  # fmt: skip


def known(examples, clips=(), texts=()):
    """Half on the label, the rest on the next class."""
    rows = []
    for many, target, there in (
        (len(examples.clips), examples.target, clips),
        (len(examples.texts), examples.text_target, texts),
    ):
        soft = [
            0.5 * target(n) + 0.5 * target(n).roll(1) if n in there else torch.full((3,), np.nan) for n in range(many)
        ]
        rows.append(torch.stack(soft).numpy())
    return replace(examples, soft=Soft(*rows))


def targets(examples, asked):
    drawer = Drawer(examples, asked, 0)
    drawn = drawer.epoch(0)
    return drawn, drawer.batch(drawn, 0, 0).target_BH


def test_a_chance_of_rows_with_words_gets_the_soft_label(examples):
    everything = known(examples, texts=range(len(examples.texts)))
    for chance in (0.0, 0.2, 1.0):
        drawn, target_BH = targets(everything, plan(chance))
        assert torch.allclose(target_BH.sum(1), torch.ones(400))
        soft = target_BH.max(1).values == 0.5
        assert float(soft.float().mean()) == pytest.approx(chance, abs=0.06)
    drawn, hard_BH = targets(everything, plan(0.2, "as_released"))
    assert set(hard_BH.max(1).values.tolist()) == {1.0}
    assert Drawer(examples, plan(), 0).epoch(0).text_N.tolist() == drawn.text_N.tolist()


def test_rows_that_lost_their_words_keep_their_label_unless_their_recording_is_known(examples):
    drawn, target_BH = targets(known(examples, texts=range(len(examples.texts))), plan(drop_words=1.0))
    voice_B = torch.from_numpy(drawn.voice_N[drawn.groups[0]])
    assert (target_BH[voice_B].max(1).values == 1.0).all()
    assert (target_BH[~voice_B].max(1).values == 0.5).all()
    _, target_BH = targets(known(examples, clips=range(len(examples.clips))), plan(drop_words=1.0))
    assert (target_BH[voice_B].max(1).values == 0.5).all()
    assert (target_BH[~voice_B].max(1).values == 1.0).all()


def test_what_a_table_lacks_falls_back_and_is_counted(examples, tmp_path):
    table = tmp_path / "soft.csv"
    table.write_text("text,anger,neutral,sadness\nword anger 0,1,1,0\nword sadness 3,0,1,1\n")
    told = []
    asked = plan(source=str(table))
    soft = row_texts.with_soft_labels(examples, asked, tmp_path, told.append).soft
    assert np.isfinite(soft.text_NH).all(1).sum() == 2
    assert not np.isfinite(soft.clip_NH).any()
    assert told == ["soft labels of 2 of 12 texts and 0 of 48 clips; the others keep theirs"]
    table.write_text("text,anger\nnobody says this,1\n")
    with pytest.raises(GivenError, match="knows none of the texts"):
        row_texts.with_soft_labels(examples, asked, tmp_path, told.append)
    for off in (plan(source=""), plan(chance=0.0)):
        assert row_texts.with_soft_labels(examples, off, tmp_path, told.append) is examples


def test_asking_for_none_draws_what_was_always_drawn(examples):
    plain = msgspec.structs.replace(plan(), soft_labels=SoftLabels())
    _, before = targets(examples, plain)
    _, after = targets(known(examples), plan())
    assert torch.equal(before, after)
