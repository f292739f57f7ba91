"""What test recordings are made hard by: as hard as it says, the same every time, and nothing that training heard."""

import numpy as np
import pytest
import soundfile

from clser.models.data.hardships import decay_s, gsm, hardships, lived_in
from clser.models.data.rooms import made_up
from clser.models.data.takes import clean_take
from clser.models.data.unvoiced import recordings
from clser.models.plan import Takes

RATE_HZ = 16_000
TIME_S = np.arange(RATE_HZ) / RATE_HZ
VOICE = (0.3 * np.sin(2 * np.pi * 200 * TIME_S) * np.hanning(RATE_HZ)).astype(np.float32)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Each noise is a tone of its own, so that it is known again."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "noise").mkdir()
    (folder / "rir").mkdir()
    random = np.random.default_rng(0)
    for n in range(8):
        soundfile.write(folder / "noise" / f"{n}.wav", 0.2 * np.sin(2 * np.pi * (1_000 + 500 * n) * TIME_S), RATE_HZ)
        soundfile.write(folder / "rir" / f"{n}.wav", made_up(0.4, 6.0, random), RATE_HZ)
    for name in ("noise", "rir"):
        lines = "".join(f"{n}.wav,\n" for n in range(8))
        (folder / name / "manifest.csv").write_text("file,emotion\n" + lines, encoding="utf-8")
    return folder


def heard(take, seed=0):
    return take.change(VOICE, 0, np.random.default_rng(seed))


def clean():
    return clean_take().change(VOICE, 0, np.random.default_rng(0))


def test_noises_lie_10_db_under_the_speech_and_none_is_trained_with(corpora):
    take = hardships(corpora, Takes())["noise_10db"]
    held_out = {1_000 + 500 * int(clip.path.stem) for clip in recordings(corpora / "noise", 0.25, tested=True)}
    found = set()
    for seed in range(20):
        added = heard(take, seed) - clean()
        assert 10 * np.log10(np.square(clean()).mean() / np.square(added).mean()) == pytest.approx(10.0, abs=0.05)
        found.add(round(int(np.abs(np.fft.rfft(added)).argmax()) * RATE_HZ / len(added) / 500) * 500)
    assert found <= held_out
    assert len(found) > 1 or len(held_out) == 1


def test_each_is_the_same_for_the_same_seed_and_as_long_as_the_clean_one(corpora):
    for take in hardships(corpora, Takes()).values():
        assert np.array_equal(heard(take), heard(take))
        assert len(heard(take)) == len(clean())
        assert heard(take).dtype == np.float32
        assert np.abs(heard(take)).max() <= 1.0
        assert take.alone


def test_takes_are_told_apart_by_what_they_are_made_with(corpora, tmp_path):
    found = hardships(corpora, Takes())
    assert set(found) == {"noise_10db", "room", "codec"}
    digests = {take.digest for take in found.values()} | {clean_take().digest}
    assert len(digests) == 4
    other = hardships(corpora, Takes(held_out=0.6))
    assert other["noise_10db"].digest != found["noise_10db"].digest
    assert other["codec"].digest == found["codec"].digest
    assert set(hardships(tmp_path, Takes())) == {"room", "codec"}
    assert set(hardships(corpora, Takes(held_out=0.0))) == {"room", "codec"}


def test_a_room_is_heard_and_halls_are_left_out(corpora):
    assert not np.allclose(heard(hardships(corpora, Takes())["room"]), clean(), atol=0.01)
    random = np.random.default_rng(0)
    hall, room = made_up(1.4, -3.0, random), made_up(0.5, 0.0, random)
    assert decay_s(hall) > 1.2 > decay_s(room) > 0.3
    rooms = lived_in([hall, room])
    assert len(rooms) == 8
    assert rooms[0] is room
    assert all(decay_s(response) <= 1.2 for response in rooms)
    assert all(np.array_equal(a, b) for a, b in zip(lived_in([]), lived_in([]), strict=True))


@pytest.mark.parametrize("samples", [0, 1, 100, 4_001, 16_000])
def test_a_mobile_telephone_is_narrow_and_not_late(samples):
    random = np.random.default_rng(0)
    slow = np.convolve(random.standard_normal(samples + 39), np.hanning(40) / 5.0, "valid")
    sound = (0.2 * slow[:samples] + 0.02 * random.standard_normal(samples)).astype(np.float32)
    said = gsm(sound)
    assert len(said) == samples
    assert said.dtype == np.float32
    if samples > 4_000:
        both = np.fft.rfft(said, 2 * samples) * np.conj(np.fft.rfft(sound, 2 * samples))
        late = int(np.fft.irfft(both).argmax())
        assert min(late, 2 * samples - late) <= 2
        power = np.square(np.abs(np.fft.rfft(said)))
        assert power[round(0.53 * len(power)) :].sum() < 1e-3 * power.sum()  # above 4.2 kHz
