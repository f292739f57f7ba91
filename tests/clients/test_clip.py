import itertools
import shutil
import sys

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from clser.clients.clips import Segment, demo_clip, demo_segments, make_demo

RATE_HZ = 16_000
LABEL_ERROR_S = 0.005


def db(wave: npt.NDArray[np.float64]) -> float:
    return float(10 * np.log10(np.mean(np.square(wave)) + 1e-12))


@pytest.fixture(scope="module")
def heard() -> npt.NDArray[np.float64]:
    wave: npt.NDArray[np.float64] = soundfile.read(demo_clip(), dtype="float64")[0]
    return wave


def between(wave: npt.NDArray[np.float64], start_s: float, end_s: float) -> npt.NDArray[np.float64]:
    return wave[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)]


def test_the_clip_is_what_the_labels_say(heard: npt.NDArray[np.float64]) -> None:
    about = soundfile.info(demo_clip())
    assert (about.samplerate, about.channels, about.format) == (RATE_HZ, 1, "OGG")
    assert 24 <= about.duration <= 30
    assert demo_clip().stat().st_size <= 250_000
    assert 20 * np.log10(np.abs(heard).max()) == pytest.approx(-3, abs=1)


def test_segments_are_in_order_apart_and_of_a_phrases_length() -> None:
    segments = demo_segments()
    assert [segment.played for segment in segments] == [phrase.played for phrase in make_demo.PHRASES]
    assert {segment.played for segment in segments} == set(make_demo.MANNERS)
    for segment in segments:
        assert 1.2 <= segment.end_s - segment.start_s <= 4.5
    for before, after in itertools.pairwise(segments):
        assert 0.65 <= after.start_s - before.end_s <= 1.45


def test_pauses_are_quieter_than_the_quietest_phrase(heard: npt.NDArray[np.float64]) -> None:
    segments = demo_segments()
    quietest = min(db(between(heard, segment.start_s, segment.end_s)) for segment in segments)
    edges = [0.0, *(edge for segment in segments for edge in (segment.start_s, segment.end_s)), len(heard) / RATE_HZ]
    for end_s, start_s in zip(edges[::2], edges[1::2], strict=True):
        pause = between(heard, end_s, start_s)
        assert db(pause) <= quietest - 25
        assert db(pause) >= make_demo.NOISE_DBFS - 6, "the floor is there: no digital silence"


@pytest.mark.parametrize("segment", demo_segments(), ids=lambda segment: f"{segment.played}-{segment.voice}")
def test_labels_hold_for_the_sound_that_was_coded(heard: npt.NDArray[np.float64], segment: Segment) -> None:
    around_s = 0.3
    start, end = make_demo.sounding(between(heard, segment.start_s - around_s, segment.end_s + around_s))
    assert start / RATE_HZ == pytest.approx(around_s, abs=LABEL_ERROR_S)
    assert end / RATE_HZ == pytest.approx(around_s + segment.end_s - segment.start_s, abs=LABEL_ERROR_S)


@pytest.mark.parametrize(("before", "after"), [(4000, 2400), (0, 0), (1, 7)])
def test_trimming_finds_hard_edges_exactly(before: int, after: int) -> None:
    wave = np.concatenate((np.zeros(before), np.full(8000, 0.5), np.zeros(after)))
    assert make_demo.sounding(wave) == (before, before + 8000)


def test_trimming_leaves_out_what_is_too_quiet_and_keeps_pauses_within() -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(4000) / RATE_HZ)
    faint = 0.005 * tone  # -46 dB
    wave = np.concatenate((faint, tone, np.zeros(3000), 0.1 * tone, faint))
    start, end = make_demo.sounding(wave)
    assert start == pytest.approx(4000, abs=LABEL_ERROR_S * RATE_HZ)
    assert end == pytest.approx(15_000, abs=LABEL_ERROR_S * RATE_HZ)
    assert make_demo.sounding(wave, below_peak_db=60)[0] < 100


@pytest.mark.parametrize("samples", [0, 1000])
def test_trimming_silence_says_so(samples: int) -> None:
    with pytest.raises(ValueError, match="no sound"):
        make_demo.sounding(np.zeros(samples))


def test_the_ogg_serial_is_ours_and_its_checksum_the_codecs() -> None:
    clip = demo_clip().read_bytes()
    assert make_demo.with_serial(clip, make_demo.SEED) == clip
    assert clip[14:18] == make_demo.SEED.to_bytes(4, "little")


def test_missing_espeak_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make_demo"])
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="apt install espeak-ng"):
        make_demo.main()
