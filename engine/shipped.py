"""Which voice models are there, and where they lie. Imports no runtime.

A name is a shipped model's, or that of a folder among the user's own: where `clser-models train --out` was told to write.
"""

import hashlib
import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Literal

from clser.engine.errors import FailedError, MissingError

DIGESTS = "digests.json"
"""What every shipped file must be, by name."""
TRAINED, EXPORTED = "model.safetensors", "model.onnx"
"""What a folder of training holds, and what its export is called."""


def folder() -> Path:
    return Path(str(files("clser.models.weights")))


def installed() -> list[str]:
    """The shipped names that `--model` takes. What else lies there are parts that read words."""
    return sorted(path.stem for path in folder().glob("voice*.onnx"))


def own_folder() -> Path:
    """Where the user's models lie: `$CLSER_MODELS`, else in the folder that this system has for programs' data."""
    if given := os.environ.get("CLSER_MODELS"):
        return Path(given).expanduser()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "clser-stream" / "models"


def own() -> list[str]:
    """The names among the user's models that `--model` takes."""
    found = own_folder().iterdir() if own_folder().is_dir() else ()
    return sorted(path.name for path in found if _file_in(path) is not None and path.name not in installed())


def model_path(model: str) -> Path:
    """The file behind a shipped name, a path or one of the user's names: an .onnx, or a .safetensors of training."""
    if model in installed():
        return checked(folder() / f"{model}.onnx")
    path = Path(model)
    if path.suffix in (".onnx", ".safetensors"):
        if not path.is_file():
            raise MissingError(f"model {model!r}: there is no such file")
        return path
    if model and path.is_dir():
        found = _file_in(path)
        if found is None:
            raise MissingError(
                f"model {model!r}: there is no {TRAINED} and no {EXPORTED} in that folder; give one of `clser-models train`"
            )
        return found
    found = _file_in(own_folder() / model) if model and path.name == model else None
    if found is None:
        raise MissingError(f"model {model!r} is unknown: {_instead(model)}")
    return found


def backend_for(model: str) -> Literal["onnx", "torch"]:
    """What plays it, where nobody says. What was trained goes to torch, and what is missing is said by whoever opens it."""
    if model in installed():
        return "onnx"
    try:
        return "torch" if model_path(model).suffix == ".safetensors" else "onnx"
    except MissingError:
        return "torch" if model.endswith(".safetensors") else "onnx"


def checked(path: Path) -> Path:
    """The same shipped file, if its bytes are those that were shipped: a file that was cut short answers nonsense."""
    expected = json.loads((path.parent / DIGESTS).read_bytes()).get(path.name)
    if expected != digest(path):
        raise FailedError(
            f"{path} is not the file that was shipped (digest {digest(path)}, not {expected}); install anew"
        )
    return path


def digest(path: Path) -> str:
    """What tells one file from another, in results and on benchmarks' cards."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _file_in(place: Path) -> Path | None:
    """What a folder is played by: what was trained there, else what was exported."""
    return next((place / name for name in (TRAINED, EXPORTED) if (place / name).is_file()), None)


def _instead(model: str) -> str:
    """What there is, or how to get it."""
    names = ", ".join([*installed(), *own()]) or "none"
    if model not in _systems():
        return f"installed are {names}; or give the path of an .onnx file, or of a folder of `clser-models train`"
    plan = model if files("clser.configs").joinpath(f"train_{model}.yaml").is_file() else "PLAN.yaml"
    return (
        f"installed are {names}. It is a system that was not trained here yet: "
        f"`clser-models train --config {plan} --corpora DIR --out {own_folder() / model}`"
    )


def _systems() -> list[str]:
    """The names in the zoo, without loading one."""
    zoo = Path(str(files("clser.models"))) / "zoo"
    return [path.stem for path in zoo.glob("*.py") if not path.stem.startswith("_")]
