"""The weights inside an ONNX file, found and replaced without the package that makes such files.

A file is a protocol buffer: fields one after the other, each a number, a kind, and its bytes. Weights of a size and a type are
replaced by others of the same size and type, so everything else stays where it is.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clser.engine.backends import Numbers
from clser.engine.errors import GivenError
from clser.models.delta import Delta, applied, digest_of

GRAPH, NODE, INITIALISER = 7, 1, 5
"""Fields of a model, and of its graph."""
INPUT = 1
DIMS, TYPE, NAME, RAW = 1, 2, 8, 9
"""Fields of a node, and of a tensor."""
TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}
SYSTEM, HALF = "system.", "_half"
"""What an export puts before a weight's name, and behind one that it keeps in half the room."""


class Weight(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    at: int
    """Where its bytes begin in the file."""

    def numbers(self, data: bytes) -> Numbers:
        count = int(np.prod(self.shape, dtype=np.int64))
        return np.frombuffer(data, self.kind, count, self.at).reshape(self.shape).astype(np.float32)


def patched(data: bytes, about: Delta, kept: Mapping[str, NDArray[Any]]) -> bytes:
    """The file with a delta put upon it; GivenError where it is not the base, or does not keep a weight as it was."""
    weights, uses = read(data)
    by_digest: dict[str, list[tuple[Weight, bool]]] = {}
    for weight in weights:
        numbers = weight.numbers(data)
        by_digest.setdefault(digest_of(numbers), []).append((weight, False))
        if numbers.ndim == 2 and min(numbers.shape) > 1:
            by_digest.setdefault(digest_of(numbers.T), []).append((weight, True))
    out = bytearray(data)
    for name, difference in kept.items():
        weight, turned = _one(name, difference.shape, by_digest.get(about.changed[name].digest, []), about)
        if uses[weight.name] != 1:
            raise GivenError(f"{name} stands for several weights of the .onnx file; {WHOLE}")
        before = weight.numbers(data)
        after = applied(before.T if turned else before.reshape(difference.shape), difference)
        stored = (after.T if turned else after).astype(weight.kind).tobytes()
        out[weight.at : weight.at + len(stored)] = stored
    return bytes(out)


WHOLE = "make a whole file with `clser-models export --delta`"


def _one(name: str, shape: tuple[int, ...], found: list[tuple[Weight, bool]], about: Delta) -> tuple[Weight, bool]:
    """The weight of that name."""
    fitting = [one for one in found if sorted(s for s in one[0].shape if s > 1) == sorted(s for s in shape if s > 1)]
    named = [one for one in fitting if one[0].name.removesuffix(HALF) == SYSTEM + name]
    if len(named) == 1:
        return named[0]
    if not fitting:
        raise GivenError(
            f"this delta is for the weights {about.base} of a system {about.system}, and the .onnx file holds no such {name}; "
            f"take the model that was adapted, or {WHOLE}"
        )
    if len(fitting) > 1 or about.changed[name].alike:
        raise GivenError(f"{name} cannot be told from other weights of the .onnx file; {WHOLE}")
    return fitting[0]


def read(data: bytes) -> tuple[list[Weight], Counter[str]]:
    """The weights with a fraction that lie in the file itself, and how often each name is used."""
    weights, uses = [], Counter[str]()
    for field, first, last in _fields(data, 0, len(data)):
        if field != GRAPH:
            continue
        for part, begin, end in _fields(data, first, last):
            if part == INITIALISER:
                weights += _weight(data, begin, end)
            elif part == NODE:
                uses.update(data[a:b].decode() for inner, a, b in _fields(data, begin, end) if inner == INPUT)
    return weights, uses


def _weight(data: bytes, first: int, last: int) -> list[Weight]:
    shape: list[int] = []
    kind, name, raw = 0, "", None
    for field, begin, end in _fields(data, first, last):
        if field == DIMS:
            shape += _packed(data, begin, end)
        elif field == TYPE:
            kind = _packed(data, begin, end)[0]
        elif field == NAME:
            name = data[begin:end].decode()
        elif field == RAW:
            raw = (begin, end)
    if (
        kind not in TYPES
        or raw is None
        or raw[1] - raw[0] != TYPES[kind].itemsize * int(np.prod(shape, dtype=np.int64))
    ):
        return []
    return [Weight(name, tuple(shape), TYPES[kind], raw[0])]


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each field's number, and where its content lies; of a number, where its bytes lie."""
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            first = at
            _, at = _varint(data, at)
        elif kind == 2:
            size, first = _varint(data, at)
            at = first + size
        elif kind in (1, 5):
            first, at = at, at + (8 if kind == 1 else 4)
        else:
            raise GivenError("the .onnx file is damaged; export it again")
        if at > end:
            raise GivenError("the .onnx file is cut short; export it again")
        yield key >> 3, first, at


def _packed(data: bytes, at: int, end: int) -> list[int]:
    out = []
    while at < end:
        value, at = _varint(data, at)
        out.append(value)
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
