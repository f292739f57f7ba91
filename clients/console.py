"""The console: what the engine hears, drawn in the terminal as it hears it.

Messages only change views (clients/views.py). A thread of its own draws them twelve times a second, and of the picture
writes only the lines that changed: that is calm to look at, cheap, and never makes whoever brings the messages wait.
"""

import contextlib
import sys
import termios
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import COLOR_SYSTEMS, Group
from rich.console import Console as Terminal
from rich.text import Text

from clser.clients import draw
from clser.clients.lines import line
from clser.clients.views import EMPTY, Bars, EngineView
from clser.engine.records import Message, Result

FRAMES_PER_S = 12
EASE = 0.45  # of the way to the new value in each picture
SETTLED = 0.004
NOTE_S = 8.0
LAST_SHOWN = 40  # finals left standing when the console has gone

ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"
LEAVE = "\x1b[?25h\x1b[?1049l"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"  # terminals that know it show what lies between at once


def usable(terminal: Terminal) -> bool:
    """Whether the console can be drawn there."""
    return terminal.is_terminal and not terminal.is_dumb_terminal and terminal.encoding.startswith("utf")


class Console:
    """Shows any message while entered; leaves the terminal as it was, with the last finals as plain lines."""

    def __init__(
        self,
        title: str = "clser-stream",
        endpoint: str = "",
        model: str = "",
        terminal: Terminal | None = None,
        unix_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._terminal = terminal or Terminal()
        self._unix_us = unix_us
        self._view = EngineView(title, endpoint, model)
        self._eased: dict[str, Bars] = {}
        self._drawn: list[Text] = []
        self._size = (0, 0)
        self._changed = True
        self._noted = 0
        self._note_until = 0.0
        self._finals: list[Result] = []
        self._ended = threading.Event()
        self._painter: threading.Thread | None = None
        self._keyboard: list[int | list[bytes | int]] | None = None

    def show(self, message: Message) -> None:
        self._view.take(message, self._unix_us())
        if isinstance(message, Result) and message.final:
            self._keep(message)
        self._changed = True

    def _keep(self, final: Result) -> None:
        place = [(old.stream, old.utterance) for old in self._finals]
        if final.stage == "amended" and (amends := (final.stream, final.utterance)) in place:
            self._finals[place.index(amends)] = final
        else:
            self._finals = [*self._finals, final][-LAST_SHOWN:]

    def at(self, endpoint: str, state: str) -> None:
        """Where it publishes, and how it is."""
        self._view.endpoint, self._view.state = endpoint, state
        self._changed = True

    def writes(self, recogniser: str) -> None:
        """Who writes down what is said."""
        self._view.recogniser = recogniser
        self._changed = True

    def note(self, words: str) -> None:
        """Something to know that no message says; empty words take it back."""
        if words != self._view.note:
            self._view.say(words)
            self._changed = True

    def __rich__(self) -> Group:
        """The picture as it is now, for any rich console."""
        return Group(*self.picture(*self._terminal.size))

    def picture(self, width: int, height: int) -> list[Text]:
        now = time.monotonic()
        if self._view.noted != self._noted:
            self._noted = self._view.noted
            self._note_until = now + NOTE_S
        note = self._view.note if now < self._note_until else ""
        return draw.picture(self._view, self._eased, width, height, note)

    # --- in the terminal ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._hush_keyboard()
        self._write(ENTER)
        self._painter = threading.Thread(target=self._paint_on, name="console", daemon=True)
        self._painter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._painter is not None:
            self._painter.join(2.0)  # a terminal that takes nothing must not keep us
        self._write(LEAVE)
        if self._keyboard is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSAFLUSH, self._keyboard)
        for final in self._finals:
            self._write(f"{line(final)}\n")

    def _hush_keyboard(self) -> None:
        """Typed characters would be written into the picture."""
        if sys.stdin is None or not sys.stdin.isatty():
            return
        with contextlib.suppress(termios.error):
            self._keyboard = termios.tcgetattr(sys.stdin.fileno())
            quiet = list(self._keyboard)
            assert isinstance(quiet[3], int)
            quiet[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, quiet)

    def _paint_on(self) -> None:
        with contextlib.suppress(OSError):  # the terminal has gone; the engine's end comes from elsewhere
            while not self._ended.wait(1 / FRAMES_PER_S):
                self.paint()

    def paint(self) -> None:
        """Draw what changed since the last time."""
        size = (self._terminal.width, self._terminal.height)
        noting = bool(self._note_until) and time.monotonic() >= self._note_until
        if not (self._changed or noting or size != self._size):
            return
        self._changed = False
        if self._ease():
            self._changed = True
        if noting:
            self._note_until = 0.0
        out: list[str] = []
        if size != self._size:
            self._size, self._drawn = size, []
            out.append("\x1b[2J")
        lines = self.picture(*size)
        for row, text in enumerate(lines):
            if row >= len(self._drawn) or self._drawn[row] != text:
                out.append(f"\x1b[{row + 1};1H{self._ansi(text)}")
        self._drawn = lines
        if out:
            self._write("".join([BEGIN, *out, END]))

    def _ease(self) -> bool:
        """Move the bars on; whether they are still moving."""
        moving = False
        eased: dict[str, Bars] = {}
        for view in self._view.streams:
            aims = view.bars
            moved = [nearer(at, aim) for at, aim in zip(self._eased.get(view.name, EMPTY), aims, strict=True)]
            after = eased[view.name] = Bars(*moved)
            moving = moving or any(
                at != aim.get(name, 0.0) for bars, aim in zip(after, aims, strict=True) for name, at in bars.items()
            )
        self._eased = eased
        return moving

    def _ansi(self, text: Text) -> str:
        system = self._terminal.color_system
        colours = None if self._terminal.no_color or system is None else COLOR_SYSTEMS[system]
        return "".join(
            segment.text if segment.style is None else segment.style.render(segment.text, color_system=colours)
            for segment in text.render(self._terminal)
        )

    def _write(self, words: str) -> None:
        self._terminal.file.write(words)
        self._terminal.file.flush()


def nearer(bars: dict[str, float], aims: dict[str, float]) -> dict[str, float]:
    """The bars a step further on their way; what is aimed at no more sinks to nothing."""
    after = {}
    for name in {**aims, **bars}:
        at, aim = bars.get(name, 0.0), aims.get(name, 0.0)
        after[name] = aim if abs(aim - at) < SETTLED else at + EASE * (aim - at)
    return after
