"""Labels as a reader sees them: how likely each class is for a text or a recording (LS-LLM: label smoothing by a language model).

A source is asked about many rows at once and answers [rows, classes], not numbers (NaN) where it knows nothing. There
are four: a causal language model, our own text model, a table, and anybody's function. Of two of them it must be known:

* A language model that is told the label, as published, gives it back: what is soft about it is how sure it sounds. That
  is a smoothing that knows the words, not a second opinion, and it says nothing where nothing is labelled.
* Our own text model was trained on the very collections whose texts it judges here, unless they were kept from it.

Letters: N rows, H heads.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from clser.models.data.cache import Report
from clser.models.data.emotions import canonical
from clser.models.data.rows import Row
from clser.models.errors import GivenError, MissingError
from clser.models.hooks import hook
from clser.models.plan import SoftLabels

Array = np.ndarray[Any, Any]
LLM, WORDS = "llm:", "words"
TABLES = {".csv", ".tsv", ".jsonl", ".ndjson"}
AT_ONCE = 512
"""Texts that our own text model reads together."""


class Asked(NamedTuple):
    """A row: a text, or a recording by its path."""

    text: str
    file: str
    emotions: tuple[str, ...]
    """As it was labelled."""


class Source(Protocol):
    """Who is asked."""

    def __call__(self, asked: Sequence[Asked], heads: Sequence[str]) -> Array:
        """[N, H], 0 or more, each row's sum above 0; NaN where nothing is known."""


def open_source(about: SoftLabels, cache: Path, report: Report) -> Source:
    """The source of that name. What a language model answers is kept under `cache`."""
    name = about.source
    if name.startswith(LLM):
        from clser.models.encoders.causal_text import open_causal  # noqa: PLC0415 - loads transformers

        return open_causal(name.removeprefix(LLM), about.told, about.temperature, cache, report)
    if name == WORDS or name.startswith(f"{WORDS}:"):
        return OwnReader(name.partition(":")[2], about.temperature)
    if Path(name).suffix in TABLES:
        return Table(Path(name))
    made: Source = hook(name, "soft_labels.source")
    return made


def ask(source: Source, asked: Sequence[Asked], heads: Sequence[str]) -> Array:
    """[N, H]: rows that sum to 1, or NaN."""
    if not asked:
        return np.zeros((0, len(heads)), np.float32)
    said_NH = np.asarray(source(asked, heads), np.float64)
    if said_NH.shape != (len(asked), len(heads)):
        raise GivenError(
            f"soft labels: [{len(asked)}, {len(heads)}] numbers were asked for, {list(said_NH.shape)} came"
        )
    known_N = np.asarray(np.isfinite(said_NH).all(1))
    sum_N1 = said_NH.sum(1, keepdims=True)
    if (said_NH[known_N] < 0.0).any() or (sum_N1[known_N] <= 0.0).any():
        raise GivenError("soft labels: probabilities must be 0 or more, and not all of a row 0")
    return np.where(known_N[:, None], said_NH / sum_N1, np.nan).astype(np.float32)


class OwnReader:
    """Our own text model; without a path the one that ships."""

    def __init__(self, path: str = "", temperature: float = 1.0) -> None:
        from clser.models.words_live import Reader  # noqa: PLC0415 - a runtime

        self.temperature = temperature
        if path:
            self._reader = Reader(Path(path))
        else:
            with as_file(files("clser.models.weights") / "words.onnx") as shipped:
                self._reader = Reader(shipped)

    def __call__(self, asked: Sequence[Asked], heads: Sequence[str]) -> Array:
        """Classes that it does not know get 0; the others share what is left."""
        shared = [head for head in heads if head in self._reader.heads]
        out_NH = np.full((len(asked), len(heads)), np.nan)
        reads = [n for n, row in enumerate(asked) if row.text.strip()]
        if not shared:
            return out_NH
        from_H = [self._reader.heads.index(head) for head in shared]
        for first in range(0, len(reads), AT_ONCE):
            some = reads[first : first + AT_ONCE]
            logits = self._reader.read([asked[n].text for n in some]).logits_BH[:, from_H] / self.temperature
            likely = np.exp(logits - logits.max(1, keepdims=True))
            out_NH[some] = 0.0
            out_NH[np.ix_(some, [heads.index(head) for head in shared])] = likely / likely.sum(1, keepdims=True)
        return out_NH


class Table:
    """A file with a line for each text or recording: `text` or `file`, perhaps `emotion`, and a column for each class.

    A line with `emotion` is for rows of that label alone. Lines for the same are averaged. A file's path may be given from
    any of its folders on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._by_text: dict[tuple[str, str], list[Mapping[str, float]]] = {}
        self._by_file: dict[tuple[str, ...], list[Mapping[str, float]]] = {}
        for row in _rows(path):
            said = _said(row)
            emotion = canonical(row.get("emotion")) if row.get("emotion") else ""
            if row.get("file"):
                self._by_file.setdefault(Path(row.get("file")).parts, []).append(said)
            elif row.get("text"):
                self._by_text.setdefault((_folded(row.get("text")), emotion), []).append(said)
            else:
                raise GivenError(f"{row.where}: a text or a file is needed; fill in one of the two columns")
        self._depth = max((len(parts) for parts in self._by_file), default=0)

    def __call__(self, asked: Sequence[Asked], heads: Sequence[str]) -> Array:
        """What stands in it; NaN for what does not, and for what has none of these classes."""
        out_NH = np.full((len(asked), len(heads)), np.nan)
        for place, row in enumerate(asked):
            lines = self._of_file(row.file) if row.file else self._of_text(row)
            mean_H = np.array([sum(line.get(head, 0.0) for line in lines) for head in heads])
            if mean_H.sum() > 0.0:
                out_NH[place] = mean_H
        return out_NH

    def _of_text(self, row: Asked) -> list[Mapping[str, float]]:
        text = _folded(row.text)
        own = [line for emotion in row.emotions for line in self._by_text.get((text, emotion), ())]
        return own or self._by_text.get((text, ""), [])

    def _of_file(self, file: str) -> list[Mapping[str, float]]:
        parts = Path(file).parts
        for many in range(min(self._depth, len(parts)), 0, -1):
            if found := self._by_file.get(parts[-many:]):
                return found
        return []


def _rows(path: Path) -> Iterator[Row]:
    if not path.is_file():
        raise MissingError(f"soft_labels.source {path}: there is no such file; give the path of a table")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        if path.suffix in {".jsonl", ".ndjson"}:
            for number, line in enumerate(lines, 1):
                try:
                    cells = json.loads(line)
                except json.JSONDecodeError as error:
                    raise GivenError(f"{path}:{number}: no JSON ({error.msg}); write an object a line") from error
                if not isinstance(cells, dict):
                    raise GivenError(f"{path}:{number}: an object a line is needed, got {line.strip()[:60]}")
                yield Row(f"{path}:{number}", {str(key): str(value) for key, value in cells.items()})
        else:
            reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            for each in reader:
                yield Row(f"{path}:{reader.line_num}", {key: value or "" for key, value in each.items() if key})


def _said(row: Row) -> dict[str, float]:
    """Its classes; columns that name none are passed over."""
    found: dict[str, float] = {}
    for name, cell in row.cells.items():
        try:
            emotion = canonical(name)
        except GivenError:
            continue
        try:
            found[emotion] = max(0.0, float(cell))  # a model that rounds its numbers leaves -0.00001 now and then
        except ValueError as error:
            raise GivenError(f"{row.where}: {name} is {cell!r}; a probability is needed") from error
    if not found or not np.isfinite(list(found.values())).all() or sum(found.values()) <= 0.0:
        raise GivenError(f"{row.where}: no probability above 0 of any class; a column for each class is needed")
    return found


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
