"""A trained voice network as one ONNX file which any runtime plays, with what an engine must know in its metadata."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from clser.models.features.constants import FRAME_SAMPLES, SAMPLE_RATE_HZ
from clser.models.labels import HEADS
from clser.models.zoo.voice_gru import VoiceGru, VoiceState

CONTRACT = 1
OPSET = 18
PARITY = 1e-4
LEAST_S = 0.5
LICENCE = "research and non-commercial use (see LICENSE-WEIGHTS.md)"


class Flat(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """The network with its state as plain arguments and results, as ONNX has them."""

    def __init__(self, net: VoiceGru) -> None:
        super().__init__()
        self.net = net

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits_BTH, after = self.net(pcm_BS, frames_B, VoiceState(*state))
        return (logits_BTH, *after)


def metadata(abstain_below: float, trained_on: Sequence[str], version: str = "1") -> dict[str, Any]:
    """What an engine reads beside the graph."""
    return {
        "contract": CONTRACT,
        "name": "voice_gru",
        "version": version,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "frame_samples": FRAME_SAMPLES,
        "heads": list(HEADS),
        "least_s": LEAST_S,
        "abstain_below": round(abstain_below, 4),
        "affect_source": "classes",
        "licence": LICENCE,
        "trained_on": list(trained_on),
    }


def export(net: VoiceGru, path: Path, about: Mapping[str, Any]) -> float:
    """Writes the file, plays it beside torch, and gives back the largest difference; refuses one above `PARITY`."""
    net = net.eval()
    partial = path.with_suffix(".partial.onnx")
    frames = 3
    state = net.start(2)
    inputs = ["pcm_BS", "frames_B", *(f"state_{name}" for name in VoiceState._fields)]
    outputs = ["logits_BTH", *(f"next_{name}" for name in VoiceState._fields)]
    axes = {name: {0: "B"} for name in (*inputs, *outputs)}
    axes["pcm_BS"][1], axes["logits_BTH"][1] = "S", "T"
    arguments = (torch.zeros(2, frames * FRAME_SAMPLES), torch.tensor([frames, frames - 1]), *state)
    with warnings.catch_warnings():
        # The tracing exporter is called deprecated, and warns that a GRU's batch size is fixed, which the state's axis
        # undoes here; `parity` below plays other sizes than the traced one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Flat(net), arguments, str(partial), input_names=inputs, output_names=outputs,
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    model = onnx.load(str(partial))
    onnx.helper.set_model_props(model, {"clser": json.dumps(dict(about))})
    onnx.checker.check_model(model)
    onnx.save(model, str(partial))
    worst = parity(net, partial)
    if not worst <= PARITY:
        raise ValueError(f"{partial}: the exported graph answers {worst:.2e} away from torch, more than {PARITY:.0e}")
    partial.replace(path)
    return worst


def parity(net: VoiceGru, path: Path, seed: int = 0) -> float:
    """The largest difference between torch and the file, over three calls that carry the state, rows of all lengths."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    state = net.eval().start(4)
    arrays = [tensor.numpy() for tensor in state]
    names = [f"state_{name}" for name in VoiceState._fields]
    worst = 0.0
    for frames in (5, 1, 3):
        pcm = (0.1 * random.standard_normal((4, frames * FRAME_SAMPLES))).astype(np.float32)
        real = np.array([frames, max(0, frames - 1), 0, frames], np.int64)
        with torch.no_grad():
            logits, state = net(torch.from_numpy(pcm), torch.from_numpy(real), state)
        got, *arrays = session.run(None, {"pcm_BS": pcm, "frames_B": real, **dict(zip(names, arrays, strict=True))})
        for row, count in enumerate(real):
            worst = max(worst, float(np.abs(got[row, :count] - logits[row, :count].numpy()).max(initial=0.0)))
        worst = max(worst, *(_relative(a, b.numpy()) for a, b in zip(arrays, state, strict=True)))
    return worst


def _relative(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float((np.abs(a - b) / (1.0 + np.abs(b))).max())
