"""What a speaker's face looked like while a clip was said: grey squares, from a file that holds them or found in a video.

A manifest's column `face` names the file beside the sound. `.npy` holds the faces of this clip, uint8 [N, 64, 64]. Anything
else is a video on the sound's own clock (`start_s` and `end_s` count there too): the largest face of a frame is cut out, a
frame without one is passed over. That takes OpenCV, and is done once: what was found lies in the cache as `.npy`.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from clser.models.data.clips import Clip
from clser.models.errors import GivenError, MissingError

SIDE = 64
VERSION = 1
"""To be raised with every change of what is found, so that no cache gives the old faces."""
CASCADE = "haarcascade_frontalface_default.xml"
SCALE, NEIGHBOURS = 1.1, 5
USUAL_FPS = 25.0

Array = np.ndarray[Any, Any]
Look = Callable[[int], Array]
"""A clip's number to its faces, uint8 [N, SIDE, SIDE]; N is 0 where nothing was seen."""
NOBODY = np.zeros((0, SIDE, SIDE), np.uint8)


def open_faces(clips: Sequence[Clip], most: int, cache: Path | None, report: Callable[[str], None]) -> Look:
    """So many faces of each clip at most, evenly over its time. Without `cache` videos are searched each time anew."""
    gone = [clip for clip in clips if clip.face is not None and not clip.face.is_file()]
    if gone:
        raise GivenError(f"{gone[0].name}: no file {gone[0].face}; correct its `face` in the manifest, or empty it")
    found: dict[int, Path] = {}
    videos = [index for index, clip in enumerate(clips) if clip.face is not None and clip.face.suffix != ".npy"]
    for done, index in enumerate(videos if cache is not None else ()):
        assert cache is not None
        found[index] = _kept(clips[index], most, cache)
        if (done + 1) % max(1, len(videos) // 10) == 0:
            report(f"faces of {done + 1} of {len(videos)} videos")

    def look(index: int) -> Array:
        path = found.get(index, clips[index].face)
        if path is None:
            return NOBODY
        return _read(path, most) if path.suffix == ".npy" else in_video(clips[index], most)

    return look


def in_video(clip: Clip, most: int) -> Array:
    """The largest face in each of so many frames of the clip's part, evenly over it; frames without a face are left out."""
    assert clip.face is not None
    cv2 = _opencv()
    video = cv2.VideoCapture(str(clip.face))
    try:
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        per_s = video.get(cv2.CAP_PROP_FPS) or USUAL_FPS
        first = round(clip.start_s * per_s)
        last = frames if clip.end_s is None else min(frames, round(clip.end_s * per_s))
        if not video.isOpened() or first >= last:
            raise GivenError(
                f"{clip.face}: it has {max(0, frames)} frames, none of {clip.name}; give a video that can be read"
            )
        video.set(cv2.CAP_PROP_POS_FRAMES, first)
        detector = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
        faces, asked = [], set((first + _evenly(last - first, most)).tolist())
        for number in range(first, max(asked) + 1):
            there = video.grab()
            if not there:  # the count of frames is what the file says, not always what it has
                break
            if number in asked:
                faces += _largest(cv2, detector, video.retrieve()[1])
    finally:
        video.release()
    return np.stack(faces) if faces else NOBODY


def _largest(cv2: Any, detector: Any, picture: Array) -> list[Array]:
    """One face, or none."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    boxes = detector.detectMultiScale(grey, SCALE, NEIGHBOURS)
    if not len(boxes):
        return []
    x, y, width, height = max(boxes, key=lambda box: int(box[2]) * int(box[3]))
    cut = grey[y : y + height, x : x + width]
    return [np.asarray(cv2.resize(cut, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)]


def _kept(clip: Clip, most: int, cache: Path) -> Path:
    """Where the video's faces lie, searched for if they do not yet."""
    assert clip.face is not None
    told = f"{VERSION} {CASCADE} {clip.start_s} {clip.end_s} {most} ".encode()
    with clip.face.open("rb") as video:
        digest = blake2b(told, digest_size=12)
        while block := video.read(1 << 20):
            digest.update(block)
    path = cache / f"{digest.hexdigest()}.npy"
    if not path.exists():
        faces = in_video(clip, most)
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as out:
            np.save(out, faces)
        partial.replace(path)
    return path


def _read(path: Path, most: int) -> Array:
    """Mapped, and only what is asked for is read."""
    try:
        faces = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise GivenError(f"{path}: it cannot be read as faces ({error}); save them with numpy.save") from error
    if faces.dtype != np.uint8 or faces.shape[1:] != (SIDE, SIDE):
        raise GivenError(
            f"{path}: faces are uint8 [N, {SIDE}, {SIDE}], these are {faces.dtype} {list(faces.shape)}; cut and scale them so"
        )
    return np.asarray(faces[_evenly(len(faces), most)])


def _evenly(there: int, most: int) -> Array:
    """So many of them at most, from the first on."""
    return np.arange(there) if there <= most else np.arange(most) * there // most


def _opencv() -> Any:
    try:
        cv2 = import_module("cv2")
    except ImportError as error:
        raise MissingError(
            "faces are found in videos by OpenCV, which is not installed: pip install 'opencv-python-headless<5', "
            "or name faces that were cut out already (.npy) in the manifest"
        ) from error
    if not hasattr(cv2, "CascadeClassifier"):
        raise MissingError(
            f"OpenCV {cv2.__version__} has no Haar cascades any more: pip install 'opencv-python-headless<5', or name .npy"
        )
    return cv2
