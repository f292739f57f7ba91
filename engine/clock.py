"""Time behind a seam, so that tests run in virtual time. Real time here; the manual clock lives in tests/fakes.py."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the engine asks of time."""

    def monotonic_s(self) -> float:
        """Seconds that only ever grow."""

    def unix_us(self) -> int:
        """Wall time in microseconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Return `seconds` later by this clock."""


class RealClock:
    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_us(self) -> int:
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
