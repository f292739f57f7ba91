"""Stacked clips (SDS): of one label, never of who is tested, as long as their parts; what they say; and generated clips, which
are trained on only."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.models import row_texts
from clser.models.batches import Drawer, with_share
from clser.models.data.clips import Clip
from clser.models.data.corpora import Text
from clser.models.data.stacks import GAP_S, Partners, Stacked, Stacks
from clser.models.data.synthesis import generated
from clser.models.encoders.text import tokeniser
from clser.models.errors import GivenError, MissingError
from clser.models.examples import NO_TEXT, Examples, TakeFeatures, class_masks
from clser.models.plan import Plan, Sampling, Stacking, Takes

pytestmark = pytest.mark.torch
RATE_HZ = 16_000
PAPER = {"most": 8, "speakers": "any", "choice": "filling", "breath": False}
PLAN = Plan("tiny", sampling=Sampling(rows_per_epoch=64, batch=16, cut=0.0, longest_s=60.0, drop_voice=0.0))


def people(emotions="aaanna", speakers="001010"):
    names = {"a": "anger", "n": "neutral"}
    return [
        Clip(Path(f"{n}.wav"), "x", who, "", names[what], text=f"own {n}")
        for n, (what, who) in enumerate(zip(emotions, speakers, strict=True))
    ]


def stacks(clips, indices=None, seconds=1.0, chance=1.0, **how):
    indices = range(len(clips)) if indices is None else indices
    how = Stacking(**how)
    seconds = [seconds] * len(clips) if isinstance(seconds, float) else seconds
    return Stacks(Partners(clips, indices, how.speakers == "same"), seconds, how, chance)


@settings(max_examples=60)
@given(st.data())
def test_only_clips_to_train_on_of_the_same_label_are_behind_a_short_one(data):
    clips = people(*(data.draw(st.text(alphabet, min_size=8, max_size=8)) for alphabet in ("an", "012")))
    indices = data.draw(st.sets(st.integers(0, 7)))
    seconds = data.draw(st.lists(st.floats(0.2, 6.0), min_size=8, max_size=8))
    how = {"most": data.draw(st.integers(1, 5)), "speakers": data.draw(st.sampled_from(("same", "any")))}
    how["choice"] = data.draw(st.sampled_from(("random", "filling")))
    made = stacks(clips, indices, seconds, **how)
    for index in range(8):
        behind = made.behind(index, np.random.default_rng(0))
        assert len(behind) <= how["most"]
        assert len({index, *behind}) == len(behind) + 1
        assert set(behind) <= indices
        assert all(clips[other].emotion == clips[index].emotion for other in behind)
        if how["speakers"] == "same":
            assert all(clips[other].who == clips[index].who for other in behind)
        if index not in indices or seconds[index] >= 4.0:
            assert behind == ()
        if behind:  # it was still short before the last one came
            assert seconds[index] + sum(seconds[other] for other in behind[:-1]) < 4.0


def test_no_chance_leaves_all_alone_and_certainty_none():
    clips = people()
    assert stacks(clips, chance=0.0).planned(1) == {}
    planned = stacks(clips).planned(1)
    assert sorted(planned) == [0, 1, 5]  # whoever has another of the kind
    assert planned == stacks(clips).planned(1)
    half = stacks(people("a" * 400, "0" * 400), chance=0.4).planned(2)
    assert len(half) == pytest.approx(160, abs=40)
    assert half != stacks(people("a" * 400, "0" * 400), chance=0.4).planned(3)


def test_as_published_a_clip_that_fills_up_is_chosen_and_else_a_long_one():
    clips = people("a" * 30, "0" * 15 + "1" * 15)
    seconds = [1.0] * 28 + [3.5, 3.0]
    drawn = [stacks(clips, seconds=seconds, **PAPER).behind(0, np.random.default_rng(n)) for n in range(40)]
    assert set(drawn) == {(28,), (29,)}
    short = [0.1 * n for n in range(30)]
    first = [stacks(clips, seconds=short, **PAPER).behind(0, np.random.default_rng(n)) for n in range(60)]
    assert {behind[0] for behind in first} <= set(range(20, 30))
    assert all(sum(short[n] for n in behind) >= 4.0 for behind in first)


def test_a_stacked_sound_is_its_parts_and_breaths():
    sounds = [np.full(RATE_HZ * n, 0.1 * n, np.float32) for n in range(1, 4)]
    plain = Stacked({0: (2, 1)}, lambda n: sounds[n], breath=False)
    stacked = plain(sounds[0], 0, np.random.default_rng(0))
    assert np.array_equal(stacked, np.concatenate((sounds[0], sounds[2], sounds[1])))
    assert plain(sounds[1], 1, np.random.default_rng(0)) is sounds[1]
    breathing = Stacked({0: (2, 1)}, lambda n: sounds[n])
    many = len(breathing(sounds[0], 0, np.random.default_rng(0))) - 6 * RATE_HZ
    assert 2 * GAP_S[0] * RATE_HZ <= many <= 2 * GAP_S[1] * RATE_HZ + 2
    assert breathing.digest != plain.digest


@pytest.fixture(scope="module")
def examples():
    clips, features = tiny.clips_and_features()
    clips = [replace(clip, text=f"own {n}") for n, clip in enumerate(clips)]
    take = TakeFeatures.of({"logmel": features}, {"logmel": 1})
    texts = [Text("books", "en", "train", f"drawn {e} {n}", (e,)) for e in tiny.EMOTIONS for n in range(3)]
    to_train = range(0, len(clips), 2)
    return Examples(
        tiny.EMOTIONS, clips, take, [take], to_train, {"logmel": 1}, 640, texts, range(len(texts)),
        masks=class_masks(tiny.EMOTIONS, clips, texts), tokenise=tokeniser("hashed"),
    )  # fmt: skip


def planned(**changes):
    sampling = {"stacked": changes.pop("stacked", 0.0), "words_only": changes.pop("words_only", 0.0)}
    return msgspec.structs.replace(PLAN, sampling=msgspec.structs.replace(PLAN.sampling, **sampling), **changes)


def test_frames_of_partners_come_behind_and_nothing_else_changes(examples):
    drawer = Drawer(examples, planned(stacked=1.0, stacking=Stacking(speakers="any", shorter_than_s=60.0)), 0)
    drawn = drawer.epoch(0)
    take = examples.takes[0]
    rows = np.concatenate(drawn.groups)
    assert sorted(rows) == list(range(64))
    assert len(drawn.behind) == 64
    batch = drawer.batch(drawn, 0, 0)
    for place, row in enumerate(drawn.groups[0]):
        index, (other,) = int(drawn.index_N[row]), drawn.behind[int(row)]
        assert other in examples.indices
        assert examples.clips[other].emotion == examples.clips[index].emotion
        assert int(batch.frames_B[place]) == take.lengths[index] + take.lengths[other]
        assert torch.equal(batch.target_BH[place], examples.target(index))
    unmasked = Drawer(examples, planned(), 0).epoch(0)
    assert unmasked.behind == {}
    assert np.array_equal(unmasked.frames_N, take.lengths[unmasked.index_N])


def test_stacked_frames_are_those_of_the_parts(examples, monkeypatch):
    monkeypatch.setattr("clser.models.batches.masked", lambda padded, *_: padded)
    drawer = Drawer(examples, planned(stacked=1.0, stacking=Stacking(speakers="any", shorter_than_s=60.0)), 0)
    drawn = drawer.epoch(0)
    batch = drawer.batch(drawn, 0, 1)
    features = examples.takes[0].by_front["logmel"]
    for place, row in enumerate(drawn.groups[1]):
        clips = (int(drawn.index_N[row]), *drawn.behind[int(row)])
        x_BTF, length_B = batch.given["logmel"]
        whole = np.concatenate([features.clip(clip) for clip in clips]).astype(np.float32)
        assert np.array_equal(x_BTF[place, : int(length_B[place])].numpy(), whole)


def said(examples, drawn, row):
    texts = [] if drawn.text_N[row] == NO_TEXT else [drawn.text_N[row], *drawn.more.get(row, ())]
    return [examples.texts[n].text for n in texts]


def test_a_stack_says_one_text_after_the_other_or_the_first_alone(examples):
    how = Stacking(speakers="any", shorter_than_s=60.0, most=2)
    drawn = Drawer(examples, planned(stacked=1.0, stacking=how), 0).epoch(0)
    for row in range(64):
        label = examples.clips[drawn.index_N[row]].emotion
        assert len(said(examples, drawn, row)) == 1 + len(drawn.behind[row])
        assert all(text.startswith(f"drawn {label}") for text in said(examples, drawn, row))
    how = msgspec.structs.replace(how, words="first")
    drawn = Drawer(examples, planned(stacked=1.0, stacking=how), 0).epoch(0)
    assert {len(said(examples, drawn, row)) for row in range(64)} == {1}


def test_clips_that_say_what_they_mean_keep_their_own_text(examples):
    owning = row_texts.with_own_texts(examples, ("one",))
    assert set(owning.own_texts) == {n for n in examples.indices if examples.clips[n].corpus == "one"}
    assert len(owning.text_indices) == len(examples.text_indices)
    how = Stacking(speakers="any", shorter_than_s=60.0)
    drawn = Drawer(owning, planned(stacked=0.5, stacking=how), 0).epoch(0)
    for row in range(64):
        clips = (int(drawn.index_N[row]), *drawn.behind.get(row, ()))
        for clip, text in zip(clips, said(owning, drawn, row), strict=True):
            own = examples.clips[clip].corpus == "one"
            assert text == f"own {clip}" if own else text.startswith("drawn")
    with pytest.raises(GivenError, match="no clip of two"):
        without = [replace(clip, text="") for clip in examples.clips]
        row_texts.with_own_texts(replace(examples, clips=without), ("two",))


def test_stacks_are_heard_anew_once(examples, tmp_path, monkeypatch):
    calls = []

    def listen(sound, language):
        calls.append(len(sound))
        return f" heard {len(sound)} "

    monkeypatch.setattr("clser.models.row_texts.hook", lambda *_: listen)
    clips = [replace(clip, path=tmp_path / f"{n}.wav") for n, clip in enumerate(examples.clips)]
    for clip in clips:
        clip.path.touch()
    examples = replace(examples, clips=clips)
    plan = planned(own_texts=("one",), stacking=Stacking(words="somebody:listens"), takes=Takes(stacked=1.0))
    stacked = Stacked({0: (2,), 2: (0,), 26: (28,)}, lambda n: np.zeros(100 + n, np.float32), breath=False)
    assert examples.clips[26].corpus == "two"
    for _ in range(2):
        take = row_texts.listened_to(
            examples.takes[0], stacked, examples.clips, plan, cache=tmp_path, report=lambda line: None
        )
    assert take.behind == stacked.behind
    assert take.said == {0: "heard 202", 2: "heard 202"}
    assert len(calls) == 2
    hearing = row_texts.with_own_texts(replace(examples, takes=[take]), ("one",))
    drawn = Drawer(hearing, plan, 0).epoch(0)
    for row in np.flatnonzero(drawn.index_N == 2):
        assert said(hearing, drawn, int(row)) == ["heard 202"]


def test_what_cannot_be_is_refused(examples):
    def check(system_words="hashed", **changes):
        system = type("Reading", (), {"words": system_words})()
        row_texts.check_rows(planned(**changes), system, examples.clips)

    check(own_texts=("one",))
    for message, changes in (
        ("three are not among", {"own_texts": ("three",)}),
        ("reads no words", {"own_texts": ("one",), "system_words": ""}),
        ("two ways to the same", {"takes": Takes(stacked=0.4), "stacked": 0.4}),
        ("needs takes to stack", {"takes": Takes(count=0, stacked=0.4)}),
        ("give joined, first", {"stacking": Stacking(words="all")}),
        ("listens to stacked sounds", {"stacking": Stacking(words="a:b")}),
    ):
        with pytest.raises(GivenError, match=message):
            check(**changes)


def test_somebody_elses_function_is_found_or_the_message_says_what_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "ears_of_mine.py").write_text("def listen(sound, language):\n    return language\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert row_texts.hook("ears_of_mine:listen", "x")(None, "de") == "de"
    for name, kind, message in (
        ("ears_of_mine", GivenError, "module:function"),
        ("ears_of_mine:speak", GivenError, "has no function speak"),
        ("nowhere_at_all:listen", MissingError, "no module nowhere_at_all"),
    ):
        with pytest.raises(kind, match=message):
            row_texts.hook(name, "x")


def test_generated_clips_are_set_apart_and_get_their_share():
    clips = people()
    made = [replace(clip, note="synthetic: templates") for clip in clips[:2]]
    assert generated([*clips, *made]) == (clips, made)
    assert generated(made) == (made, [])
    chance = with_share(np.full(8, 0.125), np.arange(8) >= 6, 0.2)
    assert chance == pytest.approx([0.8 / 6] * 6 + [0.1] * 2)
    assert np.array_equal(with_share(np.full(4, 0.25), np.zeros(4, bool), 0.2), np.full(4, 0.25))
    assert json.dumps(chance.sum().round(9)) == "1.0"
