"""A voice model without a state (contract 2 of docs/models.md): a stream's last sound is kept here, and heard anew when due.

Imports no runtime: a backend gives the call. When an answer is due depends on how many frames the utterance has, never on
how they were cut into rows; between, the last one stands, and before the first the answer is the prior's: zeros.

Letters: T frames, S samples of a frame, H heads.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clser.engine.backends import Call, Numbers, run_alike
from clser.engine.jobs import Row, VoiceCard
from clser.engine.records import Samples

MOST_FRAMES = 8_192  # in a call: what is heard at once must fit in memory, however many streams are due together


class Heard(NamedTuple):
    """What is kept of a stream."""

    recent_TS: Samples
    """Its last frames, as many as the window at most."""
    frames: int
    """All there were since the utterance began."""
    answer_H: Numbers
    """The last one that was due by the hop."""


class Due(NamedTuple):
    """An answer to compute."""

    frame: int
    """Of its row, from 1."""
    sound_TS: Samples
    stands: bool
    """It counts for the frames that follow, too."""


class Windowed:
    """`VoiceModel.run` on top of a call that answers once for a whole sound: [B, 1, heads]."""

    def __init__(self, card: VoiceCard, call: Call) -> None:
        assert card.streams != "exactly" and card.window_frames > 0
        self._card, self._call = card, call
        self._kept: dict[int, Heard] = {}

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        sounds = np.split(pcm.reshape(-1, self._card.frame_samples), np.cumsum([row.frames for row in rows])[:-1])
        before = [self._before(row) for row in rows]
        joined = [np.concatenate((heard.recent_TS, new_TS)) for heard, new_TS in zip(before, sounds, strict=True)]
        due = [self._due(*each) for each in zip(rows, before, joined, strict=True)]
        asked = [(row.slot, each.sound_TS) for row, own in zip(rows, due, strict=True) for each in own]
        said = iter(self._compute(asked))
        out = []
        for row, heard, both_TS, own in zip(rows, before, joined, due, strict=True):
            answers_TH = np.repeat(heard.answer_H[None], row.frames, 0)
            standing_H = heard.answer_H
            for each in own:
                answers_TH[each.frame - 1 :] = answer_H = next(said)
                standing_H = answer_H if each.stands else standing_H
            recent_TS = both_TS[-self._card.window_frames :].copy()  # or all of `both_TS` would be kept
            self._kept[row.slot] = Heard(recent_TS, heard.frames + row.frames, standing_H)
            out.append(answers_TH)
        return np.concatenate(out)

    def _before(self, row: Row) -> Heard:
        nothing = np.zeros((0, self._card.frame_samples), np.int16)
        prior = Heard(nothing, 0, np.zeros(len(self._card.heads), np.float32))
        return prior if row.fresh else self._kept.get(row.slot, prior)

    def _due(self, row: Row, before: Heard, both_TS: Samples) -> list[Due]:
        """By the hop, and after the last frame where that is asked for. `both_TS`: what was kept, and the row's own."""
        known, hop, due = len(before.recent_TS), self._card.hop_frames, []
        for frame in range(1, row.frames + 1):
            stands = hop > 0 and (before.frames + frame) % hop == 0
            if stands or (row.anew and frame == row.frames):
                end = known + frame
                due.append(Due(frame, both_TS[max(0, end - self._card.window_frames) : end], stands))
        return due

    def _compute(self, asked: Sequence[tuple[int, Samples]]) -> Numbers:
        """[windows, heads]: all that is due in as few calls as memory and their unlike lengths allow. A slot's later window
        is in a later row, or call."""
        out = [np.zeros((0, len(self._card.heads)), np.float32)]
        most = max(1, MOST_FRAMES // self._card.window_frames)
        for begin in range(0, len(asked), most):
            some = asked[begin : begin + most]
            rows = [Row(slot, len(sound_TS), True) for slot, sound_TS in some]
            sounds = np.concatenate([sound_TS for _, sound_TS in some]).reshape(-1)
            out.append(run_alike(rows, sounds, self._card, self._call))
        return np.concatenate(out)
