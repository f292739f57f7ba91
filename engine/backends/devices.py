"""What computes: how devices are written in a config, and how to tell that one broke. Imports no runtime."""

import re
from importlib import import_module

from clser.engine.errors import ClserError, GivenError, MissingError

DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
HINT = "give cpu or cuda:N, or several with commas, as in cuda:0,cuda:1"

RUNTIMES = ("ctranslate2", "onnxruntime", "torch")
TOLD_BY_NAME = ("AcceleratorError", "OutOfMemoryError", "DeviceReset", "EPFail")
TOLD_BY_WORDS = re.compile(r"cuda|cudnn|cublas|cufft|cusolver|curand|nccl|nvml|nvrtc", re.IGNORECASE)


def devices(compute: str) -> tuple[str, ...]:
    """`cpu`, `cuda:N`, or several of them, as a tuple; `cuda` alone is `cuda:0`."""
    named = [name.strip() for name in compute.split(",")]
    wrong = [name for name in named if not DEVICE.fullmatch(name)]
    if wrong:
        which = "" if wrong == [compute] else f" ({wrong[0]!r} in it is no device)"
        raise GivenError(f"compute {compute!r}{which}: {HINT}")
    return tuple("cuda:0" if name == "cuda" else name for name in named)


def one_device(compute: str) -> str:
    """The device of a single worker."""
    named = devices(compute)
    if len(named) != 1:
        raise GivenError(f"compute {compute!r}: a worker computes on one device; {HINT}")
    return named[0]


def is_device_error(error: BaseException) -> bool:
    """Whether it was the device that broke, and not the model, its input, or this process.

    ONNX Runtime and torch raise classes of their own, or plain RuntimeErrors, that name NVIDIA's library in their words.
    What we raise on purpose names devices too, and is not meant.
    """
    if isinstance(error, ClserError):
        return False
    kind = type(error)
    theirs = kind.__module__.partition(".")[0] in RUNTIMES
    if theirs and kind.__name__ in TOLD_BY_NAME:
        return True
    return (theirs or isinstance(error, RuntimeError)) and TOLD_BY_WORDS.search(str(error)) is not None


def onnx_providers(compute: str) -> list[str | tuple[str, dict[str, str]]]:
    """ONNX Runtime's providers for `cpu` or `cuda:N`."""
    device = one_device(compute)
    if device == "cpu":
        return ["CPUExecutionProvider"]
    runtime = import_module("onnxruntime")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise MissingError(
            f"compute {compute!r}: this onnxruntime has no CUDA provider; `clser-models doctor` says how to install the one that has"
        )
    return [
        ("CUDAExecutionProvider", {"device_id": device.removeprefix("cuda:"), "use_tf32": "0"}),
        "CPUExecutionProvider",
    ]
