"""Where the tables of `bench/tables/` are made: runs of training and other results, found on disk or made, and their rows.

A table is a file in that folder, a paper each. It has `ABOUT`, a line; `rows(shop, wanted)`, which yields `Row`s and makes
no more than what `wanted(name)` asks for; and, if it likes, `claims(rows)`, which says what of the paper held here.
Whatever costs time goes through the workshop, so a table that was stopped goes on where it was.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from clser.bench.table_page import VERDICTS
from clser.engine.errors import GivenError
from clser.models import evaluate, runs
from clser.models.plan import Plan, differences
from clser.models.train import CHECKPOINT

Wanted = Callable[[str], bool]


class Row(Struct, frozen=True):
    """A row of a paper's table, as it came out here."""

    table: str
    """Which of the paper's, or a word for one of ours."""
    name: str
    corpus: str
    metric: str
    values: tuple[float, ...]
    """One a seed, in per cent (or in what `metric` says)."""
    clips: int
    speakers: int
    published: float | None = None
    published_on: str = ""
    """The paper's corpus and encoder."""
    here: str = ""
    """What differs here: encoder, classes, split, sizes."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """The deviation over seeds; 0 of one seed."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


class Claim(Struct, frozen=True):
    """What a paper says, and what came of it here."""

    said: str
    held: bool | None
    """None: it could not be tested, or what was measured leaves it open."""
    because: str


class Score(Struct, frozen=True):
    """All folds of a run together, on one corpus."""

    uar: float
    war: float
    macro_f1: float
    weighted_f1: float
    clips: int
    speakers: int
    per_class: dict[str, float]
    """Recalls."""


class Lines:
    """Progress is for people: standard error."""

    def line(self, text: str) -> None:
        """A line of it."""
        print(text, file=sys.stderr, flush=True)

    def step(self, done: int, total: int, what: str) -> None:
        """A step is worth no line."""


class Silent(Lines):
    """A run's own lines are too many where there are hundreds of runs."""

    def line(self, text: str) -> None:
        """Worth none."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Makes what tables ask for, each once."""

    corpora: Path
    cache: Path
    """Features, finished runs and results."""
    seeds: tuple[int, ...]
    watcher: Lines = field(default_factory=Lines)

    def run(self, plan: Plan, fold: str, seed: int) -> Path:
        """The folder of that run. `fold` empty: all is trained on."""
        plan = msgspec.structs.replace(plan, onnx=False)
        # What a plan leaves as it is does not name the run: a setting that is new changes no run that was made without.
        asked = differences(msgspec.to_builtins(plan), msgspec.to_builtins(Plan(plan.system)))
        out = self.cache / "runs" / _key((plan.system, asked, fold, seed))
        if not (out / "results.json").exists():  # the last file of a run
            # One that was stopped is begun anew: it takes seconds, and other code may have begun it.
            shutil.rmtree(out, ignore_errors=True)
            prepared = runs.prepare(plan, self.corpora, self.cache / "features", Silent(), fold=fold, seed=seed)
            found = runs.fit(prepared, out, Silent())
            (out / CHECKPOINT).unlink(missing_ok=True)
            self.watcher.line(
                f"  {plan.system} {_told(plan)} fold {fold or '-'} seed {seed}: {found.get('mean_uar', '')}"
            )
        return out

    def results(self, plan: Plan, fold: str, seed: int) -> dict[str, Any]:
        """What its `results.json` holds."""
        told: dict[str, Any] = json.loads((self.run(plan, fold, seed) / "results.json").read_text(encoding="utf-8"))
        return told

    def scores(self, plan: Plan, folds: Sequence[str], seed: int, given: str = "") -> dict[str, Score]:
        """By corpus, over all these folds. `given`: voice, words or both, of clips that were paired with texts."""
        counted: dict[str, list[Mapping[str, Any]]] = {}
        for fold in folds:
            told = self.results(plan, fold, seed)
            for row in told["paired"][given]["rows"] if given else told["rows"]:
                counted.setdefault(row["corpus"], []).append(row)
        return {corpus: together(found) for corpus, found in counted.items()}

    def kept(self, key: object, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Any other result, as plain JSON. `key` names all that it hangs on."""
        path = self.cache / "kept" / f"{_key(key)}.json"
        if not path.exists():
            found = make()
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(found), encoding="utf-8")
            partial.replace(path)
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return told


def together(found: Sequence[Mapping[str, Any]]) -> Score:
    """Rows of one corpus from several folds, their clips counted together."""
    classes = sorted({name for row in found for name in row["classes"]})
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for row in found:
        places = [classes.index(name) for name in row["classes"]]
        counts[np.ix_(places, places)] += np.array(row["confusion"], np.int64)
    recalls = evaluate.per_class(counts)
    return Score(
        uar=100 * evaluate.uar(counts), war=100 * evaluate.war(counts), macro_f1=100 * evaluate.macro_f1(counts),
        weighted_f1=100 * evaluate.weighted_f1(counts), clips=int(counts.sum()),
        speakers=sum(row["speakers"] for row in found),
        per_class={name: 100 * recalls[place]["recall"] for place, name in enumerate(classes)},
    )  # fmt: skip


def tables() -> list[str]:
    """The names that `--table` takes."""
    return sorted(path.stem for path in (Path(__file__).parent / "tables").glob("*.py") if path.stem != "__init__")


def table_file(name: str) -> ModuleType:
    """That table's module."""
    if name not in tables():
        raise GivenError(f"--table {name}: there is no such table; there are {', '.join(tables())}")
    return import_module(f"clser.bench.tables.{name}")


def measure(name: str, shop: Workshop, only: Sequence[str]) -> dict[str, Any]:
    """The rows of a table, those of `only` alone if any are named, and what of the paper's claims held."""
    table = table_file(name)
    seen: set[str] = set()

    def wanted(row: str) -> bool:
        seen.add(row)
        return not only or row in only

    found = []
    for row in _checked(table.rows(shop, wanted)):
        shop.watcher.line(told(row))
        found.append(row)
    if lost := [row for row in only if row not in seen]:
        raise GivenError(f"--row {lost[0]}: table {name} has no such row; it has {', '.join(sorted(seen))}")
    claims = table.claims(found) if hasattr(table, "claims") and not only else []
    return {
        "table": name, "about": table.ABOUT, "seeds": list(shop.seeds),
        "rows": [{**msgspec.to_builtins(row), "mean": row.mean, "spread": row.spread,
                  "command": command(name, row, len(shop.seeds))} for row in found],
        "claims": [msgspec.to_builtins(claim) for claim in claims],
    }  # fmt: skip


def command(table: str, row: Row, seeds: int) -> str:
    """What makes that row."""
    return f"clser-bench accuracy --table {table} --row {row.name} --seeds {seeds} --corpora DIR"


def told(row: Row) -> str:
    """A row for people."""
    spread = f" +- {row.spread:.1f}" if len(row.values) > 1 else ""
    published = f"   (published {row.published:g} on {row.published_on})" if row.published is not None else ""
    return f"{row.table:<10} {row.name:<34} {row.corpus:<10} {row.metric:<12} {row.mean:7.2f}{spread}{published}"


def lines(found: Mapping[str, Any]) -> list[str]:
    """The whole table for people."""
    fields = Row.__struct_fields__
    rows = [msgspec.convert({key: row[key] for key in fields}, Row) for row in found["rows"]]
    claims = [f"{VERDICTS[claim['held']]}: {claim['said']} ({claim['because']})" for claim in found["claims"]]
    return [found["about"], *map(told, rows), *claims]


def value(rows: Sequence[Row], name: str, corpus: str = "", metric: str = "") -> float:
    """The mean of the rows of that name, over the corpora unless one is named."""
    own = [r.mean for r in rows if r.name == name and corpus in ("", r.corpus) and metric in ("", r.metric)]
    return float(np.mean(own)) if own else float("nan")


def better(found: Sequence[Row], said: str, one: str, *others: str, metric: str = "uar", but: str = "") -> Claim:
    """Whether `one` beats the best of `others`: by the differences in each corpus (`but` one of them) and seed, and decided
    where their mean is twice its standard error."""
    best = max(others, key=lambda name: value(found, name, metric=metric))
    theirs = {row.corpus: row.values for row in found if (row.name, row.metric) == (best, metric) and row.corpus != but}
    gains = [
        ours - other
        for row in found
        if (row.name, row.metric) == (one, metric) and row.corpus in theirs
        for ours, other in zip(row.values, theirs[row.corpus], strict=True)
    ]
    if len(gains) < 2:
        return Claim(said, None, f"{one} and {best} have too few figures in common")
    gain, error = float(np.mean(gains)), float(np.std(gains, ddof=1) / len(gains) ** 0.5)
    because = f"{gain:+.1f} ± {2 * error:.1f} points of {metric} over {best}, {len(gains)} corpora and seeds"
    return Claim(said, gain > 0 if abs(gain) > 2 * error else None, because)


def _checked(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        assert row.values and " " not in row.name, "a row is asked for by its name"
        yield row


def _told(plan: Plan) -> str:
    return " ".join(f"{key}={value}" for key, value in plan.settings.items())[:120]


def _key(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]
