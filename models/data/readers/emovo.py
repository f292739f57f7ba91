"""EMOVO (Costantini et al. 2014), as `emovo.zip` has it.

EMOVO/f1/dis-f1-b1.wav    emotion, speaker, sentence
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "rab": "anger",  # rabbia
    "dis": "disgust",  # disgusto
    "pau": "fear",  # paura
    "gio": "happiness",  # gioia
    "neu": "neutral",  # neutro
    "tri": "sadness",  # tristezza
    "sor": "surprise",  # sorpresa
}
NAME = re.compile(r"(?:^|/)(rab|dis|pau|gio|neu|tri|sor)-([fm])([123])-([a-z]\d)\.\w+$")


def read(tree: Tree) -> Found:
    """Everything is in the names."""
    return by_name(tree, NAME, _recording)


def _recording(match: re.Match[str], path: Path) -> Recording:
    emotion, sex, number, sentence = match.groups()
    return Recording(path, emotion, sex + number, "female" if sex == "f" else "male", sentence=sentence)


READER = Reader("EMOVO", "it", "f1/dis-f1-b1.wav", LABELS, 588, read)
