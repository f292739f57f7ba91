"""The corpora folder; cutting to speech, and noise."""

import numpy as np
import pytest

from clser.models.data.augment import add_noise, cut_to_speech, speech_bounds
from clser.models.data.corpora import corpora_folder, read_clips
from clser.models.errors import GivenError, MissingError


def test_clips_are_read_with_what_their_notes_say(tmp_path):
    folder = tmp_path / "emodb"
    folder.mkdir()
    head = "file,corpus,language,speaker,gender,emotion,note\n"
    rows = "a.wav,emodb,de,emodb_03,male,anger,\nb.wav,emodb,de,emodb_03,male,fear,truncated to 2.0 s\n"
    (folder / "manifest.csv").write_text(head + rows, encoding="utf-8")
    clips = read_clips(tmp_path, ["emodb"])
    assert [(clip.emotion, clip.truncated) for clip in clips] == [("anger", False), ("fear", True)]
    assert [clip.path for clip in clips] == [folder / "a.wav", folder / "b.wav"]
    with pytest.raises(MissingError, match="no corpus emovo"):
        read_clips(tmp_path, ["emovo"])


def test_no_folder_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("CLSER_CORPORA", raising=False)
    with pytest.raises(GivenError, match="CLSER_CORPORA"):
        corpora_folder(None)
    monkeypatch.setenv("CLSER_CORPORA", str(tmp_path))
    assert corpora_folder(None) == tmp_path
    with pytest.raises(MissingError, match="is no folder"):
        corpora_folder(str(tmp_path / "nowhere"))


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
