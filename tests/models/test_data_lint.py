"""The linter: each fault is found where it was planted, and in collections without it nothing is said."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clser.models.data.clips import Clip
from clser.models.data.codecs import mp3
from clser.models.data.copies import correlation, joined, repeated
from clser.models.data.corpora import read_speech
from clser.models.data.forms import look
from clser.models.data.guesses import guess
from clser.models.data.lint import Finding, lines, lint
from clser.models.data.splits import Fold, grouped_folds

CORPORA = os.environ.get("CLSER_CORPORA")
needs_corpora = pytest.mark.skipif(not CORPORA, reason="CLSER_CORPORA is not set: no corpora to lint")
EMOTIONS = ("anger", "fear", "happiness", "sadness")


def voice(random, seconds=0.4):
    """A noise whose loudness and colour wander: no two are alike, as with sentences."""
    size = round(seconds * 16_000)
    loudness = np.interp(np.arange(size), np.linspace(0, size, 12), random.uniform(0.05, 1.0, 12))
    white = random.standard_normal(size + 8)
    colour = np.convolve(white, random.standard_normal(9), "valid")
    return 0.3 * loudness * colour / np.abs(colour).max()


def write(path, sound, rate_hz=16_000, **kind):
    soundfile.write(path, sound, rate_hz, **kind)
    return path


def collection(folder, speakers=6, each=12, seconds=None, emotion=None):
    """Every speaker says each emotion equally often, in lengths that tell nothing."""
    random = np.random.default_rng(3)
    clips = []
    for who in range(speakers):
        for n in range(each):
            label = emotion(who, n) if emotion else EMOTIONS[n % 4]
            length = seconds(label, random) if seconds else random.uniform(0.2, 0.4)
            path = write(folder / f"{who}_{n}.wav", voice(random, length))
            clips.append(Clip(path, "made", f"s{who}", "", label, text=f"text {n // 4}"))
    return clips


def rules(findings, severity="error"):
    return {finding.rule for finding in findings if finding.severity == severity}


def fold_of(clips, test):
    sides = [test(clip) for clip in clips]
    chosen = tuple(n for n, side in enumerate(sides) if side)
    return Fold("0", tuple(n for n, side in enumerate(sides) if not side), (), chosen)


def test_a_clean_collection_has_no_findings(tmp_path):
    clips = collection(tmp_path)
    assert lint(clips, grouped_folds(clips, 3)[0]) == []
    assert lint(clips) == []


def test_a_speaker_on_both_sides(tmp_path):
    clips = collection(tmp_path, 4, 8)
    found = lint(clips, fold_of(clips, lambda clip: clip.path.stem in {"0_1", "1_1"}))
    assert rules(found) == {"speaker-across"}
    assert found[0].count == 2
    assert "2 speakers" in found[0].what
    nameless = [replace(clip, speaker="") for clip in clips]
    assert "speaker-unknown" in rules(lint(nameless, fold_of(nameless, lambda clip: clip.path.stem == "0_1")))


def copied(tmp_path, change, **kind):
    """A collection in which s5 says again what s0 said once, after `change`."""
    clips = collection(tmp_path, 6, 8)
    sound, _ = soundfile.read(clips[0].path)
    path = write(tmp_path / "copy.wav", change(sound), **kind)
    return [*clips, Clip(path, "made", "s5", "", clips[0].emotion)]


@pytest.mark.parametrize(
    "change",
    [
        lambda sound: sound,
        lambda sound: np.concatenate((np.zeros(3_000), 0.3 * sound, np.zeros(5_000))),
        lambda sound: 0.5 * mp3(sound.astype(np.float32), 48),
        lambda sound: sound + 1e-3 * np.random.default_rng(0).standard_normal(len(sound)),
    ],
    ids=["as it is", "softer, silence about it", "through MP3", "with hiss"],
)
def test_a_recording_on_both_sides_makes_one_speaker_of_two_names(tmp_path, change):
    clips = copied(tmp_path, change)
    found = lint(clips, fold_of(clips, lambda clip: clip.speaker == "s5"))
    assert rules(found) == {"copies-across", "speaker-across"}
    assert any("made/s0, made/s5 share recordings" in finding.what for finding in found)
    assert rules(found, "warning") >= {"copies"}
    same_side = fold_of(clips, lambda clip: clip.speaker in {"s0", "s5"})
    assert rules(lint(clips, same_side)) == set()


def test_names_that_share_a_recording_are_one_person_even_if_that_one_is_not_parted(tmp_path):
    clips = copied(tmp_path, lambda sound: sound)
    last = len(clips) - 1
    train = tuple(n for n, clip in enumerate(clips) if clip.speaker != "s5" or n == last)
    test = tuple(n for n, clip in enumerate(clips) if clip.speaker == "s5" and n != last)
    two = [*clips[:last], replace(clips[last], speaker="s6")]
    assert rules(lint(two, Fold("0", train, (), test))) == set()
    assert rules(lint(clips, Fold("0", train, (), test))) == {"speaker-across"}
    third = [*two, replace(two[-1], path=write(tmp_path / "more.wav", soundfile.read(clips[-2].path)[0]), speaker="s6")]
    found = lint(third, Fold("0", (*train, last + 1), (), test[:-1]))
    assert any("made/s0, made/s5, made/s6 share" in finding.what for finding in found)


def test_one_recording_under_two_labels(tmp_path):
    clips = copied(tmp_path, lambda sound: sound)
    clips[-1] = replace(clips[-1], emotion="fear")
    (found,) = lint(clips)
    assert (found.rule, found.severity, found.count) == ("copies-differ", "error", 2)
    assert "anger and fear 1" in found.what


def test_parts_of_a_file_that_overlap_are_copies(tmp_path):
    path = write(tmp_path / "long.wav", voice(np.random.default_rng(0), 3.0))
    parts = [(0.0, 1.0), (1.0, 2.0), (1.5, 2.5)]
    clips = [Clip(path, "x", "s", "", "anger", start_s=begin, end_s=end) for begin, end in parts]
    assert repeated(clips, look(clips, lambda _: None)) == [[1, 2]]


def test_silence_is_an_error_and_no_copy_of_other_silence(tmp_path):
    clips = collection(tmp_path, 2, 4)
    for n in range(2):
        clips.append(Clip(write(tmp_path / f"mute{n}.wav", np.zeros(4_000)), "made", "s0", "", "fear"))
    (found,) = lint(clips)
    assert (found.rule, found.count) == ("silent", 2)


def test_speakers_with_an_emotion_each_tell_the_label(tmp_path):
    clips = collection(tmp_path, 16, 4, emotion=lambda who, n: EMOTIONS[who % 4 if who < 14 else n % 4])
    assert rules(lint(clips)) == {"label-from-speaker"}


def test_a_length_that_only_some_classes_are_cut_to(tmp_path):
    def seconds(label, random):
        whole = random.uniform(0.25, 0.6)
        return min(whole, 0.3) if label in {"fear", "sadness"} else whole

    found = lint(collection(tmp_path, seconds=seconds))
    assert "label-from-truncation" in rules(found)
    assert "truncated to 0.300 s" in next(f.what for f in found if f.rule == "label-from-truncation")


def test_a_length_that_all_are_cut_to_tells_nothing(tmp_path):
    assert lint(collection(tmp_path, seconds=lambda label, random: min(random.uniform(0.2, 0.5), 0.3))) == []


def test_classes_of_unlike_length(tmp_path):
    found = lint(
        collection(tmp_path, seconds=lambda label, random: 0.2 + 0.1 * EMOTIONS.index(label) + random.uniform(0, 0.05))
    )
    assert rules(found) == {"label-from-duration"}
    assert "medians: anger 0.2" in found[0].what


@pytest.mark.parametrize("kind", ["flac", "rate", "channels", "source", "zeros"])
def test_files_of_another_kind_for_some_classes(tmp_path, kind):
    clips = collection(tmp_path)
    for n, clip in enumerate(clips):
        if clip.emotion in {"anger", "fear"}:
            sound, _ = soundfile.read(clip.path)
            if kind == "flac":
                clips[n] = replace(clip, path=write(clip.path.with_suffix(".flac"), sound))
            elif kind == "source":
                clips[n] = replace(clip, source_rate_hz=22_050)
            else:
                zeros, rate_hz = (400 if kind == "zeros" else 0), (22_050 if kind == "rate" else 16_000)
                mono = np.concatenate((np.zeros(zeros), sound))
                write(clip.path, np.stack((mono, mono), 1) if kind == "channels" else mono, rate_hz)
    found = [finding for finding in lint(clips) if finding.rule == "label-from-file"]
    assert found
    assert all(finding.severity == "error" for finding in found)
    assert any("anger 18, fear 18" in finding.what for finding in found)


def test_a_sentence_an_emotion_is_a_warning(tmp_path):
    clips = [replace(clip, text=f"text of {clip.emotion}") for clip in collection(tmp_path)]
    found = lint(clips)
    assert (rules(found), rules(found, "warning")) == (set(), {"label-from-sentence"})


def test_a_class_that_is_tested_only(tmp_path):
    clips = collection(tmp_path, 4, 8, emotion=lambda who, n: "calm" if who == 0 and n == 0 else EMOTIONS[n % 4])
    assert rules(lint(clips, fold_of(clips, lambda clip: clip.speaker == "s0")), "warning") == {"class-untrained"}


def test_findings_are_told_in_lines():
    told = lines([Finding("copies", "warning", "2 recordings are there more than once", 4, ("a", "b"), "keep one")])
    assert told == [
        "warning: copies: 2 recordings are there more than once",
        "    such as a, b and 2 more",
        "    keep one",
    ]


def test_guessing_from_what_tells_nothing_is_no_skill():
    random = np.random.default_rng(0)
    labels = [EMOTIONS[n % 4] for n in range(400)]
    assert abs(guess(random.integers(0, 5, 400).tolist(), labels).skill) < 0.15
    assert guess(labels, labels).skill == 1.0
    assert guess(labels, labels).p == 0.01
    assert guess(["one"] * 400, labels) is None
    assert guess(list(range(400)), labels).skill == pytest.approx(0.0)
    assert guess(labels[:8], labels[:8]) is None
    two = guess([label in {"anger", "fear"} for label in labels], labels)
    assert (two.best, two.skill) == (0.5, 1.0)


def test_what_hangs_together_is_joined():
    groups = joined([(1, 2), (3, 4), (2, 5), (7, 7)])
    assert sorted(map(sorted, groups)) == [[1, 2, 5], [3, 4]]
    assert correlation(np.zeros(4), np.ones(4)) == 0.0


@needs_corpora
@pytest.mark.slow
def test_truncated_clips_are_found_and_the_whole_classes_are_clean():
    clips = read_speech(Path(CORPORA), ["emodb"], check=False)
    found = lint(clips)
    assert "label-from-truncation" in rules(found)
    assert "2.000 s" in next(f.what for f in found if f.rule == "label-from-truncation")
    whole = [clip for clip in clips if clip.emotion in {"anger", "happiness", "neutral", "sadness"}]
    assert rules(lint(whole, grouped_folds(whole)[0])) == set()


@needs_corpora
@pytest.mark.slow
def test_an_acted_corpus_with_folds_of_speakers_is_clean():
    clips = read_speech(Path(CORPORA), ["emovo"], check=False)
    assert lint(clips, grouped_folds(clips)[0]) == []
