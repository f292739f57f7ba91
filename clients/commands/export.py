"""`clser-models export`: a trained system as one ONNX file that the engine plays without torch."""

import argparse
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from clser.clients.commands.systems import add_zoo, need_torch
from clser.engine.errors import GivenError
from clser.engine.shipped import installed, model_path

NAME = "export"
HELP = "write a trained system as one ONNX file, which the engine plays without torch"


def add_parser(inner: Any) -> None:
    """The action and its arguments."""
    action = inner.add_parser(NAME, help=HELP, description=HELP, allow_abbrev=False)
    action.add_argument(
        "--model",
        required=True,
        metavar="NAME|DIR",
        help="a shipped model, a folder of `clser-models train`, or its .safetensors",
    )
    action.add_argument("--onnx", required=True, type=Path, metavar="PATH", help="the file to write")
    action.add_argument("--delta", type=Path, metavar="PATH", help="with what `clser-models adapt` wrote upon it")
    action.add_argument("--int8", action="store_true", help="weights of 8 bits; refused where labels would change")
    add_zoo(action)
    action.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(given: argparse.Namespace) -> int:
    """The command."""
    need_torch()
    if given.onnx.suffix != ".onnx":
        raise GivenError(f"--onnx {given.onnx}: the file's name must end in .onnx, which is how the engine knows it")
    system, about = opened(given.model, given.zoo, given.delta)
    made = import_module("clser.models.export").export(system, given.onnx, about, int8=given.int8)
    if given.json:
        print(json.dumps({"onnx": str(given.onnx), **made._asdict()}))
        return 0
    print(f"{given.onnx}: {made.size_bytes / 1e6:.1f} MB, probabilities within {made.parity:.0e} of torch's")
    if made.agreement is not None:
        print(f"8-bit weights: {made.agreement:.1%} of the labels are those of the full ones")
    return 0


def opened(model: str, zoo: Sequence[Path], delta: Path | None = None) -> tuple[Any, Any]:
    """The system behind a name or a path, and what is known of it."""
    if model.endswith(".safetensors"):
        path = Path(model)
    elif model in installed():
        path = model_path(model).with_suffix(".safetensors")
    elif model.endswith(".onnx") or (path := model_path(model)).suffix == ".onnx":
        raise GivenError(f"--model {model}: that is an ONNX file already; give a folder of `clser-models train`")
    if delta is not None:
        return import_module("clser.models.deltas").load_with(path, delta, zoo)  # type: ignore[no-any-return]  # as below
    return import_module("clser.models.saved").load(path, zoo)  # type: ignore[no-any-return]  # systems are Any
