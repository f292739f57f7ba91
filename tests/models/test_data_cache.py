"""Features once computed are not computed again, unless what they were made of has changed."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clser.models.data.cache import CLEAN, FeatureCache, Take
from clser.models.data.clips import Clip, read_sound
from clser.models.errors import FailedError, GivenError, MissingError


def made(folder, count=6):
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    clips = []
    for n in range(count):
        path = folder / f"{n}.wav"
        soundfile.write(path, 0.1 * random.standard_normal(1_000 + 320 * n), 16_000, subtype="PCM_16")
        clips.append(Clip(path, "x", f"s{n % 2}", "", "anger"))
    return clips


class Front:
    """Two features a frame of 100 samples; counts what it is asked for."""

    def __init__(self, fails_at=None):
        self.calls, self.fails_at = 0, fails_at

    def __call__(self, sound):
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        self.calls += 1
        frames = sound[: len(sound) // 100 * 100].reshape(-1, 100)
        return np.stack((frames.mean(1), frames.max(1)), 1)


def test_a_set_is_computed_once_and_then_mapped(tmp_path):
    clips, front = made(tmp_path / "sound"), Front()
    cache = FeatureCache(tmp_path / "cache", "float32")
    first = cache.features(clips, "means-1", front)
    again = FeatureCache(tmp_path / "cache", "float32").features(clips, "means-1", front)
    assert front.calls == len(clips) == len(first)
    assert isinstance(again.features, np.memmap)
    assert again.width == 2
    for n, clip in enumerate(clips):
        assert np.array_equal(again.clip(n), Front()(read_sound(clip)))


def test_half_precision_is_kept_where_asked(tmp_path):
    clips = made(tmp_path / "sound", 2)
    half = FeatureCache(tmp_path / "cache").features(clips, "means-1", Front())
    assert half.features.dtype == np.float16
    assert np.allclose(half.clip(1), Front()(read_sound(clips[1])), atol=1e-3)


def test_another_front_take_or_order_is_another_set(tmp_path):
    clips, front = made(tmp_path / "sound"), Front()
    cache = FeatureCache(tmp_path / "cache", "float32")

    def louder(sound, index, random):
        return sound * np.float32(random.uniform(1.0, 2.0))

    plain = cache.features(clips, "means-1", front)
    one = cache.features(clips, "means-1", front, Take(1, "louder", louder))
    two = cache.features(clips, "means-1", front, Take(2, "louder", louder))
    other = cache.features(clips, "means-1", front, Take(1, "louder, differently", louder))
    cache.features(clips, "means-2", front)
    assert front.calls == 5 * len(clips)
    assert np.array_equal(one.features, other.features)  # the same change under another name
    assert not np.array_equal(one.features, two.features)
    turned = cache.features(clips[::-1], "means-1", front, Take(1, "louder", louder))
    assert np.array_equal(turned.clip(0), one.clip(len(clips) - 1))
    assert front.calls == 5 * len(clips)  # copied, not computed
    assert np.array_equal(cache.features(clips[2:3], "means-1", front).clip(0), plain.clip(2))


def test_a_changed_recording_is_noticed_and_the_others_are_copied(tmp_path):
    clips, front = made(tmp_path / "sound"), Front()
    cache = FeatureCache(tmp_path / "cache", "float32")
    before = cache.features(clips, "means-1", front)
    about = clips[2].path.stat()
    samples, _ = soundfile.read(clips[2].path)
    soundfile.write(clips[2].path, samples[::-1], 16_000, subtype="PCM_16")
    assert clips[2].path.stat().st_size == about.st_size
    os.utime(clips[2].path, ns=(about.st_atime_ns, about.st_mtime_ns))  # neither size nor time tells
    after = FeatureCache(tmp_path / "cache", "float32").features(clips, "means-1", front)
    assert front.calls == len(clips) + 1
    assert not np.array_equal(after.clip(2), before.clip(2))
    assert np.array_equal(after.clip(3), before.clip(3))


def test_parts_of_one_file_are_kept_apart(tmp_path):
    (clip,) = made(tmp_path / "sound", 1)
    parts = [replace(clip, end_s=0.02), replace(clip, start_s=0.02)]
    features = FeatureCache(tmp_path / "cache", "float32").features(parts, "means-1", Front())
    assert [len(features.clip(n)) for n in range(2)] == [3, 6]


def test_a_take_that_looks_at_other_clips_is_not_copied_from_another_set(tmp_path):
    clips, front = made(tmp_path / "sound"), Front()
    cache = FeatureCache(tmp_path / "cache", "float32")
    take = Take(1, "with the next", lambda sound, index, random: sound, alone=False)
    cache.features(clips, "means-1", front, take)
    cache.features(clips[:3], "means-1", front, take)
    assert front.calls == len(clips) + 3


def test_a_build_that_was_stopped_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("clser.models.data.cache.SAVE_EVERY_S", 0.0)
    clips = made(tmp_path / "sound")
    cache = FeatureCache(tmp_path / "cache", "float32")
    with pytest.raises(KeyboardInterrupt):
        cache.features(clips, "means-1", Front(fails_at=4))
    (building,) = (tmp_path / "cache").rglob("*.building")
    with (building / "features.bin").open("ab") as data:
        data.write(b"torn")
    with (building / "journal").open("a") as journal:
        journal.write("1")
    rest = Front()
    features = cache.features(clips, "means-1", rest)
    assert rest.calls == len(clips) - 4
    assert not list((tmp_path / "cache").rglob("*.building"))
    assert np.array_equal(
        features.features, FeatureCache(tmp_path / "new", "float32").features(clips, "m", Front()).features
    )


def test_a_disk_that_lost_what_it_had_saved_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("clser.models.data.cache.SAVE_EVERY_S", 0.0)
    clips = made(tmp_path / "sound")
    cache = FeatureCache(tmp_path / "cache", "float32")
    with pytest.raises(KeyboardInterrupt):
        cache.features(clips, "means-1", Front(fails_at=4))
    (data,) = (tmp_path / "cache").rglob("features.bin")
    os.truncate(data, 8)
    rest = Front()
    cache.features(clips, "means-1", rest)
    assert rest.calls == len(clips)


PROGRAM = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from clser.models.data import cache as c
from clser.models.data.clips import Clip
c.SAVE_EVERY_S = 0.0
folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
clips = [Clip(path, "x", "s", "", "anger") for path in sorted((folder / "sound").iterdir())]
calls = 0
def compute(sound):
    global calls
    if calls == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    calls += 1
    return sound[:900].reshape(-1, 100)
features = c.FeatureCache(folder / "cache", "float32").features(clips, "raw-1", compute, report=lambda line: None)
print(json.dumps([calls, float(features.features.astype(float).sum())]))
"""


def run(folder, kill_at):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(kill_at)], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_program_is_taken_up_and_two_at_once_compute_once(tmp_path):
    clips = made(tmp_path / "sound", 40)
    killed = run(tmp_path, 7)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    pair = [run(tmp_path, -1) for _ in range(2)]
    answers = [json.loads(program.communicate()[0]) for program in pair]
    assert sum(calls for calls, _ in answers) == len(clips) - 7
    assert answers[0][1] == answers[1][1]


def test_decoded_sounds_are_kept_exactly(tmp_path):
    clips = made(tmp_path / "sound", 2)
    sounds = FeatureCache(tmp_path / "cache").sounds(clips)
    assert np.array_equal(sounds.clip(1)[:, 0] / np.float32(32768), read_sound(clips[1]))


def test_progress_is_told_in_tenths(tmp_path):
    told = []
    FeatureCache(tmp_path / "cache").features(made(tmp_path / "sound", 20), "means-1", Front(), report=told.append)
    assert len(told) == 10
    assert told[-1].endswith("20 of 20 clips")


def test_what_cannot_be_kept_says_why(tmp_path):
    clips = made(tmp_path / "sound", 2)
    cache = FeatureCache(tmp_path / "cache")
    with pytest.raises(GivenError, match="keep float32"):
        cache.features(clips, "big", lambda sound: np.full((1, 1), 1e6, np.float32))
    with pytest.raises(FailedError, match="not all finite"):
        cache.features(clips, "nan", lambda sound: np.full((1, 1), np.nan, np.float32))
    with pytest.raises(GivenError, match=r"\[frames, width\]"):
        cache.features(clips, "flat", lambda sound: sound)
    with pytest.raises(GivenError, match="features a frame"):
        cache.features(clips, "wide", lambda sound: np.zeros((1, len(sound)), np.float32))
    with pytest.raises(GivenError, match="becomes a folder"):
        cache.features(clips, "../up", Front())
    with pytest.raises(GivenError, match="no clips"):
        cache.features([], "means-1", Front())
    with pytest.raises(GivenError, match="float64"):
        FeatureCache(tmp_path, "float64").features(clips, "means-1", Front())
    with pytest.raises(MissingError, match=r"gone\.wav"):
        cache.features([replace(clips[0], path=Path("gone.wav"))], "means-1", Front())


def test_a_finished_set_that_was_cut_off_is_not_read(tmp_path):
    clips = made(tmp_path / "sound", 2)
    cache = FeatureCache(tmp_path / "cache")
    cache.features(clips, "means-1", Front(), CLEAN)
    (data,) = (tmp_path / "cache").rglob("features.bin")
    os.truncate(data, 8)
    with pytest.raises(FailedError, match="remove the folder"):
        cache.features(clips, "means-1", Front(), CLEAN)
