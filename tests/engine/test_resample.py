import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clser.engine.errors import GivenError
from clser.engine.records import Samples
from clser.engine.resample import Resampler, check_layout, from_bytes

RATES_HZ = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]


def noise(count: int, seed: int = 1) -> Samples:
    return np.random.default_rng(seed).integers(-20_000, 20_000, count).astype(np.int16)


def sine(rate_hz: int, tone_hz: float, seconds: float) -> Samples:
    return np.rint(12_000 * np.sin(2 * np.pi * tone_hz * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(
        np.int16
    )


def resampled(data: np.ndarray, rate_hz: int, channels: int = 1, sizes: list[int] | None = None) -> Samples:
    resampler, out, at, turn = Resampler(rate_hz, channels), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)] if sizes else len(data)
        out.append(resampler.push(data[at : at + size]))
        at, turn = at + size, turn + 1
    return np.concatenate([*out, resampler.finish()])


@settings(max_examples=60)
@given(st.sampled_from(RATES_HZ), st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.integers(100, 20_000))
def test_any_packets_give_the_samples_of_the_whole(rate_hz: int, sizes: list[int], count: int) -> None:
    sizes = [max(size, count // 200) for size in sizes]
    whole = resampled(noise(count), rate_hz)
    split = resampled(noise(count), rate_hz, sizes=sizes)
    assert len(split) == len(whole) == round(count * 16_000 / rate_hz)
    assert np.abs(split.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("count", [1, 7, 160, 12_345])
def test_as_many_samples_come_out_as_the_rates_say(rate_hz: int, count: int) -> None:
    assert len(resampled(noise(count), rate_hz)) == round(count * 16_000 / rate_hz)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("tone_hz", [100.0, 1234.5, 3000.0])
def test_a_tone_keeps_its_pitch_phase_and_loudness(rate_hz: int, tone_hz: float) -> None:
    heard = resampled(sine(rate_hz, tone_hz, 1.0), rate_hz, sizes=[320])
    middle = slice(1000, -1000)
    assert np.abs(heard[middle].astype(int) - sine(16_000, tone_hz, 1.0)[middle]).max() <= 24  # 0.2 % of its height


def test_what_16_khz_cannot_carry_is_taken_away_and_not_folded_back() -> None:
    heard = resampled(sine(48_000, 12_000, 0.5), 48_000)
    assert np.abs(heard[1000:-1000].astype(int)).max() <= 12


def test_16_khz_mono_passes_untouched() -> None:
    given_ = noise(1000)
    assert (Resampler(16_000, 1).push(given_) == given_).all()


def test_channels_are_averaged() -> None:
    left, right = noise(1000, 1), noise(1000, 2)
    heard = resampled(np.stack((left, right), axis=1), 16_000, 2)
    assert np.abs(heard - (left.astype(float) + right) / 2).max() <= 1
    assert resampled(np.stack((left, -left), axis=1), 16_000, 2).tolist() == [0] * 1000


def test_f32_and_s16_say_the_same() -> None:
    pcm = noise(4000)
    for rate_hz in (16_000, 44_100):
        floats = resampled((pcm / 32768).astype(np.float32), rate_hz)
        assert np.abs(floats.astype(int) - resampled(pcm, rate_hz)).max() <= 1


def test_f32_beyond_full_scale_is_clipped() -> None:
    assert Resampler(16_000, 1).push(np.array([2.0, -2.0, 1.0, 0.5], np.float32)).tolist() == [
        32767,
        -32768,
        32767,
        16384,
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_sound_that_is_no_number_is_refused(bad: float) -> None:
    packet = np.zeros((100, 2), np.float32)
    packet[50, 1] = bad
    with pytest.raises(GivenError, match="NaN or infinite"):
        Resampler(16_000, 2).push(packet)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_wild_sample_is_clipped_and_soon_over(rate_hz: int) -> None:
    pcm = np.zeros((rate_hz, 2), np.float32)
    pcm[100] = 3e38
    heard = resampled(pcm, rate_hz, 2)
    assert heard.max() == 32767
    assert np.abs(heard[4000:].astype(int)).max() <= 1


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.bool_, np.complex64])
def test_samples_of_another_type_are_refused(kind: type) -> None:
    with pytest.raises(GivenError, match="give int16, or float32"):
        Resampler(16_000, 1).push(np.zeros(100, kind))


def test_an_array_of_three_dimensions_is_refused() -> None:
    with pytest.raises(GivenError, match="keep to one layout"):
        Resampler(16_000, 1).push(np.zeros((10, 1, 2), np.int16))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=30))
def test_what_is_skipped_keeps_both_counts_together(rate_hz: int, stretches: list[tuple[int, int]]) -> None:
    resampler = Resampler(rate_hz, 1)
    taken = given_ = 0
    for count, missing in stretches:
        given_ += len(resampler.push(noise(count))) + len(resampler.finish()) + resampler.skip(missing)
        taken += count + missing
        assert resampler.taken == taken
        assert given_ == round(taken * 16_000 / rate_hz)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_what_is_held_back_is_known(rate_hz: int) -> None:
    resampler, out = Resampler(rate_hz, 1), 0
    for _ in range(50):
        out += len(resampler.push(noise(rate_hz // 50)))
    held_s = 50 * (rate_hz // 50) / rate_hz - out / 16_000
    assert resampler.held_us == pytest.approx(1e6 * held_s, abs=1)
    assert 0 <= resampler.held_us <= 120_000
    resampler.finish()
    assert abs(resampler.held_us) <= 32


def test_after_finish_it_is_as_new() -> None:
    resampler, pcm = Resampler(44_100, 1), noise(5000)
    first = np.concatenate((resampler.push(pcm), resampler.finish()))
    second = np.concatenate((resampler.push(pcm), resampler.finish()))
    assert first.tolist() == second.tolist()
    assert len(resampler.finish()) == 0


def test_a_packet_with_other_channels_is_refused() -> None:
    with pytest.raises(GivenError, match="1 channels in a stream of 2"):
        Resampler(16_000, 2).push(noise(100))


@pytest.mark.parametrize(
    ("layout", "what"),
    [
        ((7_999, 1, "s16"), "7999 Hz"),
        ((48_001, 1, "s16"), "48001 Hz"),
        ((16_000, 0, "s16"), "0 channels"),
        ((16_000, 9, "s16"), "9 channels"),
        ((16_000, 1, "u8"), "'u8'"),
    ],
)
def test_layouts_the_engine_does_not_take_are_refused_by_name(layout: tuple[int, int, str], what: str) -> None:
    with pytest.raises(GivenError, match=what):
        check_layout(*layout)


@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("sample_format", ["s16", "f32"])
def test_the_edges_of_what_is_taken_are_taken(rate_hz: int, channels: int, sample_format: str) -> None:
    check_layout(rate_hz, channels, sample_format)


def test_bytes_are_read_as_interleaved_little_endian() -> None:
    assert from_bytes(b"\x01\x00\x02\x00\xff\xff\x00\x80", 2, "s16").tolist() == [[1, 2], [-1, -32768]]
    assert from_bytes(b"\x00\x00\x00\x3f", 1, "f32").tolist() == [[0.5]]
    assert from_bytes(bytearray(4), 1, "s16").shape == (2, 1)


@pytest.mark.parametrize(("count", "channels", "sample_format"), [(3, 1, "s16"), (6, 2, "s16"), (6, 1, "f32")])
def test_bytes_that_are_no_whole_samples_are_refused(count: int, channels: int, sample_format: str) -> None:
    with pytest.raises(GivenError, match=f"{count} bytes are not whole samples"):
        from_bytes(bytes(count), channels, sample_format)  # type: ignore[arg-type]
