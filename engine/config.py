"""Frozen sections, each declared beside the code that obeys it; YAML files and `--set` hold differences only."""

import difflib
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from msgspec import Struct

from clser.engine.errors import GivenError
from clser.engine.fuse import FuseConfig
from clser.engine.health import MetricsConfig
from clser.engine.ingest import IngestConfig
from clser.engine.overload import OverloadConfig
from clser.engine.pool import PoolConfig
from clser.engine.privacy import PrivacyConfig
from clser.engine.publish import BusConfig
from clser.engine.segment import SegmentConfig
from clser.engine.stream import StreamConfig
from clser.engine.vad import VadConfig


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    voice: str = "voice_gru"
    """A shipped model's name, or the path of an .onnx file (for `torch`, of a .safetensors file)."""
    backend: Literal["onnx", "torch"] = "onnx"
    """`torch` needs the extra of that name, and keeps the streams' state on the GPU."""


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "warning"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    stream: StreamConfig = StreamConfig()
    vad: VadConfig = VadConfig()
    segment: SegmentConfig = SegmentConfig()
    model: ModelConfig = ModelConfig()
    fuse: FuseConfig = FuseConfig()
    pool: PoolConfig = PoolConfig()
    overload: OverloadConfig = OverloadConfig()
    bus: BusConfig = BusConfig()
    ingest: IngestConfig = IngestConfig()
    metrics: MetricsConfig = MetricsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    log: LogConfig = LogConfig()


class _Yaml(yaml.SafeLoader):
    """Only `true` and `false` are booleans: to YAML 1.1 `on` and `off`, which are keys of ours, would be some too."""


_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))


def load(source: str | Path = "live", overrides: list[str] | None = None) -> Config:
    """The config of that name (in clser.configs) or in that file, with `section.key=value` overrides upon it."""
    values = _read(source)
    for override in overrides or []:
        _override(values, override)
    return from_values(values, str(source))


def changed(config: Config, overrides: list[str]) -> Config:
    """That config with `section.key=value` overrides upon it."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    for override in overrides:
        _override(values, override)
    return from_values(values, "in use")


def from_values(values: dict[str, Any], source: str) -> Config:
    """Checked and frozen; GivenError names the path of what is wrong and, for a key, the nearest right one."""
    _refuse_unknown(values, Config, source, "")
    try:
        config = msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        raise GivenError(f"config {source}: {path.rstrip('`') or 'the top'}: {what}") from error
    if config.segment.longest_ms < 2 * config.segment.carry_ms + config.segment.end_ms:
        raise GivenError(
            f"config {source}: segment.longest_ms is {config.segment.longest_ms}: make it at least "
            f"2 x carry_ms + end_ms ({2 * config.segment.carry_ms + config.segment.end_ms}), or cuts never catch up"
        )
    config.privacy.check(source)
    return config


def names() -> list[str]:
    """The shipped configs of an engine; the folder holds the plans of training too."""
    shipped = (Path(entry.name) for entry in files("clser.configs").iterdir())
    return sorted(path.stem for path in shipped if path.suffix == ".yaml" and not path.stem.startswith("train_"))


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        try:
            text = path.read_text()
        except OSError as error:
            raise GivenError(f"config {source}: {error.strerror}: give the path of a readable YAML file") from error
    elif str(source) in names():
        text = files("clser.configs").joinpath(f"{source}.yaml").read_text()
    else:
        raise GivenError(f"config {str(source)!r}: give one of {', '.join(names())}, or the path of a .yaml file")
    try:
        values = yaml.load(text, _Yaml)
    except (yaml.YAMLError, RecursionError) as error:
        raise GivenError(f"config {source}: it is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise GivenError(
            f"config {source}: the top must hold sections ({', '.join(Config.__struct_fields__)}), not a {type(values).__name__}"
        )
    return values


def _override(values: dict[str, Any], override: str) -> None:
    path, given, text = override.partition("=")
    section, dot, key = path.partition(".")
    if not given or not dot:
        raise GivenError(f"--set {override!r}: write section.key=value, like segment.end_ms=200")
    try:
        value = yaml.load(text, _Yaml) if text else ""
    except (yaml.YAMLError, RecursionError) as error:
        raise GivenError(f"--set {override!r}: {text!r} is no YAML value") from error
    inner = values.setdefault(section, {})
    if isinstance(inner, dict):
        inner[key] = value


def _refuse_unknown(values: dict[str, Any], struct: type[Struct], source: str, path: str) -> None:
    for key, value in values.items():
        known = {field.name: field.type for field in msgspec.structs.fields(struct)}
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 1, 0.5)
            hint = f"did you mean {path}{near[0]}?" if near else f"there are {', '.join(path + name for name in known)}"
            raise GivenError(f"config {source}: there is no {path}{key}; {hint}")
        kind = known[key]
        if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, Struct):
            _refuse_unknown(value, kind, source, f"{path}{key}.")
