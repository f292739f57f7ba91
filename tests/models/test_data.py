"""Manifests, splits that hold speakers apart, disturbed takes."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from clser.models.data.augment import add_noise, cut_to_speech, disturb, speech_bounds
from clser.models.data.corpora import Clip, corpora_folder, decode, read_clips
from clser.models.data.splits import speaker_folds, split

SIZES = {"casia": 4, "emodb": 10, "emovo": 6, "nemo": 9, "ravdess": 24, "tess": 2}


def clips_of(sizes, each=3):
    return [
        Clip(
            Path(f"{corpus}{who}_{n}.ogg"),
            corpus,
            f"{corpus}_{who:02}",
            "female" if who % 2 else "male",
            "anger",
            False,
        )
        for corpus, speakers in sizes.items()
        for who in range(speakers)
        for n in range(each)
    ]


def test_no_speaker_stands_on_both_sides_and_each_is_tested_once():
    clips = clips_of(SIZES)
    fold_of = speaker_folds(clips)
    tested = []
    for fold in range(5):
        train, test = split(clips, fold, fold_of)
        assert not {clips[i].speaker for i in train} & {clips[i].speaker for i in test}
        assert sorted(train + test) == list(range(len(clips)))
        tested += test
    assert len(tested) == len(set(tested)) == sum(clip.corpus != "tess" for clip in clips)


def test_folds_are_alike_in_size_and_do_not_hang_on_the_order_of_clips():
    clips = clips_of(SIZES)
    fold_of = speaker_folds(clips)
    assert speaker_folds(clips[::-1]) == fold_of
    for corpus, speakers in SIZES.items():
        counts = [sum(f == fold and name.startswith(corpus) for name, f in fold_of.items()) for fold in range(5)]
        if corpus != "tess":
            assert sum(counts) == speakers
            assert max(counts) - min(counts) <= 1


def test_a_speaker_of_two_corpora_is_refused():
    clips = [
        Clip(Path("a"), "emodb", "x", "male", "anger", False),
        Clip(Path("b"), "emovo", "x", "male", "anger", False),
    ]
    with pytest.raises(ValueError, match="two corpora"):
        speaker_folds(clips)


def test_clips_are_read_and_decoded_once(tmp_path):
    folder = tmp_path / "emodb"
    folder.mkdir()
    wave = np.arange(-800, 800, dtype=np.int16)
    soundfile.write(folder / "a.wav", wave, 16_000)
    soundfile.write(folder / "b.wav", wave[:100], 16_000)
    head = "file,corpus,language,speaker,gender,emotion,note\n"
    rows = "a.wav,emodb,de,emodb_03,male,anger,\nb.wav,emodb,de,emodb_03,male,fear,truncated to 2.0 s\n"
    (folder / "manifest.csv").write_text(head + rows, encoding="utf-8")
    clips = read_clips(tmp_path, ["emodb"])
    assert [(clip.emotion, clip.truncated) for clip in clips] == [("anger", False), ("fear", True)]
    recordings = decode(clips, tmp_path / "cache")
    (folder / "a.wav").unlink()
    again = decode(clips, tmp_path / "cache")
    assert np.array_equal(again.clip(0), wave / np.float32(32768))
    assert [len(recordings.clip(i)) for i in range(len(recordings))] == [1600, 100]
    with pytest.raises(ValueError, match="remove that folder"):
        decode(clips[:1], tmp_path / "cache")


def test_another_rate_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(800, np.int16), 8_000)
    with pytest.raises(ValueError, match="8000 Hz"):
        decode([Clip(tmp_path / "a.wav", "emodb", "x", "male", "anger", False)], tmp_path / "cache")


def test_no_folder_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("CLSER_CORPORA", raising=False)
    with pytest.raises(ValueError, match="CLSER_CORPORA"):
        corpora_folder(None)
    monkeypatch.setenv("CLSER_CORPORA", str(tmp_path))
    assert corpora_folder(None) == tmp_path


def voice(seconds=1.0, silent=0.5):
    time = np.arange(round(seconds * 16_000)) / 16_000
    still = np.zeros(round(silent * 16_000))
    return np.concatenate((still, 0.3 * np.sin(2 * np.pi * 200 * time), still)).astype(np.float32)


def test_speech_is_found_and_cut_with_the_margin_asked_for():
    sound = voice()
    first, last = speech_bounds(sound)
    assert (first, last) == (8_000, 24_000)
    assert len(cut_to_speech(sound, 0.2, 0.1, np.random.default_rng(0))) == 16_000 + 3_200 + 1_600
    padded = cut_to_speech(voice(silent=0.0), 0.2, 0.1, np.random.default_rng(0))
    assert len(padded) == 16_000 + 3_200 + 1_600
    assert 0 < np.abs(padded[:3_200]).max() < 0.02


def test_noise_lies_as_far_under_the_sound_as_asked():
    random = np.random.default_rng(0)
    sound, noise = voice(silent=0.0), random.standard_normal(4_000).astype(np.float32)
    added = add_noise(sound, noise, 10.0, random) - sound
    assert 10 * np.log10(np.square(sound).mean() / np.square(added).mean()) == pytest.approx(10.0, abs=0.01)


def test_a_take_is_the_same_for_the_same_seed_and_stays_within_bounds():
    noise = [np.random.default_rng(1).standard_normal(4_000).astype(np.float32)]
    takes = [disturb(voice(), noise, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(takes[0], takes[1])
    assert len(takes[0]) != len(takes[2]) or not np.array_equal(takes[0], takes[2])
    assert max(np.abs(take).max() for take in takes) <= 1.0
    assert all(take.dtype == np.float32 for take in takes)
