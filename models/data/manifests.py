"""Lists of labelled recordings: CSV, JSON lines and audformat, read into `Clip`s and written again.

A manifest is a CSV with a line of names first. It needs `file` and `emotion`; `speaker, language, text, duration_s,
corpus, gender, note, source_sr, start_s, end_s, face` are read where they are there, anything else is passed over. Paths are
relative to the manifest's folder, or to the folder given as `audio`. A JSON-lines manifest has the same names, an
object a line.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import soundfile

from clser.models.data import audformat
from clser.models.data.clips import Clip, unreadable
from clser.models.data.emotions import canonical
from clser.models.data.rows import Row
from clser.models.errors import GivenError, MissingError

NEEDED = ("file", "emotion")
WRITTEN = (
    *("file", "corpus", "language", "speaker", "gender", "emotion", "text", "duration_s", "source_sr"),
    *("start_s", "end_s", "note"),
)
TOLD = 8
"""So many faults are told at once; of the others, how many."""


def read_manifest(
    path: Path,
    audio: Path | None = None,
    *,
    also: Mapping[str, str] | None = None,
    labelled: bool = True,
    check: bool = True,
) -> list[Clip]:
    """The clips of a manifest, in its order.

    `path`: a CSV, TSV or JSON-lines file, a folder with a `manifest.csv`, or an audformat folder (`db.yaml`).
    `also`: what further emotion names count as ("excited": "happiness"), or "" to leave such clips out.
    `labelled`: every clip must have an emotion; else none is read, and the column may be missing.
    `check`: every file must be there and be sound; its length fills in
    a `duration_s` that is not given. All faults are told in one GivenError, each with its line.
    """
    rows, folder = _rows(path, NEEDED if labelled else NEEDED[:1])
    faults: list[str] = []
    first_line: dict[tuple[Path, float, float | None], tuple[str, str]] = {}
    clips = []
    for row in rows:
        try:
            clip = _clip(row, audio or folder, also, labelled)
            if clip is None:
                continue
            key = (clip.path, clip.start_s, clip.end_s)
            if key in first_line:
                where, emotion = first_line[key]
                differing = "" if emotion == clip.emotion else f" as {emotion}, here as {clip.emotion}"
                raise GivenError(f"{row.get('file')} stands at {where} already{differing}; remove one of the two")
            first_line[key] = row.where, clip.emotion
            clips.append(_measured(clip) if check else clip)
        except GivenError as error:
            faults.append(f"{row.where}: {error}")
    if faults:
        more = f"\n... and {len(faults) - TOLD} more" if len(faults) > TOLD else ""
        raise GivenError("\n".join(faults[:TOLD]) + more)
    if not clips:
        raise GivenError(
            f"{path}: it names no clips; a line each is needed, below the names {', '.join(NEEDED if labelled else NEEDED[:1])}, ..."
        )
    return clips


def write_manifest(path: Path, clips: Sequence[Clip], audio: Path | None = None) -> None:
    """CSV, or JSON lines where the name ends in .jsonl; paths relative to `audio` or the manifest's folder."""
    root = (audio or path.parent).resolve()
    lines = [_line(clip, root) for clip in clips]
    names: tuple[str, ...] = WRITTEN
    if any(clip.face is not None for clip in clips):
        names = (*WRITTEN, "face")
        for line, clip in zip(lines, clips, strict=True):
            line["face"] = "" if clip.face is None else _told(clip.face, root)
    with path.open("w", encoding="utf-8", newline="") as out:
        if path.suffix in {".jsonl", ".ndjson"}:
            out.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        else:
            writer = csv.DictWriter(out, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


def _rows(path: Path, needed: Sequence[str]) -> tuple[Iterator[Row], Path]:
    """The rows, and the folder that their paths are relative to."""
    if path.is_dir():
        if audformat.is_database(path):
            return audformat.rows(path), path
        if not (path / "manifest.csv").exists():
            raise MissingError(
                f"{path} has neither a manifest.csv nor a db.yaml; give a manifest, or a folder with one"
            )
        path = path / "manifest.csv"
    if not path.exists():
        raise MissingError(f"no manifest {path}; give a CSV with {_columns(needed)} at least")
    return (_json_lines if path.suffix in {".jsonl", ".ndjson"} else _csv)(path, needed), path.parent


def _columns(needed: Sequence[str]) -> str:
    return f"the column{'s' if len(needed) > 1 else ''} {', '.join(needed)}"


def _csv(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            names = lines.readline()
            lines.seek(0)
            delimiter = max(",;\t", key=names.count)
            reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
            for name in needed:
                if name not in (reader.fieldnames or ()):
                    raise GivenError(
                        f"{path}: no column {name!r}; its first line says {names.strip()!r}, "
                        f"it must name {', '.join(needed)} at least"
                    )
            for cells in reader:
                if None in cells or None in cells.values():
                    raise GivenError(f"{path}:{reader.line_num}: more or fewer cells than the first line has names")
                yield Row(f"{path}:{reader.line_num}", cells)
    except UnicodeDecodeError as error:
        raise GivenError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise GivenError(f"{path}: not a CSV ({error}); quote cells that hold commas or quotes") from error


def _json_lines(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                given = json.loads(line)
            except json.JSONDecodeError as error:
                raise GivenError(f"{where}: not JSON ({error}); one object a line is needed") from error
            if not isinstance(given, dict) or any(name not in given for name in needed):
                raise GivenError(f"{where}: an object with {' and '.join(needed)} is needed, got {line.strip()[:80]}")
            cells = {str(key): "" if value is None else str(value) for key, value in given.items()}
            if isinstance(given.get("emotion"), list):
                cells["emotion"] = ";".join(map(str, given["emotion"]))
            yield Row(where, cells)


def _clip(row: Row, folder: Path, also: Mapping[str, str] | None, labelled: bool) -> Clip | None:
    """None: a clip that `also` leaves out."""
    if not row.get("file"):
        raise GivenError("no file is named; give a path in the column `file`, or remove the line")
    emotion = row.get("emotion") if labelled else ""
    if ";" in emotion:
        raise GivenError(f"several emotions ({emotion}); a clip is trained on with one, so choose one or remove it")
    if emotion:
        emotion = canonical(emotion, also)
        if not emotion:
            return None
    elif labelled:
        raise GivenError(f"{row.get('file')} has no emotion; give one or remove the line")
    start_s, end_s = row.number("start_s"), row.number("end_s")
    if end_s is not None and end_s <= (start_s or 0.0):
        raise GivenError(f"the part ends ({end_s:g} s) before it begins ({start_s or 0.0:g} s)")
    note = row.get("note")
    return Clip(
        path=folder / row.get("file"),
        corpus=row.get("corpus") or folder.resolve().name,
        speaker=row.get("speaker"),
        gender=row.get("gender"),
        emotion=emotion,
        truncated=note.startswith("truncated"),
        language=row.get("language"),
        text=row.get("text"),
        duration_s=row.number("duration_s") or 0.0,
        note=note,
        source_rate_hz=round(row.number("source_sr") or 0),
        start_s=start_s or 0.0,
        end_s=end_s,
        face=folder / row.get("face") if row.get("face") else None,
    )


def _measured(clip: Clip) -> Clip:
    """With the duration its file has, where none was given; it must be there and be sound."""
    if not clip.path.is_file():
        raise GivenError(f"no file {clip.path}; correct the path, say where the sound lies, or remove the line")
    try:
        length_s = soundfile.info(clip.path).duration
    except soundfile.LibsndfileError as error:
        raise GivenError(f"{clip.path}: {unreadable(error)}") from error
    end_s = length_s if clip.end_s is None else min(clip.end_s, length_s)
    if end_s <= clip.start_s:
        raise GivenError(f"{clip.name}: nothing to hear: the file has {length_s:.3f} s of sound")
    if clip.duration_s:
        return clip
    return replace(clip, duration_s=round(end_s - clip.start_s, 6))


def _line(clip: Clip, root: Path) -> dict[str, str | float | int | None]:
    return {
        "file": _told(clip.path, root),
        "corpus": clip.corpus,
        "language": clip.language,
        "speaker": clip.speaker,
        "gender": clip.gender,
        "emotion": clip.emotion,
        "text": clip.text,
        "duration_s": clip.duration_s or None,
        "source_sr": clip.source_rate_hz or None,
        "start_s": clip.start_s or None,
        "end_s": clip.end_s,
        "note": clip.note,
    }


def _told(path: Path, root: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
