"""EmoDB (Burkhardt et al. 2005), as `download.zip` of emodb.bilderbar.info and its copies have it.

    wav/03a01Fa.wav    speaker 03, sentence a01, emotion F, version a

The letters of the emotions are German: W is Wut (anger) and A is Angst (fear).
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "W": "anger",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happiness",  # Freude
    "T": "sadness",  # Trauer
    "N": "neutral",
}
MEN = frozenset({"03", "10", "11", "12", "15"})
NAME = re.compile(r"(?:^|/)(03|08|09|1[0-6])([ab]\d\d)([WLEAFTN])([a-f])\.\w+$")


def read(tree: Tree) -> Found:
    """Everything is in the names."""
    return by_name(tree, NAME, _recording)


def _recording(match: re.Match[str], path: Path) -> Recording:
    speaker, sentence, letter, version = match.groups()
    gender = "male" if speaker in MEN else "female"
    return Recording(path, letter, speaker, gender, sentence=sentence, note=f"version {version}")


READER = Reader("EmoDB", "de", "wav/03a01Fa.wav", LABELS, 535, read)
