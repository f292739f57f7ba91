"""Which clips of a speaker are heard first and never scored."""

from collections.abc import Sequence
from hashlib import blake2b

from clser.models.data.clips import Clip
from clser.models.errors import GivenError

MOST = 20
"""So many clips of each speaker may be heard; of a speaker with few clips, half."""


def enrolment(clips: Sequence[Clip], seed: int = 0) -> tuple[dict[tuple[str, str], list[int]], list[int]]:
    """For each speaker the clips to hear, in the order in which they are taken; and the clips to score.

    Whoever hears K of them takes the first K: the same clips are scored for every K, and for none.
    """
    of: dict[tuple[str, str], list[int]] = {}
    for index, clip in enumerate(clips):
        if not clip.speaker:
            raise GivenError(f"{clip.name} has no speaker; clips of a speaker are heard first, so fill in `speaker`")
        of.setdefault(clip.who, []).append(index)
    heard = {
        who: sorted(own, key=lambda n: _shuffled(seed, clips[n]))[: min(MOST, len(own) // 2)] for who, own in of.items()
    }
    kept = {index for own in heard.values() for index in own}
    return heard, [index for index in range(len(clips)) if index not in kept]


def _shuffled(seed: int, clip: Clip) -> bytes:
    return blake2b(repr((seed, clip.corpus, clip.path.name, clip.start_s)).encode(), digest_size=8).digest()
