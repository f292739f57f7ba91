"""A trained system on disk: one safetensors file with all that is needed to build it again in its metadata."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clser.models import systems
from clser.models.delta import KIND as DELTA
from clser.models.encoders.hub_frames import is_hub
from clser.models.errors import GivenError, MissingError
from clser.models.features import fronts

KEY = "clser"
FILE = "model.safetensors"
FORMAT = 1
LICENCE = "research and non-commercial use: the recordings it was trained on ask for it"


Array = np.ndarray[Any, Any]


class Calibration(Struct, frozen=True):
    """Calibrated logits are `logits / temperature + offsets`."""

    temperature: float = 1.0
    offsets: tuple[float, ...] = ()
    """One a head; empty: none."""

    def apply(self, logits_NH: Array) -> Array:
        """Logits whose softmax is the probability."""
        offset_H = np.array(self.offsets) if self.offsets else 0.0
        return np.asarray(logits_NH / self.temperature + offset_H, np.float32)


class Trained(Struct, frozen=True):
    """What a file says of itself."""

    system: str
    settings: dict[str, Any]
    heads: tuple[str, ...]
    calibration: Calibration = Calibration()
    abstain_below: float = 0.0
    licence: str = LICENCE
    trained_on: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    seed: int = 0
    fold: str = ""
    """Empty: trained on everything."""
    streams: str = ""
    fronts: dict[str, str] = {}
    """What it hears, with the digest of how that is computed."""
    words: str = ""
    version: str = ""
    """Of this program."""
    plan: dict[str, Any] = {}
    digest: str = ""
    """Of the weights."""
    name: str = ""
    """What it is published under. Empty: the system's."""
    format: int = FORMAT


def save(where: Path, system: Any, about: Trained, half: bool = False) -> Path:
    """Writes `where` (a .safetensors file, or a folder to put one into) in one go; gives back the file.

    half: in half the room, which the system's own weights are rounded to as well: what is exported of it is the same.
    """
    if half:
        system.half().float()
    path = where if where.suffix == ".safetensors" else where / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: part.detach().cpu().contiguous().clone() for name, part in system.state_dict().items()}
    if half:
        weights = {name: part.half() if part.is_floating_point() else part for name, part in weights.items()}
    about = msgspec.structs.replace(
        about,
        digest=digest_of(weights),
        streams=system.streams,
        fronts=front_digests(system.fronts),
        words=system.words,
        version=_version(),
    )
    partial = path.with_suffix(".partial")
    partial.touch()
    mode = partial.stat().st_mode
    save_file(weights, str(partial), {KEY: json.dumps(msgspec.to_builtins(about), ensure_ascii=False)})
    partial.chmod(mode)  # it would be its owner's alone, whatever the umask says
    partial.replace(path)
    return path


def load(where: Path, zoo: Sequence[Path] = (), device: str | torch.device = "cpu") -> tuple[Any, Trained]:
    """The system in that file or folder, in evaluation mode, and what the file says of itself.

    `zoo`: folders with systems of your own.
    """
    path = file_of(where)
    about, weights = _read(path)
    system = systems.build(about.system, about.settings, about.heads, zoo)
    differing = [
        name for name, digest in front_digests(system.fronts).items() if about.fronts.get(name, digest) != digest
    ]
    if differing:
        raise GivenError(
            f"{path}: it was trained on another {', '.join(differing)} than this version computes; train it again, "
            f"or use version {about.version} of clser-stream"
        )
    try:
        system.load_state_dict(weights)
    except RuntimeError as error:
        raise GivenError(
            f"{path}: its weights do not fit the system {about.system}: {' '.join(str(error).split())[:300]}"
        ) from error
    return system.to(device).eval(), about


def about_of(where: Path) -> Trained:
    """What a file says of itself."""
    return _read(file_of(where))[0]


def file_of(where: Path) -> Path:
    """The file in a folder, or the file itself."""
    path = where / FILE if where.is_dir() else where
    if not path.is_file():
        raise MissingError(f"{where}: no trained system there; give a folder of `clser-models train` or its {FILE}")
    return path


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of all weights and their names."""
    whole = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]


def front_digests(names: Sequence[str]) -> dict[str, str]:
    """How each front is computed; of a pretrained encoder its name alone is known."""
    return {name: name if is_hub(name) else fronts.digest(name) for name in names}


def _read(path: Path) -> tuple[Trained, dict[str, Tensor]]:
    try:
        with safe_open(str(path), "pt") as file:
            said = (file.metadata() or {}).get(KEY)
            names = file.keys()
            weights = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise GivenError(
            f"{path}: it is no safetensors file ({error}); give one that `clser-models train` wrote"
        ) from error
    if said is None:
        raise GivenError(
            f"{path}: it does not say what it is (no {KEY!r} in its metadata); train it with `clser-models train`"
        )
    try:
        about = msgspec.json.decode(said, type=Trained)
    except msgspec.DecodeError as error:
        if f'"kind":"{DELTA}"' in said:
            raise GivenError(
                f"{path}: it is a delta, which only says what changed; give its model, and it with --delta where a command has that"
            ) from error
        raise GivenError(f"{path}: what it says of itself cannot be read: {error}") from error
    if about.format > FORMAT:
        raise GivenError(f"{path}: format {about.format}, this version reads up to {FORMAT}; update clser-stream")
    if digest_of(weights) != about.digest:
        raise GivenError(f"{path}: its weights are not those it was saved with (digest {about.digest}); copy it anew")
    return about, weights


def _version() -> str:
    try:
        return version("clser-stream")
    except PackageNotFoundError:
        return ""
