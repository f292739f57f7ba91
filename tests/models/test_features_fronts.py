"""Every front, and every streaming layer of the features: streamed equals whole, rows keep to themselves, ONNX agrees."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import functools

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from streams import (
    Case,
    front_case,
    layer_case,
    onnx_says_the_same,
    play_whole,
    rows_are_as_alone,
    streamed_is_whole,
    zeros_are_the_start,
)

from clser.models.errors import GivenError
from clser.models.features import fronts
from clser.models.features.cepstra import Deltas
from clser.models.features.fronts import FRONTS, digest, front
from clser.models.features.functionals import UtteranceFunctionals, WindowFunctionals

pytestmark = pytest.mark.torch
STEPS = 14
LAYERS = {
    "deltas": lambda: layer_case(Deltas(5), 5),
    "windows": lambda: layer_case(WindowFunctionals(3, 20, 10, {0: 1}), 3, 10),
    "windows_soft_odd": lambda: layer_case(WindowFunctionals(3, 7, 3, {0: 1}, soft=True), 3, 3),
    "utterance": lambda: layer_case(UtteranceFunctionals(3, {0: 1}, flags=(1,)), 3),
    "utterance_soft": lambda: layer_case(UtteranceFunctionals(3, {0: 1, 2: 1}, soft=True), 3),
}
ALL = (*FRONTS, *LAYERS)


@functools.cache
def case_of(name: str) -> Case:
    return LAYERS[name]() if name in LAYERS else front_case(front(name))


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6)
@given(cuts=st.lists(st.integers(1, STEPS - 1), max_size=5, unique=True).map(sorted), seed=st.integers(0, 99))
def test_streamed_equals_whole_for_any_split(name, cuts, seed):
    streamed_is_whole(case_of(name), STEPS, cuts, seed)


@pytest.mark.parametrize("name", ALL)
def test_a_row_in_a_batch_is_as_it_is_alone(name):
    rows_are_as_alone(case_of(name), [9, 4, 0, 1])


@pytest.mark.parametrize("name", ALL)
def test_zeros_are_the_start_and_no_frames_leave_them(name):
    zeros_are_the_start(case_of(name))


@pytest.mark.parametrize("name", ALL)
def test_onnx_runtime_says_the_same(name):
    onnx_says_the_same(case_of(name))


@pytest.mark.parametrize("name", FRONTS)
def test_a_front_has_the_width_it_names_hears_nothing_ahead_and_stays_finite(name):
    case = case_of(name)
    samples, width = case.module.samples, case.module.width
    sound = case.make(1, 8, 0)
    changed = sound.clone()
    changed[:, 5 * samples :] *= -2.0
    before, after = play_whole(case, sound)[0], play_whole(case, changed)[0]
    assert before.shape == (1, 8, width)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)
    for hard in (torch.zeros(1, 8 * samples), sound.sign(), torch.ones(1, 8 * samples)):
        assert play_whole(case, hard)[0].isfinite().all()


def test_an_unknown_front_is_refused_with_the_names_of_all():
    with pytest.raises(GivenError, match=r"'mel'.*logmel, mfcc_25_10, .*prosody_windows"):
        front("mel")
    with pytest.raises(GivenError, match="'mel'"):
        digest("mel")


def test_a_digest_is_steady_and_every_front_and_version_has_its_own(monkeypatch):
    before = {name: digest(name) for name in FRONTS}
    assert before == {name: digest(name) for name in FRONTS}
    assert len(set(before.values())) == len(FRONTS)
    monkeypatch.setitem(fronts.VERSIONS, "prosody", 99)
    assert [name for name in FRONTS if digest(name) != before[name]] == ["prosody", "prosody_windows"]
