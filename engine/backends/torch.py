"""The shipped voice network in torch, on the CPU or a GPU, with the state of every stream on the device.

Only samples and logits travel between host and device. In half precision the features are still computed in full: a quiet
band beside a loud one is lost in a short mantissa.

Shapes: B rows, S samples, T frames, H heads.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clser.engine.backends import Numbers, run_alike
from clser.engine.backends.card import read_card
from clser.engine.backends.devices import one_device
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import Row, VoiceCard
from clser.engine.records import Samples
from clser.engine.shipped import model_path
from clser.models.zoo.voice_gru import VoiceGru, VoiceState

HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}


class TorchVoice:
    def __init__(self, model: str, compute: str, precision: str) -> None:
        self._device = _open_device(compute)
        torch.set_num_threads(1)  # workers are the unit of parallelism
        torch.backends.cudnn.allow_tf32 = False  # a GRU on a GPU has a mantissa of 10 bits otherwise, and calls it full
        path = weights_path(model)
        self._half = HALF[self._device.type] if precision == "half" else None
        weights, about = _load(path)
        self.card = _card(about, path)
        self._net = _build(weights, path).to(self._device).eval()
        if self._half is not None:
            self._net.logmel = InFull(self._net.logmel)
        self._slots = DeviceSlots(list(self._net.shapes()), self._device)

    def run(self, rows: Sequence[Row], pcm: Samples) -> Numbers:
        return run_alike(rows, pcm, self.card, self._call)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not followed
    def _call(self, rows: Sequence[Row], counts_B: NDArray[np.int64], sounds: list[Numbers]) -> Numbers:
        frame = self.card.frame_samples
        pcm_BS = np.zeros((len(rows), int(counts_B.max()) * frame), np.float32)
        for i, sound in enumerate(sounds):
            pcm_BS[i, : sound.size] = sound.reshape(-1)
        with torch.autocast(self._device.type, self._half, enabled=self._half is not None):
            slots_B = self._slots.place(rows)
            logits_BTH, after = self._net(
                torch.from_numpy(pcm_BS).to(self._device),
                torch.from_numpy(counts_B).to(self._device),
                VoiceState(*self._slots.gather(slots_B, rows)),
            )
            self._slots.scatter(slots_B, after)
        logits: Numbers = logits_BTH.float().cpu().numpy()
        return logits


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
    """A module that no autocast around it makes shorter."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pcm_BS: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.autocast(pcm_BS.device.type, enabled=False):
            features: tuple[Tensor, tuple[Tensor, ...]] = self.inner(pcm_BS, state)
            return features


def weights_path(model: str) -> Path:
    """The file behind a shipped name or a path."""
    path = Path(model)
    if path.suffix == ".onnx":
        raise GivenError(f"model {model!r}: torch plays .safetensors files; set model.backend=onnx for this one")
    if path.suffix != ".safetensors":
        path = model_path(model).with_suffix(".safetensors")
    if not path.is_file():
        raise MissingError(f"model {model!r}: there is no file {path}")
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


def _load(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors, and what the file says of itself."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get("clser")  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise GivenError(f"model {path}: safetensors cannot read it ({error}); write it again") from error


def _card(about: str | None, path: Path) -> VoiceCard:
    """Its own, or, where training left none in the file, that of the .onnx file which was exported beside it."""
    exported = path.with_suffix(".onnx")
    if about is None and exported.is_file():
        from onnxruntime import InferenceSession  # noqa: PLC0415 - only for this

        session = InferenceSession(str(exported), providers=["CPUExecutionProvider"])
        about = session.get_modelmeta().custom_metadata_map.get("clser")
    return read_card(about, path)


def _build(weights: dict[str, Tensor], path: Path) -> VoiceGru:
    """The network whose sizes these are."""
    try:
        queries, channels = weights["pooling.score.weight"].shape
        net = VoiceGru(channels, queries, len(weights["hidden.bias"]))
        net.load_state_dict(weights)
    except (KeyError, ValueError, RuntimeError) as error:  # torch names tensors that lack or differ in a RuntimeError
        words = " ".join(str(error).split())
        raise GivenError(f"model {path}: these are no weights of voice_gru: {words}") from error
    return net


def open_voice(model: str, compute: str, precision: str) -> TorchVoice:
    return TorchVoice(model, compute, precision)
