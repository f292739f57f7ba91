"""Pretrained encoders for a CPU: one ONNX file with its matrices in int8, and an encoder that plays it.

Letters: B rows, S samples, L tokens, T steps, D width.

The products of the attention and feed-forward layers are quantised while running (weights int8 once, each layer's input by
its own range at each call); convolutions, norms and embeddings stay in float, where int8 costs more than it gives.
"""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models import onnx_files
from clser.models.encoders.pretrained_speech import WaveformSpeech
from clser.models.encoders.pretrained_text import PretrainedText, open_tokenizer, tokenise
from clser.models.encoders.whisper_speech import WhisperSpeech
from clser.models.errors import GivenError, MissingError
from clser.models.tensors import Sequences

FILE = "encoder.onnx"
TRACED_S = 1.0
LARGEST_BYTES = 2**31 - 2**20  # what one file of this format holds
OPERATIONS = ["MatMul"]

Encoder = WaveformSpeech | WhisperSpeech | PretrainedText


class OnnxEncoder(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """What `quantise` wrote, with the seam of the encoder it came from. It learns nothing and runs on the CPU."""

    def __init__(self, folder: str | Path, threads: int = 1) -> None:
        super().__init__()
        path = Path(folder) / FILE
        if not path.is_file():
            raise MissingError(f"there is no {path}: give a folder that `quantise` wrote")
        self.session = onnx_files.player(path, threads)
        about = onnx_files.said_of(self.session)
        if about.get("contract") != "encoder":
            raise GivenError(f"{path} is no encoder: give a folder that `quantise` wrote")
        self.kind, self.width = str(about["kind"]), int(about["width"])
        self.samples, self.least = int(about["samples"]), int(about["least"])
        self.window = int(about["window"])
        self.most_tokens, self.padding_id = int(about["most_tokens"]), int(about["padding_id"])
        self.tokenizer = open_tokenizer(Path(folder)) if self.kind == "text" else None

    def forward(self, input_BX: Tensor, length_B: Tensor) -> Sequences:
        """Sound and samples, or ids and lengths: whatever the encoder took that was written."""
        if input_BX.shape[1] < self.least:
            input_BX = functional.pad(input_BX, (0, self.least - input_BX.shape[1]))
        size = self.window or input_BX.shape[1]
        # All of a row's windows are full but its last, so that their frames lie side by side.
        parts = [
            self._played(input_BX[:, begin : begin + size], (length_B - begin).clamp(0, size))
            for begin in range(0, input_BX.shape[1], size)
        ]
        return Sequences(torch.cat([part.x_BTD for part in parts], 1), sum(part.length_B for part in parts))

    def _played(self, input_BX: Tensor, length_B: Tensor) -> Sequences:
        given = {"input_BX": input_BX.numpy(force=True), "length_B": length_B.numpy(force=True)}
        return Sequences(*(torch.from_numpy(array) for array in self.session.run(None, given)))

    def tokenise(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        if self.tokenizer is None:
            raise GivenError("this encoder hears sound; it takes no text")
        return tokenise(self.tokenizer, texts, self.most_tokens, self.padding_id)


def quantise(encoder: Encoder, folder: str | Path, int8: bool = True) -> Path:
    """Writes the encoder, with its layers and fusion as chosen, into `folder`, and gives back the file.

    `int8=False` writes it in float, to tell what the exchange alone costs. Whisper must be `padded`.
    """
    if isinstance(encoder, WhisperSpeech) and not encoder.padded:
        raise GivenError("Whisper is written with its whole window only: open it with padded=True")
    if encoder.encoder.dtype != torch.float32:
        raise GivenError("an encoder is quantised from float32: open it with dtype='float32'")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as beside, _quiet():
        plain = Path(beside) / "float.onnx"
        _export(encoder.eval(), plain)
        if int8:
            small = Path(beside) / "int8.onnx"
            options = {"use_external_data_format": _large(plain), "extra_options": {"MatMulConstBOnly": True}}
            onnx_files.quantise(plain, small, OPERATIONS, **options)
            plain = small
        model = onnx.load(str(plain))
        onnx_files.describe(model, _about(encoder))
        _save(model, folder / FILE)
    if isinstance(encoder, PretrainedText):
        encoder.tokenizer.save_pretrained(folder)
    return folder / FILE


def _about(encoder: Encoder) -> dict[str, Any]:
    about: dict[str, Any] = {"contract": "encoder", "width": encoder.width, "kind": "speech", "samples": 0}
    about |= {"least": 1, "window": 0, "most_tokens": 0, "padding_id": 0}
    if isinstance(encoder, PretrainedText):
        return about | {"kind": "text", "most_tokens": encoder.most_tokens, "padding_id": encoder.padding_id}
    if isinstance(encoder, WhisperSpeech):
        return about | {"samples": encoder.samples, "window": encoder.window_samples}
    return about | {"samples": encoder.samples, "least": encoder.least_samples}


def _export(encoder: Encoder, path: Path) -> None:
    if isinstance(encoder, PretrainedText):
        arguments = (torch.ones(2, 9, dtype=torch.int64), torch.tensor([9, 5]))
    else:
        samples = int(TRACED_S * 16_000)
        arguments = (torch.randn(2, samples), torch.tensor([samples, samples // 2]))
    chosen = encoder.encoder.config._attn_implementation
    encoder.encoder.set_attn_implementation("eager")  # plain products, which are what int8 is about
    try:
        torch.onnx.export(
            encoder, arguments, str(path), input_names=["input_BX", "length_B"], output_names=["x_BTD", "steps_B"],
            dynamic_axes={"input_BX": {0: "B", 1: "X"}, "length_B": {0: "B"}, "x_BTD": {0: "B", 1: "T"}, "steps_B": {0: "B"}},
            opset_version=onnx_files.OPSET, dynamo=False,
        )  # fmt: skip
    finally:
        encoder.encoder.set_attn_implementation(chosen)


def _large(path: Path) -> bool:
    return sum(file.stat().st_size for file in path.parent.iterdir()) > LARGEST_BYTES


def _save(model: Any, path: Path) -> None:
    if model.ByteSize() > LARGEST_BYTES:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """The tracing exporter calls itself deprecated, and traces through the library's checks of shapes; both are meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
