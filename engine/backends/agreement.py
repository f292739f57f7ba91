"""Which words of a growing utterance will not change any more: those on which two hypotheses in a row agree (LocalAgreement-2).

A recogniser that hears a window of sound anew at each step says every time something else about its end. What it said twice is
committed, and never taken back. Pure: states are arguments and results, and times are samples since the utterance began.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from clser.engine.jobs import Word
from clser.engine.records import SAMPLE_RATE_HZ

RISK_SAMPLES = SAMPLE_RATE_HZ * 12 // 100  # a word that ends so near the end of the sound may be half of a longer one
GAP_COST = 1.0
"""When hypotheses are laid over each other, a second between two words costs so many words that differ."""


class Agreed(NamedTuple):
    """What is held of an utterance's words."""

    committed: tuple[Word, ...] = ()
    tail: tuple[Word, ...] = ()
    """What the newest hypothesis has behind them."""
    before: int = 0
    """So many of the committed words end before the window: no hypothesis holds them any more."""

    @property
    def words(self) -> tuple[Word, ...]:
        return self.committed + self.tail

    @property
    def inside(self) -> tuple[Word, ...]:
        """Committed words that are still in the window."""
        return self.committed[self.before :]


def agree(agreed: Agreed, hypothesis: Sequence[Word], heard: int, *, trusted: bool = True) -> Agreed:
    """A newer hypothesis about the window, which ends at sample `heard`. One that is not `trusted` commits nothing."""
    tail = beyond(agreed, hypothesis)
    count = 0
    if trusted:
        for older, newer in zip(agreed.tail, tail, strict=False):
            if normal(older.text) != normal(newer.text) or newer.end > heard - RISK_SAMPLES:
                break
            count += 1
    return agreed._replace(committed=agreed.committed + tail[:count], tail=tail[count:])


def beyond(agreed: Agreed, hypothesis: Sequence[Word]) -> tuple[Word, ...]:
    """The hypothesis' words behind the committed ones, none of which begins before the one before it."""
    if not agreed.committed:
        return tuple(hypothesis)
    last = agreed.committed[-1]
    spent = _overlaid(agreed.inside, hypothesis, last.end)
    # what is left of a committed word at the start of a cut window is written as a word of its own
    while (
        not agreed.inside and spent < len(hypothesis) and hypothesis[spent].start + hypothesis[spent].end < 2 * last.end
    ):
        spent += 1
    return tuple(_after(word, last.end) for word in hypothesis[spent:])


def finish(agreed: Agreed) -> Agreed:
    """The utterance is over: what stands, stands."""
    return agreed._replace(committed=agreed.words, tail=())


def cut(agreed: Agreed, begin: int, keep: int) -> tuple[Agreed, int]:
    """Where the window, which begins at `begin`, may begin instead: behind a committed word that ends before `keep`.

    The words that stand, in number and in text, stay what they are.
    """
    ends = [word.end for word in agreed.committed]
    count = next((n for n in range(len(ends), 0, -1) if ends[n - 1] <= keep), 0)
    if count <= agreed.before or ends[count - 1] <= begin:
        return agreed, begin
    return agreed._replace(before=count), ends[count - 1]


def normal(text: str) -> str:
    """What is compared: without case and punctuation, unless there is nothing else."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LMN") or folded.strip()


def _overlaid(committed: Sequence[Word], hypothesis: Sequence[Word], end: int) -> int:
    """How many of the hypothesis' first words are the committed ones again: as few edits as can be, and times that fit.

    Times alone would not do: from one hypothesis to the next they move by a tenth of a second and more.
    """
    texts = [normal(word.text) for word in committed]
    costs = list(range(len(texts) + 1))  # [n]: edits between the first n committed words and the hypothesis up to here
    totals = [costs[-1] + _apart(hypothesis, 0, end)]
    for count, word in enumerate(hypothesis, 1):
        said = normal(word.text)
        row = [count]
        for n, text in enumerate(texts):
            row.append(min(costs[n] + (text != said), costs[n + 1] + 1, row[n] + 1))
        costs = row
        totals.append(costs[-1] + _apart(hypothesis, count, end))
    return min(range(len(totals)), key=totals.__getitem__)


def _apart(hypothesis: Sequence[Word], count: int, end: int) -> float:
    """How ill the boundary behind the first `count` words fits the end of the last committed one, in words."""
    late = hypothesis[count - 1].end - end if count else 0
    early = end - hypothesis[count].start if count < len(hypothesis) else 0
    return GAP_COST * max(0, late, early) / SAMPLE_RATE_HZ


def _after(word: Word, end: int) -> Word:
    """The word, with times that do not go back before what is committed."""
    if word.start >= end:
        return word
    return Word(word.text, end, max(end, word.end), word.confidence)
