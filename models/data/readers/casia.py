"""CASIA's Chinese emotional speech, the part of 1200 recordings that goes round.

    liuchanhg/angry/201.wav, angry/201-angry-liuchanhg.wav, or liuchanhg_angry_201.wav    speaker, emotion, sentence

Four people (their names are written in small letters or not, `ZhaoZuoxiang`) say 50 sentences six times. Whether a man
or a woman speaks no file says; it is from the pitch that was measured.
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "angry": "anger",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
GENDERS = {"liuchanhg": "female", "wangzhe": "male", "zhaoquanyin": "female", "zhaozuoxiang": "male"}
_WHO, _EMOTION, _NUMBER = rf"(?P<who>{'|'.join(GENDERS)})", rf"(?P<emotion>{'|'.join(LABELS)})", r"(?P<number>\d{3})"
LAYOUTS = [
    re.compile(rf"(?:^|/){layout}\.\w+$", re.IGNORECASE)
    for layout in (
        rf"{_WHO}/{_EMOTION}/{_NUMBER}",
        rf"{_NUMBER}-{_EMOTION}-{_WHO}",
        rf"{_WHO}_{_EMOTION}_{_NUMBER}",
    )
]


def read(tree: Tree) -> Found:
    """Everything is in the names, in one of three ways."""
    found = Found()
    for layout in LAYOUTS:
        found.recordings += by_name(tree, layout, _recording).recordings
    return found


def _recording(match: re.Match[str], path: Path) -> Recording:
    who, emotion, number = match["who"].lower(), match["emotion"].lower(), match["number"]
    return Recording(path, emotion, who, GENDERS[who], sentence=number, key=f"{who}_{emotion}_{number}")


READER = Reader("CASIA", "zh", "liuchanhg/angry/201.wav or angry/201-angry-liuchanhg.wav", LABELS, 1200, read)
