"""Sounds without a voice: the same by the same name, never the same twice, and tests hear nothing that training heard."""

import numpy as np
import pytest
import soundfile

from clser.models.data import music, noises, unvoiced
from clser.models.data.clips import read_sound
from clser.models.labels import NONE

RATE_HZ = 16_000
SOME = {"noise": 3, "babble": 2, "music": 2, "hush": 1, "machines": 2, "weather": 1, "phones": 1}


def recorded(folder, name, many, seconds=0.6):
    (folder / name).mkdir(parents=True)
    random = np.random.default_rng(many)
    for n in range(many):
        sound = 0.1 * random.standard_normal(round(seconds * RATE_HZ)) * np.hanning(round(seconds * RATE_HZ))
        soundfile.write(folder / name / f"{n}.wav", sound, RATE_HZ)
    lines = "".join(f"{n}.wav,\n" for n in range(many))
    (folder / name / "manifest.csv").write_text("file,emotion\n" + lines, encoding="utf-8")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    for name, many in (("noise", 6), ("tess", 7), ("asr_samples", 4)):
        recorded(folder, name, many)
    return folder


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(unvoiced, "COUNTS", SOME)
    monkeypatch.setattr(unvoiced, "LENGTH_S", (0.3, 0.6))


def test_the_clips_are_there_and_say_what_they_are(corpora, tmp_path, few):
    clips = unvoiced.unvoiced(corpora, tmp_path, 0.3)
    assert [clip.note for clip in clips] == [kind for kind, many in SOME.items() for _ in range(many)]
    assert {(clip.corpus, clip.speaker, clip.emotion) for clip in clips} == {("unvoiced", "", NONE)}
    for clip in clips:
        sound = read_sound(clip)
        assert len(sound) == round(clip.duration_s * RATE_HZ)
        assert 0.3 <= clip.duration_s <= 0.6
        level_dbfs = 10 * np.log10(np.square(sound).mean() + 1e-12)
        assert level_dbfs < -9.5
        assert level_dbfs > -60 or clip.note == "hush"


def test_the_same_names_give_the_same_sounds_and_nothing_is_made_twice(corpora, tmp_path, few, monkeypatch):
    one, other = (unvoiced.unvoiced(corpora, tmp_path / name, 0.3) for name in "ab")
    assert [clip.path.read_bytes() for clip in one] == [clip.path.read_bytes() for clip in other]
    monkeypatch.setattr(unvoiced, "made", None)  # to call it would fail
    assert unvoiced.unvoiced(corpora, tmp_path / "a", 0.3) == one


def test_tests_hear_other_sounds_of_other_recordings(corpora, tmp_path, few):
    trained, tested = (unvoiced.unvoiced(corpora, tmp_path, 0.3, tested=which) for which in (False, True))
    assert not {clip.path for clip in trained} & {clip.path for clip in tested}
    assert not {clip.path.read_bytes() for clip in trained} & {clip.path.read_bytes() for clip in tested}
    for name in ("noise", "tess"):
        sides = [
            {clip.path for clip in unvoiced.recordings(corpora / name, 0.3, tested=which)} for which in (False, True)
        ]
        assert not sides[0] & sides[1]
        assert sides[0] and sides[1]
    assert not set(music.TRAINED) & set(music.TESTED)


def test_what_is_never_held_out_is_never_tested_with(corpora):
    assert len(unvoiced.recordings(corpora / "noise", 0.0, tested=False)) == 6
    assert unvoiced.recordings(corpora / "noise", 0.0, tested=True) == []


def test_a_making_that_was_killed_is_begun_again(corpora, tmp_path, few, monkeypatch):
    def killed(kind, *rest):
        if kind == "music":
            raise KeyboardInterrupt
        return np.zeros(800, np.float32)

    with monkeypatch.context() as patched:
        patched.setattr(unvoiced, "made", killed)
        with pytest.raises(KeyboardInterrupt):
            unvoiced.unvoiced(corpora, tmp_path, 0.3)
    assert [path.suffix for path in (tmp_path / "unvoiced").iterdir() if path.is_dir()] == [".making"]
    clips = unvoiced.unvoiced(corpora, tmp_path, 0.3)
    assert all(len(read_sound(clip)) > 4_000 for clip in clips)
    assert len([path for path in (tmp_path / "unvoiced").iterdir() if path.is_dir()]) == 1


def test_another_recording_is_another_folder_and_without_any_there_are_fewer_kinds(corpora, tmp_path, few):
    with_all = unvoiced.unvoiced(corpora, tmp_path / "cache", 0.3)
    recorded(tmp_path, "noise", 5)
    without_voices = unvoiced.unvoiced(tmp_path, tmp_path / "cache", 0.3)
    assert with_all[0].path.parent != without_voices[0].path.parent
    assert {clip.note for clip in without_voices} == set(SOME) - {"babble"}
    bare = unvoiced.unvoiced(tmp_path / "nothing", tmp_path / "cache", 0.3)
    assert {clip.note for clip in bare} == set(SOME) - {"babble", "noise"}


@pytest.mark.parametrize("kind", [*SOME])
@pytest.mark.parametrize("tested", [False, True])
def test_no_two_of_a_kind_are_alike(corpora, kind, tested):
    made_of = unvoiced.sources(corpora, 0.3, tested=tested)
    sounds = [unvoiced.made(kind, f"{kind} {n}", 12_001, made_of) for n in range(5)]
    for n, sound in enumerate(sounds):
        assert sound.dtype == np.float32
        assert len(sound) == 12_001
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() <= 0.951
        for other in sounds[:n]:
            alike = np.abs(np.fft.irfft(np.fft.rfft(sound) * np.conj(np.fft.rfft(other)), 12_001)).max()
            assert alike < 0.98 * np.linalg.norm(sound) * np.linalg.norm(other) + 1e-6 or kind in {"phones", "machines"}


def test_many_talk_at_once_and_none_stands_out(corpora, monkeypatch):
    levels = []

    def watched(sound, dbfs):
        levels.append(dbfs)
        return noises.at_level(sound, dbfs)

    monkeypatch.setattr(unvoiced, "at_level", watched)
    made_of = unvoiced.sources(corpora, 0.3)
    unvoiced._babble(RATE_HZ, made_of, np.random.default_rng(0))
    voices = [level for level in levels if level != -25.0]
    assert 5 <= len(voices) <= 9
    assert max(voices) - min(voices) <= 3.0


@pytest.mark.parametrize("name", [*music.TRAINED, *music.TESTED])
def test_a_note_has_the_pitch_asked_for(name):
    random = np.random.default_rng(3)
    player = music.hired({**music.TRAINED, **music.TESTED}[name], random)
    player = player._replace(timbre=player.timbre._replace(vibrato_cents=0.0, breath=0.0, stretch=0.0))
    heard = music.note(player, 220.0, RATE_HZ, random)
    power = np.square(np.abs(np.fft.rfft(heard * np.hanning(RATE_HZ))))  # 1 Hz a bin
    near = sum(power[220 * k - 4 : 220 * k + 5].sum() for k in range(1, 30))
    assert near > 0.95 * power.sum()
    assert power[216:225].sum() > 100 * power[100:200].sum()


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_falls_by_its_slope(slope):
    power = np.square(np.abs(np.fft.rfft(noises.coloured(4 * RATE_HZ, slope, np.random.default_rng(0)))))
    octaves_db = 10 * np.log10(power[4 * 400 : 4 * 800].mean() / power[4 * 3_200 : 4 * 6_400].mean())
    assert octaves_db == pytest.approx(3 * slope * 3.01, abs=0.8)


def test_a_level_is_kept_to_unless_peaks_would_be_cut():
    sound = np.sin(np.arange(RATE_HZ) / 7.0)
    assert 10 * np.log10(np.square(noises.at_level(sound, -30.0)).mean()) == pytest.approx(-30.0, abs=0.01)
    assert np.abs(noises.at_level(sound, 3.0)).max() == pytest.approx(0.95)
    assert not noises.at_level(np.zeros(5), -10.0).any()
