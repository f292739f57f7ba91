"""A published system's table as Markdown, for who reads it beside the paper. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
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
    for (table, metric), group in groupby(rows, key=lambda row: (row["table"], row["metric"])):
        told += ["", f"## {_title(table)}, {metric}", "", *_grid(list(group))]
    if line["claims"]:
        told += [
            "",
            "## What the paper says, and what came of it here",
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
    yield "| row | " + " | ".join(corpora) + (" | mean |" if len(corpora) > 1 else " |") + " published | here |"
    yield "| --- |" + " ---: |" * (len(corpora) + (len(corpora) > 1) + 1) + " --- |"
    for name in dict.fromkeys(row["name"] for row in rows):
        own = {row["corpus"]: row for row in rows if row["name"] == name}
        cells = [_cell(own[corpus]) if corpus in own else "-" for corpus in corpora]
        if len(corpora) > 1:
            cells.append(
                f"{sum(row['mean'] for row in own.values()) / len(own):.1f}" if len(own) == len(corpora) else "-"
            )
        published = dict.fromkeys(
            f"{row['published']:g} ({row['published_on']})" for row in own.values() if row["published"] is not None
        )
        first = next(iter(own.values()))
        yield f"| `{name}` | " + " | ".join([*cells, "; ".join(published) or "-", first["here"] or "-"]) + " |"


def _cell(row: Mapping[str, Any]) -> str:
    digits = 2 if max(abs(value) for value in row["values"]) < 2 else 1
    spread = f" ± {row['spread']:.{digits}f}" if len(row["values"]) > 1 else ""
    return f"{row['mean']:.{digits}f}{spread}"
