"""Figures in lines for people. Pure."""

from collections.abc import Iterable

from clser.bench.stats import Distribution


def number(value: object, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def spreads(line: dict[str, object], names: Iterable[str], digits: int = 1) -> list[str]:
    """A row of p50, p95 and p99 for each of these distributions."""
    rows = [f"{'ms':<28}{'p50':>9}{'p95':>9}{'p99':>9}{'n':>9}"]
    for name in names:
        each = line[name]
        assert isinstance(each, Distribution)
        cells = "".join(f"{number(value, digits):>9}" for value in (each.p50, each.p95, each.p99))
        rows.append(f"{name.removesuffix('_ms'):<28}{cells}{each.n:>9}")
    return rows
