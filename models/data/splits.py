"""Who is tested on was never trained on: folds by speaker, by corpus, and by speaker and sentence.

All of it hangs on the clips alone: the same clips in any order are split alike.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TypeVar

from clser.models.data.clips import Clip
from clser.models.errors import GivenError

FOLDS = 5
NEVER_TESTED = frozenset({"tess"})  # two speakers: nothing it says would be speaker-independent
VALID = 0.1
"""So much of the speakers to train on is held back to choose by."""

Who = tuple[str, str]
Key = TypeVar("Key", str, Who)


@dataclass(frozen=True, slots=True)
class Fold:
    """Indices of the clips to train on, to choose by, and to test on; ascending, none in two of them."""

    name: str
    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]


def grouped_folds(
    clips: Sequence[Clip], folds: int = FOLDS, valid: float = VALID, never_tested: frozenset[str] = NEVER_TESTED
) -> list[Fold]:
    """`folds` folds; every speaker of a corpus that may be tested is tested once.

    A corpus's speakers are dealt out by gender, then by name; each corpus begins where the one before it ended, so that
    small corpora do not all leave the same fold empty.
    """
    fold_of = _dealt(clips, folds, never_tested)
    speakers = len(fold_of)
    if folds < 2 or speakers < folds:
        raise GivenError(
            f"{folds} folds of {speakers} speakers; ask for 2 to {max(2, speakers)}, or give more speakers"
        )
    return [
        hold_back(_fold(str(number), [fold_of.get(clip.who) == number for clip in clips]), clips, valid)
        for number in range(folds)
    ]


def leave_one_speaker_out(
    clips: Sequence[Clip], valid: float = VALID, never_tested: frozenset[str] = NEVER_TESTED
) -> list[Fold]:
    """A fold a speaker."""
    whos = sorted(_speakers(clips, never_tested))
    if len(_speakers(clips)) < 2:
        raise GivenError("one speaker alone cannot be left out; give recordings of two or more")
    return [hold_back(_fold("/".join(who), [clip.who == who for clip in clips]), clips, valid) for who in whos]


def leave_one_corpus_out(
    clips: Sequence[Clip], valid: float = VALID, never_tested: frozenset[str] = NEVER_TESTED
) -> list[Fold]:
    """A fold a corpus."""
    corpora = sorted({clip.corpus for clip in clips})
    if len(corpora) < 2:
        raise GivenError(f"only the corpus {', '.join(corpora)} is there and cannot be left out; give two or more")
    _speakers(clips)
    return [
        hold_back(_fold(corpus, [clip.corpus == corpus for clip in clips]), clips, valid)
        for corpus in corpora
        if corpus not in never_tested
    ]


def sentence_disjoint(
    clips: Sequence[Clip],
    folds: int = FOLDS,
    parts: int = 2,
    valid: float = VALID,
    never_tested: frozenset[str] = NEVER_TESTED,
) -> list[Fold]:
    """`folds` times `parts` folds: neither a speaker nor a sentence that is tested was trained on or chosen by.

    Every clip that may be tested is, once. What shares only the speaker or only the sentence with the test is left out
    of that fold, so less is left to train on than elsewhere: of two parts, half. Clips without a text are in no fold:
    they may say what is tested.
    """
    for corpus, spoken in _by_corpus(clips, sentence).items():
        if spoken == {""}:
            raise GivenError(
                f"{corpus}: no clip has a text; sentences are held apart by the column `text`, so fill it in"
            )
    fold_of = _dealt(clips, folds, never_tested)
    part_of: dict[str, int] = {}
    for spoken in _by_corpus(clips, sentence).values():
        # A sentence of two corpora keeps the part it got first.
        new = sorted((text for text in spoken if text and text not in part_of), key=_shuffled)
        part_of |= {text: n % parts for n, text in enumerate(new)}
    if min(len(set(fold_of.values())), len(set(part_of.values()))) < 2:
        raise GivenError("sentences and speakers cannot both be held apart; give two or more of each")
    said = [part_of.get(sentence(clip)) for clip in clips]
    out = []
    for number in range(folds):
        theirs = [fold_of.get(clip.who) == number for clip in clips]
        for part in range(parts):
            test = tuple(n for n, own in enumerate(theirs) if own and said[n] == part)
            train = tuple(n for n, own in enumerate(theirs) if not own and said[n] not in {None, part})
            if test:
                out.append(hold_back(Fold(f"{number}.{part}", train, (), test), clips, valid))
    return out


def by_clip(clips: Sequence[Clip], folds: int = FOLDS) -> list[Fold]:
    """Speakers on both sides: only for fitting one speaker's own recordings. Emotions are spread evenly."""
    order = sorted(range(len(clips)), key=lambda n: (clips[n].emotion, _shuffled(clips[n].path.name), clips[n].name))
    fold_of = {index: turn % folds for turn, index in enumerate(order)}
    return [
        Fold(
            str(number),
            tuple(n for n in range(len(clips)) if fold_of[n] not in {number, (number + 1) % folds}),
            tuple(n for n in range(len(clips)) if folds > 2 and fold_of[n] == (number + 1) % folds),
            tuple(n for n in range(len(clips)) if fold_of[n] == number),
        )
        for number in range(folds)
    ]


def hold_back(fold: Fold, clips: Sequence[Clip], share: float = VALID) -> Fold:
    """The fold with `share` of its speakers to train on, of each corpus that has three or more, moved to `valid`."""
    if share <= 0.0:
        return fold
    pool = sorted(fold.train + fold.valid)
    of_corpus = _by_corpus([clips[n] for n in pool], lambda clip: clip.who)
    chosen: set[Who] = set()
    for whos in of_corpus.values():
        if len(whos) >= 3:
            chosen |= set(sorted(whos, key=_shuffled)[: max(1, round(share * len(whos)))])
    if not chosen:
        every = sorted({who for whos in of_corpus.values() for who in whos}, key=_shuffled)
        chosen = set(every[: len(every) // 2][:1])
    return replace(
        fold,
        train=tuple(n for n in pool if clips[n].who not in chosen),
        valid=tuple(n for n in pool if clips[n].who in chosen),
    )


def sentence(clip: Clip) -> str:
    """What was said, without what two transcripts of it may differ in: case, accents' spelling, points, spaces."""
    folded = unicodedata.normalize("NFKC", clip.text).casefold()
    return " ".join("".join(letter if letter.isalnum() else " " for letter in folded).split())


def _fold(name: str, tested: Sequence[bool]) -> Fold:
    train = tuple(n for n, side in enumerate(tested) if not side)
    return Fold(name, train, (), tuple(n for n, side in enumerate(tested) if side))


def _dealt(clips: Sequence[Clip], folds: int, never_tested: frozenset[str]) -> dict[Who, int]:
    speakers = _speakers(clips, never_tested)
    return {who: turn % folds for turn, who in enumerate(sorted(speakers, key=lambda w: (w[0], speakers[w], w[1])))}


def _speakers(clips: Sequence[Clip], never_tested: frozenset[str] = frozenset()) -> dict[Who, str]:
    """Each speaker's gender."""
    genders: dict[Who, str] = {}
    for clip in clips:
        if not clip.speaker:
            raise GivenError(f"{clip.name} has no speaker; folds hold speakers apart, so fill in the column `speaker`")
        if clip.corpus in never_tested:
            continue
        if genders.setdefault(clip.who, clip.gender) != clip.gender:
            raise GivenError(
                f"{clip.name}: speaker {clip.speaker} is {clip.gender or 'of no gender'} here and "
                f"{genders[clip.who] or 'of none'} elsewhere; two people need two names"
            )
    return genders


def _by_corpus(clips: Sequence[Clip], of: Callable[[Clip], Key]) -> dict[str, set[Key]]:
    found: dict[str, set[Key]] = defaultdict(set)
    for clip in clips:
        found[clip.corpus].add(of(clip))
    return dict(sorted(found.items()))


def _shuffled(of: object) -> bytes:
    """A place in an order that is no order: the same everywhere, and not the alphabet's."""
    return blake2b(repr(of).encode(), digest_size=8).digest()
