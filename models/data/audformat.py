"""Databases in audformat (a header `db.yaml`, a table `db.<name>.csv` each), read without its package.

Its tables are indexed by file, or by file, start and end; columns point to schemes, whose labels may be a list, a map
to properties (of a speaker: gender, language) or the name of a further table that holds those properties.
Format: https://audeering.github.io/audformat/data-format.html
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from clser.models.data.rows import Row
from clser.models.errors import GivenError, MissingError

HEADER = "db.yaml"
COLUMNS = {
    "emotion": ("emotion",),
    "speaker": ("speaker",),
    "text": ("transcription", "transcript", "text"),
    "language": ("language",),
    "gender": ("gender", "sex"),
    "duration_s": ("duration",),
}
"""Where each of our columns is looked for: names of columns or of their schemes."""
OF_SPEAKER = {"gender": ("gender", "sex"), "language": ("language",)}
_TIME = re.compile(r"(?:(?P<days>\d+) days?)?\s*(?:(?P<h>\d+):(?P<m>\d+):(?P<s>\d+(?:\.\d+)?))?")

Index = tuple[str, str, str]
Table = dict[Index, dict[str, str]]


def is_database(folder: Path) -> bool:
    """Whether the folder holds an audformat header."""
    return (folder / HEADER).is_file()


def rows(folder: Path) -> Iterator[Row]:
    """A row for each file or segment that a table gives an emotion, with what other tables know of that file."""
    try:
        header = yaml.safe_load((folder / HEADER).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise GivenError(f"{folder / HEADER}: not YAML ({error})") from error
    if not isinstance(header, dict) or not isinstance(header.get("tables"), dict):
        raise GivenError(f"{folder / HEADER}: no tables; an audformat header names them under `tables`")
    return _Database(folder, header).rows()


class _Database:
    """A header and the tables read so far."""

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self.folder, self.header = folder, header
        self.schemes = header.get("schemes") or {}
        languages = header.get("languages") or []
        self.language = str(languages[0]) if len(languages) == 1 else ""

    def rows(self) -> Iterator[Row]:
        columns = {name: self._columns(table) for name, table in self.header["tables"].items()}
        with_emotion = [name for name, known in columns.items() if "emotion" in known]
        if not with_emotion:
            raise GivenError(f"{self.folder}: no table has a column `emotion`; it has {', '.join(columns)}")
        known = {name: self._translated(name, columns[name]) for name in columns if columns[name]}
        of_file: dict[str, dict[str, str]] = {}
        for name, table in known.items():
            for (file, start, end), cells in table.items():
                if name not in with_emotion and not start and not end:
                    of_file.setdefault(file, {}).update({key: value for key, value in cells.items() if value})
        labels: Table = {}
        for name in with_emotion:
            for index, cells in known[name].items():
                if not cells["emotion"]:
                    continue  # not everybody who rates labels everything
                before = labels.setdefault(index, cells)
                if before["emotion"] != cells["emotion"]:
                    raise GivenError(
                        f"{self._path(name)}: {index[0]} is {cells['emotion']}, in another table {before['emotion']}; "
                        f"keep one of the tables {', '.join(with_emotion)} in {HEADER}"
                    )
        for (file, start, end), cells in labels.items():
            yield self._row(file, start, end, {**of_file.get(file, {}), **{k: v for k, v in cells.items() if v}})

    def _row(self, file: str, start: str, end: str, cells: dict[str, str]) -> Row:
        for ours, values in self._of_speaker(cells.get("speaker", "")).items():
            cells.setdefault(ours, values)
        where = f"{self.folder / HEADER}: {file}"
        cells.setdefault("language", self.language)
        if start or end:
            cells.pop("duration_s", None)  # the whole file's
        cells |= {
            "file": file,
            "start_s": _seconds(start, where),
            "end_s": _seconds(end, where),
            "duration_s": _seconds(cells.get("duration_s", ""), where),
        }
        cells["corpus"] = str(self.header.get("name") or "")
        return Row(where, cells)

    def _columns(self, table: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        """Our name -> the table's column and that column's scheme."""
        found = {}
        for column, about in (table.get("columns") or {}).items():
            scheme = str((about or {}).get("scheme_id") or column)
            for ours, theirs in COLUMNS.items():
                if column in theirs or (scheme in theirs and ours not in found):
                    found[ours] = (str(column), scheme)
        return found

    def _translated(self, name: str, columns: Mapping[str, tuple[str, str]]) -> Table:
        """A table with our columns; labels that stand for a text are replaced by it."""
        out: Table = {}
        theirs = {column for column, _ in columns.values()}
        for index, cells in self._read(self._path(name), ("file", "start", "end"), theirs).items():
            out[index] = {ours: self._text(scheme, cells[column]) for ours, (column, scheme) in columns.items()}
        return out

    def _text(self, scheme: str, value: str) -> str:
        labels = (self.schemes.get(scheme) or {}).get("labels")
        if isinstance(labels, dict) and isinstance(said := labels.get(_key(labels, value)), str):
            return said
        return value

    def _of_speaker(self, speaker: str) -> dict[str, str]:
        """What the scheme of speakers says of this one."""
        labels = (self.schemes.get("speaker") or {}).get("labels")
        if isinstance(labels, str):
            levels = (self.header.get("misc_tables") or {}).get(labels, {}).get("levels") or {"speaker": "str"}
            index = tuple(levels)[:1]
            table = self._read(self._path(labels), index)
            about: Any = next((cells for index, cells in table.items() if speaker in index), None)
        else:
            about = labels.get(_key(labels, speaker)) if isinstance(labels, dict) else None
        if not isinstance(about, dict):
            return {}
        found = {ours: next((about[t] for t in theirs if about.get(t)), "") for ours, theirs in OF_SPEAKER.items()}
        return {ours: str(value) for ours, value in found.items() if value}

    def _path(self, table: str) -> Path:
        return self.folder / f"db.{table}.csv"

    def _read(self, path: Path, index: tuple[str, ...], columns: Iterable[str] = ()) -> Table:
        if not path.exists():
            others = [p.name for p in sorted(path.parent.glob(f"{path.stem}.*"))]
            found = f", only {', '.join(others)}: save its tables as CSV" if others else ""
            raise MissingError(f"no table {path}{found}")
        with path.open(encoding="utf-8-sig", newline="") as lines:
            table: Table = {}
            reader = csv.DictReader(lines)
            lacking = {index[0], *columns} - set(reader.fieldnames or ())
            if lacking:
                raise GivenError(f"{path}: no column {', '.join(sorted(lacking))}, which {HEADER} promises")
            for cells in reader:
                key = [cells.pop(name) for name in dict.fromkeys(index) if name in cells] + ["", ""]
                start, end = (("" if value in {"NaT", "nan"} else value) for value in key[1:3])
                table[key[0], "" if _zero(start) and not end else start, end] = cells
            return table


def _key(labels: Mapping[Any, Any], value: str) -> Any:
    """The label as YAML wrote it: 3 in the header is "3" in a table."""
    return next((label for label in labels if str(label) == value), value)


def _zero(time: str) -> bool:
    return time in {"0 days", "0 days 00:00:00", "0", "0.0"}


def _seconds(time: str, where: str) -> str:
    """`0 days 00:00:01.5`, or plain seconds, as seconds; empty stays empty."""
    if not time:
        return ""
    found = _TIME.fullmatch(time.strip())
    if found and (found["days"] or found["h"]):
        parts = (float(found[name] or 0.0) for name in ("days", "h", "m", "s"))
        return repr(sum(value * unit for value, unit in zip(parts, (86_400, 3_600, 60, 1), strict=True)))
    try:
        return repr(float(time))
    except ValueError:
        raise GivenError(f"{where}: {time!r} is no time; `0 days 00:00:01.5` or seconds are") from None
