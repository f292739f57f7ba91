"""Trained systems in torch, on the CPU or a GPU, with the state of every stream on the device.

Only samples, texts, logits and what tells of speakers travel between host and device. In half precision our own features are
still computed in full: a quiet band beside a loud one is lost in a short mantissa. Pretrained encoders keep their weights in
half.

Shapes: B rows, S samples, T frames, X numbers that tell of a speaker, H heads.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from clser.engine.backends import Numbers, Speakers, padded, run_alike
from clser.engine.backends.card import read_card
from clser.engine.backends.devices import one_device
from clser.engine.backends.windowed import Windowed
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import Row, VoiceCard
from clser.engine.making import Made
from clser.engine.records import Samples
from clser.engine.shipped import installed, model_path
from clser.models import deltas, live, saved
from clser.models.delta import applied, parsed
from clser.models.tensors import Sequences

Given = dict[str, Sequences]
"""What a system is given, by the name of a front."""
HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}


class Heard(NamedTuple):
    """What the fronts made of a sound, so that nobody computes it twice."""

    digest: bytes
    """Of the sound."""
    of_1: Given
    """One row."""


class TorchVoice:
    def __init__(self, model: str, compute: str, precision: str) -> None:
        self._device = _open_device(compute)
        torch.set_num_threads(1)  # workers are the unit of parallelism
        torch.backends.cudnn.allow_tf32 = False  # a GRU on a GPU has a mantissa of 10 bits otherwise, and calls it full
        path = weights_path(model)
        self._half = HALF[self._device.type] if precision == "half" else None
        net, self.card, self._about = _open(path)
        self._base_card = self.card
        self._replaced: dict[str, Tensor] = {}
        """What stood where a delta's weights stand now."""
        self._tells_anew = False
        if self._half is not None:
            in_full(net)
            shorten(net, self._half)
        self._net = net.to(self._device).eval()
        self.words: str = net.system.words
        """What the system's text is cut into; empty: it reads none."""
        self.keeps = False
        """What the fronts made of each slot's last window is kept: somebody will ask about it again."""
        self._heard: dict[int, Heard] = {}
        self._windowed = None if self.card.streams == "exactly" else Windowed(self.card, self._whole)
        self._slots = DeviceSlots(net.shapes() if isinstance(net, live.Live) else [], self._device)
        self._speakers = Speakers(self.card.speaker_numbers) if self.card.speaker_numbers else None

    def know(self, slots: Sequence[int], sums: Numbers) -> None:
        assert self._speakers is not None, "the card says that it knows nobody"
        self._speakers.know(slots, sums)

    def told(self, slots: Sequence[int]) -> Numbers:
        assert self._speakers is not None, "the card says that it knows nobody"
        return self._speakers.told(slots)

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        if self._windowed is not None:
            return self._windowed.run(rows, pcm)
        return run_alike(rows, pcm, self.card, self._call)

    def adapting(self, delta: bytes) -> Made:
        """The weights that differ, beside the old ones."""
        card, calibration, new, tells_anew = self._base_card, self._about.calibration, {}, False
        if delta:
            about, kept = parsed(delta, "the delta")
            told = deltas.fitting(self._net.system, self._about, about, kept)
            before = {**self._net.system.state_dict(), **self._replaced}
            for name, part in kept.items():
                whole = torch.from_numpy(applied(before[name].cpu().numpy(), part))
                new[name] = whole.to(before[name])
            card = msgspec.structs.replace(card, digest=told.digest, abstain_below=told.abstain_below)
            calibration, tells_anew = told.calibration, about.tells_anew

        def put() -> None:
            weights = self._net.system.state_dict()
            replaced = {name: weights[name].clone() for name in new if name not in self._replaced} | self._replaced
            with torch.no_grad():
                for name, part in {**self._replaced, **new}.items():
                    weights[name].copy_(part)
            self._replaced, self.card = replaced, card
            self._net.calibrated.take(calibration)
            if self._speakers is not None and (tells_anew or self._tells_anew):
                self._speakers.forget()
            self._tells_anew = tells_anew

        return card, put

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not followed
    def _whole(self, rows: Sequence[Row], counts_B: NDArray[np.int64], sounds: list[Numbers]) -> Numbers:
        """One answer for all the sound of each row."""
        with self._cast():
            given = self._net.hear(*self._moved(counts_B, sounds))
            logits: Tensor = self._net.answer(given)
        if self.keeps:
            self._keep(rows, counts_B, sounds, given)
        return np.asarray(logits.float().cpu().numpy())

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not followed
    def heard(self, rows: Sequence[Row], counts_B: NDArray[np.int64], sounds: list[Numbers]) -> Given:
        """What the system is given of these sounds, each one's frames computed only if its slot's last ones are of another."""
        fresh = [
            i for i, row in enumerate(rows)
            if (was := self._heard.get(row.slot)) is None or was.digest != _digest(sounds[i])
        ]  # fmt: skip
        if fresh:
            some = [sounds[i] for i in fresh]
            with self._cast():
                given = self._net.hear(*self._moved(counts_B[fresh], some))
            self._keep([rows[i] for i in fresh], counts_B[fresh], some, given)
        kept = [self._heard[row.slot].of_1 for row in rows]
        return {
            name: Sequences(
                pad_sequence([one[name].x_BTD[0] for one in kept], batch_first=True),
                torch.cat([one[name].length_B for one in kept]),
            )
            for name in self._net.fronts.named
        }

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not followed
    def answer(self, given: Mapping[str, Sequences]) -> Tensor:
        """[B, H]: the calibrated logits about all that is given, words among it or not."""
        with self._cast():
            logits_B1H: Tensor = self._net.answer(given)
        return logits_B1H[:, 0].float()

    def silence(self, rows: int) -> Given:
        """What the system is given where there is no sound."""
        given: Given = self._net.fronts.silence(rows, self._device)
        return given

    def beside(self, module: Any) -> Any:
        """Another network on the same device, as precise as this one; it has a `shorten`."""
        if self._half is not None:
            module.shorten(self._half)
        return module.to(self._device).eval()

    def _keep(
        self,
        rows: Sequence[Row],
        counts_B: NDArray[np.int64],
        sounds: Sequence[Numbers],
        given: Mapping[str, Sequences],
    ) -> None:
        fronts = self._net.fronts
        ratio_of = dict(zip(fronts.named, fronts.ratios, strict=True))
        for i, (row, count) in enumerate(zip(rows, counts_B.tolist(), strict=True)):
            # cloned, or all rows would be kept as long as one of them
            own = {
                name: Sequences(given[name].x_BTD[i : i + 1, : count * ratio].clone(), given[name].length_B[i : i + 1].clone())
                for name, ratio in ratio_of.items()
            }  # fmt: skip
            self._heard[row.slot] = Heard(_digest(sounds[i]), own)

    def _cast(self) -> Any:
        return torch.autocast(self._device.type, self._half, enabled=self._half is not None)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not followed
    def _call(self, rows: Sequence[Row], counts_B: NDArray[np.int64], sounds: list[Numbers]) -> Numbers:
        with self._cast():
            slots_B = self._slots.place(rows)
            known = [] if self._speakers is None else [torch.from_numpy(self._speakers.of(rows)).to(self._device)]
            logits_BTH, *after = self._net(*self._moved(counts_B, sounds), *known, *self._slots.gather(slots_B, rows))
            if self._speakers is not None:
                self._speakers.hear(rows, after.pop(0).float().cpu().numpy())
            self._slots.scatter(slots_B, after)
        return np.asarray(logits_BTH.float().cpu().numpy())

    def _moved(self, counts_B: NDArray[np.int64], sounds: list[Numbers]) -> tuple[Tensor, Tensor]:
        """pcm_BS and frames_B where the network is."""
        pcm_BS = torch.from_numpy(padded(sounds))
        return pcm_BS.to(self._device), torch.from_numpy(counts_B).to(self._device)


class DeviceSlots:
    """What `Slots` is, on a device."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], device: torch.device) -> None:
        self._device = device
        self._tables = [torch.zeros((0, *shape), device=device) for shape in shapes]

    def place(self, rows: Sequence[Row]) -> Tensor:
        """The rows' slots, once there is room for them."""
        slots = [row.slot for row in rows]
        missing = max(slots) + 1 - len(self._tables[0])
        if missing > 0:
            self._tables = [torch.cat((table, table.new_zeros(missing, *table.shape[1:]))) for table in self._tables]
        return torch.tensor(slots, device=self._device)

    def gather(self, slots_B: Tensor, rows: Sequence[Row]) -> list[Tensor]:
        """The states of these rows, fresh ones zeroed."""
        gathered = [table.index_select(0, slots_B) for table in self._tables]
        fresh = [i for i, row in enumerate(rows) if row.fresh]
        if fresh:
            at = torch.tensor(fresh, device=self._device)
            for state in gathered:
                state.index_fill_(0, at, 0.0)
        return gathered

    def scatter(self, slots_B: Tensor, states: Sequence[Tensor]) -> None:
        for table, state in zip(self._tables, states, strict=True):
            table.index_copy_(0, slots_B, state.float())


class InFull(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A front that no autocast around it makes shorter."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.samples, self.width = inner, inner.samples, inner.width

    def start(self, rows: int) -> Any:
        return self.inner.start(rows)

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: Any) -> Any:
        with torch.autocast(pcm_BS.device.type, enabled=False):
            return self.inner(pcm_BS, frames_B, state)


def in_full(net: live.Live | live.Windowed) -> None:
    """Our own fronts stay in full precision."""
    for n, front in enumerate(net.fronts.each):
        if not isinstance(front, live.Pretrained):
            net.fronts.each[n] = InFull(front)


def shorten(net: live.Live | live.Windowed, dtype: torch.dtype) -> None:
    """Pretrained encoders are kept in half: what autocast would make of their weights anew in every call."""
    for front in net.fronts.each:
        if isinstance(front, live.Pretrained):
            front.shorten(dtype)


def _digest(sound: Numbers) -> bytes:
    return blake2b(sound.tobytes(), digest_size=16).digest()


def weights_path(model: str) -> Path:
    """The .safetensors behind a shipped name, a name in the user's folder, or a path."""
    if model.endswith(".onnx"):
        raise GivenError(f"model {model!r}: torch plays .safetensors files; set model.backend=onnx for this one")
    if model in installed():
        return model_path(model).with_suffix(".safetensors")
    path = model_path(model)
    if path.suffix != ".safetensors":
        raise GivenError(
            f"model {model!r}: there is only {path.name} in it, which torch does not play; set model.backend=onnx"
        )
    return path


def _open_device(compute: str) -> torch.device:
    device = torch.device(one_device(compute))
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise MissingError(
                f"compute {compute!r}: this torch finds no GPU (it is made for CUDA {torch.version.cuda or 'not at all'}); "
                "`clser-models doctor` says what is installed"
            )
        if device.index >= torch.cuda.device_count():
            raise MissingError(f"compute {compute!r}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device


def _open(path: Path) -> tuple[live.Live | live.Windowed, VoiceCard, saved.Trained]:
    """What `clser-models train` wrote, and what ships, says how to build it."""
    system, about = saved.load(path)
    card = read_card(json.dumps(live.card(system, about)), path)
    # of the weights, as its page and figures name them
    return live.live(system, about.calibration), msgspec.structs.replace(card, digest=about.digest), about


def open_voice(model: str, compute: str, precision: str) -> TorchVoice:
    return TorchVoice(model, compute, precision)
