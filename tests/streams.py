"""What every front and every streaming layer promises, played through: any split, any company, any runtime.

A `Case` says how its input is made: a step is what one frame of the output takes in.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from clser.models.tensors import leaves, like, names

CLOSE = 1e-4
OPSET = 18

torch.set_num_threads(1)  # more than one only gets in the way of sizes like these


@dataclass(frozen=True)
class Case:
    module: Any
    make: Callable[[int, int, int], Tensor]
    """rows, steps, seed -> input [rows, steps * per_step, ...]."""
    per_step: int = 1
    """How much of the input's second axis is one step of the output."""
    units: int = 1
    """How many of the module's own length units are one step."""


def front_case(front: Any) -> Case:
    def make(rows: int, steps: int, seed: int) -> Tensor:
        """Noise that swells over tones, so that no frame is silent and pitch, where there is one, is plain."""
        random = torch.Generator().manual_seed(seed)
        samples = steps * front.samples
        t = torch.arange(samples) / 16_000
        hz = 100.0 + 150.0 * torch.rand(rows, 1, generator=random)
        voice = sum(torch.sin(2 * torch.pi * hz * k * t) / k for k in range(1, 8))
        return 0.1 * voice + (0.02 + 0.01 * t) * torch.randn(rows, samples, generator=random)

    return Case(front.eval(), make, front.samples)


def layer_case(layer: Any, width: int, hop: int = 1) -> Case:
    def make(rows: int, steps: int, seed: int) -> Tensor:
        return 1.0 + torch.randn(rows, steps * hop, width, generator=torch.Generator().manual_seed(seed))

    return Case(layer.eval(), make, hop, hop)


@torch.no_grad()
def play(case: Case, x: Tensor, steps_B: Tensor, state: Any) -> tuple[Tensor, Any]:
    return case.module(x, steps_B * case.units, state)


def play_whole(case: Case, x: Tensor) -> tuple[Tensor, Any]:
    steps = x.shape[1] // case.per_step
    return play(case, x, torch.full((len(x),), steps), case.module.start(len(x)))


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a.float(), b.float(), atol=CLOSE, rtol=CLOSE))


def states_close(a: Any, b: Any) -> list[str]:
    """The names of what differs."""
    return [name for name, x, y in zip(names(a), leaves(a), leaves(b), strict=True) if not close(x, y)]


def streamed_is_whole(case: Case, steps: int, cuts: list[int], seed: int) -> None:
    x = case.make(2, steps, seed)
    whole, end = play_whole(case, x)
    state, parts = case.module.start(2), []
    for first, last in zip([0, *cuts], [*cuts, steps], strict=True):
        part = x[:, first * case.per_step : last * case.per_step]
        said, state = play(case, part, torch.full((2,), last - first), state)
        parts.append(said)
    together = torch.cat(parts, 1)
    assert close(together, whole), float((together - whole).abs().max())
    assert states_close(state, end) == []


def rows_are_as_alone(case: Case, lengths: list[int], seed: int = 0) -> None:
    """Two calls, so that what the first leaves behind is heard in the second; padding is loud, and must not be."""
    calls = [(case.make(len(lengths), max(lengths), seed + k), torch.tensor(lengths[k:] + lengths[:k])) for k in (0, 1)]
    for x, steps_B in calls:
        for row, count in enumerate(steps_B.tolist()):
            x[row, count * case.per_step :] = 0.9
    state = case.module.start(len(lengths))
    alone = [case.module.start(1) for _ in lengths]
    for x, steps_B in calls:
        said, state = play(case, x, steps_B, state)
        for row, count in enumerate(steps_B.tolist()):
            if count:
                one = x[row : row + 1, : count * case.per_step]
                own, alone[row] = play(case, one, torch.tensor([count]), alone[row])
                assert close(said[row : row + 1, :count], own)
            of_row = like(state, iter([tensor[row : row + 1] for tensor in leaves(state)]))
            assert states_close(of_row, alone[row]) == []


def zeros_are_the_start(case: Case) -> None:
    state = case.module.start(3)
    assert all(tensor.shape[0] == 3 and not tensor.any() for tensor in leaves(state))
    _, after = play(case, case.make(3, 2, 0), torch.zeros(3, dtype=torch.int64), state)
    assert states_close(state, after) == []


class _Flat(nn.Module):
    def __init__(self, module: nn.Module, state: Any) -> None:
        super().__init__()
        self.module, self.state = module, state

    def forward(self, x: Tensor, length_B: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        y, after = self.module(x, length_B, like(self.state, iter(flat)))
        return (y, *leaves(after))


def exported(case: Case) -> onnxruntime.InferenceSession:
    """The module in ONNX Runtime; traced with two rows of three steps."""
    state = case.module.start(2)
    labels = list(names(state))
    inputs = ["x", "length_B", *(f"state_{name}" for name in labels)]
    outputs = ["y", *(f"next_{name}" for name in labels)]
    axes = {name: {0: "B"} for name in (*inputs, *outputs)}
    axes["x"][1], axes["y"][1] = "S", "T"
    file = io.BytesIO()
    given = (case.make(2, 3, 0), torch.tensor([3, 2]) * case.units, *leaves(state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the tracing exporter is called deprecated
        torch.onnx.export(
            _Flat(case.module, state).eval(), given, file, input_names=inputs, output_names=outputs,
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])


def onnx_says_the_same(case: Case) -> None:
    """Three calls that carry the state, at other numbers of rows and steps than were traced."""
    session = exported(case)
    state = case.module.start(4)
    labels = list(names(state))
    arrays = [tensor.numpy() for tensor in leaves(state)]
    for call, steps in enumerate((7, 1, 4)):
        x, steps_B = case.make(4, steps, call), torch.tensor([steps, max(0, steps - 2), 0, 1])
        said, state = play(case, x, steps_B, state)
        given = {f"state_{name}": array for name, array in zip(labels, arrays, strict=True)}
        feed = {"x": x.numpy(), "length_B": (steps_B * case.units).numpy(), **given}
        wanted = {i.name for i in session.get_inputs()}
        got, *arrays = session.run(None, {name: value for name, value in feed.items() if name in wanted})
        for row, count in enumerate(steps_B.tolist()):
            np.testing.assert_allclose(got[row, :count], said[row, :count].numpy(), atol=CLOSE, rtol=CLOSE)
        for label, ours, theirs in zip(labels, leaves(state), arrays, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), atol=CLOSE, rtol=CLOSE, err_msg=label)
