"""What a system must know of a pretrained encoder whose frames it is given: `hub:NAME` among its fronts or as its words."""

from clser.models.encoders.found import checkpoint, settings
from clser.models.errors import GivenError

HUB = "hub:"
HUB_SAMPLES = 320
"""Sound in one frame of HuBERT, wav2vec2, WavLM and Whisper alike."""


def is_hub(name: str) -> bool:
    """Whether it names a pretrained encoder. A name that says `hub:` and no more is refused."""
    if name == HUB:
        raise GivenError("hub: names no encoder: write hub:OWNER/NAME, or hub: and the folder of a checkpoint")
    return name.startswith(HUB)


def hub_width(name: str, given: int = 0) -> int:
    """Numbers in a frame of `hub:NAME`: as given, or as the checkpoint on this machine says (0)."""
    if given:
        return given
    told = settings(checkpoint(name.removeprefix(HUB)))
    width = told.get("hidden_size") or told.get("d_model")
    if not isinstance(width, int):
        raise GivenError(f"{name}: its config.json has no hidden_size; say how wide its frames are in the settings")
    return width
