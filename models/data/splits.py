"""Folds that hold speakers apart: who is tested on was never trained on."""

from collections import defaultdict
from collections.abc import Sequence

from clser.models.data.corpora import Clip

FOLDS = 5
NEVER_TESTED = frozenset({"tess"})  # two speakers: nothing it says would be speaker-independent


def speaker_folds(
    clips: Sequence[Clip], folds: int = FOLDS, never_tested: frozenset[str] = NEVER_TESTED
) -> dict[str, int]:
    """Each testable speaker's fold, the same for the same clips in any order.

    A corpus's speakers are dealt out by gender, then by name; each corpus begins where the one before it ended, so that
    small corpora do not all leave the same fold empty.
    """
    speakers: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for clip in clips:
        if clip.corpus not in never_tested:
            speakers[clip.corpus].add((clip.gender, clip.speaker))
    fold_of: dict[str, int] = {}
    turn = 0
    for corpus in sorted(speakers):
        for _, speaker in sorted(speakers[corpus]):
            if speaker in fold_of:
                raise ValueError(f"{speaker} stands in two corpora or under two genders")
            fold_of[speaker] = turn % folds
            turn += 1
    return fold_of


def split(clips: Sequence[Clip], fold: int, fold_of: dict[str, int]) -> tuple[list[int], list[int]]:
    """Indices of the clips to train on and to test on."""
    train = [index for index, clip in enumerate(clips) if fold_of.get(clip.speaker) != fold]
    test = [index for index, clip in enumerate(clips) if fold_of.get(clip.speaker) == fold]
    return train, test
