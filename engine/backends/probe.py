"""Which runtimes are here and whether they work, without loading a model. What `clser-models doctor` asks."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import Struct

from clser.engine.errors import MissingError
from clser.engine.jobs import VoiceCard
from clser.engine.shipped import model_path


class Runtimes(Struct, frozen=True):
    """What was found. An empty string or list means: not there."""

    onnxruntime: str
    """Version of the plain distribution."""
    onnxruntime_gpu: str
    """Version of the one with CUDA. Both install into one folder and overwrite each other's files."""
    loaded: str
    """Version of the module that is imported in fact."""
    trouble: str
    """Why importing it failed."""
    providers: list[str]
    torch: str
    silero_file: str

    @property
    def shadowed(self) -> bool:
        """Both are installed, and the files are the plain one's."""
        return bool(self.onnxruntime and self.onnxruntime_gpu) and not self.cuda

    @property
    def cuda(self) -> bool:
        return "CUDAExecutionProvider" in self.providers


def distribution(name: str) -> str:
    """The version that is installed under that name."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def runtimes() -> Runtimes:
    loaded, trouble, providers = "", "", []
    try:
        runtime = import_module("onnxruntime")
        loaded, providers = str(runtime.__version__), list(runtime.get_available_providers())
    except (ImportError, AttributeError, OSError) as error:  # half of its files may be another distribution's
        trouble = f"{type(error).__name__}: {error}"
    return Runtimes(
        onnxruntime=distribution("onnxruntime"),
        onnxruntime_gpu=distribution("onnxruntime-gpu"),
        loaded=loaded,
        trouble=trouble,
        providers=providers,
        torch=distribution("torch"),
        silero_file=_silero_file(),
    )


def _silero_file() -> str:
    try:
        return str(import_module("clser.engine.backends.silero").weights_path())
    except (MissingError, ImportError):
        return ""


def voice_card(model: str) -> tuple[VoiceCard, Path]:
    """What the model of that name, or in that file, says of itself, and where it lies."""
    card: VoiceCard = import_module("clser.engine.backends.onnx").open_voice(model, "cpu").card
    return card, model_path(model)
