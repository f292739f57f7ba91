"""Corpora as people download them: what a reader is given and gives. Every file in `readers/` is one reader.

A reader knows where a corpus keeps its files and what their names say. It reads names and tables, never sound: what is
common to all corpora (headers, lengths, videos, copies, the names of emotions) is done once, in `listing`.
"""

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from clser.models.errors import ClserError, GivenError, MissingError

SOUND = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
VIDEO = frozenset({".avi", ".mp4", ".flv", ".mkv", ".mov"})
WESTERN, CHINESE = ("utf-8-sig", "utf-16", "cp1252", "latin-1"), ("utf-8-sig", "utf-16", "gb18030")
"""Tables are tried in these, in this order: some corpora mix them. UTF-16 counts only with its mark at the beginning."""
SHOWN = 4


@dataclass(frozen=True, slots=True)
class Tree:
    """The files below a folder, as sorted relative paths."""

    folder: Path
    files: tuple[Path, ...]

    def sounds(self) -> Iterator[Path]:
        """Sound files."""
        return (path for path in self.files if path.suffix.lower() in SOUND)

    def videos(self) -> Iterator[Path]:
        """Videos."""
        return (path for path in self.files if path.suffix.lower() in VIDEO)

    def media(self) -> Iterator[Path]:
        """Sounds, then videos: where there are both, the sound is what is wanted."""
        yield from self.sounds()
        yield from self.videos()

    def named(self, name: str) -> Iterator[Path]:
        """Files of this name, in any folder and any case."""
        return (path for path in self.files if path.name.casefold() == name.casefold())

    def text(self, path: Path, encodings: Sequence[str] = WESTERN) -> str:
        """A text file, in the first encoding that fits."""
        given = (self.folder / path).read_bytes()
        for encoding in encodings:
            if encoding == "utf-16" and given[:2] not in (b"\xff\xfe", b"\xfe\xff"):
                continue
            try:
                return given.decode(encoding)
            except UnicodeDecodeError:
                continue
        raise GivenError(f"{self.folder / path}: no text in {', '.join(encodings)}; save it as UTF-8")

    def table(self, path: Path, *needed: str) -> list[dict[str, str]]:
        """A table with a line of names first; it must have the columns `needed`."""
        text = self.text(path)
        first = text.partition("\n")[0]
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
        lacking = [name for name in needed if name not in (reader.fieldnames or ())]
        if lacking:
            raise GivenError(
                f"{self.folder / path}: no column {', '.join(lacking)}; its first line says {first.strip()!r}"
            )
        return [{key: value or "" for key, value in row.items() if isinstance(key, str)} for row in reader]


@dataclass(frozen=True, slots=True)
class Recording:
    """One labelled recording, in the corpus's own words. Empty: not known."""

    path: Path
    """Below the corpus's folder; where `unpack` is given, what it is to be called."""
    native: str
    """Its label."""
    speaker: str
    """One person's, never two persons'. Empty where the corpus does not say who speaks."""
    gender: str = ""
    language: str = ""
    text: str = ""
    sentence: str = ""
    """The code of the sentence, where the name has one and the corpus does not say in a file what it stands for."""
    intensity: str = ""
    dialogue: str = ""
    split: str = ""
    """train, dev or test, where the corpus's makers say."""
    note: str = ""
    key: str = ""
    """The same in every copy of this recording; empty: the name of its file."""
    longest_s: float = float("inf")
    """A file longer than this is cut wrongly, or holds more than this recording."""
    unpack: Callable[[Path], None] | None = None
    """Writes the sound to a file, for what lies inside a larger file."""
    source: str = ""
    """What it was unpacked from."""


@dataclass(slots=True)
class Found:
    """What a reader makes of a tree."""

    recordings: list[Recording] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What the corpus's tables name and the folder does not have."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Why -> files."""

    def leave_out(self, why: str, what: Path | str) -> None:
        """Counted, and told at the end."""
        self.left_out.setdefault(why, []).append(str(what))


@dataclass(frozen=True, slots=True)
class Reader:
    """What one corpus is, and how its names and tables are read."""

    title: str
    language: str
    """Where all recordings have one; otherwise each says its own."""
    layout: str
    """What is looked for, for messages."""
    labels: Mapping[str, str]
    """The corpus's labels, in our names; in a plain word where there is no name of ours: such recordings are left out."""
    whole: int
    """So many recordings the corpus has when it is whole."""
    read: Callable[[Tree], Found]


def walk(folder: Path) -> Tree:
    """The files below `folder`, but for hidden ones and what archives made on a Mac carry."""
    if not folder.is_dir():
        raise MissingError(f"{folder} is no folder; give the folder that the corpus was unpacked into")
    files = []
    seen = set[Path]()  # a link may lead back up
    for place, folders, names in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        folders[:] = sorted(name for name in folders if real not in seen and not name.startswith((".", "__MACOSX")))
        if real in seen:
            continue
        seen.add(real)
        files += [(Path(place) / name).relative_to(folder) for name in names if not name.startswith(".")]
    return Tree(folder, tuple(sorted(files)))


def by_name(
    tree: Tree, pattern: re.Pattern[str], make: Callable[[re.Match[str], Path], Recording | str], videos: bool = False
) -> Found:
    """A recording of every file whose path, with `/` between its parts, matches at its end; a text says why it is none."""
    found = Found()
    for path in tree.media() if videos else tree.sounds():
        match = pattern.search(path.as_posix())
        if match is None:
            continue
        made = make(match, path)
        if isinstance(made, Recording):
            found.recordings.append(made)
        else:
            found.leave_out(made, path)
    return found


def kinds() -> list[str]:
    """The names of the readers."""
    return sorted(path.stem for path in (Path(__file__).parent / "readers").glob("[!_]*.py"))


def plain(kind: str) -> str:
    """A reader's name as its file has it: `CREMA-D` is crema_d."""
    return kind.strip().lower().replace("-", "_")


def reader(kind: str) -> Reader:
    """A reader by its name; `-` does for `_`, and case does not matter."""
    name = plain(kind)
    if name not in kinds():
        raise GivenError(f"no reader {kind!r}; there are {', '.join(kinds())}, and auto, which looks which fits")
    made = import_module(f"clser.models.data.readers.{name}").READER
    assert isinstance(made, Reader)
    return made


def recognised(tree: Tree) -> dict[str, int]:
    """How many recordings each reader finds, of those that find any."""
    counts = {}
    for kind in kinds():
        try:
            counts[kind] = len(reader(kind).read(tree).recordings)
        except ClserError:  # a table of the same name with other columns is another corpus's
            counts[kind] = 0
    return {kind: count for kind, count in counts.items() if count}


def guess(tree: Tree) -> str:
    """The one reader that fits."""
    counts = recognised(tree)
    if len(counts) == 1:
        return next(iter(counts))
    if counts:
        said = ", ".join(f"{kind} ({count} recordings)" for kind, count in counts.items())
        raise GivenError(f"{tree.folder} looks like several corpora: {said}; say which, or give the folder of one")
    raise MissingError(
        f"{tree.folder} looks like none of {', '.join(kinds())}; {there(tree)}. Say which it is to be told what is missed"
    )


def there(tree: Tree) -> str:
    """What a folder has, for messages."""
    media = [str(path) for path in tree.media()]
    if media:
        more = f" and {len(media) - SHOWN} more" if len(media) > SHOWN else ""
        return f"its recordings are {', '.join(media[:SHOWN])}{more}"
    if tree.files:
        return f"it has {len(tree.files)} files and no sound, such as {', '.join(map(str, tree.files[:SHOWN]))}"
    return "it is empty"
