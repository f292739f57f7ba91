"""Another delta for the running engine: read, made ready by every worker, and put into place between two batches.

Streams keep their state: an utterance that is going on is answered with the new weights from then on.
"""

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

from clser.engine.errors import FailedError, GivenError
from clser.engine.logs import log
from clser.engine.pipeline import Pipeline
from clser.engine.pool import Pool
from clser.models import delta

PATIENCE_S = 60.0
"""A worker that has not made it ready by then never will."""


class Playing(NamedTuple):
    """What the workers answer with beside their model."""

    name: str
    digest: str
    tells_anew: bool


class Loader:
    """One load at a time."""

    def __init__(self, pool: Pool, pipeline: Pipeline) -> None:
        self._pool, self._pipeline = pool, pipeline
        self._busy = False
        self.playing: Playing | None = None
        self.loads = 0

    async def load(self, path: str | None) -> dict[str, Any]:
        """The file's delta in place of the one there was, or none; what runs then. An error of the tree, and nothing has
        changed, where the file is none or is for another model."""
        if self._busy:
            raise GivenError("a delta is being loaded already; ask again when that is done")
        self._busy = True
        try:
            data, playing = (b"", None) if path is None else await asyncio.to_thread(_read, Path(path))
            try:
                card = await asyncio.wait_for(self._pool.load(data), PATIENCE_S)
            except TimeoutError as error:
                raise FailedError(
                    f"the workers have not made it ready in {PATIENCE_S:.0f} s; nothing has changed"
                ) from error
            except GivenError as error:
                raise GivenError(f"{path}: {error}" if path else str(error)) from error
        finally:
            self._busy = False
        self._adopt(playing, card)
        return self.facts()

    def _adopt(self, playing: Playing | None, card: Any) -> None:
        pipeline, before = self._pipeline, self.playing
        self.playing, pipeline.voice = playing, card
        self.loads += 1
        if pipeline.speakers is not None and any(one is not None and one.tells_anew for one in (before, playing)):
            pipeline.speakers.forget_all()
        pipeline.configure(pipeline.config)
        what = "the model as it is" if playing is None else f"delta {playing.name} {playing.digest}"
        log.info("loaded", what=what, model=card.digest)
        pipeline.say("loaded", f"{what}: {card.name} {card.digest}")

    def facts(self) -> dict[str, Any]:
        """What runs."""
        voice, playing = self._pipeline.voice, self.playing
        return {
            "model": {"name": voice.name, "digest": voice.digest} if voice else None,
            "delta": {"name": playing.name, "digest": playing.digest} if playing else None,
        }


def _read(path: Path) -> tuple[bytes, Playing]:
    data = delta.read_bytes(path)
    about, _ = delta.parsed(data, str(path))
    return data, Playing(about.name or path.stem, about.digest, about.tells_anew)
