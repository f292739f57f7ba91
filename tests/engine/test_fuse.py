import msgspec
import numpy as np
import pytest
from fakes import CARD
from hypothesis import given
from hypothesis import strategies as st

from clser.engine.fuse import FuseConfig, Judge
from clser.models.labels import CIRCUMPLEX, HEADS, NONE, PUBLISHED

LOGITS = st.lists(st.floats(-60, 60, width=32), min_size=len(HEADS), max_size=len(HEADS))


def logits(**heads: float) -> np.ndarray:
    """Heads not named are out of the question."""
    return np.array([heads.get(head, -100.0) for head in HEADS], np.float32)


@given(LOGITS)
def test_probabilities_sum_to_one_and_stay_in_their_ranges(values: list[float]) -> None:
    opinion = Judge(FuseConfig(), CARD).opinion(np.array(values, np.float32))
    assert tuple(opinion.probabilities) == PUBLISHED
    assert all(0 <= p <= 1 for p in opinion.probabilities.values())
    assert sum(opinion.probabilities.values()) == pytest.approx(1, abs=len(PUBLISHED) * 0.5e-4 + 1e-9)
    assert -1 <= opinion.arousal <= 1
    assert -1 <= opinion.valence <= 1


@given(LOGITS, st.floats(-1000, 1000))
def test_only_differences_of_logits_count(values: list[float], shift: float) -> None:
    judge = Judge(FuseConfig(), CARD)
    plain, shifted = judge.opinion(np.array(values)), judge.opinion(np.array(values) + shift)
    assert plain.probabilities == pytest.approx(shifted.probabilities, abs=2e-4)


def test_calm_and_boredom_are_published_as_neutral() -> None:
    opinion = Judge(FuseConfig(), CARD).opinion(logits(calm=0, boredom=0, neutral=0, anger=0))
    assert opinion.probabilities["neutral"] == 0.75
    assert opinion.probabilities["anger"] == 0.25


@pytest.mark.parametrize("head", HEADS)
def test_a_certain_head_gives_its_own_place_in_arousal_and_valence(head: str) -> None:
    opinion = Judge(FuseConfig(), CARD).opinion(logits(**{head: 0}))
    assert (opinion.arousal, opinion.valence) == pytest.approx(CIRCUMPLEX[head])


def test_the_likeliest_class_is_the_label() -> None:
    judge = Judge(FuseConfig(), CARD)
    emotion = judge.emotion(judge.opinion(logits(fear=1, anger=0)), 16_000)
    assert (emotion.label, emotion.abstained, emotion.reason, emotion.too_short) == ("fear", False, None, False)
    assert emotion.confidence == emotion.probabilities["fear"] == pytest.approx(0.7311, abs=1e-4)


@pytest.mark.parametrize(("threshold", "abstains"), [(0.0, False), (0.7310, False), (0.7312, True), (1.0, True)])
def test_below_the_threshold_no_label_is_given(threshold: float, abstains: bool) -> None:
    judge = Judge(FuseConfig(abstain_below=threshold), CARD)
    emotion = judge.emotion(judge.opinion(logits(fear=1, anger=0)), 16_000)
    assert emotion.abstained is abstains
    assert emotion.label == (None if abstains else "fear")
    assert emotion.reason == ("unsure" if abstains else None)
    assert emotion.confidence > 0.7, "what it leaned to can still be read"


def test_the_models_own_threshold_counts_unless_the_config_has_one() -> None:
    card = msgspec.structs.replace(CARD, abstain_below=0.9)
    unsure = logits(fear=1, anger=0)
    for config, abstains in ((FuseConfig(), True), (FuseConfig(abstain_below=0.5), False)):
        judge = Judge(config, card)
        assert judge.emotion(judge.opinion(unsure), 16_000).abstained is abstains


def test_with_too_little_sound_no_label_is_given_however_sure_it_looks() -> None:
    judge = Judge(FuseConfig(), CARD)  # wants half a second
    opinion = judge.opinion(logits(fear=0))
    short, enough = judge.emotion(opinion, 7_999), judge.emotion(opinion, 8_000)
    assert (short.label, short.abstained, short.reason, short.too_short) == (None, True, "too_short", True)
    assert (enough.label, enough.too_short) == ("fear", False)


def test_a_model_without_some_heads_gives_those_classes_nothing() -> None:
    card = msgspec.structs.replace(CARD, heads=("happiness", "calm"))
    opinion = Judge(FuseConfig(), card).opinion(np.zeros(2, np.float32))
    assert {name: p for name, p in opinion.probabilities.items() if p} == {"happiness": 0.5, "neutral": 0.5}


# --- a head for what is no speech -------------------------------------------------------------------------------------

WITH_NONE = msgspec.structs.replace(CARD, heads=("anger", NONE, "fear", "calm"), abstain_below=0.6)


def of_four(*shares: float) -> np.ndarray:
    return np.log(np.array(shares, np.float32))


def test_none_is_taken_out_before_the_emotions_are_told() -> None:
    judge = Judge(FuseConfig(), WITH_NONE)
    opinion = judge.opinion(of_four(0.48, 0.4, 0.06, 0.06))
    assert opinion.none == pytest.approx(0.4, abs=1e-4)
    assert {name: p for name, p in opinion.probabilities.items() if p} == {"anger": 0.8, "fear": 0.1, "neutral": 0.1}
    emotional = Judge(FuseConfig(), msgspec.structs.replace(CARD, heads=("anger", "fear", "calm")))
    alone = emotional.opinion(of_four(0.8, 0.1, 0.1))
    assert (opinion.arousal, opinion.valence) == (alone.arousal, alone.valence)
    emotion = judge.emotion(opinion, 16_000)
    assert (emotion.label, emotion.confidence, emotion.reason) == ("anger", 0.8, None)


@pytest.mark.parametrize(("none", "above", "abstains"), [(0.51, 0.5, True), (0.49, 0.5, False), (0.3, 0.25, True)])
def test_where_it_is_no_speech_no_label_is_given(none: float, above: float, abstains: bool) -> None:
    judge = Judge(FuseConfig(), msgspec.structs.replace(WITH_NONE, none_above=above))
    opinion = judge.opinion(of_four((1 - none) * 0.8, none, (1 - none) * 0.2, 1e-9))
    emotion = judge.emotion(opinion, 16_000)
    assert emotion.reason == ("not_speech" if abstains else None)
    assert emotion.abstained is abstains
    assert emotion.label == (None if abstains else "anger")
    assert emotion.confidence == pytest.approx(none if abstains else 0.8, abs=1e-4)
    assert sum(emotion.probabilities.values()) == pytest.approx(1.0, abs=1e-3)


def test_reasons_come_in_their_order() -> None:
    judge = Judge(FuseConfig(), WITH_NONE)
    nothing, unsure = judge.opinion(of_four(0.01, 0.97, 0.01, 0.01)), judge.opinion(of_four(0.3, 0.1, 0.3, 0.3))
    assert judge.emotion(nothing, 100, asked=False).reason == "too_short"
    assert judge.emotion(nothing, 16_000, asked=False).reason == "not_yet"
    assert judge.emotion(nothing, 16_000).reason == "not_speech"
    assert judge.emotion(unsure, 16_000).reason == "unsure"


def test_a_certain_none_leaves_numbers_that_are_numbers() -> None:
    opinion = Judge(FuseConfig(), WITH_NONE).opinion(np.array([-300.0, 300.0, -300.0, -300.0], np.float32))
    assert opinion.none == 1.0
    assert opinion.probabilities["anger"] == pytest.approx(1 / 3, abs=1e-4)


def test_a_model_without_that_head_never_says_it() -> None:
    judge = Judge(FuseConfig(), msgspec.structs.replace(CARD, none_above=0.0))
    assert judge.emotion(judge.opinion(logits(fear=1)), 16_000).reason is None
