"""The form that Microsoft's \\psi reads from a NetMQSource with its MessagePackFormat: `{message, originatingTime}`.

Three things \\psi insists on: the time is in .NET ticks (100 ns since the year 1), it grows with every message of a stream, and no
value is null. So each topic's times are made to grow, what is None is left out, and nothing is ever sent twice.
"""

from typing import Any

import msgspec

from clser.engine.records import Message, Result, Status
from clser.engine.tally import Tally

TICKS_A_US = 10
UNIX_EPOCH_TICKS = 621_355_968_000_000_000


class Psi:
    """Knows the last time of each topic."""

    def __init__(self, topics: int) -> None:
        self._last: Tally[bytes] = Tally(topics)
        self._encode = msgspec.msgpack.Encoder().encode

    def body(self, topic: bytes, message: Message, now_us: int) -> bytes:
        if isinstance(message, Result):
            now_us = message.captured_unix_us
        elif isinstance(message, Status):
            now_us = message.unix_us
        ticks = max(UNIX_EPOCH_TICKS + now_us * TICKS_A_US, self._last.last(topic) + 1)
        self._last.put(topic, ticks)
        return self._encode({"message": _without_nulls(msgspec.to_builtins(message)), "originatingTime": ticks})


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value
