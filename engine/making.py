"""What a worker is asked to load, made in a thread beside its work loop, so that no batch waits for it."""

import threading
from collections.abc import Callable

from clser.engine import jobs
from clser.engine.errors import ClserError, FailedError

Put = Callable[[], None]
"""Puts what was made into place, between two batches."""
Made = tuple[jobs.VoiceCard, Put]
"""What the model will say of itself, and how it becomes so."""


class Making:
    """One load under way, and then ready."""

    def __init__(self, load: jobs.Load, make: Callable[[jobs.Load], Made]) -> None:
        self.number = load.number
        self.told = False
        """Loaded was said."""
        self._load, self._make = load, make
        self._put: Put | None = None
        self._loaded: jobs.Loaded | None = None
        threading.Thread(target=self._run, name="loading", daemon=True).start()

    def look(self) -> jobs.Loaded | None:
        """How it went, once it is known; said once."""
        loaded = self._loaded
        self.told = loaded is not None
        return loaded

    def put(self) -> None:
        """Answer with it from now on."""
        assert self._put is not None, "it was not made"
        self._put()

    def _run(self) -> None:
        try:
            card, self._put = self._make(self._load)
            self._loaded = jobs.Loaded(self.number, card)
        except ClserError as error:
            self._loaded = jobs.Loaded(self.number, None, str(error), error.exit_code)
        except Exception as error:  # noqa: BLE001 - the worker goes on as it was, whatever it is
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self._loaded = jobs.Loaded(self.number, None, why, FailedError.exit_code)
