"""What a system must know of a pretrained encoder whose frames it is given: `hub:NAME` among its fronts or as its words.

`hub:NAME@1,9` asks for these layers of a speech encoder instead of its last, side by side in each frame.
"""

from clser.models.encoders.found import checkpoint, settings
from clser.models.errors import GivenError

HUB = "hub:"
SHIPPED = "clser/"
"""Before the name of a voice that ships with this package, which can stand in an encoder's place."""
HUB_SAMPLES = 320
"""Sound in one frame of HuBERT, wav2vec2, WavLM and Whisper alike."""


def is_hub(name: str) -> bool:
    """Whether it names a pretrained encoder. A name that says `hub:` and no more is refused."""
    if name == HUB:
        raise GivenError("hub: names no encoder: write hub:OWNER/NAME, or hub: and the folder of a checkpoint")
    return name.startswith(HUB)


def taken_apart(name: str) -> tuple[str, tuple[int, ...]]:
    """`hub:NAME@1,9` to the checkpoint's name and the layers that are asked for; none: the last."""
    asked, at, layers = name.removeprefix(HUB).partition("@")
    if not at:
        return asked, ()
    try:
        return asked, tuple(int(layer) for layer in layers.split(","))
    except ValueError as error:
        raise GivenError(f"{name}: after @ stand numbers of layers, as in {HUB}{asked}@1,9") from error


def hub_layers(name: str) -> int:
    """How many layers stand side by side in each frame."""
    return len(taken_apart(name)[1]) or 1


def hub_width(name: str, given: int = 0) -> int:
    """Numbers in a frame of `hub:NAME`: as given, or as the checkpoint on this machine says (0)."""
    if given:
        return given
    asked = taken_apart(name)[0]
    return hub_layers(name) * _width(asked, name)


def _width(asked: str, name: str) -> int:
    from clser.models.encoders.own_speech import own_file, own_width  # noqa: PLC0415 - it loads systems, which ask here

    if (path := own_file(asked)) is not None:
        return own_width(path)
    told = settings(checkpoint(asked))
    width = told.get("hidden_size") or told.get("d_model")
    if not isinstance(width, int):
        raise GivenError(f"{name}: its config.json has no hidden_size; say how wide its frames are in the settings")
    return width
