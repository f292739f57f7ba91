"""Which texts are trained on, which one chooses by, and which one is judged on.

What the makers of a collection held out stays held out. Collections quote the same films and forums, so a text to train on
that has the words of one held out elsewhere is left out, if there are four of them or more: fewer are no quotation.
Within a collection its makers' split is taken as it is, so that figures can be compared with others'. Of a collection
without a split a twentieth of the wordings is held out.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from clser.models.data.corpora import Text
from clser.models.encoders.words import words

DEV = frozenset({"dev", "valid", "validation"})
TEST = frozenset({"test"})
TRAIN = frozenset({"train"})
QUOTED = 4
"""Words that two people hardly say alike by chance."""
TEST_SHARE, VALID_SHARE = 0.04, 0.01


class Parts(NamedTuple):
    """Places in the texts."""

    train: list[int]
    valid: list[int]
    test: list[int]


def parts(texts: Sequence[Text]) -> Parts:
    """The same for the same texts, whatever their order."""
    wording = [" ".join(word for word, _ in words(text.text)) or text.text for text in texts]
    part = [_part(text, said) for text, said in zip(texts, wording, strict=True)]
    held_out: dict[str, set[str]] = {}
    for text, said, name in zip(texts, wording, part, strict=True):
        if name != "train" and said.count(" ") + 1 >= QUOTED:
            held_out.setdefault(said, set()).add(text.corpus)
    elsewhere = [bool(held_out.get(said, set()) - {text.corpus}) for text, said in zip(texts, wording, strict=True)]
    numbers = range(len(texts))
    return Parts(
        [n for n in numbers if part[n] == "train" and not elsewhere[n]],
        [n for n in numbers if part[n] == "valid"],
        [n for n in numbers if part[n] == "test"],
    )


def own_training(texts: Sequence[Text], corpus: str) -> list[int]:
    """All of one collection's training texts: what whoever knows this collection alone trains on."""
    own = [n for n, text in enumerate(texts) if text.corpus == corpus]
    return [own[n] for n in parts([texts[n] for n in own]).train]


def share_of(text: str) -> float:
    """A number in 0..1 that hangs on the text alone."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little") / 2.0**64


def _part(text: Text, wording: str) -> str:
    if text.split in TEST:
        return "test"
    if text.split in DEV:
        return "valid"
    if text.split in TRAIN:
        return "train"
    number = share_of(wording)
    return "test" if number < TEST_SHARE else "valid" if number < TEST_SHARE + VALID_SHARE else "train"
