"""What tells that nobody said the words that were written."""

import pytest

from clser.engine.asr import AsrConfig
from clser.engine.backends import guards
from clser.engine.jobs import Word

CONFIG = AsrConfig()
SECOND = 16_000


def words(text: str, end: int, spaced: bool = True) -> list[Word]:
    """The text's words, or its characters, spread evenly over the sound."""
    parts = [f" {part}" for part in text.split()] if spaced else list(text)
    step = end / max(1, len(parts))
    return [Word(part, int(n * step), int((n + 1) * step), 0.9) for n, part in enumerate(parts)]


def test_plain_speech_is_believed() -> None:
    said = "I would like to go home now, because it is late and I am tired of all this"
    assert guards.doubt(words(said, 5 * SECOND), 5 * SECOND, CONFIG) == ""
    assert guards.doubt((), SECOND, CONFIG) == ""
    assert guards.doubt(words("I do", SECOND // 4), SECOND // 4, CONFIG) == ""


def test_a_script_without_spaces_is_believed() -> None:
    said = "今天天气很好我们一起去公园散步吧"
    assert guards.doubt(words(said, 3 * SECOND, spaced=False), 3 * SECOND, CONFIG) == ""


@pytest.mark.parametrize(
    ("said", "seconds", "why"),
    [
        ("thank you for watching " * 20, 20, "repeats"),
        ("one two three four five six seven eight nine ten eleven twelve", 1, "more words"),
        ("天" * 60, 20, "repeats"),
    ],
)
def test_what_nobody_says_is_not(said: str, seconds: int, why: str) -> None:
    spaced = " " in said
    assert why in guards.doubt(words(said, seconds * SECOND, spaced), seconds * SECOND, CONFIG)


def test_saying_no_six_times_is_no_repetition() -> None:
    assert guards.doubt(words("no no no no no no", 3 * SECOND), 3 * SECOND, CONFIG) == ""


def test_words_need_a_place_in_the_sound() -> None:
    good = words("all is well", SECOND)
    flat = [Word(" so", SECOND // 2, SECOND // 2, 0.9)]
    assert guards.doubt(good + flat * 2, SECOND, CONFIG) == ""
    assert "place" in guards.doubt(good + flat * 3, 2 * SECOND, CONFIG)
    assert "place" in guards.doubt([Word(" so", 3 * SECOND, 4 * SECOND, 0.9)], SECOND, CONFIG)
    assert "place" in guards.doubt([Word(" so", 0, 4 * SECOND, 0.9)], SECOND, CONFIG)


def test_tokens_and_their_probability() -> None:
    most = guards.most_tokens(2 * SECOND, CONFIG)
    assert 24 <= most <= 36
    assert guards.unsure(-0.3, 10, most, CONFIG) == ""
    assert "end" in guards.unsure(-0.3, most, most, CONFIG)
    assert "improbable" in guards.unsure(-1.5, 10, most, CONFIG)
    assert guards.unsure(-9.0, 0, most, CONFIG) == ""


def test_compression_of_nothing() -> None:
    assert guards.compression("") == 0.0
    assert guards.compression("a") < 1.0
