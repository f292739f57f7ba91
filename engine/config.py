"""Frozen sections, each declared beside the code that obeys it; YAML files and `--set` hold differences only."""

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from clser.engine.asr import AsrConfig
from clser.engine.errors import GivenError
from clser.engine.fuse import FuseConfig
from clser.engine.health import MetricsConfig
from clser.engine.ingest import IngestConfig
from clser.engine.overload import OverloadConfig
from clser.engine.pool import PoolConfig
from clser.engine.privacy import PrivacyConfig
from clser.engine.publish import BusConfig
from clser.engine.segment import SegmentConfig
from clser.engine.speakers import SpeakerConfig
from clser.engine.stream import StreamConfig
from clser.engine.vad import VadConfig
from clser.models import sections


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    voice: str = "voice"
    """A shipped model's name, one in the user's own folder of models (docs/models.md), or a path: of an .onnx file, of a
    .safetensors file, or of a folder that `clser-models train` wrote."""
    backend: Literal["auto", "onnx", "torch"] = "auto"
    """`torch` needs the extra of that name, and keeps the streams' state on the GPU. auto: what the model's file is made for."""
    delta: str = ""
    """A file of `clser-models adapt`, for that very model: it is answered with that upon it. Empty: none. The control socket
    takes another while the engine runs (`load`)."""


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "warning"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    stream: StreamConfig = StreamConfig()
    vad: VadConfig = VadConfig()
    segment: SegmentConfig = SegmentConfig()
    model: ModelConfig = ModelConfig()
    speaker: SpeakerConfig = SpeakerConfig()
    asr: AsrConfig = AsrConfig()
    fuse: FuseConfig = FuseConfig()
    pool: PoolConfig = PoolConfig()
    overload: OverloadConfig = OverloadConfig()
    bus: BusConfig = BusConfig()
    ingest: IngestConfig = IngestConfig()
    metrics: MetricsConfig = MetricsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    log: LogConfig = LogConfig()


def load(source: str | Path = "live", overrides: list[str] | None = None) -> Config:
    """The config of that name (in clser.configs) or in that file, with `section.key=value` overrides upon it."""
    return _overridden(sections.read(source, "config", names()), overrides or [], str(source))


def changed(config: Config, overrides: list[str]) -> Config:
    """That config with `section.key=value` overrides upon it."""
    return _overridden(msgspec.to_builtins(config), overrides, "in use")


def from_values(values: dict[str, Any], source: str) -> Config:
    """Checked and frozen; GivenError names the path of what is wrong and, for a key, the nearest right one."""
    config = sections.frozen(values, Config, f"config {source}")
    if config.segment.longest_ms < 2 * config.segment.carry_ms + config.segment.end_ms:
        raise GivenError(
            f"config {source}: segment.longest_ms is {config.segment.longest_ms}: make it at least "
            f"2 x carry_ms + end_ms ({2 * config.segment.carry_ms + config.segment.end_ms}), or cuts never catch up"
        )
    config.privacy.check(source)
    return config


def names() -> list[str]:
    """The shipped configs of an engine; the folder holds the plans of training too."""
    return [name for name in sections.shipped("") if not name.startswith(sections.PREFIX_OF_PLANS)]


def _overridden(values: dict[str, Any], overrides: list[str], source: str) -> Config:
    for override in overrides:
        sections.change(values, override, "segment.end_ms=200", least=2)
    return from_values(values, source)
