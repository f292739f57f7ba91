"""What others call the emotions, in the words this project uses."""

from collections.abc import Mapping

from clser.models.errors import GivenError
from clser.models.labels import HEADS

SYNONYMS = {
    "anger": "angry ang annoyed",
    "disgust": "disgusted dis",
    "fear": "fearful afraid scared anxious anxiety fea",
    "happiness": "happy hap joy joyful",
    "neutral": "neu",
    "sadness": "sad",
    "surprise": "surprised pleasant_surprise ps sur",
    "boredom": "bored",
    "calm": "calmness peaceful",
}
"""Names that mean the same in every collection that was looked at. `excited` is not among them: some count it as
happiness, some as a class of its own, so whoever reads has to say."""

_CANONICAL = {
    **{name: name for name in HEADS},
    **{other: name for name, others in SYNONYMS.items() for other in others.split()},
}


def canonical(given: str, also: Mapping[str, str] | None = None) -> str:
    """The project's name for an emotion; "" where `also` says to leave such clips out.

    `also` maps further names, as they stand in the manifest, to ours or to "".
    """
    name = given.strip().casefold()
    further = {key.strip().casefold(): value for key, value in (also or {}).items()}
    said = further.get(name, name)
    if name in further and said == "":
        return ""
    known = _CANONICAL.get(said.strip().casefold())
    if known is None:
        raise GivenError(
            f"unknown emotion {given!r}; known: {', '.join(HEADS)} and common other names of these. "
            f"Rename it, say what it counts as (for example {given}=happiness), or leave its clips out ({given}=)"
        )
    return known
