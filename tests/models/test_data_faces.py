"""Faces: found in a made video, read from files, kept, refused; and a system that learns from nothing else."""

import importlib

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="needs the torch extra")

from trials import Quiet  # noqa: E402

from clser.models import judged, plan, runs, saved  # noqa: E402
from clser.models.data import faces  # noqa: E402
from clser.models.data.clips import Clip  # noqa: E402
from clser.models.data.faces import SIDE, open_faces  # noqa: E402
from clser.models.data.manifests import read_manifest, write_manifest  # noqa: E402
from clser.models.errors import GivenError, MissingError  # noqa: E402
from clser.models.train import Running  # noqa: E402

pytestmark = pytest.mark.torch

FPS, SIZE = 25, (320, 240)
EMOTIONS = ("anger", "neutral", "sadness")
SMALL = {
    "words": "none",
    "speech_hidden": 4,
    "face_hidden": 4,
    "width": 8,
    "balance_hidden": 8,
    "hidden": 16,
    "drop": 0.0,
}


def drawn(cv2, at, radius):
    """A face as far as the detector is concerned: light skin, dark hair, brows, eyes and mouth."""
    picture = np.full((SIZE[1], SIZE[0]), 150, np.uint8)
    if at is not None:
        x, y = at

        def spot(across, down, wide, high, grey, *, angles=(0, 360)):
            centre, axes = (int(x + across * radius), int(y + down * radius)), (int(wide * radius), int(high * radius))
            cv2.ellipse(picture, centre, axes, 0, *angles, grey, -1)

        spot(0, 0, 0.8, 1.0, 205)
        spot(0, -0.75, 0.75, 0.45, 60, angles=(180, 360))
        for side in (-1, 1):
            spot(0.33 * side, -0.15, 0.2, 0.1, 40)
            spot(0.33 * side, -0.36, 0.24, 0.06, 70)
        spot(0, 0.2, 0.1, 0.06, 150)
        spot(0, 0.5, 0.32, 0.1, 80)
        cv2.GaussianBlur(picture, (0, 0), radius * 0.03, picture)
    return cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)


@pytest.fixture
def video(tmp_path):
    """Two seconds: a face in the first, none in the next half second, a larger one in the last half."""
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
    if not hasattr(cv2, "CascadeClassifier"):
        pytest.skip("this OpenCV has no Haar cascades any more: needs one before 5")
    path = tmp_path / "a.avi"
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, SIZE)
    for number in range(2 * FPS):
        at, radius = ((100, 120), 60) if number < FPS else (None, 0) if number < 1.5 * FPS else ((200, 120), 80)
        out.write(drawn(cv2, at, radius))
    out.release()
    return path


def clip_of(face, **others):
    return Clip(face.with_suffix(".wav"), "made", "1", "", "anger", face=face, **others)


def test_faces_of_a_video_are_found_in_its_part_and_kept(video, tmp_path, monkeypatch):
    told, cache = [], tmp_path / "cache"
    clips = [
        clip_of(video),
        clip_of(video, start_s=1.0, end_s=1.48),
        clip_of(video, start_s=1.6),
        Clip(video, "made", "2", "", "anger"),
    ]
    look = open_faces(clips, 20, cache, told.append)
    counts = [len(look(index)) for index in range(4)]
    assert counts == [14, 0, 10, 0]  # 20 evenly over 50 frames, those of 1.0 s to 1.5 s without a face
    assert look(0).shape[1:] == (SIDE, SIDE) and look(0).dtype == np.uint8
    assert np.abs(look(0)[0].astype(float) - look(0)[1]).mean() < 5.0  # the same picture
    assert len(told) == 3 and len(list(cache.glob("*.npy"))) == 3
    monkeypatch.setattr(faces, "in_video", None)  # what was found is not searched for again
    again = open_faces(clips, 20, cache, told.append)
    assert all(np.array_equal(again(index), look(index)) for index in range(4))


def test_without_a_cache_a_video_is_searched_when_it_is_looked_at(video):
    assert len(open_faces([clip_of(video)], 4, None, print)(0)) == 2


def test_what_is_no_video_and_a_part_beyond_the_end_are_refused(video, tmp_path):
    with pytest.raises(GivenError, match=r"none of .*give a video"):
        open_faces([clip_of(video, start_s=9.0)], 4, None, print)(0)
    (tmp_path / "b.avi").write_bytes(b"no video at all")
    with pytest.raises(GivenError, match="can be read"):
        open_faces([clip_of(tmp_path / "b.avi")], 4, None, print)(0)


def test_a_file_of_faces_is_read_evenly_and_one_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, SIDE, SIDE), np.uint8))
    assert open_faces([clip_of(path)], 5, None, print)(0)[:, 0, 0].tolist() == [0, 2, 4, 6, 8]
    assert len(open_faces([clip_of(path)], 50, tmp_path, print)(0)) == 10
    for wrong in (np.zeros((3, SIDE, SIDE)), np.zeros((3, 32, 32), np.uint8)):
        np.save(path, wrong)
        with pytest.raises(GivenError, match=r"uint8 \[N, 64, 64\]"):
            open_faces([clip_of(path)], 5, None, print)(0)
    path.write_bytes(b"no array")
    with pytest.raises(GivenError, match=r"numpy\.save"):
        open_faces([clip_of(path)], 5, None, print)(0)
    with pytest.raises(GivenError, match="correct its `face`"):
        open_faces([clip_of(tmp_path / "gone.npy")], 5, None, print)


def test_without_opencv_it_is_told_what_to_install(tmp_path, monkeypatch):
    video = tmp_path / "a.avi"
    video.write_bytes(b"")

    def gone(name):
        raise ImportError(name)

    monkeypatch.setattr(faces, "import_module", gone)
    with pytest.raises(MissingError, match="pip install"):
        open_faces([clip_of(video)], 4, None, print)(0)
    monkeypatch.setattr(faces, "import_module", lambda name: importlib.import_module("json"))
    monkeypatch.setattr(importlib.import_module("json"), "__version__", "5.0.0", raising=False)
    with pytest.raises(MissingError, match=r"5\.0\.0 has no Haar"):
        open_faces([clip_of(video)], 4, None, print)(0)


@pytest.fixture
def corpora(tmp_path):
    """Noise for a voice, and a face that is bright where the speaker is angry: who is right has looked."""
    random = np.random.default_rng(0)
    folder = tmp_path / "corpora" / "made"
    folder.mkdir(parents=True)
    lines = ["file,emotion,speaker,face"]
    for who in range(4):
        for place, emotion in enumerate(EMOTIONS):
            for n in range(4):
                name = f"{who}_{emotion}_{n}"
                soundfile.write(folder / f"{name}.wav", 0.1 * random.standard_normal(8_000), 16_000)
                face = random.integers(0, 60, (int(random.integers(3, 9)), SIDE, SIDE)) + 90 * place
                np.save(folder / f"{name}.npy", face.astype(np.uint8))
                lines.append(f"{name}.wav,{emotion},{who},{'' if n == 3 else f'{name}.npy'}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.parent


def test_a_manifest_names_faces_and_is_written_with_them(corpora, tmp_path):
    clips = read_manifest(corpora / "made")
    assert clips[0].face == corpora / "made" / "0_anger_0.npy" and clips[3].face is None
    for name in ("again.csv", "again.jsonl"):
        write_manifest(tmp_path / name, clips, corpora / "made")
        assert read_manifest(tmp_path / name, corpora / "made") == clips
    write_manifest(tmp_path / "none.csv", clips[3:4], corpora / "made")
    assert "face" not in (tmp_path / "none.csv").read_text(encoding="utf-8")


def test_a_system_learns_from_the_faces_of_a_manifest(corpora, tmp_path):
    values = {
        "system": "mpaf_net",
        "settings": {**SMALL, "faces": 6, "face_hidden": 16},
        "corpora": ["made"], "takes": {"count": 0, "clean": True}, "folds": {"validation": 0.0, "count": 4},
        "sampling": {"rows_per_epoch": 96, "batch": 16}, "loss": {"partial": 0.0, "smoothing": 0.0},
        "optimiser": {"epochs": 12, "learning_rate": 1e-2, "averaging": 0.0, "keep": "last"},
        "calibration": "none", "onnx": False,
    }  # fmt: skip
    asked = plan.from_values(values, "a test")
    watcher = Quiet()
    prepared = runs.prepare(asked, corpora, tmp_path / "cache", watcher, fold="0")
    found = runs.fit(prepared, tmp_path / "out", watcher, running=Running())
    clips = [prepared.examples.clips[index] for index in prepared.fold.test]
    system, about = saved.load(tmp_path / "out")
    logits, _ = judged.logits(system, about, clips)
    right = np.array([about.heads[place] == clip.emotion for place, clip in zip(logits.argmax(1), clips, strict=True)])
    seen = np.array([clip.face is not None for clip in clips])
    assert right[seen].all() and not right[~seen].all()  # of noise alone nobody can tell
    assert found["mean_uar"] == pytest.approx(right.mean(), abs=1e-4)
    assert (
        [line for line in watcher.lines if "face" in line]
        == [line for line in watcher.lines if "hears only" in line]
        != []
    )


def test_where_no_clip_has_a_face_that_is_said(corpora, tmp_path):
    manifest = corpora / "made" / "manifest.csv"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(",face", ",other"), encoding="utf-8")
    values = {"system": "mpaf_net", "settings": SMALL, "corpora": ["made"], "takes": {"count": 0, "clean": True}}
    asked = plan.from_values(values, "a test")
    watcher = Quiet()
    assert runs.prepare(asked, corpora, tmp_path / "cache", watcher).examples.look is None
    assert any("no clip names a `face`" in line for line in watcher.lines)
