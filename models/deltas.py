"""Deltas (`clser.models.delta`) of systems in torch: what of an adapted one is to be kept, and a base with it put upon."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from clser.models import delta, saved
from clser.models.data.clips import Clip
from clser.models.delta import Changed, Delta, applied, difference, digest_of
from clser.models.errors import GivenError
from clser.models.saved import Calibration, Trained

Array = np.ndarray[Any, Any]
TELLING = ("mean_F", "deviation_F", "manner.")
"""Where these change, what utterances tell of their speaker is told otherwise."""


def delta_of(
    base: Any, about: Trained, changed: Any, told: Trained,
    *, shots: Sequence[Clip] = (), unlabelled: Sequence[Clip] = (), name: str = "", seed: int = 0,
) -> tuple[Delta, dict[str, Array]]:  # fmt: skip
    """What `adapted` made of a base: what is to be said of it, and the differences by name."""
    before = {name: part.detach().cpu().numpy() for name, part in base.state_dict().items()}
    after = {name: part.detach().cpu().numpy() for name, part in changed.state_dict().items()}
    differing = [name for name in before if not np.array_equal(before[name], after[name])]
    whole = [name for name in differing if not np.issubdtype(before[name].dtype, np.floating)]
    if whole:
        raise GivenError(
            f"{', '.join(whole)}: only numbers with a fraction can differ; export the adapted system whole"
        )
    many = Counter(digest_of(part) for part in before.values() if np.issubdtype(part.dtype, np.floating))
    said = Delta(
        base=about.digest, system=about.system, heads=tuple(about.heads),
        temperature=told.calibration.temperature, offsets=told.calibration.offsets,
        base_temperature=about.calibration.temperature, base_offsets=about.calibration.offsets,
        abstain_below=told.abstain_below,
        changed={name: Changed(digest_of(before[name]), _dull(before[name]) or many[digest_of(before[name])] > 1) for name in differing},
        tells_anew=any(name.startswith(TELLING) for name in differing),
        name=name, shots=dict(Counter(clip.emotion for clip in shots)), unlabelled=len(unlabelled),
        corpora=tuple(dict.fromkeys(clip.corpus for clip in (*shots, *unlabelled))),
        licence=about.licence, seed=seed, version=_version(),
    )  # fmt: skip
    kept = {name: difference(before[name], after[name]) for name in differing}
    return delta.with_digest(said, kept), kept


def with_delta(base: Any, about: Trained, said: Delta, kept: Mapping[str, Array]) -> tuple[Any, Trained]:
    """A copy of the base with it, and what is to be said of that; GivenError where it is for another base."""
    changed = copy.deepcopy(base)
    return changed, put(changed, about, said, kept)


def put(system: Any, about: Trained, said: Delta, kept: Mapping[str, Array]) -> Trained:
    """Changes the base itself."""
    told = fitting(system, about, said, kept)
    weights = system.state_dict()
    with torch.no_grad():
        for name, part in kept.items():
            weights[name].copy_(torch.from_numpy(applied(weights[name].cpu().numpy(), part)))
    return told


def fitting(system: Any, about: Trained, said: Delta, kept: Mapping[str, Array]) -> Trained:
    """What is to be said of that base with it; GivenError where it is for another."""
    if said.base != about.digest or said.heads != tuple(about.heads):
        raise GivenError(
            f"this delta is for the weights {said.base} of a system {said.system}, and these are {about.digest} of "
            f"{about.name or about.system}; adapt this model, or take the other"
        )
    weights = system.state_dict()
    unfitting = [name for name, part in kept.items() if name not in weights or tuple(weights[name].shape) != part.shape]
    if unfitting:
        raise GivenError(f"this delta changes {unfitting[0]}, which {about.name or about.system} has not, or not so")
    return msgspec.structs.replace(
        about,
        calibration=Calibration(said.temperature, said.offsets),
        abstain_below=said.abstain_below,
        trained_on=tuple(dict.fromkeys((*about.trained_on, *said.corpora))),
        digest=said.names(about.digest),
    )


def save(path: Path, said: Delta, kept: Mapping[str, Array]) -> Path:
    """Writes the file, in one go."""
    if path.suffix != ".safetensors":
        raise GivenError(f"{path}: a delta's name must end in .safetensors, which is how the engine knows it")
    return delta.write(path, msgspec.structs.replace(said, name=said.name or path.stem), kept)


def load_with(base: Path, path: Path, zoo: Sequence[Path] = ()) -> tuple[Any, Trained]:
    """The system of a file, with the delta of another upon it."""
    system, about = saved.load(base, zoo)
    try:
        return system, put(system, about, *delta.read(path))
    except GivenError as error:
        raise GivenError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


def _dull(numbers: Array) -> bool:
    """All of them alike: any other such tensor would look the same."""
    return bool(numbers.size and (numbers == numbers.flat[0]).all())


def _version() -> str:
    try:
        return version("clser-stream")
    except PackageNotFoundError:
        return ""
