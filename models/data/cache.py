"""The features of many clips, computed once and mapped from disk afterwards.

One file holds all clips of one front and one take, end to end: thousands of small files would be slower to open than
to read. A set is known by what it was made from: the bytes of every recording, the front, the take. Nothing else is
trusted, so a recording that was changed is noticed and computed anew; the others are copied from the older set.

    folder/<front>/<take>/<digest of the set>/       finished: features.bin, starts.npy, clips.npy, about.json
    folder/<front>/<take>/<digest of the set>.building/   the same, growing: a build that was killed goes on from there
    folder/<front>/<take>/<digest of the set>.lock        held by whoever builds
"""

import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clser.models.data.clips import Clip, Sound, read_sound
from clser.models.errors import FailedError, GivenError, MissingError

VERSION = 1
"""Counts up when the same recording and front would give other numbers or another layout."""
DTYPES = ("float16", "float32", "int16")
SAVE_EVERY_S = 2.0
"""What a killed build loses at most, and how rarely the disk is waited for."""

Array = np.ndarray[Any, Any]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Take:
    """A way to change a recording before its features are computed; the same clip and take give the same sound."""

    number: int = 0
    config: str = "clean"
    """All that `change` depends on, in words: settings, digests of the noises."""
    change: Callable[[Sound, int, np.random.Generator], Sound] | None = None
    """The sound, the clip's index and a generator to the changed sound. None: as it is."""
    alone: bool = True
    """False: the change looks at other clips too, so nothing may be copied from another set."""

    @property
    def digest(self) -> str:
        """A file name for it."""
        return f"take{self.number}-{_digest(self.number, self.config, self.alone)[:12]}"


CLEAN = Take()


@dataclass(frozen=True, slots=True)
class Features:
    """The features [frames, width] of all clips end to end, and where each clip's begin (and the last one's end)."""

    features: Array
    starts: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def width(self) -> int:
        """Numbers a frame."""
        return int(self.features.shape[1])

    def clip(self, index: int) -> Array:
        """One clip's features, as a view of the mapped file."""
        assert 0 <= index < len(self)
        return self.features[self.starts[index] : self.starts[index + 1]]


@dataclass(slots=True)
class FeatureCache:
    """A folder of sets of features. Any number of programs may share it."""

    folder: Path
    dtype: str = "float16"
    read: Callable[[Clip], Sound] = read_sound
    _content: dict[tuple[Path, int, int], str] = field(default_factory=dict)

    def features(
        self,
        clips: Sequence[Clip],
        front: str,
        compute: Callable[[Sound], Array],
        take: Take = CLEAN,
        report: Report | None = None,
    ) -> Features:
        """The features of `clips`, in their order; `compute` makes [frames, width] of a sound, 16 kHz mono.

        `front`: the front's name and a digest of its settings: another front must have another name.
        Progress goes to `report`, a line a tenth; without it, to a bar on standard error where that is a terminal.
        """
        if self.dtype not in DTYPES:
            raise GivenError(f"features are kept as {' or '.join(DTYPES)}, not {self.dtype}")
        if not re.fullmatch(r"[\w.+-]+", front):
            raise GivenError(f"a front's name becomes a folder's: letters, digits and .+-_ only, not {front!r}")
        if not clips:
            raise GivenError("no clips to compute features of; give at least one")
        keys = [_digest(VERSION, self._content_of(clip), clip.start_s, clip.end_s) for clip in clips]
        home = self.folder / f"{front}-{self.dtype}" / take.digest
        done = home / _digest(keys)[:24]
        if not (done / "about.json").exists():
            home.mkdir(parents=True, exist_ok=True)
            what = f"{front} {take.digest}"
            with _locked(done.with_suffix(".lock"), report), _progress(what, len(clips), report) as tick:
                if not (done / "about.json").exists():  # another program may have finished it meanwhile
                    known = _Known(home, self.dtype) if take.alone else None
                    _build(done, _Job(clips, keys, self._row(clips, keys, compute, take), known, self.dtype), tick)
        return _open(done)

    def sounds(self, clips: Sequence[Clip], report: Report | None = None) -> Features:
        """The decoded sounds themselves, [samples, 1] of 16 bits: for takes that look at other clips."""

        def compute(sound: Sound) -> Array:
            return np.round(np.clip(sound, -1.0, 32767 / 32768) * 32768.0).astype(np.int16)[:, None]

        return replace(self, dtype="int16").features(clips, "sound", compute, CLEAN, report)

    def reading(self, read: Callable[[Clip], Sound]) -> "FeatureCache":
        """The same cache, which gets its sounds elsewhere; files whose bytes it knows are not read again."""
        return replace(self, read=read)

    def _row(
        self, clips: Sequence[Clip], keys: Sequence[str], compute: Callable[[Sound], Array], take: Take
    ) -> Callable[[int], Array]:
        def row(index: int) -> Array:
            sound = self.read(clips[index])
            if take.change is not None:
                # Seeded by what the clip is, not by where it stands: another set of clips gives the same take of it.
                random = np.random.default_rng((take.number, int(keys[index][:15], 16)))
                sound = take.change(sound, index, random)
            return _stored(compute(sound), self.dtype, clips[index])

        return row

    def _content_of(self, clip: Clip) -> str:
        """A digest of the file's bytes. Within this object's life a file of the same size and time is not read again."""
        try:
            about = clip.path.stat()
            key = clip.path, about.st_size, about.st_mtime_ns
            if key not in self._content:
                self._content[key] = blake2b(clip.path.read_bytes(), digest_size=16).hexdigest()
        except OSError as error:
            raise MissingError(
                f"{clip.path}: {error.strerror}; correct the manifest, or bring the file back"
            ) from error
        return self._content[key]


def _stored(given: Array, dtype: str, clip: Clip) -> Array:
    if given.ndim != 2:
        raise GivenError(f"a front gives [frames, width]; of {clip.name} it gave {list(given.shape)}")
    with np.errstate(over="ignore"):
        kept = np.ascontiguousarray(given, dtype)
    if not np.isfinite(given).all():
        raise FailedError(f"{clip.name}: its features are not all finite; look at the recording, or at the front")
    if not np.isfinite(kept).all():
        raise GivenError(f"{clip.name}: features up to {np.abs(given).max():.3g} do not fit {dtype}; keep float32")
    return kept


@dataclass(frozen=True, slots=True)
class _Job:
    """What a set is made of."""

    clips: Sequence[Clip]
    keys: Sequence[str]
    row: Callable[[int], Array]
    """A clip's features, computed."""
    known: "_Known | None"
    dtype: str

    def features(self, index: int) -> Array:
        """A clip's features, from another set if one has them."""
        known = self.known.get(self.keys[index]) if self.known else None
        return self.row(index) if known is None else known


def _build(done: Path, job: _Job, tick: Callable[[int], None]) -> None:
    """Fills `done`, from where a killed build of it stopped. Frames are on the disk before the journal counts them."""
    building = done.with_suffix(".building")
    building.mkdir(exist_ok=True)
    journal, data = building / "journal", building / "features.bin"
    frames, width = _resume(journal, data, job.dtype)
    tick(len(frames))
    with data.open("ab") as out, journal.open("a", encoding="utf-8") as counted:
        pending: list[int] = []
        saved = time.monotonic()
        for index in range(len(frames), len(job.clips)):
            features = job.features(index)
            if width is None:
                width = features.shape[1]
                counted.write(f"{width}\n")
            if features.shape[1] != width:
                name = job.clips[index].name
                raise GivenError(f"{name}: {features.shape[1]} features a frame, {width} in the clips before")
            out.write(features.tobytes())
            pending.append(len(features))
            if index == len(job.clips) - 1 or time.monotonic() - saved > SAVE_EVERY_S:
                _save(out, counted, pending)
                frames, pending, saved = frames + pending, [], time.monotonic()
            tick(index + 1)
    np.save(building / "starts.npy", np.cumsum([0, *frames], dtype=np.int64))
    np.save(building / "clips.npy", np.array(job.keys, dtype="S"))
    about = {"version": VERSION, "dtype": job.dtype, "width": width, "clips": len(job.clips), "frames": sum(frames)}
    (building / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
    building.rename(done)
    (done / "journal").unlink()


def _save(out: Any, counted: Any, pending: Sequence[int]) -> None:
    out.flush()
    os.fsync(out.fileno())
    counted.writelines(f"{count}\n" for count in pending)
    counted.flush()
    os.fsync(counted.fileno())


def _resume(journal: Path, data: Path, dtype: str) -> tuple[list[int], int | None]:
    """Frames of each clip that is safe, and the width; what is not safe is cut off."""
    text = journal.read_text(encoding="utf-8") if journal.exists() else ""
    lines = [int(line) for line in text[: text.rfind("\n") + 1].split()]  # a last line without its end was torn
    width, frames = (lines[0], lines[1:]) if lines else (None, [])
    size = sum(frames) * (width or 0) * np.dtype(dtype).itemsize
    if not data.exists() or data.stat().st_size < size:
        frames, size = [], 0  # the disk lost what it said was safe
        width = None
    journal.write_text("".join(f"{n}\n" for n in ([] if width is None else [width, *frames])), encoding="utf-8")
    with data.open("ab") as out:
        out.truncate(size)
    return frames, width


def _open(done: Path) -> Features:
    about = json.loads((done / "about.json").read_text(encoding="utf-8"))
    shape = about["frames"], about["width"]
    path = done / "features.bin"
    if path.stat().st_size != shape[0] * shape[1] * np.dtype(about["dtype"]).itemsize:
        raise FailedError(f"{path} has another size than {about}; remove the folder {done}, it will be made anew")
    empty = shape[0] * shape[1] == 0  # nothing cannot be mapped
    features = np.zeros(shape, about["dtype"]) if empty else np.memmap(path, about["dtype"], "r", shape=shape)
    return Features(features, np.load(done / "starts.npy"))


class _Known:
    """Clips that other finished sets of the same front and take hold."""

    def __init__(self, home: Path, dtype: str) -> None:
        self.places: dict[str, tuple[Features, int]] = {}
        for about in sorted(home.glob("*/about.json")):
            if about.parent.suffix == "":
                features = _open(about.parent)
                keys = np.load(about.parent / "clips.npy")
                self.places |= {key.decode(): (features, index) for index, key in enumerate(keys)}
        assert all(features.features.dtype == dtype for features, _ in self.places.values())

    def get(self, key: str) -> Array | None:
        """One clip's features, None if no set has it."""
        features, index = self.places.get(key, (None, 0))
        return None if features is None else features.clip(index)


@contextmanager
def _locked(path: Path, report: Report | None) -> Iterator[None]:
    """One builder at a time. The system gives the lock back when its holder dies."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if report:
                report(f"another program is computing these features; waiting for it ({path})")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _progress(what: str, clips: int, report: Report | None) -> Iterator[Callable[[int], None]]:
    """Gives a callback that is told how many clips are done."""
    if report is None:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task(what, total=clips)
            yield lambda done: bar.update(task, completed=done)
        return
    tenths = [clips * tenth // 10 for tenth in range(11)]
    passed = [0]

    def tick(done: int) -> None:
        if done > 0 and any(passed[0] < mark <= done for _, mark in pairwise(tenths)):
            report(f"{what}: {done} of {clips} clips")
        passed[0] = done

    yield tick


def _digest(*parts: object) -> str:
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()
