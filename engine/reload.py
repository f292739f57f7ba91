"""When a changed setting counts. Which may change while the engine runs is data: the table here. Pure."""

from typing import Any, Literal

import msgspec

from clser.engine.config import Config
from clser.engine.errors import GivenError

Applies = Literal["live", "new_streams", "start"]
"""At once; for streams that are opened from then on; or only after the engine has been started again."""

APPLIES: dict[str, Applies] = {
    "asr.late_s": "live",
    "asr.silent_s": "live",
    "asr.wait_ms": "live",
    "bus.heartbeat_s": "live",
    "fuse": "live",
    "overload": "live",
    "segment": "new_streams",
    "speaker": "live",
    "stream": "new_streams",
    "vad.on": "new_streams",
    "vad.off": "new_streams",
}
"""By section or by key; what stands in neither way needs a new start."""


def applies(path: str) -> Applies:
    section = path.partition(".")[0]
    return APPLIES.get(path) or APPLIES.get(section) or "start"


def settings(config: Config) -> dict[str, Any]:
    """Every setting by its path."""
    sections: dict[str, dict[str, Any]] = msgspec.to_builtins(config)
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


def changes(old: Config, new: Config) -> dict[Applies, list[str]]:
    """Which settings differ, by when they count; GivenError if any of them cannot be changed now: then none is."""
    before, after = settings(old), settings(new)
    found: dict[Applies, list[str]] = {"live": [], "new_streams": [], "start": []}
    for path, value in after.items():
        if value != before[path]:
            found[applies(path)].append(path)
    late = found.pop("start")
    if late:
        raise GivenError(f"reload: {', '.join(late)} can only be changed by a new start; nothing was changed")
    return found
