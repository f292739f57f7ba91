"""A published system's table as Markdown, for who reads it beside the paper. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

VERDICTS = {True: "held", False: "did not hold", None: "left open"}

OPEN = "Left open is what could not be tested, and differences below twice their standard error over corpora and seeds."


def markdown(line: Mapping[str, Any]) -> str:
    """The rows by the paper's tables, a column a corpus; what of the paper's claims held; the commands."""
    rows, seeds = line["rows"], line["seeds"]
    machine = line["machine"]
    told = [
        f"# {line['about']}",
        "",
        f"Mean and deviation of {len(seeds)} seeds, per cent unless a row says otherwise. Version {line['version']}, "
        f"{line['started'][:10]}, {machine['processor']}, {machine['cores']} cores. The published figures stand on other "
        "encoders and other recordings: they are there to compare the order of rows, not their height.",
    ]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["table"], row["metric"]), []).append(row)
    for (table, metric), group in groups.items():
        told += ["", f"## {_title(table)}, {metric}", "", *_grid(group)]
    if line["claims"]:
        told += [
            "",
            "## What is claimed, and what came of it here",
            "",
            OPEN,
            "",
            "| claim | here | because |",
            "| --- | --- | --- |",
        ]
        told += [f"| {one['said']} | {VERDICTS[one['held']]} | {one['because']} |" for one in line["claims"]]
    told += ["", "## Commands", ""]
    told += [f"* `{command}`" for command in dict.fromkeys(row["command"] for row in rows)]
    return "\n".join(told) + "\n"


def _title(table: str) -> str:
    return f"Table {table}" if table[:1].isdigit() or table.isupper() else table.capitalize()


def _grid(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    averaged = len(corpora) > 1 and not any(corpus.startswith("mean") for corpus in corpora)
    heads = [*corpora, *(["mean"] if averaged else []), "published"]
    yield f"| row | {' | '.join(heads)} | here |"
    yield "| --- |" + " ---: |" * len(heads) + " --- |"
    told = ""
    for name in dict.fromkeys(row["name"] for row in rows):
        own = {row["corpus"]: row for row in rows if row["name"] == name}
        cells = [_cell(own[corpus]) if corpus in own else "-" for corpus in corpora]
        if averaged:
            cells.append(
                f"{sum(row['mean'] for row in own.values()) / len(own):.1f}" if len(own) == len(corpora) else "-"
            )
        here = next(iter(own.values()))["here"] or "-"
        yield (
            f"| `{name}` | "
            + " | ".join([*cells, _published(own.values()), "as above" if here == told else here])
            + " |"
        )
        told = here


def _published(rows: Iterable[Mapping[str, Any]]) -> str:
    """What the paper has for these corpora, and on what."""
    told: dict[str, list[str]] = {}
    for row in rows:
        if row["published"] is not None:
            told.setdefault(row["published_on"], []).append(f"{row['published']:g}")
    return "; ".join(f"{' / '.join(dict.fromkeys(values))} ({on})" for on, values in told.items()) or "-"


def _cell(row: Mapping[str, Any]) -> str:
    most = max(abs(value) for value in row["values"])
    if 0 < most < 0.005:
        return f"{row['mean']:.1g}"
    digits = 2 if most < 2 else 1
    spread = f" ± {row['spread']:.{digits}f}" if len(row["values"]) > 1 else ""
    return f"{row['mean']:.{digits}f}{spread}"
