"""The only place that imports a runtime. A module here is a backend.

A backend keeps the state of every stream in a slot of its own and computes rows of many streams at once. Rows are in
different places of their utterances and bring different numbers of frames; what a row gets does not depend on its company.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from clser.engine.errors import FailedError, GivenError, MissingError
from clser.engine.jobs import RecogniserCard, Row, VoiceCard, Words
from clser.engine.making import Made
from clser.engine.records import Samples
from clser.engine.shipped import backend_for
from clser.engine.vad import VadConfig

Numbers = NDArray[np.float32]


class VadNetwork(Protocol):
    frame_samples: int
    state_size: int
    """Numbers in a stream's state; 0 where it cannot be had."""

    def states(self, slots: Sequence[int]) -> Numbers:
        """The state of each slot: [slots, state_size]."""

    def restore(self, slots: Sequence[int], states: Numbers) -> None:
        """Go on from states that were had before."""

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        """Speech probability of each frame, row after row: [frames of all rows]."""


class VoiceModel(Protocol):
    card: VoiceCard

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        """Logits of the heads after each frame, row after row: [frames of all rows, heads]."""

    # where it can be adapted while it runs:

    def adapting(self, delta: bytes) -> Made:
        """Make ready to answer with what `clser-models adapt` wrote upon the model as it is, or (empty) without; `run` goes on
        meanwhile, in another thread. Slots keep their states. GivenError where it does not fit."""

    # where the card has speaker_numbers:

    def know(self, slots: Sequence[int], sums: Numbers) -> None:
        """What is known of who speaks in each slot, [slots, speaker_numbers], before the rows that are `given` it."""

    def told(self, slots: Sequence[int]) -> Numbers:
        """What each slot's utterance tells of its speaker after the frames that were run last: [slots, speaker_numbers]."""


class Recogniser(Protocol):
    """Hears utterances as they grow and writes down what is said.

    The worker hands it rows of new sound only; what it needs of older sound it keeps by slot, and drops when a row is `fresh`.
    """

    card: RecogniserCard

    def run(self, rows: Sequence[Row], pcm: Samples) -> list[Words]:
        """What it holds of each row's utterance now. A row may bring no sound: with `anew` or `last` it asks what stands."""


def open_vad(config: VadConfig) -> VadNetwork:
    backend = import_module(f"clser.engine.backends.{config.network}")
    return cast(VadNetwork, backend.open_vad(config))


def open_voice(model: str, compute: str, backend: str = "auto", precision: str = "full") -> VoiceModel:
    """`model` is a name or a path; `backend` a module here or, with a dot in its name, one elsewhere; `auto`: what plays it."""
    if backend == "auto":
        backend = backend_for(model)
    if backend == "onnx" and precision != "full":
        raise GivenError(f"pool.precision {precision!r}: ONNX Runtime plays the file as it is; set model.backend=torch")
    try:
        opener = import_module(backend if "." in backend else f"clser.engine.backends.{backend}")
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise MissingError(
            f"model.backend {backend!r}: {error.name} is not installed; `pip install 'clser-stream[torch]'`, "
            "or set model.backend=onnx"
        ) from error
    return cast(VoiceModel, opener.open_voice(model, compute, precision))


class Slots:
    """State of many streams: a table with a row a slot, which grows as slots are named."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._tables = [np.zeros((0, *shape), np.float32) for shape in shapes]

    def gather(self, rows: Sequence[Row]) -> list[Numbers]:
        """The states of these rows, fresh ones zeroed."""
        slots = np.fromiter((row.slot for row in rows), np.intp, len(rows))
        fresh = np.fromiter((row.fresh for row in rows), np.bool_, len(rows))
        self._grow(int(slots.max()) + 1)
        gathered = [table[slots] for table in self._tables]
        for state in gathered:
            state[fresh] = 0
        return gathered

    def flat(self, slots: Sequence[int]) -> Numbers:
        """The state of each slot as one row of numbers."""
        return np.concatenate([table[list(slots)].reshape(len(slots), -1) for table in self._tables], axis=1)

    def restore(self, slots: Sequence[int], flat: Numbers) -> None:
        self._grow(max(slots) + 1)
        at = 0
        for table in self._tables:
            size = table[0].size
            table[list(slots)] = flat[:, at : at + size].reshape(len(slots), *table.shape[1:])
            at += size

    def _grow(self, slots: int) -> None:
        missing = slots - len(self._tables[0])
        if missing > 0:
            self._tables = [np.concatenate((t, np.zeros((missing, *t.shape[1:]), np.float32))) for t in self._tables]

    def scatter(self, rows: Sequence[Row], states: Sequence[Numbers]) -> None:
        slots = np.fromiter((row.slot for row in rows), np.intp, len(rows))
        for table, state in zip(self._tables, states, strict=True):
            table[slots] = state


class Speakers:
    """What is known of who speaks in each slot, until another utterance begins there; and what the utterance tells of him."""

    def __init__(self, numbers: int) -> None:
        self._nobody = np.zeros(numbers, np.float32)
        self._known: dict[int, Numbers] = {}
        self._told: dict[int, Numbers] = {}

    def know(self, slots: Sequence[int], sums: Numbers) -> None:
        self._known.update({slot: row.copy() for slot, row in zip(slots, sums, strict=True)})

    def of(self, rows: Sequence[Row]) -> Numbers:
        """[B, X]: what is known of these rows' speakers."""
        for row in rows:
            if row.fresh and not row.given:
                self._known.pop(row.slot, None)
        return np.stack([self._known.get(row.slot, self._nobody) for row in rows])

    def hear(self, rows: Sequence[Row], heard_BX: Numbers) -> None:
        self._told.update({row.slot: heard_X for row, heard_X in zip(rows, heard_BX, strict=True)})

    def told(self, slots: Sequence[int]) -> Numbers:
        return np.stack([self._told.get(slot, self._nobody) for slot in slots])

    def forget(self) -> None:
        """Nobody is known any more: it was told in other numbers."""
        self._known.clear()


def row_frames(rows: Sequence[Row], pcm: Samples, frame_samples: int) -> tuple[NDArray[np.int64], list[Numbers]]:
    """How many frames each row has, and each row's sound in -1..1 as [frames, frame_samples]."""
    counts = np.fromiter((row.frames for row in rows), np.int64, len(rows))
    sound = pcm.reshape(-1, frame_samples).astype(np.float32) * np.float32(1 / 32768)
    return counts, np.split(sound, np.cumsum(counts)[:-1])


def padded(sounds: Sequence[Numbers]) -> Numbers:
    """[B, S]: rows of frames one after the other, zeros behind the shorter ones."""
    pcm_BS = np.zeros((len(sounds), max(sound.size for sound in sounds)), np.float32)
    for row_S, sound in zip(pcm_BS, sounds, strict=True):
        row_S[: sound.size] = sound.reshape(-1)
    return pcm_BS


Call = Callable[[Sequence[Row], NDArray[np.int64], list[Numbers]], Numbers]
"""Rows, their frames [B] and their sounds -> logits [B, T, heads], T being the most frames of a row."""


def run_alike(rows: Sequence[Row], pcm: Samples, card: VoiceCard, call: Call) -> Numbers:
    """`VoiceModel.run`, with rows of like length in a call of their own, so that padding never doubles the work."""
    counts, sounds = row_frames(rows, pcm, card.frame_samples)
    out: list[Numbers] = [np.zeros((0, len(card.heads)), np.float32)] * len(rows)
    sizes = np.ceil(np.log2(np.maximum(counts, 1))).astype(int)
    for size in np.unique(sizes):
        members = np.flatnonzero((sizes == size) & (counts > 0)).tolist()
        if not members:  # ONNX Runtime aborts the process over a batch without frames
            continue
        said = call([rows[i] for i in members], counts[members], [sounds[i] for i in members])
        if not np.isfinite(said).all():
            raise FailedError(f"model {card.name} answered with NaN or infinity: it is broken, or was exported wrongly")
        for i, logits_TH in zip(members, said, strict=True):
            out[i] = logits_TH[: counts[i]]
    return np.concatenate(out)
