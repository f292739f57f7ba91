"""Which voice models are installed, and where they lie. Imports no runtime."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path

from clser.engine.errors import FailedError, MissingError

DIGESTS = "digests.json"
"""What every shipped file must be, by name."""


def folder() -> Path:
    return Path(str(files("clser.models.weights")))


def installed() -> list[str]:
    """The names that `--model` takes. What else lies there are parts that read words."""
    return sorted(path.stem for path in folder().glob("voice*.onnx"))


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
    return checked(folder() / f"{model}.onnx")


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
