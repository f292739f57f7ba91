"""Metrics as a scraper reads them."""

import re
from typing import Any

import msgspec
import pytest
from fakes import ManualClock, Rig, run, sound
from prometheus import NAMES, parse, value

from clser.engine.metrics import CATALOGUE, Metrics
from clser.engine.records import Message, Result, Speech, Status, Timing
from examples import EXAMPLES

ALL = {metric.key: float(number) for number, metric in enumerate(CATALOGUE, 1)}
START_US = ManualClock.START_US


def test_no_name_changes_silently() -> None:
    families = parse(Metrics(lambda: ALL, ManualClock()).text())
    assert {name: family.kind for name, family in families.items()} == NAMES
    for name, family in families.items():
        assert name.endswith("_total") == (family.kind == "counter")
        assert not re.search(r"_(ms|s|mb|kb|us)(_|$)", name), "base units"


def test_each_number_stands_under_its_name_in_its_base_unit() -> None:
    text = Metrics(
        lambda: {"rss_mb": 1.5, "loop_lag_ms_p99": 12.34, "sound_s": 7.25, "finals": 3}, ManualClock()
    ).text()
    assert value(text, "clser_memory_bytes") == 1_572_864
    assert value(text, "clser_loop_lag_p99_seconds") == pytest.approx(0.01234)
    assert value(text, "clser_sound_seconds_total") == 7.25
    assert value(text, "clser_finals_total") == 3


def test_what_was_refused_stands_under_one_name_by_where_it_was() -> None:
    text = Metrics(lambda: {"ingest_refused": 2, "control_refused": 3, "finals": 1}, ManualClock()).text()
    assert value(text, "clser_refused_total", door="ingest") == 2
    assert value(text, "clser_refused_total", door="control") == 3
    assert text.count("# TYPE clser_refused_total") == 1
    assert "metrics" not in text


def test_a_number_the_engine_does_not_have_is_not_said_to_be_zero() -> None:
    assert "clser_gaps_total" not in parse(Metrics(lambda: {"finals": 3}, ManualClock()).text())


def test_every_counter_of_a_running_engine_has_a_name() -> None:
    async def main() -> None:
        async with Rig() as rig:
            counted_by_step = {"overload_steps"}
            assert set(rig.pipeline.totals()) - counted_by_step <= {metric.key for metric in CATALOGUE}

    run(main())


# --- what is taken from messages --------------------------------------------------------------------------------------


def result(stage: Any, ago_ms: int, revision: int = 3, abstained: bool = False, **changes: Any) -> Result:
    """Of utterance 3 in `kitchen`, whose `end_sample` (48,000) was captured so long ago."""
    example = EXAMPLES["result"]
    assert isinstance(example, Result)
    emotion = msgspec.structs.replace(example.emotion, abstained=abstained)
    captured = START_US - ago_ms * 1000
    return msgspec.structs.replace(
        example, stage=stage, captured_unix_us=captured, revision=revision, emotion=emotion, **changes
    )


def spoke(event: Any, sample: int, reason: str = "") -> Speech:
    return Speech(stream="kitchen", utterance=3, event=event, sample=sample, at_s=sample / 16_000, reason=reason)


def after(*messages: Message) -> str:
    metrics = Metrics(lambda: ALL, ManualClock())
    for message in messages:
        metrics.take(message)
    return metrics.text()


def test_a_final_is_late_by_what_has_passed_since_the_last_speech_sample() -> None:
    text = after(spoke("started", 16_000), spoke("ended", 46_400), result("final", 150))
    assert value(text, "clser_final_delay_seconds", "_sum") == pytest.approx(0.25)
    assert value(text, "clser_final_delay_seconds", "_bucket", le="0.2") == 0
    assert value(text, "clser_final_delay_seconds", "_bucket", le="0.3") == 1
    assert value(text, "clser_first_emotion_seconds", "_count") == 0


def test_a_final_whose_speech_was_not_seen_counts_from_its_end() -> None:
    assert value(after(result("final", 150)), "clser_final_delay_seconds", "_sum") == pytest.approx(0.15)


def test_the_first_partial_counts_from_the_onset_and_later_ones_do_not() -> None:
    onset = spoke("started", 40_000)
    text = after(onset, *(result("partial", 20, revision) for revision in (1, 2)), result("tentative", 20, 3))
    assert value(text, "clser_first_emotion_seconds", "_count") == 1
    assert value(text, "clser_first_emotion_seconds", "_sum") == pytest.approx(0.52)
    assert value(text, "clser_final_delay_seconds", "_count") == 0


def test_what_the_engine_took_after_deciding_is_queue_inference_and_fusion() -> None:
    text = after(result("final", 0, timing_ms=Timing(capture=20.0, vad=3.5, queue=1.0, infer=4.0, fuse=2.0)))
    assert value(text, "clser_after_decision_seconds", "_sum") == pytest.approx(0.007)


def test_a_clock_that_is_ahead_takes_no_time_away() -> None:
    assert value(after(result("final", -60_000)), "clser_final_delay_seconds", "_sum") == 0


def test_finals_without_a_label_are_counted_and_partials_are_not() -> None:
    text = after(
        result("final", 0, abstained=True), result("partial", 0, abstained=True), result("final", 0, utterance=4)
    )
    assert value(text, "clser_abstained_total") == 1


def test_restarts_and_steps_of_overload_are_counted_from_the_engines_own_statuses() -> None:
    def status(event: str, step: float = 0, stream: str = "_engine") -> Status:
        return Status(unix_us=0, state="ready", event=event, stream=stream, counters={"overload_step": step})

    text = after(
        status("worker_lost"), status("worker_back"), status("worker_back", stream="kitchen"),
        status("overload", 1), status("overload", 2), status("relief", 1), status("overload", 2), status("overload", 99),
    )  # fmt: skip
    assert value(text, "clser_worker_restarts_total") == 1
    assert [value(text, "clser_overload_steps_total", step=str(step)) for step in (1, 2, 3)] == [1, 2, 0]


def test_nothing_that_was_said_or_by_whom_is_shown() -> None:
    text = after(spoke("started", 16_000), result("partial", 0, 1), result("final", 0, speaker="Ada"))
    for word in ("kitchen", "Ada", "anger", "cze"):
        assert word not in text


def test_utterances_that_never_end_do_not_fill_the_memory() -> None:
    metrics = Metrics(lambda: {}, ManualClock())
    for number in range(10_000):
        metrics.take(Speech(stream="a", utterance=number, event="started", sample=0, at_s=0.0))
        metrics.take(Speech(stream="b", utterance=number, event="started", sample=0, at_s=0.0))
        metrics.take(Speech(stream="b", utterance=number, event="ended", sample=0, at_s=0.0, reason="too_short"))
    assert 4000 < len(metrics._speaking) <= 4096


def test_the_histograms_of_an_engine_hold_its_finals() -> None:
    async def main() -> None:
        async with Rig() as rig:
            metrics = Metrics(rig.pipeline.totals, rig.clock)
            rig.engine._bus.tap(metrics.take, lambda: None, False)
            stream = rig.engine.open("a")
            for at_ms in range(0, 3000, 20):
                await stream.feed(sound([(True, 900), (False, 600)] * 2)[at_ms * 16 : at_ms * 16 + 320])
                await rig.clock.advance(0.02)
            await stream.close()
            text = metrics.text()
            assert value(text, "clser_finals_total") == len(rig.finals()) == 2
            assert value(text, "clser_final_delay_seconds", "_count") == 2
            assert 0.3 <= value(text, "clser_final_delay_seconds", "_sum") / 2 <= 0.4, "the silence that is waited for"
            assert 0.5 <= value(text, "clser_first_emotion_seconds", "_sum") / 2 <= 0.6
            assert metrics._speaking == {}

    run(main())
