"""The same recording more than once: sample for sample, or with another gain, codec, or silence about it."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from clser.models.data.clips import Clip, read_samples
from clser.models.data.forms import Form, look, speech_of

ALIKE = 0.9
"""Outlines at least so near (their cosine) are looked at closer."""
SPEECH_S = 0.1
"""Copies' speech is of the same length to so much."""
SAME = 0.7
"""Cross-correlation of two copies at its peak. Two recordings of one sentence by one speaker stay under 0.5."""
BLOCK = 512

Array = np.ndarray[Any, Any]
Item = TypeVar("Item", bound=Hashable)


def repeated(clips: Sequence[Clip], forms: Sequence[Form]) -> list[list[int]]:
    """Groups of two or more clips that are one recording; indices ascending."""
    pairs = [*_equal(forms), *_overlapping(clips)]
    first = {index: index for index in range(len(forms))}
    first |= {later: earlier for earlier, later in pairs}
    for one, other in _alike(forms):
        if first[one] != first[other] and _same_sound(clips[one], clips[other]):
            pairs.append((one, other))
    return [sorted(group) for group in joined(pairs)]


def contradicted(clips: Sequence[Clip], folder: Path, report: Callable[[str], None]) -> frozenset[int]:
    """Clips of which a copy has another label: nobody can learn from them, or be judged by them. Kept in `folder`, for
    looking takes a minute or two; a file of another size or time is another clip."""
    told = [
        (clip.name, clip.emotion, clip.start_s, clip.path.stat().st_size, clip.path.stat().st_mtime_ns)
        for clip in clips
    ]
    kept = folder / f"contradicted-{blake2b(repr(told).encode(), digest_size=8).hexdigest()}.json"
    if not kept.exists():
        report(f"looking for recordings that stand twice under different labels among {len(clips)}")
        groups = repeated(clips, look(clips, lambda done: None))
        found = sorted(n for group in groups if len({clips[n].emotion for n in group}) > 1 for n in group)
        folder.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(kept)
    return frozenset(json.loads(kept.read_text(encoding="utf-8")))


def joined(pairs: Iterable[tuple[Item, Item]]) -> list[list[Item]]:
    """Groups of what hangs together by any number of pairs."""
    head: dict[Item, Item] = {}

    def find(item: Item) -> Item:
        while head.setdefault(item, item) != item:
            head[item] = head[head[item]]
            item = head[item]
        return item

    for one, other in pairs:
        head[find(one)] = find(other)
    groups: dict[Item, list[Item]] = defaultdict(list)
    for item in list(head):
        groups[find(item)].append(item)
    return [group for group in groups.values() if len(group) > 1]


def _equal(forms: Sequence[Form]) -> list[tuple[int, int]]:
    first: dict[str, int] = {}
    return [
        (first[form.digest], index)
        for index, form in enumerate(forms)
        if form.digest and first.setdefault(form.digest, index) != index
    ]


def _overlapping(clips: Sequence[Clip]) -> list[tuple[int, int]]:
    """Parts of one file that share some of it."""
    of_file: dict[Any, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        of_file[clip.path].append(index)
    pairs = []
    for indices in of_file.values():
        order = sorted(indices, key=lambda n: clips[n].start_s)
        last, end_s = order[0], -1.0
        for index in order:
            clip = clips[index]
            if clip.start_s < end_s:
                pairs.append((last, index))
            clip_end_s = float("inf") if clip.end_s is None else clip.end_s
            if clip_end_s > end_s:
                last, end_s = index, clip_end_s
    return pairs


def _alike(forms: Sequence[Form]) -> list[tuple[int, int]]:
    """Pairs of like outline and length. Sorted by length, only neighbours need comparing."""
    order = sorted((n for n, form in enumerate(forms) if form.digest), key=lambda n: forms[n].speech_s)
    if not order:
        return []
    lengths = np.array([forms[n].speech_s for n in order])
    outlines = np.stack([forms[n].outline for n in order])
    pairs = []
    for begin in range(0, len(order), BLOCK):
        end = min(begin + BLOCK, len(order))
        reach = int(np.searchsorted(lengths, lengths[end - 1] + SPEECH_S, "right"))
        near = outlines[begin:end] @ outlines[begin:reach].T
        for row, column in np.argwhere(near >= ALIKE):
            if column > row and lengths[begin + column] - lengths[begin + row] <= SPEECH_S:
                pairs.append((order[begin + row], order[begin + column]))
    return pairs


def _same_sound(one: Clip, other: Clip) -> bool:
    first, second = (speech_of(samples.mean(1), rate_hz) for samples, rate_hz in map(read_samples, (one, other)))
    return correlation(first, second) >= SAME


def correlation(one: Array, other: Array) -> float:
    """The peak of the normalised cross-correlation, over all shifts; 0 if either is silent."""
    energy = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    if energy == 0.0:
        return 0.0
    size = 1 << (len(one) + len(other) - 2).bit_length()
    product = np.fft.irfft(np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size)), size)
    return float(np.abs(product).max() / energy)
