"""Text cut into words, and words into numbers, without a vocabulary: any language, nothing to download, no torch.

Letters: B texts, L words, G grams of a word.

A word's numbers are the hashes of the word itself and of its runs of three to five letters, so that a form never seen
shares most of its numbers with those that were. The same text gives the same numbers on every machine, and a text that
grows keeps the numbers of the words it had, save those of a last word that was still being written.
"""

import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

MOST_WORDS = 95
MOST_GRAMS = 40  # a word of a dozen letters is told whole; of longer ones the beginning of each run's list
SHORTEST, LONGEST = 3, 5
HASHES = 2**31 - 1

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Japanese syllables
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
"""Scripts without spaces between words: each character is a word here, and its runs reach back over those before it."""
LOWEST_UNSPACED = min(first for first, _ in UNSPACED)
SPEAKING = frozenset("!?")
"""Signs that tell how something is said. They are words, as emoji are; other signs only part words."""


def words(text: str) -> list[tuple[str, str]]:
    """Each word, and for a character of `UNSPACED` up to two before it in the same run (else nothing)."""
    found: list[tuple[str, str]] = []
    run = ""  # letters of a word that goes on, or the characters of an unspaced run
    for sign in _plain(text):
        if _unspaced(sign):
            if run and not _unspaced(run[0]):
                found.append((run, ""))
                run = ""
            found.append((sign, run[-2:]))
            run += sign
            continue
        if run and _unspaced(run[0]):
            run = ""
        if unicodedata.category(sign)[0] in "LNM" or (sign == "'" and run):
            run += sign
            continue
        if run:
            found.append((run, ""))
            run = ""
        if sign in SPEAKING or unicodedata.category(sign) == "So":
            found.append((sign, ""))
    if run and not _unspaced(run[0]):
        found.append((run, ""))
    return [(word.strip("'"), before) for word, before in found]


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    # a sign that only picks another's look is no part of a word
    return "".join(sign for sign in folded.replace("’", "'") if not 0xFE00 <= ord(sign) <= 0xFE0F)


def _unspaced(sign: str) -> bool:
    point = ord(sign)  # asked of every letter of every text, most of which lie below all of these
    return point >= LOWEST_UNSPACED and any(first <= point <= last for first, last in UNSPACED)


def grams(word: str, before: str = "") -> Iterator[str]:
    """The word between its bounds, then its runs of letters, bounds included; of a character, the runs that end in it."""
    yield f"<{word}>"
    if before or _unspaced(word[0]):
        for reach in range(1, len(before) + 1):
            yield before[-reach:] + word
        return
    bounded = f"<{word}>"
    for length in range(SHORTEST, min(LONGEST, len(bounded) - 1) + 1):
        for first in range(len(bounded) - length + 1):
            yield bounded[first : first + length]


@lru_cache(maxsize=2**16)
def _numbers(word: str, before: str) -> tuple[int, ...]:
    found = dict.fromkeys(grams(word, before))  # a run that stands twice counts once
    return tuple(_hash(gram) for gram in list(found)[:MOST_GRAMS])


def _hash(gram: str) -> int:
    """1 to `HASHES`. Python's own hash differs from process to process."""
    digest = blake2b(gram.encode("utf-8", "replace"), digest_size=4).digest()
    return 1 + int.from_bytes(digest, "little") % HASHES


@lru_cache(maxsize=2**16)
def _pair(first: str, second: str) -> int:
    return _hash(f"{first} {second}")  # no gram of a word has a space in it


def _rows(texts: Sequence[str], most_words: int, pairs: bool) -> Iterator[list[tuple[int, ...]]]:
    """For each text its words' numbers; with `pairs`, a word's last is that of it and the word before."""
    for text in texts:
        found = words(text)[:most_words]
        row = [_numbers(*word) for word in found]
        if pairs:
            for place in range(1, len(found)):
                (first, _), (second, before) = found[place - 1 : place + 1]
                if not before:  # a character's runs hold the pair already
                    row[place] = (*row[place], _pair(first, second))
        yield row


def hashed(
    texts: Sequence[str], most_words: int = MOST_WORDS, *, pairs: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """ids_BLG (0: padding) and length_B; a word's first number is the whole word, and G is 2 at least.

    Of a longer text, the first `most_words` words; an empty one has length 0. `pairs`: with the number of each word and
    the one before it.
    """
    rows = list(_rows(texts, most_words, pairs))
    length_B = np.array([len(row) for row in rows], np.int64)
    most = max((len(numbers) for row in rows for numbers in row), default=2)
    ids_BLG = np.zeros((len(rows), max(length_B, default=0), max(most, 2)), np.int64)
    for b, row in enumerate(rows):
        for word, numbers in enumerate(row):
            ids_BLG[b, word, : len(numbers)] = numbers
    return ids_BLG, length_B


def ragged(texts: Sequence[str], most_words: int = MOST_WORDS) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The same numbers, pairs among them, one text after another; and where each text's begin, with the end of the last."""
    flat = array("i")
    starts = [0]
    for row in _rows(texts, most_words, pairs=True):
        for numbers in row:
            flat.extend(numbers)
        starts.append(len(flat))
    return np.array(flat, np.int32), np.array(starts, np.int64)
