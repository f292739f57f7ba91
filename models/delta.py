"""What an adaptation changed, and nothing else: one small safetensors file, read and written without torch.

It holds differences from the weights of one model, its base, in half precision, and how they are to be put to use is
`applied`: whoever adds them, torch or not, gets the same weights to the last bit.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from clser.models.errors import GivenError, MissingError

KEY, KIND, FORMAT = "clser", "delta", 1
MOST_BYTES = 64 << 20
"""A larger file is none of ours: whoever changes so much may as well export the whole."""
MOST_HEADER_BYTES = 1 << 20
KINDS: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}

Array = np.ndarray[Any, Any]


class Changed(Struct, frozen=True):
    """A tensor of the base, before."""

    digest: str
    """Of its numbers as float32, by which it is found where names were lost."""
    alike: bool = False
    """Others in the base have the same numbers: they do not tell which it is."""


class Delta(Struct, frozen=True):
    """What a file says of itself."""

    base: str
    """Digest of the weights that it is for."""
    system: str
    heads: tuple[str, ...]
    temperature: float = 1.0
    offsets: tuple[float, ...] = ()
    """The calibration, as a whole; `base_temperature` and `base_offsets` are what it was."""
    base_temperature: float = 1.0
    base_offsets: tuple[float, ...] = ()
    abstain_below: float = 0.0
    changed: dict[str, Changed] = {}
    tells_anew: bool = False
    """What utterances tell of their speaker is told otherwise, so what was known of speakers is worth nothing."""
    name: str = ""
    """What it is called. Empty: the file's own name."""
    shots: dict[str, int] = {}
    """Labelled clips it was fitted to, by class."""
    unlabelled: int = 0
    corpora: tuple[str, ...] = ()
    """Of the clips, by name."""
    licence: str = ""
    seed: int = 0
    version: str = ""
    digest: str = ""
    """Of the differences and the calibration."""
    kind: str = KIND
    format: int = FORMAT

    def calibrated(self, logits_XH: Array) -> Array:
        """The base's calibrated logits, calibrated as the adapted model's are."""
        stretch = self.base_temperature / self.temperature
        before_H, after_H = (np.array(o or (0.0,) * len(self.heads)) for o in (self.base_offsets, self.offsets))
        return np.asarray(logits_XH * stretch + (after_H - before_H * stretch), np.float32)

    @property
    def recalibrates(self) -> bool:
        """Whether `calibrated` changes anything."""
        return (self.temperature, self.offsets) != (self.base_temperature, self.base_offsets)

    def names(self, base: str) -> str:
        """The digest of a base with this upon it."""
        return f"{base}+{self.digest}"


def difference(before: Array, after: Array) -> Array:
    """What is to be kept of a change."""
    return (np.asarray(after, np.float32) - np.asarray(before, np.float32)).astype(np.float16)


def applied(before: Array, kept: Array) -> Array:
    """The changed tensor, in float32. Where a short mantissa held the old numbers it is to hold the new ones: files keep such
    weights in half the room."""
    before = np.asarray(before, np.float32)
    after = before + np.asarray(kept, np.float32)
    return half(after) if np.array_equal(half(before), before) else after


def half(numbers: Array) -> Array:
    """Rounded to what 16 bits hold, in float32."""
    with np.errstate(over="ignore"):
        return np.asarray(numbers, np.float32).astype(np.float16).astype(np.float32)


def digest_of(numbers: Array) -> str:
    """Of a tensor's numbers, whatever its shape."""
    return hashlib.sha256(np.ascontiguousarray(numbers, np.float32).tobytes()).hexdigest()[:16]


def with_digest(about: Delta, kept: Mapping[str, Array]) -> Delta:
    """The same, that says what it is of."""
    whole = hashlib.sha256(msgspec.json.encode((about.base, about.temperature, about.offsets, about.abstain_below)))
    for name in sorted(kept):
        whole.update(f"{name} {kept[name].shape}".encode())
        whole.update(np.ascontiguousarray(kept[name], np.float16).tobytes())
    return msgspec.structs.replace(about, digest=whole.hexdigest()[:12])


def write(path: Path, about: Delta, kept: Mapping[str, Array]) -> Path:
    """In one go."""
    parts, header, at = [], {"__metadata__": {KEY: msgspec.json.encode(about).decode()}}, 0
    for name in sorted(kept):
        data = np.ascontiguousarray(kept[name], np.float16).tobytes()
        header[name] = {"dtype": "F16", "shape": list(kept[name].shape), "data_offsets": [at, at + len(data)]}  # type: ignore[dict-item]
        parts.append(data)
        at += len(data)
    head = json.dumps(header, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"".join((len(head).to_bytes(8, "little"), head, *parts)))
        partial.replace(path)
    except OSError as error:
        raise GivenError(f"{path}: it cannot be written ({error.strerror}); give another path") from error
    return path


def read(path: Path) -> tuple[Delta, dict[str, Array]]:
    """What the file says of itself, and the differences by name."""
    return parsed(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """The file, if it is of a kind and a size that a delta's may be. It is not looked into."""
    if path.suffix != ".safetensors":
        raise GivenError(f"{path}: a delta's name ends in .safetensors; give one of `clser-models adapt`")
    if not path.is_file():
        raise MissingError(f"{path}: there is no such file; give one of `clser-models adapt`")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise GivenError(f"{path}: it cannot be read ({error.strerror})") from error
    if len(data) > MOST_BYTES:
        raise GivenError(f"{path}: more than {MOST_BYTES >> 20} MB; a delta is smaller: export the adapted model whole")
    return data


def parsed(data: bytes, source: str) -> tuple[Delta, dict[str, Array]]:
    """A file's bytes. GivenError names `source`, and tells nothing of what else may lie in it."""
    try:
        size = int.from_bytes(data[:8], "little")
        if len(data) < 8 or size > min(MOST_HEADER_BYTES, len(data) - 8):
            raise ValueError("no header")
        header = msgspec.json.decode(data[8 : 8 + size], type=dict[str, dict[str, Any]])
        about = msgspec.json.decode(header.pop("__metadata__", {}).get(KEY, ""), type=Delta)
        if about.kind != KIND or about.format > FORMAT:
            raise ValueError("of another kind")
        body = memoryview(data)[8 + size :]
        kept = {name: _tensor(entry, body) for name, entry in header.items()}
        _check(about, kept)
    except (ValueError, KeyError, TypeError, RecursionError, msgspec.DecodeError) as error:
        raise GivenError(
            f"{source}: it is no delta of format {FORMAT}, or a damaged one; give one of `clser-models adapt`"
        ) from error
    return about, kept


def _tensor(entry: Mapping[str, Any], body: memoryview) -> Array:
    first, last = entry["data_offsets"]
    kind, shape = KINDS[entry["dtype"]], tuple(int(size) for size in entry["shape"])
    if not 0 <= first <= last <= len(body) or min(shape, default=0) < 0:
        raise ValueError("beyond the end")
    if last - first != kind.itemsize * math.prod(shape):
        raise ValueError("of another size")
    numbers: Array = np.frombuffer(body[first:last], kind).reshape(shape)
    if not np.isfinite(numbers).all():
        raise ValueError("numbers that are none")
    return numbers


def _check(about: Delta, kept: Mapping[str, Array]) -> None:
    count = len(about.heads)
    calibrations = (about.temperature, about.base_temperature, *about.offsets, *about.base_offsets)
    sound = (
        kept.keys() == about.changed.keys()
        and count > 0
        and all(len(offsets) in (0, count) for offsets in (about.offsets, about.base_offsets))
        and all(map(math.isfinite, (*calibrations, about.abstain_below)))
        and min(about.temperature, about.base_temperature) > 0
        and with_digest(about, kept).digest == about.digest
    )
    if not sound:
        raise ValueError("its parts do not go together")
