"""What a model without a state is sent, and when it answers (contract 2 of docs/models.md). Pure.

Such a model hears the last `frames` of an utterance anew each time: when as many as a multiple of `hop` have come, and at the
end. Between, its last answer stands. It is sent sound up to where it answers next, or to what is due, and no more.
"""

from typing import NamedTuple

from clser.engine.jobs import VoiceCard
from clser.engine.track import Track


class Windows(NamedTuple):
    frames: int
    """It hears so many at most."""
    hop: int
    """0: it answers at the end of an utterance only."""

    def before(self, frames: int) -> int:
        """The last place up to there where it answers by itself; 0 where there is none."""
        return frames - frames % self.hop if self.hop else 0

    def answered(self, track: Track, frames: int) -> int:
        """The sound that the answer standing after so many frames is about."""
        return frames if frames == track.asked else self.before(frames)

    def late_from(self, track: Track, due: int) -> int:
        """Frames that it has heard, or that are too few to answer after: sound beyond them has to wait."""
        return due or (self.before(track.sent) + self.hop if self.hop else track.sent)

    def waiting(self, track: Track, grown: int, due: int | None) -> int:
        """Frames to send of the `grown` there are: up to where it answers next, or up to the answer that is due."""
        if due is None:
            return max(0, self.before(grown) - track.sent)
        return min(due, self.frames) if self.passed(track, due) else max(0, due - track.sent)

    def passed(self, track: Track, due: int) -> bool:
        """A final is due where it was not asked, and it has been sent more since: a cut fell there."""
        final = track.due is not None and track.due.utterance.stage == "final"
        return final and track.sent >= due and not self._anew(track, due)

    def _anew(self, track: Track, frames: int) -> bool:
        """Whether the answer after so many frames is, or will be, about just those, and no older one that stands."""
        return frames in (0, track.asked) or (self.hop > 0 and frames % self.hop == 0)


def windows_of(card: VoiceCard) -> Windows | None:
    """None: it carries a state, and answers after each frame."""
    return None if card.streams == "exactly" else Windows(card.window_frames, card.hop_frames)
