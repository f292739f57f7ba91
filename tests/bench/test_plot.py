"""Pictures are drawn from the line as it is printed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clser.bench import plot
from clser.models import trust

LINE: dict[str, Any] = {
    "machine": {"processor": "a processor", "cores": 2},
    "model": {"digest": "0123456789abcdef"},
    "lag_over_time": [[0.5, 10.0], [1.5, 900.0], [2.5, 12.0]],
    "rss_over_time": [[0.5, 100.0], [2.5, 101.0]],
    "streams_over_time": [[0.5, 10.0], [2.5, 20.0]],
    "killed_s": [1.2],
    "ladder": [[1.1, 1, "overload"], [2.2, 0, "relief"]],
    "fall_s": 2.0,
}


@pytest.mark.parametrize("bench", ["soak", "overload"])
@pytest.mark.parametrize("nothing", [False, True])
def test_a_long_run_is_drawn(tmp_path: Path, bench: str, nothing: bool) -> None:
    empty = {name: [] for name, value in LINE.items() if isinstance(value, list)} if nothing else {}
    said = plot.draw({"bench": bench, **LINE, **empty}, {}, tmp_path)
    assert said == f"drawn: {tmp_path / bench}.png"
    assert (tmp_path / f"{bench}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("empty", [False, True])
def test_what_confidence_is_worth_is_drawn(tmp_path: Path, empty: bool) -> None:
    random = np.random.default_rng(0)
    probability = random.dirichlet((1.0, 1.0, 1.0), 300)
    row = {"system": "a system", **trust.worth(probability, random.integers(3, size=300))}
    line = {"bench": "trust", "machine": LINE["machine"], "rows": [] if empty else [row, {**row, "system": "another"}]}
    assert plot.draw(line, {}, tmp_path) == f"drawn: {tmp_path / 'trust.png'}"
