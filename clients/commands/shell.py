"""What all commands share: arguments that fail in one line, exit codes, signals, the log."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from clser.engine.errors import ClserError
from clser.engine.logs import configure_logs

INTERRUPTED = 130
LOG_LEVELS = ("debug", "info", "warning", "error")
HELD_BYTES = 65_536


class Parser(argparse.ArgumentParser):
    """Wrong arguments are one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.split()[0]}: {message}; see {self.prog} --help\n")


def parser(prog: str, description: str, epilog: str = "") -> Parser:
    """With the arguments that every command has."""
    made = Parser(prog=prog, description=description, epilog=epilog, allow_abbrev=False)
    made.add_argument("--version", action="version", version=f"clser-stream {installed_version()}")
    made.add_argument(
        "--log-json", action="store_true", help="write the log (standard error) as JSON, one event a line"
    )
    made.add_argument("--log-level", choices=LOG_LEVELS, help="what the log tells of (default: warning, or log.level)")
    return made


def installed_version() -> str:
    try:
        return version("clser-stream")
    except PackageNotFoundError:
        return "(not installed)"


def seconds(text: str) -> float:
    """A duration as an argument."""
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def set_up_log(given: argparse.Namespace, otherwise: str = "warning") -> None:
    configure_logs(given.log_level or otherwise, as_json=given.log_json)


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its exit code; whatever goes wrong on purpose is one line."""
    name = os.path.basename(sys.argv[0]).removesuffix(".py")  # noqa: PTH119 - it need not be a path
    try:
        code = main()
        sys.stdout.flush()
    except ClserError as error:
        print(f"{name if name.startswith('clser-') else 'clser-stream'}: {error}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:  # whoever read our output has had enough
        code = 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:  # what we expect has a class of its own: a full disk behind standard output has not
        print(f"{name if name.startswith('clser-') else 'clser-stream'}: {error}", file=sys.stderr)
        code = 1
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    _let_go_of_stdout()
    sys.exit(code)


def _let_go_of_stdout() -> None:
    """Python flushes standard output once more when it ends, and would complain of a pipe that is broken."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Ending:
    """SIGINT and SIGTERM ask once, politely, for the end; the next one is obeyed by Python at once.

    Made inside a running loop. `code` is what the process should end with.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.code = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._ask, number)

    def _ask(self, number: signal.Signals) -> None:
        self.code = INTERRUPTED if number == signal.SIGINT else 0
        for each in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(each)
        self._asked.set()

    async def wait(self) -> None:
        await self._asked.wait()


@contextlib.contextmanager
def stderr_held_back() -> Iterator[None]:
    """While a console owns the terminal, what anybody writes to standard error (workers too) waits until it has gone."""
    if not os.isatty(2):
        yield
        return
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            held.seek(max(0, held.seek(0, os.SEEK_END) - HELD_BYTES))
            sys.stderr.write(held.read().decode(errors="replace"))
            sys.stderr.flush()
