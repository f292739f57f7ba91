"""How many words are wrong, when they were settled, and whether they stayed. Pure.

Letters: C clips, D draws.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from clser.bench.heard import Told
from clser.bench.listener_score import matched
from clser.engine.records import SAMPLE_RATE_HZ, Result, Text

Numbers = NDArray[np.float64]

APOSTROPHES = "'’ʼ＇"
UNSPACED = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Scripts that put no space between words: a letter counts as a word."""
DRAWS = 2000


class Rate(Struct, frozen=True):
    """Of words that are wrong. The bounds hold 95 in 100 draws of as many clips."""

    value: float | None
    low: float | None
    high: float | None
    errors: int
    words: int


class Ratio(Struct, frozen=True):
    value: float | None
    low: float | None = None
    high: float | None = None


class Counted(NamedTuple):
    """One clip's."""

    errors: int
    words: int


class Settled(NamedTuple):
    """A word that was published as stable for the first time."""

    word: str
    end: int
    """When it was said, as the text has it: in samples since the stream began."""
    at_us: float


def normalised(text: str) -> list[str]:
    """Words without case and punctuation, compatible forms made one. An apostrophe within a word stays, a hyphen parts words,
    numbers and abbreviations stay as they are written."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    spaced = "".join(_kept(letter) for letter in folded)
    return [word for each in spaced.split() if (word := each.strip("'"))]


def _kept(letter: str) -> str:
    if letter in APOSTROPHES:
        return "'"
    if unicodedata.category(letter)[0] not in "LMN":
        return " "
    return f" {letter} " if unicodedata.name(letter, "").startswith(UNSPACED) else letter


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """Substitutions, deletions and insertions, the fewest that make one of the other."""
    row = list(range(len(heard) + 1))
    for here, word in enumerate(said, 1):
        before, row[0] = row[0], here
        for there, other in enumerate(heard, 1):
            before, row[there] = row[there], min(before + (word != other), row[there] + 1, row[there - 1] + 1)
    return row[-1]


def counted(said: str, heard: str) -> Counted:
    words = normalised(said)
    return Counted(edits(words, normalised(heard)), len(words))


def rate(clips: Sequence[Counted], seed: int) -> Rate:
    errors, words = sum(each.errors for each in clips), sum(each.words for each in clips)
    if not words:
        return Rate(None, None, None, errors, 0)
    low, high = np.percentile(_drawn(clips, seed), (2.5, 97.5))
    return Rate(errors / words, float(low), float(high), errors, words)


def ratio(clips: Sequence[Counted], others: Sequence[Counted], seed: int) -> Ratio:
    """Of the first rate to the second, on the same clips, drawn together."""
    assert len(clips) == len(others)
    below = sum(each.errors for each in others)
    if not below:
        return Ratio(None)  # what has no error cannot be told by how many times it was surpassed
    drawn = _drawn(clips, seed) / np.maximum(_drawn(others, seed), 1e-9)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Ratio(sum(each.errors for each in clips) / below, float(low), float(high))


def _drawn(clips: Sequence[Counted], seed: int) -> Numbers:
    """[D]: the rate of clips drawn anew; the same ones for the same seed and number."""
    random = np.random.default_rng(seed)
    both_C2 = np.array(clips, np.float64).reshape(-1, 2)
    sums_D2 = both_C2[random.integers(len(both_C2), size=(DRAWS, len(both_C2)))].sum(1)
    return np.asarray(sums_D2[:, 0] / np.maximum(sums_D2[:, 1], 1))


# --- of what was published --------------------------------------------------------------------------------------------


def whole(text: Text | None) -> str:
    return "" if text is None else text.stable + text.tail


def last_text(told: Told) -> Text | None:
    """Of the utterance's last final, amended or not."""
    return next((result.text for _, result in reversed(told.results) if result.final), None)


def settled(told: Told) -> list[Settled]:
    """Each word of one utterance when it was first stable."""
    found: list[Settled] = []
    for at_us, result in told.results:
        if result.text is not None:
            words = result.text.stable.split()
            times = result.text.times[: len(words)]
            for word, (_, end_s) in list(zip(words, times, strict=False))[len(found) :]:
                found.append(Settled(word, round(end_s * SAMPLE_RATE_HZ), at_us))
    return found


def changed(told: Told) -> int:
    """Words that were stable, and in the next answer others, or none."""
    count, before = 0, list[str]()
    for _, result in told.results:
        if result.text is None:
            count += len(before)  # what was written is gone
            before = []
            continue
        now = result.text.stable.split()
        kept = sum(one == other for one, other in zip(before, now, strict=False))
        count += len(before) - kept
        before = now
    return count


def off_by_samples(found: Sequence[Settled], said: Sequence[tuple[str, int]]) -> list[tuple[Settled, int]]:
    """Words that were heard right, each with when it was really said: `said` has the words and where they end."""
    names = ["".join(normalised(each.word)) for each in found]
    pairs = matched([word for word, _ in said], names)
    return [(found[there], said[here][1]) for here, there in pairs]


def on_the_way(told: Told) -> list[tuple[float, Result]]:
    """Answers before the final: of each the first, not what words made of it later."""
    first: dict[int, tuple[float, Result]] = {}
    for at_us, result in told.results:
        if not result.final:
            first.setdefault(result.end_sample, (at_us, result))
    return list(first.values())


def answer_ms(result: Result) -> float:
    """From the decision to answer to the answer."""
    return result.timing_ms.queue + result.timing_ms.infer
