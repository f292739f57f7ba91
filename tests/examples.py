"""One message of each kind, always the same."""

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
    Status,
    Text,
    Timing,
    Weights,
)

_SEVEN = {
    "anger": 0.5,
    "disgust": 0.0,
    "fear": 0.125,
    "happiness": 0.0,
    "neutral": 0.25,
    "sadness": 0.0,
    "surprise": 0.125,
}
EXAMPLES: dict[str, Message] = {
    "result": Result(
        epoch=1700000000000,
        stream="kitchen",
        speaker="Ada",
        seq=7,
        utterance=3,
        revision=4,
        stage="final",
        start_sample=16000,
        end_sample=48000,
        start_s=1.0,
        end_s=3.0,
        captured_unix_us=1700000003000000,
        ttl_ms=None,
        reason="silence",
        emotion=Emotion("anger", 0.5, False, None, False, _SEVEN),
        voice=Modality(_SEVEN),
        words=Modality(_SEVEN),
        weights=Weights(0.75, 0.25),
        explain=Explain({"voice": 0.5}),
        arousal=0.25,
        valence=-0.5,
        affect_source="classes",
        text=Text("cześć", " jak", "pl", 0.875, False, ((1.25, 1.75), (1.75, 2.5))),
        timing_ms=Timing(20.0, 3.5, 0.25, 4.0, 0.0),
        model=Model("voice_gru", "0123456789abcdef"),
    ),
    "speech": Speech(
        epoch=1, stream="kitchen", seq=2, utterance=3, event="ended", sample=48000, at_s=3.0, reason="silence"
    ),
    "frame": Frame(
        epoch=1,
        stream="kitchen",
        seq=90,
        end_sample=512,
        end_s=0.032,
        level_dbfs=-42.5,
        speech=0.5,
        utterance=None,
        probabilities=None,
        arousal=None,
        valence=None,
    ),
    "gap": Gap(epoch=1, stream="robot.left-ear", seq=1, from_sample=16000, count=320, reason="lost"),
    "status": Status(
        epoch=1, seq=5, unix_us=1700000000000000, state="ready", event="heartbeat", counters={"streams": 2.0}
    ),
}


if __name__ == "__main__":  # writes the golden bytes anew: a change of them is a change of the protocol's version
    from pathlib import Path

    from clser.engine import wire

    for kind, example in EXAMPLES.items():
        for form in ("json", "msgpack"):
            (Path(__file__).parent / "golden" / f"{kind}.{form}").write_bytes(wire.encode(example, form))
