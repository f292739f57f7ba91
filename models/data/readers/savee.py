"""SAVEE (Haq and Jackson 2010), as the University of Surrey gives it and as its flat copies have it.

    AudioData/DC/a01.wav, or ALL/DC_a01.wav    speaker, emotion, sentence

Four men speak. But for three sentences that all emotions share, each emotion has sentences of its own, so the words
tell the label. `sa` is sadness and `su` surprise.
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
NAME = re.compile(r"(?:^|/)(DC|JE|JK|KL)[/_](sa|su|[adfhn])(\d\d)\.\w+$")


def read(tree: Tree) -> Found:
    """Everything is in the names."""
    return by_name(tree, NAME, _recording)


def _recording(match: re.Match[str], path: Path) -> Recording:
    speaker, emotion, number = match.groups()
    code = emotion + number
    return Recording(path, emotion, speaker, "male", sentence=code, key=f"{speaker}_{code}")


READER = Reader("SAVEE", "en", "AudioData/DC/a01.wav or ALL/DC_a01.wav", LABELS, 480, read)
