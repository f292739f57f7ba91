"""From a corpus as it was downloaded to the rows of a manifest, and what was met on the way.

Headers are read, sound is not. Nothing is copied or converted, but for videos and packed recordings where a folder for
their sound is given.
"""

import csv
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from clser.models.data.downloads import (
    SHOWN,
    Found,
    Recording,
    Tree,
    guess,
    plain,
    reader,
    recognised,
    there,
    walk,
)
from clser.models.data.emotions import canonical
from clser.models.data.soundtracks import unpacked
from clser.models.errors import GivenError, MissingError
from clser.models.labels import HEADS

COLUMNS = (
    *("file", "corpus", "language", "speaker", "gender", "emotion", "text", "duration_s", "native_label", "intensity"),
    *("source_sr", "note", "source_path", "dialogue", "split"),
)
AUTO = "auto"
POINTER = b"version https://git-lfs"
"""What a large file's stand-in in a git checkout begins with."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something that was met: what, how often, and examples."""

    what: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A corpus's rows, and what there is to tell."""

    kind: str
    title: str
    whole: int
    rows: tuple[dict[str, str], ...]
    """`file` is an absolute path here."""
    told: tuple[Told, ...]


def listed(
    kind: str,
    folder: Path,
    *,
    also: Mapping[str, str] | None = None,
    sentences: Mapping[str, str] | None = None,
    extract: Path | None = None,
    tick: Callable[[int], None] | None = None,
) -> Listed:
    """The rows of the corpus in `folder`; `kind` is a reader's name, or "auto".

    `also`: what further labels count as ("excitement": "happiness"), or "" to leave some out; the corpus's labels and
    ours both do. `sentences`: code -> text, for corpora whose names have codes. `extract`: a folder for the sound of
    videos. `tick` is told how many recordings were looked at.
    """
    tree = walk(folder)
    kind = guess(tree) if plain(kind) == AUTO else plain(kind)
    corpus = reader(kind)
    found = corpus.read(tree)
    if not found.recordings:
        raise MissingError(_nothing(kind, tree, found))
    told = _reasons(found.left_out)
    told += _counted("not understood: sound files with other names", _others(tree, found))
    told += _counted("missing: named by the corpus's tables", found.missing)
    alone, copies = _once(found.recordings)
    told += _counted("left out: there once already under the same name", copies)
    named, unnamed = _named(alone, corpus.labels, also or {})
    told += unnamed
    ready = unpacked([recording for recording, _ in named], tree, extract)
    rows, faults = [], dict[str, list[str]]()
    for number, (recording, emotion) in enumerate(named, 1):
        made = _row(recording, emotion, ready[recording.path], kind, sentences or {})
        if isinstance(made, str):
            faults.setdefault(made, []).append(str(recording.path))
        else:
            rows.append(made)
        if tick:
            tick(number)
    told += _reasons(faults)
    if not rows:
        said = "; ".join(f"{one.what}: {one.count}" for one in told)
        raise GivenError(f"{folder}: {len(found.recordings)} recordings of {corpus.title}, none of use: {said}")
    return Listed(kind, corpus.title, corpus.whole, tuple(rows), tuple(told))


def write(listing: Listed, path: Path) -> None:
    """A CSV; paths relative to its folder."""
    root = path.resolve().parent
    root.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in listing.rows:
            writer.writerow({**row, "file": Path(os.path.relpath(row["file"], root)).as_posix()})


def lines(listing: Listed) -> list[str]:
    """What was found, for people."""
    rows = listing.rows
    emotions = Counter(row["emotion"] for row in rows)
    speakers = {row["speaker"] for row in rows if row["speaker"]}
    who = f"{len(speakers)} speakers" if speakers else "speakers not told apart"
    hours = sum(float(row["duration_s"]) for row in rows) / 3600
    counts = ", ".join(f"{emotion} {count}" for emotion, count in sorted(emotions.items()))
    out = [
        f"{listing.title}: {len(rows)} recordings ({listing.whole} when whole and nothing is left out), {who}, {hours:.2f} h",
        f"    {counts}",
    ]
    if splits := Counter(row["split"] for row in rows if row["split"]):
        out.append("    splits: " + ", ".join(f"{split} {count}" for split, count in sorted(splits.items())))
    for one in listing.told:
        out.append(f"{one.what}: {one.count}")
        if one.examples:
            more = f" and {one.count - len(one.examples)} more" if one.count > len(one.examples) else ""
            out.append(f"    such as {', '.join(one.examples)}{more}")
    return out


def read_sentences(path: Path) -> dict[str, str]:
    """Code -> text, of a CSV with the columns `code` and `text`."""
    if not path.is_file():
        raise MissingError(f"no sentences {path}; give a CSV with the columns code and text")
    rows = Tree(path.parent, ()).table(Path(path.name), "code", "text")
    return {row["code"].strip().casefold(): row["text"].strip() for row in rows}


def _nothing(kind: str, tree: Tree, found: Found) -> str:
    """A message about a folder that has no recording of this corpus."""
    corpus = reader(kind)
    message = f"{tree.folder}: no recording of {corpus.title}; looked for {corpus.layout}; {there(tree)}"
    if found.left_out:
        message += "; left out: " + ", ".join(f"{why} ({len(names)})" for why, names in found.left_out.items())
    if found.missing:
        message += f"; its tables name {len(found.missing)} files that are not there, such as {found.missing[0]}"
    if others := recognised(tree):
        message += f". It looks like {' or '.join(others)}"
    return message


def _others(tree: Tree, found: Found) -> list[str]:
    """Sound files that the reader said nothing of."""
    known = {str(recording.path) for recording in found.recordings}
    known |= {name for names in found.left_out.values() for name in names}
    return [str(path) for path in tree.sounds() if str(path) not in known]


def _reasons(left_out: Mapping[str, Sequence[str]]) -> list[Told]:
    return [one for why, names in left_out.items() for one in _counted(f"left out: {why}", names)]


def _counted(what: str, names: Sequence[str]) -> list[Told]:
    return [Told(what, len(names), tuple(names[:SHOWN]))] if names else []


def _once(recordings: Sequence[Recording]) -> tuple[list[Recording], list[str]]:
    """Each recording once, and the paths of further copies."""
    first: dict[str, Recording] = {}
    copies = []
    for recording in recordings:
        key = recording.key or recording.path.stem.casefold()
        if first.setdefault(key, recording) is not recording:
            copies.append(str(recording.path))
    return list(first.values()), copies


def _named(
    recordings: Sequence[Recording], labels: Mapping[str, str], also: Mapping[str, str]
) -> tuple[list[tuple[Recording, str]], list[Told]]:
    """The recordings with our names for their emotions; and those that have none."""
    known = {label.casefold(): word for label, word in labels.items()}
    further = {label.strip().casefold(): word.strip() for label, word in also.items()}
    met = {recording.native.casefold() for recording in recordings}
    if unused := set(further) - set(known) - set(known.values()) - met:
        raise GivenError(
            f"no label {', '.join(sorted(unused))} here; it has "
            + ", ".join(label if label == word else f"{label} ({word})" for label, word in labels.items())
        )
    named, unnamed = [], Counter[str]()
    for recording in recordings:
        native = recording.native.casefold()
        word = known.get(native, "")
        said = further.get(native, further.get(word, word))
        if said and (said in HEADS or native in further or word in further):
            named.append((recording, canonical(said)))
        elif word or native in further:
            unnamed[f"left out: {word or recording.native}"] += 1
        else:
            unnamed[f"left out: labelled {recording.native!r}, which is no label of this corpus"] += 1
    return named, [Told(what, count) for what, count in unnamed.items()]


def _row(
    recording: Recording, emotion: str, path: Path | str, kind: str, sentences: Mapping[str, str]
) -> dict[str, str] | str:
    """The row; or why there is none, which may stand in the place of the path."""
    if isinstance(path, str):
        return path
    try:
        about = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError):
        return _unreadable(path)
    if not about.frames:
        return "the file holds no sound"
    if about.duration > recording.longest_s:
        return "far longer than it should be: cut wrongly, or several in one"
    taken_out = path.suffix.lower() != recording.path.suffix.lower()
    notes = [recording.note, f"sentence {recording.sentence}" if recording.sentence else ""]
    return {
        "file": str(path.parent.resolve() / path.name),  # a link from a store of files keeps its own name
        "corpus": kind,
        "language": recording.language or reader(kind).language,
        "speaker": f"{kind}_{recording.speaker}" if recording.speaker else "",
        "gender": recording.gender,
        "emotion": emotion,
        "text": recording.text or sentences.get(recording.sentence.casefold(), ""),
        "duration_s": f"{about.duration:.3f}",
        "native_label": recording.native,
        "intensity": recording.intensity,
        "source_sr": "" if taken_out else str(about.samplerate),  # of a video's sound ours says nothing
        "note": "; ".join(note for note in notes if note),
        "source_path": recording.source or recording.path.as_posix(),
        "dialogue": f"{kind}_{recording.dialogue}" if recording.dialogue else "",
        "split": recording.split,
    }


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb") as file:
            begins = file.read(len(POINTER))
    except OSError:
        return "the file cannot be opened"
    if begins == POINTER:
        return "only a pointer of git-lfs is there: run `git lfs pull` in the checkout"
    return "cannot be read as sound" if begins else "the file is empty"
