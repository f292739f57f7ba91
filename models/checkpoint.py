"""What a run needs to go on after it was stopped or killed: written whole or not at all."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import torch

from clser.models.errors import FailedError, GivenError
from clser.models.plan import differences


@dataclass(slots=True)
class Place:
    """How far a run is. Draws and dropout hang on the seed and this place alone, so no generator is kept."""

    epoch: int = 0
    step: int = 0
    """Steps of this epoch that are done."""
    losses: list[float] = field(default_factory=list)
    """Of this epoch."""
    took_s: float = 0.0
    """Of this epoch."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """One an epoch that is over."""
    best: float = -1.0
    best_epoch: int = -1
    plateau_best: float = -1.0
    plateau_epochs: int = 0
    scale: float = 1.0
    """Of the learning rate, where it is lowered on plateaus."""
    over: bool = False


def write(path: Path, place: Place, asked: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """All of it in one file that replaces the last one only when it is safe on the disk."""
    partial = path.with_suffix(".partial")
    about = msgspec.json.encode({"asked": asked, "place": asdict(place)}).decode()
    try:
        with partial.open("wb") as out:
            torch.save({"about": about, "states": dict(states)}, out)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into the latter
        partial.unlink(missing_ok=True)
        raise FailedError(
            f"{path}: the checkpoint cannot be written ({error}); make room, then go on with --resume from the last one"
        ) from error


def read(path: Path, asked: Mapping[str, Any]) -> tuple[Place, dict[str, Any]]:
    """The place and the states of a run that was begun with the same settings; GivenError names what differs."""
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, OSError, EOFError, ValueError, UnpicklingError) as error:
        raise FailedError(f"{path}: cannot be read ({error}); remove it and begin anew") from error
    about = msgspec.json.decode(kept["about"])
    differing = differences(msgspec.json.decode(msgspec.json.encode(asked)), about["asked"])
    if differing:
        raise GivenError(
            f"{path.parent} was begun with other settings: {'; '.join(differing)}. "
            "Ask for the same, or give another folder"
        )
    return Place(**about["place"]), kept["states"]
