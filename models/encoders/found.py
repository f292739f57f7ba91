"""Where a pretrained checkpoint lies on this machine, and what it takes to load one. Nothing here uses the network."""

import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from clser.models.errors import GivenError, MissingError

NEEDS = "pip install 'clser-stream[train]'"
SPARE = ("masked_spec_embed",)  # a vector that only pretraining uses: many checkpoints come without it


def package(name: str) -> Any:
    """A package of the `train` extra, imported when it is needed: loading one takes seconds."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingError(
            f"pretrained encoders need the package {name}, which is not here ({error}): {NEEDS}"
        ) from error


def checkpoint(name: str) -> Path:
    """The folder of a checkpoint: `name` itself, or what the local cache of the hub holds under that name."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise GivenError(
                f"{folder} holds no checkpoint: there is no config.json in it. Give the folder that has it"
            )
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MissingError(f"there is no folder {name}: give the folder of a checkpoint, or its name on the hub")
    hub = package("huggingface_hub")
    try:
        cached = hub.try_to_load_from_cache(name, "config.json")
    except ValueError as error:
        raise GivenError(f"{name!r} is neither a folder nor a name on the hub: {error}") from error
    if not isinstance(cached, str):
        raise MissingError(
            f"the checkpoint {name} is not on this machine, and nothing is downloaded unasked: "
            f"run `clser-models pull {name}`, or give the folder it lies in"
        )
    return Path(cached).parent


def settings(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """One of the checkpoint's JSON files; nothing if it is not there."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GivenError(f"{path} is no JSON: {error}. Pull the checkpoint again") from error
    if not isinstance(read, dict):
        raise GivenError(f"{path} holds no settings. Pull the checkpoint again")
    return read


def tensor_names(folder: Path) -> set[str]:
    """The names of the tensors in a checkpoint, without reading their values where the format allows it."""
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            return set(settings(folder, index).get("weight_map", {}))
    if (folder / "model.safetensors").is_file():
        with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
            return set(file.keys())
    if (folder / "pytorch_model.bin").is_file():
        return set(torch.load(folder / "pytorch_model.bin", weights_only=True, mmap=True, map_location="meta"))
    raise MissingError(f"{folder} has no weights (model.safetensors or pytorch_model.bin): pull the checkpoint again")


def load(kind: Any, folder: Path, spare: Collection[str] = SPARE, **options: Any) -> Any:
    """`kind.from_pretrained` from the folder alone. A checkpoint that leaves weights at random is refused."""
    tensor_names(folder)
    with _quiet():
        try:
            model, told = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise GivenError(f"the checkpoint in {folder} cannot be loaded: {error}") from error
    lost = sorted(key for key in told["missing_keys"] if key.rpartition(".")[2] not in spare)
    if lost or told["mismatched_keys"]:
        wrong = lost or sorted(str(key) for key in told["mismatched_keys"])
        raise GivenError(
            f"the checkpoint in {folder} does not fill its own model: {len(wrong)} tensors are missing or of another "
            f"shape, {wrong[0]} the first. Pull it again, or give the model type it was saved as"
        )
    return model.eval()


def adapter_tensors(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings and the tensors of one LoRA adapter, saved as PEFT saves them."""
    path = folder / "adapter_model.safetensors"
    about = settings(folder, "adapter_config.json")
    if not about or not path.is_file():
        raise MissingError(
            f"{folder} holds no adapter (adapter_config.json and {path.name}): pull the checkpoint again"
        )
    return about, load_file(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's progress bar and its report of unused heads are kept off the terminal; errors still show."""
    told = package("transformers.utils.logging")
    log = logging.getLogger("transformers")
    level, bars = log.level, told.is_progress_bar_enabled()
    log.setLevel(logging.ERROR)
    told.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
        if bars:
            told.enable_progress_bar()
