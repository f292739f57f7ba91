"""Frozen sections out of YAML: what the engine's configs and the plans of training share.

Unknown keys are refused with the nearest right one, values that do not fit with the path at which they stand.
"""

import difflib
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml
from msgspec import Struct

from clser.models.errors import GivenError

PREFIX_OF_PLANS = "train_"
"""A plan of training NAME lies in `clser.configs` as `train_NAME.yaml`, beside the engine's configs."""

Sections = TypeVar("Sections", bound=Struct)


class Yaml(yaml.SafeLoader):
    """Only `true` and `false` are booleans: to YAML 1.1 `on` and `off`, which are keys of ours, would be some too."""


Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))


def shipped(prefix: str) -> list[str]:
    """The names that come with the package: files of `clser.configs` that begin so."""
    found = (Path(entry.name) for entry in files("clser.configs").iterdir())
    return sorted(p.stem.removeprefix(prefix) for p in found if p.suffix == ".yaml" and p.stem.startswith(prefix))


def read(source: str | Path, what: str, names: list[str], prefix: str = "") -> dict[str, Any]:
    """The values in that file, or of that name among `names`; `what` says in messages what is being read."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise GivenError(f"{what} {source}: {error.strerror}: give the path of a readable YAML file") from error
    elif str(source) in names:
        text = files("clser.configs").joinpath(f"{prefix}{source}.yaml").read_text(encoding="utf-8")
    else:
        raise GivenError(f"{what} {str(source)!r}: give one of {', '.join(names)}, or the path of a .yaml file")
    try:
        values = yaml.load(text, Yaml)
    except (yaml.YAMLError, RecursionError) as error:
        raise GivenError(f"{what} {source}: it is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise GivenError(f"{what} {source}: the top must hold sections or keys, not a {type(values).__name__}")
    return values


def change(values: dict[str, Any], given: str, example: str, least: int = 1) -> None:
    """`section.key=value` upon the values, in place; `least` parts of a path are asked for."""
    path, equals, text = given.partition("=")
    *sections, key = path.split(".")
    if not equals or not all((*sections, key)) or len(sections) + 1 < least:
        raise GivenError(f"--set {given!r}: write {'section.' * (least - 1)}key=value, like {example}")
    try:
        value = yaml.load(text, Yaml) if text else ""
    except (yaml.YAMLError, RecursionError) as error:
        raise GivenError(f"--set {given!r}: {text!r} is no YAML value") from error
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise GivenError(f"--set {given!r}: {section} holds no keys")
    values[key] = value


def frozen(values: Mapping[str, Any], kind: type[Sections], what: str, *, strict: bool = True) -> Sections:
    """Checked and frozen. `what` begins every message. Not strict: texts that are numbers will do (1e-3 is one in YAML)."""
    _refuse_unknown(values, kind, what, "")
    try:
        return msgspec.convert(dict(values), kind, strict=strict)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$.")
        raise GivenError(f"{what}: {path.rstrip('`') or 'the top'}: {said}") from error


def _refuse_unknown(values: Mapping[str, Any], kind: type[Struct], what: str, path: str) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 1, 0.5)
            hint = f"did you mean {path}{near[0]}?" if near else f"there are {', '.join(path + name for name in known)}"
            raise GivenError(f"{what}: there is no {path}{key}; {hint}")
        inner = known[key]
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, Struct):
            _refuse_unknown(value, inner, what, f"{path}{key}.")
