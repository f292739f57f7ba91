"""What `clser-models` says of the systems in the zoo, and of trained ones. Loads torch, where it is there."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT

from clser.engine.errors import ClserError, MissingError
from clser.engine.shipped import model_path, own

NEEDS_TORCH = "systems are listed, shown and exported with torch: pip install 'clser-stream[torch]'"
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def add_zoo(action: argparse.ArgumentParser) -> None:
    """`--zoo DIR`, for the actions that build systems."""
    action.add_argument(
        "--zoo", action="append", default=[], type=_folder, metavar="DIR", help="more systems, a file each"
    )


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise MissingError(f"--zoo {text}: there is no such folder")
    return Path(text)


def torch_is_here() -> bool:
    """Whether systems can be loaded."""
    try:
        import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return False
    return True


def need_torch() -> None:
    """MissingError without it."""
    if not torch_is_here():
        raise MissingError(NEEDS_TORCH)


def listed(zoo: Sequence[Path]) -> list[dict[str, Any]]:
    """Every system that can be built; those that cannot are told on standard error, and hide no other."""
    found = []
    for name in import_module("clser.models.systems").systems(zoo):
        try:
            found.append(summary(name, zoo))
        except ClserError as error:
            print(f"clser-models: system {name}: {error}", file=sys.stderr)
        except Exception as error:  # noqa: BLE001 - a file in a folder of somebody's may raise anything
            print(f"clser-models: system {name}: {type(error).__name__}: {error}", file=sys.stderr)
    return found


def owned() -> list[dict[str, Any]]:
    """The models in the user's own folder; what their systems are only where torch can read them. One that is broken hides
    no other."""
    found = []
    for name in own():
        path = model_path(name)
        said = {"name": name, "file": str(path), "bytes": path.stat().st_size, "system": "", "digest": ""}
        try:
            if path.suffix == ".safetensors" and torch_is_here():
                about = import_module("clser.models.saved").about_of(path)
                said |= {"system": about.system, "digest": about.digest}
        except ClserError as error:
            print(f"clser-models: {error}", file=sys.stderr)
            continue
        found.append(said)
    return found


def exists(name: str, zoo: Sequence[Path]) -> bool:
    """Whether there is a system of that name."""
    return name in import_module("clser.models.systems").systems(zoo)


def summary(name: str, zoo: Sequence[Path]) -> dict[str, Any]:
    """A system as it is with its defaults."""
    systems, live = import_module("clser.models.systems"), import_module("clser.models.live")
    module = systems.system_file(name, zoo)
    system = systems.build(name, {}, import_module("clser.models.labels").HEADS, zoo)
    window, hop = live.windows(system)
    return {
        "name": name,
        "title": module.ABOUT.title,
        "reference": module.ABOUT.reference,
        "file": str(systems.systems(zoo)[name]),
        "streams": system.streams,
        "window_frames": window,
        "hop_frames": hop,
        "frame_samples": system.frame_samples,
        "fronts": list(system.fronts),
        "words": system.words,
        "parameters": sum(each.numel() for each in system.parameters()),
        "parts": parts(system),
    }


def parts(system: Any) -> dict[str, int]:
    """The parameters of each of its own modules that has any."""
    sizes = {name: sum(each.numel() for each in part.parameters()) for name, part in system.named_children()}
    return {name: size for name, size in sizes.items() if size}


def description(name: str, zoo: Sequence[Path]) -> dict[str, Any]:
    """The summary, with what can be set."""
    config = import_module("clser.models.systems").system_file(name, zoo).Config
    return {**summary(name, zoo), "settings": settings(config)}


def settings(config: Any) -> list[dict[str, Any]]:
    """Each choice of a system with its type and its default."""
    hints = get_type_hints(config, include_extras=True)
    return [
        {"name": field.name, "type": kind(hints[field.name]), "default": _default(field)}
        for field in msgspec.structs.fields(config)
    ]


def _default(field: Any) -> Any:
    if field.default is not NODEFAULT:
        return msgspec.to_builtins(field.default)
    return None if field.default_factory is NODEFAULT else msgspec.to_builtins(field.default_factory())


def kind(hint: Any) -> str:
    """A type as people write it: `int >= 1`, `full | causal`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [
            f"{sign} {getattr(meta, name):g}" for meta in inner[1:] for name, sign in BOUNDS.items() if _has(meta, name)
        ]
        return " ".join([kind(inner[0]), *bounds])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " | ".join("none" if part is type(None) else kind(part) for part in inner)
    if origin is not None:
        return f"{origin.__name__} of {', '.join(kind(part) for part in inner if part is not Ellipsis)}"
    return getattr(hint, "__name__", str(hint))


def _has(meta: Any, bound: str) -> bool:
    return getattr(meta, bound, None) is not None


def trained(where: Path) -> dict[str, Any]:
    """What a folder of `clser-models train`, or its file, says of itself."""
    saved = import_module("clser.models.saved")
    path = saved.file_of(where)
    return {**msgspec.to_builtins(saved.about_of(path)), "file": str(path), "bytes": path.stat().st_size}


def lines(system: Mapping[str, Any]) -> list[str]:
    """A description as text."""
    said = [
        f"{key:<15}  {value}"
        for key, value in (
            ("system", system["name"]),
            ("title", system["title"]),
            ("reference", system["reference"]),
            ("file", system["file"]),
            ("streams", streaming(system)),
            ("hears", ", ".join(system["fronts"]) or "nothing"),
            ("reads", system["words"] or "nothing"),
            ("parameters", f"{system['parameters']:,}"),
            ("parts", ", ".join(f"{name} {size:,}" for name, size in system["parts"].items())),
        )
    ]
    wide = max((len(each["name"]) for each in system["settings"]), default=0)
    each = (
        f"  {setting['name']:<{wide}}  {setting['default']!s:<12}  {setting['type']}" for setting in system["settings"]
    )
    return [*said, "settings (name, default, type)", *each]


def streaming(system: Mapping[str, Any]) -> str:
    """How it streams, in words."""
    frame_s = system["frame_samples"] / import_module("clser.engine.records").SAMPLE_RATE_HZ
    if system["streams"] == "exactly":
        return f"exactly: an answer every {frame_s * 1000:g} ms"
    window_s = system["window_frames"] * frame_s
    if system["streams"] == "end":
        return f"end: an answer when an utterance is over, about its last {window_s:g} s at most"
    return f"window: an answer every {system['hop_frames'] * frame_s:g} s about the last {window_s:g} s"
