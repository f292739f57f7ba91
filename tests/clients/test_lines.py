"""Plain lines."""

import msgspec
import pytest
from samples import DOUBTFUL, NOTHING, TEXT, every_kind, frame, result, status, worded

from clser.clients.lines import line
from clser.engine.records import Emotion, Gap, Message

EMOTION = result().emotion


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (result(), "kitchen   0.34-3.68 s    anger 0.71      (arousal +0.6, valence -0.5)  12 ms"),
        (
            result(label=None, confidence=0.36),
            "kitchen   0.34-3.68 s    not sure (neutral 0.36)  (arousal +0.6, valence -0.5)  12 ms",
        ),
        (
            result(stage="amended", text=TEXT),
            "kitchen   0.34-3.68 s    anger 0.71      (arousal +0.6, valence -0.5)  12 ms  (amended)"
            '  "How dare you say 你好"',
        ),
        (
            worded("final"),
            "kitchen   0.34-3.68 s    anger 0.71      (arousal +0.6, valence -0.5)  12 ms"
            '  "How dare you say 你好" (words 0.38)',
        ),
        (
            worded("final", text=DOUBTFUL, share=0.05),
            "kitchen   0.34-3.68 s    anger 0.71      (arousal +0.6, valence -0.5)  12 ms"
            '  "~ wreck a nice beach" (words 0.05)',
        ),
        (result(text=NOTHING), "kitchen   0.34-3.68 s    anger 0.71      (arousal +0.6, valence -0.5)  12 ms"),
        (
            Gap(stream="kitchen", from_sample=16_000, count=8000, reason="overflow"),
            "kitchen   1.00 s: 0.50 s of sound lost (overflow)",
        ),
        (
            status("worker_lost", detail="worker 0: it was killed by signal 9"),
            "engine    worker lost: worker 0: it was killed by signal 9",
        ),
        (status("silent", "kitchen", detail="is the microphone muted?"), "kitchen   silent: is the microphone muted?"),
    ],
)
def test_lines(message: Message, expected: str) -> None:
    assert line(message) == expected


def test_too_short_says_so() -> None:
    short = Emotion(None, 0.9, True, "too_short", True, EMOTION.probabilities)
    assert "not sure (too short)" in str(line(msgspec.structs.replace(result(), emotion=short)))


def test_what_was_no_speech_gets_a_dash() -> None:
    nothing = Emotion(None, 0.9, True, "not_speech", False, EMOTION.probabilities)
    assert "s    -    " in str(line(msgspec.structs.replace(result(), emotion=nothing)))


def test_the_rest_is_silence() -> None:
    quiet = [status(), status("opened", "kitchen"), frame(), result(stage="partial"), result(stage="tentative")]
    assert [line(message) for message in quiet] == [None] * 5
    said = [words for message in every_kind("kitchen") if (words := line(message)) is not None]
    assert len(said) == 4, "final, amended, gap and the lost worker"
    assert not any("\n" in words for words in said)
