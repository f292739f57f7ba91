"""RESD (Aniemore 2022), as the hub has it (Aniemore/resd, resd_annotated): parquet, or WAVs with a table.

    data/train-00000-of-00001-....parquet    name, path, emotion, speech, and in resd_annotated text
    train/32_happiness_enthusiasm_h_120.wav and a CSV with the columns name (or path, or file), emotion, text

A name says the dialogue (32), what its two people play (happiness and enthusiasm), who speaks (h: whoever plays
happiness), and when. Speakers are known within a dialogue alone, and actors come back in others: splits by speaker are
not safe, by dialogue neither. Where both play emotions of one letter, nobody knows who speaks. Half of the recordings
were made at 16 kHz, half at 44.1 kHz. Texts were written by a machine.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from clser.models.data.downloads import Found, Reader, Recording, Tree
from clser.models.errors import GivenError, MissingError

LABELS = {
    "anger": "anger",
    "disgust": "disgust",
    "enthusiasm": "enthusiasm",
    "fear": "fear",
    "happiness": "happiness",
    "neutral": "neutral",
    "sadness": "sadness",
}
_EMOTION = "|".join(LABELS)
NAME = re.compile(rf"^(?P<dialogue>\d+)_(?P<one>{_EMOTION})_(?P<other>{_EMOTION})_(?P<letter>[a-z])_(?P<time>\w+)$")
PLACES = ("name", "path", "file", "filename", "file_name")
TABLES = frozenset({".csv", ".tsv"})

Unpack = Callable[[Path], None]


def read(tree: Tree) -> Found:
    """What tables name; the sound beside them, or in the parquet file itself."""
    found = Found()
    files = {path.stem: path for path in tree.sounds() if NAME.match(path.stem)}
    seen = set[str]()
    for table in tree.files:
        if table.suffix == ".parquet":
            rows: Iterable[tuple[dict[str, str], Unpack | None]] = _parquet(tree, table)
        elif table.suffix in TABLES:
            rows = ((row, None) for row in _csv(tree, table))
        else:
            continue
        for row, unpack in rows:
            name = next((Path(row[place]).stem for place in PLACES if row.get(place)), "")
            if not NAME.match(name) or not row.get("emotion"):
                continue
            split = _split(table) or (_split(files[name]) if name in files else "")
            if name in files:
                seen.add(name)
                found.recordings.append(_recording(name, row, files[name], split))
            elif unpack is not None:
                path = Path(split or "all") / f"{name}.wav"
                found.recordings.append(_recording(name, row, path, split, unpack=unpack, source=table.as_posix()))
            else:
                found.missing.append(f"{name}.wav")
    for name, path in files.items():
        if name not in seen:
            found.leave_out("not named in a table", path)
    return found


def _recording(
    name: str,
    row: dict[str, str],
    path: Path,
    split: str,
    *,
    unpack: Unpack | None = None,
    source: str = "",
) -> Recording:
    match = NAME.match(name)
    assert match
    emotion = row["emotion"].strip().lower()
    clear = match["one"][0] != match["other"][0]
    speaker = f"{match['dialogue']}_{match['letter']}" if clear else ""
    return Recording(
        path,
        emotion,
        speaker,
        text=row.get("text", "").strip(),
        dialogue=match["dialogue"],
        split=split,
        note="" if clear else "either of the dialogue's two",
        key=name,
        unpack=unpack,
        source=f"{source}#{name}" if source else "",
    )


def _csv(tree: Tree, path: Path) -> list[dict[str, str]]:
    try:
        return tree.table(path, "emotion")
    except GivenError:  # another table
        return []


def _parquet(tree: Tree, path: Path) -> Iterator[tuple[dict[str, str], Unpack]]:
    """Each row without its sound, and how to get that."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingError(
            f"{tree.folder / path}: parquet is read with pyarrow, which is not there; `pip install pyarrow`, or write "
            "the recordings out as WAVs with a CSV"
        ) from error
    file = parquet.ParquetFile(tree.folder / path)
    columns = [name for name in file.schema_arrow.names if name in {*PLACES, "emotion", "text"}]
    if "emotion" not in columns or "speech" not in file.schema_arrow.names:
        return
    for group in range(file.num_row_groups):
        for index, row in enumerate(file.read_row_group(group, columns).to_pylist()):
            cells = {key: "" if value is None else str(value) for key, value in row.items()}
            yield cells, partial(_unpack, file, group, index)


def _unpack(file: Any, group: int, index: int, target: Path) -> None:
    """The row's sound, as it is: its bytes are a WAV."""
    target.write_bytes(_speech(file, group)[index].as_py()["bytes"])


@lru_cache(maxsize=1)
def _speech(file: Any, group: int) -> Any:
    """The sounds of a group of rows: some hundred, asked for one after the other."""
    return file.read_row_group(group, ["speech"]).column("speech")


def _split(path: Path) -> str:
    """`train` or `test`, as the file or a folder on its way is called."""
    return next((split for split in ("train", "test") if any(split in part.lower() for part in path.parts)), "")


READER = Reader(
    "RESD", "ru", "data/train-*.parquet, or WAVs like 32_happiness_enthusiasm_h_120.wav with a CSV", LABELS, 1396, read
)
