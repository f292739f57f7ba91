"""Emotional speech on disk: manifests to clips, clips to one array of samples.

The corpora folder holds one folder a corpus, each with a `manifest.csv` (columns file, corpus, speaker, gender,
emotion, note, ...) and the recordings it names, 16 kHz mono in any format libsndfile reads.
"""

import csv
import gzip
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from clser.models.data.clips import Clip
from clser.models.data.emotions import canonical
from clser.models.data.manifests import read_manifest
from clser.models.errors import GivenError, MissingError
from clser.models.features.constants import SAMPLE_RATE_HZ

SPEECH = ("emodb", "emovo", "casia", "ravdess", "nemo", "tess")
NOISE = ("noise",)
FOLDER_VARIABLE = "CLSER_CORPORA"

__all__ = [
    "FOLDER_VARIABLE",
    "NOISE",
    "SPEECH",
    "Clip",
    "Recordings",
    "Text",
    "corpora_folder",
    "decode",
    "read_clips",
    "read_sounds",
    "read_speech",
    "read_texts",
]

Samples = np.ndarray[Any, np.dtype[np.int16]]


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence and the emotions it was given, one or more."""

    corpus: str
    language: str
    split: str
    """The part that its makers put it in: train, dev, test, or how it was labelled."""
    text: str
    emotions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recordings:
    """All samples end to end, and where each clip begins (and the last one ends)."""

    samples: Samples
    starts: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def clip(self, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One clip in -1..1."""
        return self.samples[self.starts[index] : self.starts[index + 1]].astype(np.float32) / 32768.0


def corpora_folder(given: str | None) -> Path:
    """The folder given, or the one the environment names."""
    folder = given or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise ValueError(f"no corpora: give --corpora DIR or set {FOLDER_VARIABLE}")
    if not Path(folder).is_dir():
        raise ValueError(f"no corpora: {folder} is no folder")
    return Path(folder)


def read_clips(folder: Path, corpora: Iterable[str] = SPEECH) -> list[Clip]:
    """Every clip of these corpora, in the manifests' order."""
    clips = []
    for corpus in corpora:
        with (folder / corpus / "manifest.csv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                truncated = row["note"].startswith("truncated")
                path = folder / corpus / row["file"]
                clips.append(Clip(path, row["corpus"], row["speaker"], row["gender"], row["emotion"], truncated))
    return clips


def read_speech(
    folder: Path, names: Iterable[str], *, also: Mapping[str, str] | None = None, check: bool = True
) -> list[Clip]:
    """The labelled clips of these corpora, in the manifests' order; see `read_manifest`."""
    return [clip for name in names for clip in read_manifest(_part(folder, name), also=also, check=check)]


def read_sounds(folder: Path, name: str) -> list[Clip]:
    """What no emotion was given to: `noise`, or `rir` for the responses of rooms."""
    return read_manifest(_part(folder, name), labelled=False)


def read_texts(folder: Path, names: Iterable[str], *, also: Mapping[str, str] | None = None) -> Iterator[Text]:
    """The texts of these corpora (`text_meld`, or `meld`) that have at least one of our emotions.

    What their makers called "other" says nothing here: it is left out, and a text with nothing else too.
    """
    known = {"other": "", **(also or {})}
    for name in names:
        path = _part(folder, name if name.startswith("text_") else f"text_{name}") / "texts.csv.gz"
        if not path.exists():
            raise MissingError(f"no texts {path}; give the folder that the corpora lie in, or leave {name} out")
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            for row in reader:
                try:
                    said = (canonical(emotion, known) for emotion in row["emotion"].split(";") if emotion.strip())
                    emotions = tuple(dict.fromkeys(emotion for emotion in said if emotion))
                except GivenError as error:
                    raise GivenError(f"{path}:{reader.line_num}: {error}") from error
                if emotions:
                    yield Text(row["corpus"], row["language"], row["split"], row["text"], emotions)


def _part(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        there = sorted(part.name for part in folder.iterdir() if part.is_dir())
        raise MissingError(f"no corpus {name} in {folder}; there are {', '.join(there) or 'none'}")
    return folder / name


def decode(clips: Sequence[Clip], cache: Path) -> Recordings:
    """The clips' samples, decoded once into `cache` (a folder) and mapped from there afterwards."""
    samples_path, starts_path = cache / "samples.npy", cache / "starts.npy"
    if not starts_path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        parts = [_read(clip.path) for clip in clips]
        np.save(samples_path, np.concatenate(parts))
        np.save(starts_path, np.cumsum([0, *(len(part) for part in parts)]))
    recordings = Recordings(np.load(samples_path, mmap_mode="r"), np.load(starts_path))
    if len(recordings) != len(clips):
        raise ValueError(
            f"{cache} holds {len(recordings)} clips, the manifests {len(clips)}: remove that folder, and the takes made from it"
        )
    return recordings


def _read(path: Path) -> Samples:
    samples, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    if rate_hz != SAMPLE_RATE_HZ:
        # Opus carries no rate of its own: libsndfile may hand out 48 kHz for a file that says 16.
        raise ValueError(f"{path}: {rate_hz} Hz, {SAMPLE_RATE_HZ} Hz is asked for")
    return np.ascontiguousarray(samples[:, 0])
