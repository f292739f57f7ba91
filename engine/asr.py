"""How speech is recognised: the settings, and what is taken where the config leaves the choice open. Imports no runtime."""

from typing import Annotated

from msgspec import Meta, Struct

OFF, AUTO = "off", "auto"


class AsrConfig(Struct, frozen=True, forbid_unknown_fields=True):
    recogniser: str = OFF
    """`off`; `sphinx`; `whisper`, or `whisper:NAME` with a size, a name on the hub or a folder; or `auto`: a Whisper that is on this
    machine, else Sphinx where it is installed and the language is English or not said, else off."""
    language: str = ""
    """A code such as `en`; empty: the recogniser listens for it."""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """Processes that recognise, beside those of `pool`."""
    compute: str = "cpu"
    """`cpu`, `cuda:N`, or several, dealt to the workers in turn."""
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    """Of each of them."""
    step_ms: Annotated[int, Meta(ge=0)] = 0
    """New sound of about this is worth decoding. 0: as the recogniser finds best. It gets more by itself where there is no time."""
    wait_ms: Annotated[int, Meta(ge=0)] = 400
    """A final waits for its text at most so long; then it goes out with the voice alone, and is amended once the text is there."""
    late_s: Annotated[float, Meta(gt=0)] = 10.0
    """Text that comes later than this is given up."""
    silent_s: Annotated[float, Meta(gt=0)] = 20.0
    """A recogniser that writes nothing for so much speech is reported, and begins anew."""
    start_s: Annotated[float, Meta(gt=0)] = 120.0
    """A recogniser that is not ready by then is given up; large ones take their time."""
    hung_s: Annotated[float, Meta(gt=0)] = 30.0
    """One that says nothing for so long hangs, and is killed. While it decodes it is silent."""
    no_speech_above: Annotated[float, Meta(ge=0, le=1)] = 0.6
    """Whisper: a window that is so probably no speech is left without words,"""
    log_probability_below: float = -1.0
    """and words that are so improbable, on average a token, are suspect;"""
    compression_above: Annotated[float, Meta(gt=1)] = 2.4
    """as is any text that repeats itself so much"""
    words_per_s_above: Annotated[float, Meta(gt=0)] = 7.0
    """or has more words than anybody says."""
    tokens_per_s: Annotated[float, Meta(gt=0)] = 12.0
    """Whisper writes no more tokens than this for the sound there is."""
