"""Which voice models are installed, and where they lie. Imports no runtime."""

import hashlib
from importlib.resources import files
from pathlib import Path

from clser.engine.errors import MissingError


def folder() -> Path:
    return Path(str(files("clser.models.weights")))


def installed() -> list[str]:
    """The names that `--model` takes."""
    return sorted(path.stem for path in folder().glob("*.onnx"))


def model_path(model: str) -> Path:
    """The file behind a name or a path."""
    path = Path(model)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise MissingError(f"model {model!r}: there is no such file")
        return path
    if model not in installed():
        names = ", ".join(installed()) or "none"
        raise MissingError(f"model {model!r} is unknown: installed are {names}; or give the path of an .onnx file")
    return folder() / f"{model}.onnx"


def digest(path: Path) -> str:
    """What tells one file from another, in results and on benchmarks' cards."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
