"""Where sound comes from, one file a kind: `mic`, `file`, `stdin`, `zmq`. A module here is a source; there is no list to edit.

Each has `open_source(rest, name, settings)` and returns a `Source`. A source opens its streams on the engine, feeds them,
and returns when the sound has ended and the last final is out. Cancelling it closes its device; the engine drains.
"""

import re
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Literal, Protocol, cast

from clser.engine.clock import Clock, RealClock
from clser.engine.errors import GivenError
from clser.engine.ingest import IngestConfig
from clser.engine.records import SampleFormat

if TYPE_CHECKING:
    from clser.engine.api import Engine  # sources are handed an engine; they never make one

SPEC = re.compile(r"(?:(?P<name>[A-Za-z0-9._-]{1,64})=)?(?P<kind>[a-z]+)(?::(?P<rest>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What may be said of a source beside its spec; each kind reads what concerns it."""

    pace: Literal["real", "fast"] = "real"
    """Files: at the pace of their sound, or as fast as the engine computes."""
    rate_hz: int = 16_000
    """Raw PCM: how it was sampled."""
    channels: int = 1
    format: SampleFormat = "s16"
    ingest: IngestConfig = field(default_factory=IngestConfig)
    """Sockets: how many streams, and when one counts as gone."""
    clock: Clock = field(default_factory=RealClock)


class Source(Protocol):
    async def run(self, engine: "Engine") -> None: ...


def open_source(spec: str, settings: SourceSettings) -> Source:
    """The source behind `[NAME=]KIND[:REST]`; GivenError or MissingError where there is none."""
    found = SPEC.fullmatch(spec)
    kinds = [module.name for module in iter_modules(__path__)]
    if found is None or found["kind"] not in kinds:
        raise GivenError(f"device {spec!r}: give [NAME=]mic[:DEVICE], [NAME=]file:PATH, [NAME=]stdin or zmq:ENDPOINT")
    module = import_module(f"{__name__}.{found['kind']}")
    return cast(Source, module.open_source(found["rest"] or "", found["name"], settings))
