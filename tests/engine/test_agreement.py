"""What is committed stays, was said twice, and stands in order; whatever a recogniser makes up."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clser.engine.backends.agreement import RISK_SAMPLES, Agreed, agree, beyond, cut, finish, normal
from clser.engine.jobs import Word

SECOND = 16_000
FAR = 1 << 30


def words(text: str, begin: float = 0.0, each_s: float = 0.3) -> tuple[Word, ...]:
    """One word after the other, each as long as the last."""
    starts = [begin + n * each_s for n in range(len(text.split()))]
    return tuple(
        Word(f" {part}", round(at * SECOND), round((at + each_s) * SECOND), 0.9)
        for part, at in zip(text.split(), starts, strict=True)
    )


def heard(*hypotheses: str) -> Agreed:
    agreed = Agreed()
    for said in hypotheses:
        agreed = agree(agreed, words(said), FAR)
    return agreed


def text(said: tuple[Word, ...]) -> str:
    return "".join(word.text for word in said).strip()


# --- plain cases ------------------------------------------------------------------------------------------------------


def test_words_said_twice_are_committed() -> None:
    agreed = heard("the cat", "the cat sat")
    assert (text(agreed.committed), text(agreed.tail)) == ("the cat", "sat")


def test_what_differs_waits_and_all_behind_it() -> None:
    agreed = heard("the hat is", "the cat is here")
    assert (text(agreed.committed), text(agreed.tail)) == ("the", "cat is here")


def test_case_and_punctuation_do_not_matter_and_the_newer_spelling_counts() -> None:
    assert text(heard("hello. my", "Hello, my friend").committed) == "Hello, my"
    assert normal(" Straße!") == normal("STRASSE")
    assert normal(" ♪") == "♪"
    assert normal("ไม่") != normal("ไม"), "marks that belong to a letter count"


def test_the_newest_hypothesis_is_the_tail() -> None:
    agreed = heard("we want", "we won the", "we")
    assert (text(agreed.committed), text(agreed.tail)) == ("we", "")


def test_a_word_at_the_end_of_the_sound_waits() -> None:
    said = words("one two")
    agreed = agree(agree(Agreed(), said, FAR), said, said[1].end + RISK_SAMPLES - 1)
    assert text(agreed.committed) == "one"
    assert text(agree(agreed, said, said[1].end + RISK_SAMPLES).committed) == "one two"


def test_a_hypothesis_in_doubt_commits_nothing_and_is_compared_with() -> None:
    agreed = agree(heard("one two"), words("one two three"), FAR, trusted=False)
    assert (text(agreed.committed), text(agreed.tail)) == ("", "one two three")
    assert text(agree(agreed, words("one two three four"), FAR).committed) == "one two three"


def test_a_committed_word_that_is_heard_otherwise_later_stays() -> None:
    agreed = heard("the cat sat", "the cat sat", "the bat sat on")
    assert (text(agreed.committed), text(agreed.tail)) == ("the cat sat", "on")
    agreed = heard("forty two men", "forty two men", "42 men left")
    assert agreed.words[-1].text == " left"


def test_finish_commits_the_tail() -> None:
    agreed = finish(heard("one two", "one too many"))
    assert (text(agreed.committed), agreed.tail) == ("one too many", ())


def test_times_do_not_go_back_before_what_is_committed() -> None:
    agreed = heard("one two", "one two")
    later = agree(agreed, (*words("one"), *words("two three", 0.2, 0.25)), FAR)
    assert [word.start for word in later.words] == sorted(word.start for word in later.words)
    assert text(later.words) == "one two three"


# --- a window that is cut ---------------------------------------------------------------------------------------------


def test_a_cut_falls_behind_a_committed_word() -> None:
    agreed = heard("one two three four", "one two three four")
    after, begin = cut(agreed, 0, round(0.7 * SECOND))
    assert (begin, after.before, after.words) == (agreed.committed[1].end, 2, agreed.words)
    assert text(after.inside) == "three four"
    assert cut(agreed, 0, 10) == (agreed, 0)
    assert cut(after, begin, begin) == (after, begin)


def test_behind_a_cut_committed_words_are_not_said_again() -> None:
    agreed, begin = cut(heard("one two three four", "one two three four"), 0, round(0.7 * SECOND))
    said = words("three four five six", begin / SECOND)
    assert text(beyond(agreed, said)) == "five six"
    assert text(beyond(agreed, said[1:])) == "five six", "a word the window no longer tells"
    rest = (Word(" wo", begin, begin + 500, 0.5), *said)
    assert text(beyond(agreed, rest)) == "five six", "what is left of the word before the cut"


def test_behind_a_cut_at_the_last_committed_word_time_tells() -> None:
    agreed = heard("one two", "one two three")
    agreed, begin = cut(agreed, 0, agreed.committed[-1].end)
    assert agreed.inside == ()
    rest = (Word(" wo", begin - 800, begin + 100, 0.5), *words("three four", begin / SECOND))
    assert text(beyond(agreed, rest)) == "three four"


# --- anything at all --------------------------------------------------------------------------------------------------

VOCABULARY = ("one", "two", "Two,", "three", "no", "no!", "")


@st.composite
def hypotheses(draw: st.DrawFn) -> tuple[Word, ...]:
    """Words of any kind, in order, some without a length."""
    at, out = draw(st.integers(0, SECOND)), []
    for said in draw(st.lists(st.sampled_from(VOCABULARY), max_size=7)):
        start = at + draw(st.integers(0, SECOND // 4))
        at = start + draw(st.integers(0, SECOND // 2))
        out.append(Word(f" {said}", start, at, 0.5))
    return tuple(out)


STEPS = st.lists(st.tuples(hypotheses(), st.integers(0, 6 * SECOND), st.booleans(), st.booleans()), max_size=8)


@given(STEPS)
def test_whatever_is_heard_what_is_committed_stays(steps: list[tuple[tuple[Word, ...], int, bool, bool]]) -> None:
    agreed, begin, older = Agreed(), 0, ()
    for hypothesis, end, trusted, shorten in steps:
        before = agreed
        agreed = agree(agreed, hypothesis, end, trusted=trusted)
        assert agreed.committed[: len(before.committed)] == before.committed
        new = agreed.committed[len(before.committed) :]
        for word in new:
            assert any(normal(word.text) == normal(other.text) for other in older), "it was in the hypothesis before"
            assert any(word.text == other.text for other in hypothesis), "and is in this one, spelt so"
            assert word.end <= end - RISK_SAMPLES
            assert trusted
        for one, two in pairwise(agreed.words):
            assert one.start <= two.start
            assert one.end <= two.end
        if shorten and agreed.committed:
            held = agreed.words
            agreed, moved = cut(agreed, begin, agreed.committed[-1].end)
            assert agreed.words == held
            assert moved >= begin
            assert all(word.end <= moved for word in agreed.committed[: agreed.before])
            begin = moved
        older = hypothesis


@given(st.lists(st.sampled_from(VOCABULARY[:4]), max_size=12), st.lists(st.integers(1, 12), max_size=8), st.booleans())
def test_a_recogniser_that_errs_at_the_end_only_is_written_down_whole(
    said: list[str], steps: list[int], shorten: bool
) -> None:
    """Its hypothesis: all words so far but the last, which is heard wrongly; at the end, all of them."""
    true, agreed, begin = words(" ".join(said)), Agreed(), 0
    for count in [*sorted(set(steps)), len(true)]:
        inside = [word for word in true[:count] if word.start >= begin]
        if inside and count < len(true):
            inside[-1] = Word(f" hm{count}", inside[-1].start, inside[-1].end, 0.1)
        agreed = agree(agreed, inside, FAR)
        if shorten and agreed.committed:
            agreed, begin = cut(agreed, begin, agreed.committed[-1].end - SECOND // 2)
    inside = [word for word in true if word.start >= begin]
    assert text(finish(agree(agreed, inside, FAR)).words) == text(true)


@pytest.mark.parametrize("count", range(6))
def test_nothing_heard_is_fine(count: int) -> None:
    agreed = heard(*["one two"] * count)
    assert agree(agreed, (), FAR).committed == agreed.committed
    assert agree(agreed, (), FAR).tail == ()
