"""`clser-models train`: a system from a plan and corpora."""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from clser.clients.commands.systems import add_zoo
from clser.engine.backends.devices import DEVICE
from clser.engine.errors import GivenError, MissingError
from clser.models.data.corpora import FOLDER_VARIABLE, corpora_folder

NAME = "train"
HELP = "train a system of the zoo on corpora; stopped or killed, it goes on with --resume"
CACHE_VARIABLE = "CLSER_CACHE"


def add_parser(inner: Any) -> None:
    """The action and its arguments."""
    action = inner.add_parser(NAME, help=HELP, description=HELP, allow_abbrev=False)
    action.add_argument("--config", required=True, metavar="FILE|NAME", help="a YAML plan, or a shipped one's name")
    action.add_argument("--corpora", metavar="DIR", help=f"folder of the corpora (default: ${FOLDER_VARIABLE})")
    action.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the model and its figures")
    action.add_argument("--fold", default="", metavar="K", help="hold out this fold, by number or name (default: none)")
    action.add_argument("--seed", type=int, default=0, metavar="N")
    action.add_argument("--resume", action="store_true", help="go on with the run that --out holds")
    action.add_argument(
        "--set", action="append", default=[], dest="changes", metavar="KEY=VALUE", help="such as optimiser.epochs=8"
    )
    add_zoo(action)
    action.add_argument("--device", default="cpu", help="cpu or cuda:N (default: cpu)")
    action.add_argument("--threads", type=int, default=0, metavar="N", help="of torch (default: its own choice)")
    action.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help=f"folder for features (default: ${CACHE_VARIABLE}, or ~/.cache/clser-stream)",
    )
    action.add_argument("--checkpoint-s", type=float, default=30.0, metavar="S", help="seconds between checkpoints")
    action.add_argument(
        "--checkpoint-steps", type=int, default=0, metavar="N", help="and steps (default: seconds alone)"
    )
    action.add_argument("--json", action="store_true", help="one JSON document with the figures on standard output")


def run(given: argparse.Namespace) -> int:
    """The command."""
    torch, runs, plan, training, systems = _needed()
    if given.threads < 0:
        raise GivenError(f"--threads {given.threads}: give a number of threads, or 0 for torch's own choice")
    if given.threads:
        torch.set_num_threads(given.threads)
    _check_device(torch, given.device)
    asked = plan.load(given.config, given.changes)
    for option, folder in (("--out", given.out), ("--cache", cache_folder(given.cache))):
        _can_write(option, folder)
    if (given.out / training.CHECKPOINT).exists() and not given.resume:
        raise GivenError(f"{given.out} holds a run that was begun: ask to resume it (--resume), or give another folder")
    with _watching() as watcher:
        prepared = runs.prepare(
            asked, corpora_folder(given.corpora), cache_folder(given.cache), watcher,
            fold=given.fold, seed=given.seed, zoo=given.zoo,
        )  # fmt: skip
        with _asked_to_stop() as stop, _events(given.out) as events:
            running = training.Running(
                given.device, given.checkpoint_s, given.checkpoint_steps, stop=stop, events=events
            )
            # a system may bring its own way to be trained
            fit = getattr(systems.system_file(asked.system, given.zoo), "fit", runs.fit)
            found = fit(prepared, given.out, watcher, resume=given.resume, running=running)
    if given.json:
        print(json.dumps(found))
    return 0


def _check_device(torch: Any, device: str) -> None:
    if not DEVICE.fullmatch(device):
        raise GivenError(f"--device {device}: give cpu or cuda:N")
    count = torch.cuda.device_count()
    if device != "cpu" and int(device.partition(":")[2] or 0) >= count:
        found = f"{count} GPUs, counted from 0" if count else "no GPU"
        raise MissingError(f"--device {device}: torch finds {found} here; use --device cpu")


def _can_write(option: str, folder: Path) -> None:
    """Found out before the corpora are read, rather than after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise GivenError(
            f"{option} {folder}: nothing can be written there ({error.strerror}); give another folder"
        ) from error


def cache_folder(given: Path | None) -> Path:
    """Where features are kept."""
    return given or Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "clser-stream")


def _needed() -> tuple[Any, Any, Any, Any, Any]:
    try:
        import_module("torch")
        import_module("safetensors")
    except ModuleNotFoundError as error:
        raise MissingError(f"training needs {error.name}: pip install 'clser-stream[torch]'") from error
    return tuple(
        import_module(f) for f in ("torch", *(f"clser.models.{m}" for m in ("runs", "plan", "train", "systems")))
    )  # type: ignore[return-value]


class Lines:
    """Progress where there is no terminal."""

    def line(self, text: str) -> None:
        """Straight to standard error."""
        print(text, file=sys.stderr, flush=True)

    def step(self, done: int, total: int, what: str) -> None:
        """A step is worth no line."""


class Bar:
    """Progress on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def line(self, text: str) -> None:
        """Above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def step(self, done: int, total: int, what: str) -> None:
        """The bar moves."""
        if self._task is None:
            self._task = self._progress.add_task(what, total=total)
        self._progress.update(self._task, completed=done, total=total, description=what)


@contextlib.contextmanager
def _watching() -> Iterator[Lines | Bar]:
    if not sys.stderr.isatty():
        yield Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bar(progress)


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """The first SIGINT or SIGTERM asks for a checkpoint and the end; the next one is obeyed at once."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _events(out: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Each epoch's figures for TensorBoard, where it is installed."""
    try:
        writer = import_module("tensorboard.summary").Writer(str(out / "events"))
    except ImportError:
        yield lambda line: None
        return

    def take(line: Mapping[str, Any]) -> None:
        for key, value in ({**line} | {f"valid_uar/{k}": v for k, v in line.get("by_corpus", {}).items()}).items():
            if isinstance(value, int | float) and key != "epoch":
                writer.add_scalar(key, value, line["epoch"])
        writer.flush()

    try:
        yield take
    finally:
        writer.close()
