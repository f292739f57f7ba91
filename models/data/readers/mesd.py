"""MESD (Duville et al. 2021), as version 5 on Mendeley Data (cy34mh68j9) has it.

    Anger_C_A_abajo.wav    emotion, voice (female, male, child), list of words, word

Several people lend each kind of voice (three women, two men, six children), and no file says which of them speaks: the
speaker stays empty, and no figure of this corpus can be called independent of the speaker.
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "Anger": "anger",
    "Disgust": "disgust",
    "Fear": "fear",
    "Happiness": "happiness",
    "Neutral": "neutral",
    "Sadness": "sadness",
}
GENDERS = {"F": "female", "M": "male", "C": ""}
VOICES = {"F": "a woman's voice", "M": "a man's voice", "C": "a child's voice"}
NAME = re.compile(r"(?:^|/)(Anger|Disgust|Fear|Happiness|Neutral|Sadness)_([FMC])_([AB])_([^/]+)\.\w+$")


def read(tree: Tree) -> Found:
    """Everything is in the names."""
    return by_name(tree, NAME, _recording)


def _recording(match: re.Match[str], path: Path) -> Recording:
    emotion, voice, words, word = match.groups()
    note = f"{VOICES[voice]}, list {words}"
    text = word.rpartition("_")[2]  # some names carry a number before the word
    return Recording(path, emotion, "", GENDERS[voice], text=text, note=note)


READER = Reader("MESD", "es", "Anger_C_A_abajo.wav", LABELS, 862, read)
