"""TESS (Pichora-Fuller and Dupuis 2020), as the University of Toronto's archive and its copies have it.

    OAF_angry/OAF_back_angry.wav    speaker, word, emotion

Two women speak: nothing that it says is independent of the speaker. The folders are spelled in several ways
(`OAF_Pleasant_surprise`, `YAF_pleasant_surprised`), so labels come from the files' names, where pleasant surprise is
`ps`. One file lacks a letter: `OA_bite_neutral.wav`. Copies found elsewhere hold every file twice.
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "ps": "surprise",
}
AGES = {"OAF": 64, "YAF": 26}
NAME = re.compile(r"(?:^|/)(OAF?|YAF)_([a-z'-]+)_(angry|disgust|fear|happy|neutral|sad|ps)\.\w+$", re.IGNORECASE)


def read(tree: Tree) -> Found:
    """Everything is in the names."""
    return by_name(tree, NAME, _recording)


def _recording(match: re.Match[str], path: Path) -> Recording:
    who, word, emotion = match[1].upper(), match[2].lower(), match[3].lower()
    speaker = "OAF" if who == "OA" else who
    key = f"{speaker}_{word}_{emotion}"
    text = f"Say the word {word}."
    return Recording(path, emotion, speaker, "female", text=text, note=f"age {AGES[speaker]}", key=key)


READER = Reader("TESS", "en", "OAF_angry/OAF_back_angry.wav", LABELS, 2800, read)
