"""What strangers send: packets that are almost right, and packets that are nothing. The same ones for the same seed."""

import gc
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import psutil

Frames = list[bytes]

NUMBERS = (-1, 0, 2**53 + 1, 2**63, 2**64 - 1, 10**400, -(10**30), 0.5, 1e308, math.nan, math.inf, True)
WORDS = ("", "_engine", "../../etc/passwd", "a/b", "x" * 300, "\x00", "é", "kitchen ", "null", "{}", "a: &a [*a]")
VALUES: tuple[Any, ...] = (*NUMBERS, *WORDS, None, [], {}, [[]], ["x"] * 70, {"op": {}}, b"\xff\xfe")
NESTED = ((b"", b"["), (b"", b'{"op":'), (b'{"strange":', b"["), (b'{"op":"open","stream":', b"["),
          (b"", b"\x91"), (b"", b"\x81\xa2op"), (b"\x81\xa7strange", b"\x91"), (b"\x81\xa6stream", b"\x81\x01"))  # fmt: skip
BROKEN_TEXT = (b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\xf0\x9f")
COUNTS = (0, 2, 3, 5, 50)


class Stranger:
    """Makes hostile packets out of real ones, each a list of frames whose first is a JSON or MessagePack map."""

    def __init__(self, real: list[Frames], seed: int = 1, most_bytes: int = 8192) -> None:
        self._real = real
        self._random = random.Random(seed)
        self._most_bytes = most_bytes
        self._tricks = (
            self._cut,
            self._flip,
            self._retype,
            self._noise,
            self._nest,
            self._mistext,
            self._recount,
            self._bloat,
        )

    def packets(self, count: int) -> Iterator[Frames]:
        for _ in range(count):
            yield self._random.choice(self._tricks)([*self._random.choice(self._real)])

    def _cut(self, frames: Frames) -> Frames:
        at = self._random.randrange(len(frames))
        frames[at] = frames[at][: self._random.randrange(max(1, len(frames[at])))]
        return frames

    def _flip(self, frames: Frames) -> Frames:
        body = bytearray(frames[0])
        for _ in range(self._random.randint(1, 4)):
            if body:
                body[self._random.randrange(len(body))] ^= 1 << self._random.randrange(8)
        return [bytes(body), *frames[1:]]

    def _retype(self, frames: Frames) -> Frames:
        fields = read_map(frames[0])
        for _ in range(self._random.randint(1, 3)):
            key = self._random.choice([*fields, "op", "strange"])
            fields[key] = self._random.choice(VALUES)
        return [self._written(fields), *frames[1:]]

    def _written(self, fields: dict[str, Any]) -> bytes:
        """In either form; numbers that a form does not have are written as Python would."""
        if self._random.random() < 0.5:
            return json.dumps(fields, default=lambda raw: raw.decode("latin1")).encode()
        try:
            return msgspec.msgpack.encode(fields)
        except OverflowError:
            return repr(fields).encode()

    def _noise(self, _: Frames) -> Frames:
        return [
            self._random.randbytes(self._random.choice((0, 1, 3, 40, 300))) for _ in range(self._random.randint(1, 3))
        ]

    def _nest(self, frames: Frames) -> Frames:
        head, step = self._random.choice(NESTED)
        return [head + step * (self._random.choice((10, 500, 3500)) // len(step)), *frames[1:]]

    def _mistext(self, frames: Frames) -> Frames:
        at = self._random.randrange(len(frames[0]) + 1)
        return [frames[0][:at] + self._random.choice(BROKEN_TEXT) + frames[0][at:], *frames[1:]]

    def _recount(self, frames: Frames) -> Frames:
        return [self._random.choice((b"", frames[-1])) for _ in range(self._random.choice(COUNTS))] + frames[:1]

    def _bloat(self, frames: Frames) -> Frames:
        frames[self._random.randrange(len(frames))] += b" " * self._random.randrange(self._most_bytes)
        return frames


def read_map(body: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(body) if body[:1] == b"{" else msgspec.msgpack.decode(body)
    return fields


def resident_mb() -> float:
    """Memory of this process, once what is garbage has been let go."""
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20
