"""The corpora folder: speech, noises, responses of rooms and texts, by the names of their folders.

It holds one folder a corpus, each with a manifest (see `manifests`) and the recordings it names, or `texts.csv.gz`.
"""

import csv
import gzip
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clser.models.data.clips import Clip
from clser.models.data.emotions import canonical
from clser.models.data.manifests import read_manifest
from clser.models.errors import GivenError, MissingError

SPEECH = ("emodb", "emovo", "casia", "ravdess", "nemo", "tess")
FOLDER_VARIABLE = "CLSER_CORPORA"

__all__ = [
    "FOLDER_VARIABLE",
    "SPEECH",
    "Clip",
    "Text",
    "corpora_folder",
    "read_clips",
    "read_sounds",
    "read_speech",
    "read_texts",
    "spoken_in",
]


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence and the emotions it was given, one or more."""

    corpus: str
    language: str
    split: str
    """The part that its makers put it in: train, dev, test, or how it was labelled."""
    text: str
    emotions: tuple[str, ...]


def corpora_folder(given: str | None) -> Path:
    """The folder given, or the one the environment names."""
    folder = given or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise GivenError(f"no corpora: give --corpora DIR, or set {FOLDER_VARIABLE}")
    if not Path(folder).is_dir():
        raise MissingError(f"no corpora: {folder} is no folder; correct --corpora or {FOLDER_VARIABLE}")
    return Path(folder)


def spoken_in(folder: Path) -> list[str]:
    """Which corpora of labelled speech the folder holds: those known here first. Others are those whose manifest's first
    recording has an emotion."""
    lists = sorted(path for path in folder.glob("*/manifest.csv") if _labelled(path))
    names = [path.parent.name for path in lists]
    return sorted(names, key=lambda name: (SPEECH.index(name) if name in SPEECH else len(SPEECH), name))


def _labelled(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        return bool((next(csv.DictReader(lines), None) or {}).get("emotion"))


def read_clips(folder: Path, names: Iterable[str] = SPEECH) -> list[Clip]:
    """As `read_speech`, without looking for each file."""
    return read_speech(folder, names, check=False)


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
