"""Fetches a pretrained checkpoint from the hub: an encoder's, or a recogniser's in CTranslate2's format.

It runs when a person asks for it; no encoder and no recogniser ever calls it. It needs no torch.
"""

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from clser.models.errors import FailedError, GivenError, MissingError

SETTINGS = re.compile(r"[^/]+\.(json|txt|model|jinja)|[^/]+/adapter_config\.json|LICENSE[^/]*|README\.md")
SAFE = re.compile(r"model(-\d+-of-\d+)?\.safetensors|[^/]+/adapter_model\.safetensors")
PICKLED = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
CODE = re.compile(r"[^/]+\.py")
CONVERTED = re.compile(
    r"model\.bin|(config|tokenizer|preprocessor_config)\.json|vocabulary\.[^/]+|LICENSE[^/]*|README\.md"
)
"""What faster-whisper opens."""
PICKLED_INDEX = "pytorch_model.bin.index.json"


def needed(files: Sequence[str], with_code: bool = False) -> list[str]:
    """Which of a repository's files are opened: settings, tokenizer, and weights in one format, safetensors first."""
    if converted(files):
        return sorted(file for file in files if CONVERTED.fullmatch(file))
    kinds = [SETTINGS, SAFE]
    safe = any(SAFE.fullmatch(file) and file.startswith("model") for file in files)
    if not safe:
        kinds.append(PICKLED)
    if with_code:
        kinds.append(CODE)
    wanted = [file for file in files if any(kind.fullmatch(file) for kind in kinds)]
    return sorted(file for file in wanted if not (safe and file == PICKLED_INDEX))


def converted(files: Sequence[str]) -> bool:
    """Whether it is a recogniser in CTranslate2's format, which calls its weights as nobody else does."""
    return "model.bin" in files and any(file.startswith("vocabulary.") for file in files)


def openable(files: Sequence[str]) -> bool:
    """Whether there are weights, and what says how to read them."""
    weights = converted(files) or any(SAFE.fullmatch(file) or PICKLED.fullmatch(file) for file in files)
    return weights and "config.json" in files


def pull(
    name: str, folder: str | Path | None = None, report: Callable[[str], None] | None = None,
    revision: str | None = None, with_code: bool = False,
) -> Path:  # fmt: skip
    """Downloads what is needed of `name` into the hub's cache, or into `folder`, and gives back where it lies.

    `report` is told what will be fetched before it is. `with_code` takes Python files along; nothing runs them here.
    """
    hub = _hub()
    where: dict[str, Any] = {"revision": revision, "local_dir": None if folder is None else Path(folder).expanduser()}
    listed = _ask(hub, name, dry_run=True, **where)
    sizes = {file.filename: file for file in listed}
    wanted = needed(list(sizes), with_code)
    if not openable(wanted):
        raise GivenError(f"{name} holds no checkpoint that can be opened here: no config.json, or no weights beside it")
    todo = [sizes[file] for file in wanted if sizes[file].will_download]
    if report is not None:
        report(
            f"{name}: {len(todo)} of {len(wanted)} files to fetch, {sum(f.file_size or 0 for f in todo) / 1e6:.1f} MB"
        )
    path = Path(_ask(hub, name, allow_patterns=wanted, **where))
    if report is not None:
        report(f"{name}: in {path}")
    return path


def _hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise MissingError(
            f"pulling needs the package huggingface_hub, which is not here ({error}): pip install 'clser-stream[train]' for "
            "encoders, 'clser-stream[whisper]' for a recogniser"
        ) from error


def _ask(hub: Any, name: str, **options: Any) -> Any:
    errors = import_module("huggingface_hub.errors")  # the package itself knows it only once it was asked for
    try:
        return hub.snapshot_download(name, **options)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise MissingError(
            f"the hub has no {name} for you: check the name and the revision; for a closed model log in with `hf auth login`"
        ) from error
    except errors.HFValidationError as error:
        raise GivenError(f"{name!r} is no name on the hub: give OWNER/NAME") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise FailedError(f"{name} could not be fetched: {error}. Check the connection and pull again") from error
