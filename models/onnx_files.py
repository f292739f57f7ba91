"""ONNX files: what they say of themselves, playing them, and the quantiser of their runtime."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from clser.models.errors import FailedError, MissingError

OPSET = 18
WORTH_HALVING = 256
KEY = "clser"
"""Of the metadata, where a file says what it is."""


def player(path: Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on so many cores."""
    if not path.is_file():
        raise MissingError(f"{path}: there is no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def said_of(session: Any) -> dict[str, Any]:
    """What the file says of itself; nothing if it is not one of ours."""
    said: dict[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map.get(KEY, "{}"))
    return said


def describe(model: Any, said: dict[str, Any]) -> None:
    """Makes the model say so."""
    onnx.helper.set_model_props(model, {KEY: json.dumps(said)})


def put(
    path: Path, trace: Callable[[Path], None], said: dict[str, Any], parity: Callable[[Path], float], most: float
) -> float:
    """Writes the file in one go: traced, described, checked and played. How far its probabilities are from torch's; where that
    is more than `most`, there is no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.onnx")
    try:
        trace(partial)
        model = onnx.load(str(partial))
        describe(model, said)
        onnx.checker.check_model(model)
        onnx.save(model, str(partial))
        worst = parity(partial)
        if not worst <= most:
            raise FailedError(
                f"{path}: the exported graph's probabilities are {worst:.1e} away from torch's, more than {most:.0e}"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return worst


def halve(model: Any) -> None:
    """Stores weights that a short mantissa holds exactly in half the room. They are widened once, when the file is opened."""
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT:
            continue
        full = onnx.numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = full.astype(np.float16)
        if full.size >= WORTH_HALVING and np.array_equal(half.astype(np.float32), full):
            name = weight.name
            weight.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def quantise(path: Path, small: Path, operations: Sequence[str], **options: Any) -> None:
    """Writes `small`: the same with the fixed weights of these operations in a byte each."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - pulls in much that playing does not need

    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it recommends, every time, a preparation that changes nothing here
    try:
        quantize_dynamic(
            str(path), str(small), op_types_to_quantize=list(operations), per_channel=True,
            weight_type=QuantType.QInt8, **options,
        )  # fmt: skip
    finally:
        log.setLevel(level)
