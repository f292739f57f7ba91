"""RAVDESS (Livingstone and Russo 2018), as `Audio_Speech_Actors_01-24.zip` of Zenodo (record 1188976) has it.

    Actor_12/03-01-06-01-02-01-12.wav    modality, channel, emotion, intensity, sentence, take, actor

Song has the same names with channel 02 and is left out: it is no speech. Copies found elsewhere hold every file twice.
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
INTENSITY = {"01": "normal", "02": "strong"}
NAME = re.compile(r"(?:^|/)(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-([01]\d|2[0-4])\.\w+$")


def read(tree: Tree) -> Found:
    """Everything is in the names."""
    found = by_name(tree, NAME, _recording)
    for path in tree.videos():
        if NAME.search(path.as_posix()):
            found.leave_out("a video; the corpus has the same speech as sound", path)
    return found


def _recording(match: re.Match[str], path: Path) -> Recording | str:
    modality, channel, emotion, intensity, sentence, take, actor = match.groups()
    if channel == "02":
        return "song, not speech"
    if modality == "02":
        return "a video without sound"
    gender = "male" if int(actor) % 2 else "female"
    note = f"take {int(take)}"
    key = "-".join(match.groups()[1:])  # the sound of a video is a copy
    return Recording(
        path, emotion, actor, gender, sentence=sentence, intensity=INTENSITY[intensity], note=note, key=key
    )


READER = Reader("RAVDESS", "en", "Actor_01/03-01-06-01-02-01-01.wav", LABELS, 1440, read)
