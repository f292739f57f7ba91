"""One line of a manifest, whatever kind of file it stood in."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from clser.models.errors import GivenError


@dataclass(frozen=True, slots=True)
class Row:
    """The cells by name, and where they stand, for messages."""

    where: str
    cells: Mapping[str, str]

    def get(self, name: str) -> str:
        """The cell, or "" where there is none."""
        return self.cells.get(name, "").strip()

    def number(self, name: str) -> float | None:
        """The cell as a number, None where it is empty."""
        given = self.get(name)
        if not given:
            return None
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0.0):
            raise GivenError(f"{name} is {given!r}; a number of 0 or more is needed")
        return value
