"""What the bimodal system costs: with encoders of a few numbers, whether each part is run, and counted once."""
# ruff: noqa: E402 (packages are asked for first: without them this file is skipped)

from pathlib import Path
from typing import Any

import pytest

for package in ("torch", "transformers", "ctranslate2", "faster_whisper"):
    pytest.importorskip(package, reason="needs the whisper and train extras")

import checkpoints
import tiny_whisper

from clser.bench import bimodal
from clser.bench.bimodal import PARTS, Clock
from clser.bench.card import Setup

pytestmark = pytest.mark.torch


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The three encoders made small; what the recogniser was asked: samples, tokens it wrote."""
    monkeypatch.setattr(bimodal, "SECONDS", 2.0)
    monkeypatch.setattr(bimodal, "_whisper", tiny_whisper.make)
    for name, make in (("_wav2vec2", checkpoints.speech_encoder), ("_xlm_r", checkpoints.text_encoder)):
        monkeypatch.setattr(bimodal, name, lambda folder, make=make: Path(make(folder).removeprefix("hub:")))
    asked = []
    decode = bimodal.Recogniser.decode

    def counted(self: Any, pcm: Any, tokens: int) -> int:
        wrote = decode(self, pcm, tokens)
        assert wrote == tokens, "no more, no fewer"
        asked.append((len(pcm), wrote))
        return wrote

    monkeypatch.setattr(bimodal.Recogniser, "decode", counted)
    return asked


def test_every_part_is_run_and_counted(small: list[tuple[int, int]]) -> None:
    line: dict[str, Any] = bimodal.run(Setup(), threads=1, utterances=1)
    for precision in ("full", "half"):
        for way in ("once", "streaming"):
            each = line[precision][way]
            assert all(each[part] > 0 for part in PARTS)
            assert each["rtf"] == pytest.approx(sum(each[part] for part in PARTS))
            assert each["utterance_ms"].n == 1
    assert line["rtf"] == min(line[precision]["once"]["rtf"] for precision in ("full", "half"))
    assert line["met"] == (line["rtf"] <= bimodal.GOAL_RTF)
    once, streamed = [(32_000, 7)], [(8_000, 1), (16_000, 3), (24_000, 5), (32_000, 7)]
    assert small == 2 * [*once, *once, *once, *streamed], "each way warms up once, in each precision"
    told = bimodal.table(line)
    assert len(told) == 6
    assert told[-1].startswith("goal, decoded once: 0.35,")


def test_a_part_within_another_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter((0.0, 1.0, 3.0, 7.0))
    monkeypatch.setattr(bimodal.time, "perf_counter", lambda: next(ticks))
    clock = Clock()
    with clock.part("fusion"), clock.part("text_encoder"):
        pass
    assert dict(clock.spent) == {"fusion": 5.0, "text_encoder": 2.0}
