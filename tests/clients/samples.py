"""Messages to show and to send: one of each kind, with what a test cares about given."""

from typing import Any

import msgspec

from clser.engine.records import (
    Emotion,
    Explain,
    Frame,
    Gap,
    Message,
    Modality,
    Model,
    Result,
    Speech,
    Stage,
    Status,
    Text,
    Timing,
    Weights,
)
from clser.models.labels import PUBLISHED

NOW_US = 1_700_000_000_000_000


def probabilities(best: str = "anger", confidence: float = 0.7) -> dict[str, float]:
    rest = round((1 - confidence) / (len(PUBLISHED) - 1), 4)
    return {name: confidence if name == best else rest for name in PUBLISHED}


def result(stream: str = "kitchen", seq: int = 1, stage: Stage = "final", **fields: Any) -> Result:
    label, confidence = fields.pop("label", "anger"), fields.pop("confidence", 0.71)
    held = probabilities(label or "neutral", confidence)
    made = Result(
        stream=stream,
        epoch=1,
        seq=seq,
        speaker=None,
        utterance=1,
        revision=seq,
        stage=stage,
        start_sample=5440,
        end_sample=58_880,
        start_s=0.34,
        end_s=3.68,
        captured_unix_us=NOW_US - 42_000,
        ttl_ms=None,
        emotion=Emotion(label, confidence, label is None, "unsure" if label is None else None, False, held),
        voice=Modality(held),
        words=None,
        weights=Weights(1.0, 0.0),
        explain=Explain(),
        arousal=0.6,
        valence=-0.5,
        affect_source="classes",
        text=None,
        timing_ms=Timing(1.0, 2.0, 3.0, 4.0, 2.0),
        model=Model("voice", "0123456789abcdef"),
    )
    return msgspec.structs.replace(made, **fields)


def frame(stream: str = "kitchen", seq: int = 1, **fields: Any) -> Frame:
    made = Frame(
        stream=stream,
        epoch=1,
        seq=seq,
        end_sample=512 * seq,
        end_s=0.032 * seq,
        level_dbfs=-20.0,
        speech=0.9,
        utterance=1,
        probabilities=probabilities(),
        arousal=0.6,
        valence=-0.5,
    )
    return msgspec.structs.replace(made, **fields)


def status(event: str = "heartbeat", stream: str = "_engine", seq: int = 1, **fields: Any) -> Status:
    made = Status(stream=stream, epoch=1, seq=seq, unix_us=NOW_US, state="ready", event=event)
    return msgspec.structs.replace(made, **fields)


def worded(stage: Stage = "partial", seq: int = 2, best: str = "fear", share: float = 0.38, **fields: Any) -> Result:
    """One for which the words counted."""
    said = {"words": Modality(probabilities(best, 0.9)), "weights": Weights(round(1 - share, 2), share), "text": TEXT}
    return result(stage=stage, seq=seq, **{**said, **fields})


TEXT = Text(stable="How dare you ", tail="say 你好", language="en", confidence=0.9, suspect=False)
DOUBTFUL = Text(stable="wreck a nice ", tail="beach", language=None, confidence=0.2, suspect=True)
NOTHING = Text(stable="", tail="", language="en", confidence=0.0, suspect=False)
COUNTERS: dict[str, float] = {
    "streams": 1, "finals": 8, "gaps": 2, "lost_samples": 16_000, "replaced": 3,
    "sound_s": 100.0, "busy_s": 4.0, "loop_lag_ms_p99": 1.25, "rss_mb": 240.0,
}  # fmt: skip


def every_kind(stream: str) -> list[Message]:
    """What a stream sends in the course of its life."""
    return [
        status("ready", detail="voice 0123456789abcdef"),
        status("opened", stream),
        frame(stream, 1, utterance=None, probabilities=None, arousal=None, valence=None),
        Speech(stream=stream, epoch=1, seq=1, utterance=1, event="started", sample=5440, at_s=0.34),
        frame(stream, 2),
        result(stream, 1, "partial", label="fear", confidence=0.4, ttl_ms=1000),
        result(stream, 2, "tentative", label=None, confidence=0.3),
        Speech(stream=stream, epoch=1, seq=2, utterance=1, event="ended", sample=50_000, at_s=3.1, reason="silence"),
        result(stream, 3, "final", text=TEXT),
        result(stream, 4, "amended", label="happiness", confidence=0.55, text=TEXT),
        Gap(stream=stream, epoch=1, seq=1, from_sample=58_880, count=8000, reason="lost"),
        status(counters=COUNTERS),
        status("worker_lost", detail="worker 0: it was killed by signal 9", state="degraded"),
        status("closed", stream, 2),
    ]
