"""The only place that imports a runtime. A module here is a backend.

A backend keeps the state of every stream in a slot of its own and computes rows of many streams at once. Rows are in
different places of their utterances and bring different numbers of frames; what a row gets does not depend on its company.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import Row, VoiceCard
from clser.engine.records import Samples
from clser.engine.vad import VadConfig

Numbers = NDArray[np.float32]


class VadNetwork(Protocol):
    frame_samples: int

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        """Speech probability of each frame, row after row: [frames of all rows]."""


class VoiceModel(Protocol):
    card: VoiceCard

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        """Logits of the heads after each frame, row after row: [frames of all rows, heads]."""


def open_vad(config: VadConfig) -> VadNetwork:
    backend = import_module(f"clser.engine.backends.{config.network}")
    return cast(VadNetwork, backend.open_vad(config))


def open_voice(model: str, compute: str) -> VoiceModel:
    """`model` is the name of a file in clser.models.weights, or a path."""
    backend = import_module("clser.engine.backends.onnx")
    return cast(VoiceModel, backend.open_voice(model, compute))


class Slots:
    """State of many streams: a table with a row a slot, which grows as slots are named."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._tables = [np.zeros((0, *shape), np.float32) for shape in shapes]

    def gather(self, rows: Sequence[Row]) -> list[Numbers]:
        """The states of these rows, fresh ones zeroed."""
        slots = np.fromiter((row.slot for row in rows), np.intp, len(rows))
        fresh = np.fromiter((row.fresh for row in rows), np.bool_, len(rows))
        missing = int(slots.max()) + 1 - len(self._tables[0])
        if missing > 0:
            self._tables = [np.concatenate((t, np.zeros((missing, *t.shape[1:]), np.float32))) for t in self._tables]
        gathered = [table[slots] for table in self._tables]
        for state in gathered:
            state[fresh] = 0
        return gathered

    def scatter(self, rows: Sequence[Row], states: Sequence[Numbers]) -> None:
        slots = np.fromiter((row.slot for row in rows), np.intp, len(rows))
        for table, state in zip(self._tables, states, strict=True):
            table[slots] = state


def row_frames(rows: Sequence[Row], pcm: Samples, frame_samples: int) -> tuple[NDArray[np.int64], list[Numbers]]:
    """How many frames each row has, and each row's sound in -1..1 as [frames, frame_samples]."""
    counts = np.fromiter((row.frames for row in rows), np.int64, len(rows))
    sound = pcm.reshape(-1, frame_samples).astype(np.float32) * np.float32(1 / 32768)
    return counts, np.split(sound, np.cumsum(counts)[:-1])


def onnx_providers(compute: str) -> list[str | tuple[str, dict[str, str]]]:
    """ONNX Runtime's providers for `cpu` or `cuda:N`."""
    if compute == "cpu":
        return ["CPUExecutionProvider"]
    name, _, number = compute.partition(":")
    if name != "cuda" or not (number or "0").isdecimal():
        raise GivenError(f"compute {compute!r}: give cpu or cuda:N")
    runtime = import_module("onnxruntime")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise MissingError(
            f"compute {compute!r}: this onnxruntime has no CUDA provider; `clser-models doctor` says how to install the one that has"
        )
    return [("CUDAExecutionProvider", {"device_id": number or "0"}), "CPUExecutionProvider"]
