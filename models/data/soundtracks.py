"""Sound that lies in something else, in a video or a table, written out as WAVs where somebody asks for it."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clser.models.data.downloads import VIDEO, Recording, Tree
from clser.models.errors import FailedError, GivenError, MissingError
from clser.models.features.constants import SAMPLE_RATE_HZ


def unpacked(recordings: Sequence[Recording], tree: Tree, extract: Path | None) -> dict[Path, Path | str]:
    """Where each recording's sound lies; or why there is none. Sound that was taken out before is not taken out again."""
    ready: dict[Path, Path | str] = {}
    packed = [one for one in recordings if one.unpack or one.path.suffix.lower() in VIDEO]
    if packed and extract is None:
        what = "packed in a table" if packed[0].unpack else "a video"
        raise GivenError(
            f"{len(packed)} recordings have no sound file yet ({packed[0].path} is {what}); "
            "give --extract DIR, a folder to write their sound to as WAV"
        )
    for one in recordings:
        ready[one.path] = tree.folder / one.path
    for one in packed:
        assert extract is not None
        target = extract / one.path.with_suffix(".wav")
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.stem}.{os.getpid()}.wav")
            try:
                one.unpack(partial) if one.unpack else soundtrack(tree.folder / one.path, partial)
                partial.replace(target)
            except FailedError as error:
                ready[one.path] = str(error)
                continue
            finally:
                partial.unlink(missing_ok=True)
        ready[one.path] = target
    return ready


def soundtrack(video: Path, target: Path) -> None:
    """A video's sound as 16 kHz mono WAV, by ffmpeg."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise MissingError(
            f"{video} is a video, and ffmpeg, which takes sound out of videos, is not there; install it, or put "
            "the sound beside each video as a WAV of the same name"
        )
    into = ["-vn", "-ac", "1", "-ar", str(SAMPLE_RATE_HZ), "-c:a", "pcm_s16le", str(target)]
    ended = subprocess.run(
        [program, "-nostdin", "-v", "error", "-y", "-i", str(video), *into], check=False, capture_output=True
    )
    if ended.returncode != 0 or not target.is_file():
        raise FailedError("ffmpeg finds no sound in the video")
