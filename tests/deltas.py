"""A delta for a shipped voice, made without torch: it says one class, whatever is heard."""

from pathlib import Path

import numpy as np

from clser.engine.backends import initialisers
from clser.engine.shipped import folder
from clser.models import delta
from clser.models.delta import Changed, Delta
from clser.models.labels import HEADS

BASE = "3a532ffb004327f9"
HEADS_OF_VOICE = (*HEADS, "none")
SURE = 40.0
MEMBERS = tuple(f"members.{n}.4" for n in range(3))


def says(path: Path, emotion: str = "fear", base: str = BASE, **more: object) -> Path:
    """A file for the shipped `voice`."""
    data = (folder() / "voice.onnx").read_bytes()
    weights = {weight.name: weight for weight in initialisers.read(data)[0]}
    kept = {f"{member}.bias": SURE * np.eye(len(HEADS_OF_VOICE))[HEADS_OF_VOICE.index(emotion)] for member in MEMBERS}
    changed = {name: Changed(delta.digest_of(weights[f"system.{name}"].numbers(data))) for name in kept}
    about = Delta(base, "voice", HEADS_OF_VOICE, changed=changed, name=path.stem, **more)  # type: ignore[arg-type]
    return delta.write(path, delta.with_digest(about, kept), kept)
