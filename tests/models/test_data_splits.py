"""Every scheme of folds: nobody who is tested was heard before, and the order of the clips changes nothing."""

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clser.models.data.clips import Clip
from clser.models.data.splits import (
    by_clip,
    grouped_folds,
    hold_back,
    leave_one_corpus_out,
    leave_one_speaker_out,
    sentence,
    sentence_disjoint,
)
from clser.models.errors import GivenError
from clser.models.labels import HEADS

SCHEMES = [
    partial(grouped_folds, folds=3),
    leave_one_speaker_out,
    leave_one_corpus_out,
    partial(sentence_disjoint, folds=3),
]


@st.composite
def collections(draw):
    """Clips of two to four corpora; names of speakers and sentences come back in other corpora."""
    clips = []
    for corpus in draw(st.lists(st.sampled_from(["alba", "boro", "cela", "tess"]), min_size=2, unique=True)):
        speakers, texts = draw(st.integers(3, 7)), draw(st.integers(2, 5))
        for who in range(speakers):
            for n in range(draw(st.integers(2, 6))):
                text = f"Sentence {draw(st.integers(0, texts)) if n > 1 else n}."
                path = Path(f"{corpus}/{who}_{n}.wav")
                gender = "female" if who % 2 else "male"
                clips.append(Clip(path, corpus, f"s{who}", gender, HEADS[(who + n) % 7], text=text))
    return draw(st.permutations(clips))


@given(collections(), st.sampled_from(SCHEMES))
def test_who_is_tested_was_never_trained_on_nor_chosen_by(clips, scheme):
    folds = scheme(clips)
    tested = []
    for fold in folds:
        parts = [set(fold.train), set(fold.valid), set(fold.test)]
        assert sum(map(len, parts)) == len(set().union(*parts))
        whos = [{clips[n].who for n in part} for part in parts]
        assert not whos[0] & whos[1]
        assert not (whos[0] | whos[1]) & whos[2]
        assert fold.train
        assert fold.test
        assert all(list(part) == sorted(part) for part in (fold.train, fold.valid, fold.test))
        assert not any(clips[n].corpus == "tess" for n in fold.test)
        tested += fold.test
    assert sorted(tested) == [n for n, clip in enumerate(clips) if clip.corpus != "tess"]


@given(collections(), st.sampled_from(SCHEMES), st.randoms(use_true_random=False))
def test_the_same_clips_in_another_order_are_split_alike(clips, scheme, random):
    def named(some):
        return [
            (fold.name, *({some[n].path for n in part} for part in (fold.train, fold.valid, fold.test)))
            for fold in scheme(some)
        ]

    assert named(clips) == named(random.sample(clips, len(clips)))


@given(collections())
def test_no_sentence_that_is_tested_was_trained_on(clips):
    for fold in sentence_disjoint(clips):
        said = {sentence(clips[n]) for n in (*fold.train, *fold.valid)}
        assert not said & {sentence(clips[n]) for n in fold.test}


@given(collections())
def test_clips_alone_are_split_evenly_by_emotion(clips):
    folds = by_clip(clips, 3)
    assert sorted(n for fold in folds for n in fold.test) == list(range(len(clips)))
    for emotion in {clip.emotion for clip in clips}:
        counts = [sum(clips[n].emotion == emotion for n in fold.test) for fold in folds]
        assert max(counts) - min(counts) <= 1


def clip(who, text="", gender="", corpus="x"):
    return Clip(Path(f"{who}{text}.wav"), corpus, who, gender, "anger", text=text)


def test_a_share_of_the_speakers_is_held_back():
    clips = [clip(f"s{n}") for n in range(40)]
    fold = grouped_folds(clips, 2, valid=0.25)[0]
    assert (len(fold.train), len(fold.valid), len(fold.test)) == (15, 5, 20)
    assert not grouped_folds(clips, 2, valid=0.0)[0].valid
    assert hold_back(fold, clips, 0.25) == fold
    two = grouped_folds(clips[:4], 2)[0]
    assert (len(two.train), len(two.valid), len(two.test)) == (1, 1, 2)
    one = grouped_folds(clips[:2], 2)[0]
    assert (len(one.train), len(one.valid), len(one.test)) == (1, 0, 1)


def test_folds_are_alike_in_size_for_every_corpus():
    sizes = {"casia": 4, "emodb": 10, "emovo": 6, "nemo": 9, "ravdess": 24, "tess": 2}
    clips = [
        clip(f"{corpus}{who:02}", gender="female" if who % 2 else "male", corpus=corpus)
        for corpus, speakers in sizes.items()
        for who in range(speakers)
    ]
    folds = grouped_folds(clips, valid=0.0)
    for corpus, speakers in sizes.items():
        counts = [sum(clips[n].corpus == corpus for n in fold.test) for fold in folds]
        if corpus != "tess":
            assert sum(counts) == speakers
            assert max(counts) - min(counts) <= 1


def test_clips_without_a_text_are_in_no_fold_of_sentences():
    clips = [clip(who, text) for who in "abc" for text in ("One", "two", "")]
    for fold in sentence_disjoint(clips, 3, valid=0.0):
        assert all(clips[n].text for n in (*fold.train, *fold.test))


def test_transcripts_of_one_sentence_may_differ_in_case_and_points():
    assert sentence(clip("a", "  Das  IST, gut!")) == sentence(clip("a", "das ist gut"))
    assert sentence(clip("a", "Café")) == sentence(clip("a", "Cafe\u0301"))
    assert sentence(clip("a", "就是下雨也去。")) == "就是下雨也去"


def test_what_cannot_be_split_says_why():
    with pytest.raises(GivenError, match=r"no speaker.*column `speaker`"):
        grouped_folds([clip("a"), clip("")], 2)
    with pytest.raises(GivenError, match="5 folds of 2 speakers; ask for 2"):
        grouped_folds([clip("a"), clip("b")])
    with pytest.raises(GivenError, match="speaker a is male here and female elsewhere"):
        grouped_folds([clip("a", gender="female"), clip("a", "2", gender="male")], 2)
    with pytest.raises(GivenError, match="one speaker alone"):
        leave_one_speaker_out([clip("a")])
    with pytest.raises(GivenError, match="only the corpus x"):
        leave_one_corpus_out([clip("a"), clip("b")])
    with pytest.raises(GivenError, match="x: no clip has a text"):
        sentence_disjoint([clip("a"), clip("b")])
    with pytest.raises(GivenError, match="two or more of each"):
        sentence_disjoint([clip("a", "one"), clip("b", "one")])
