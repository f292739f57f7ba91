"""ESD (Zhou et al. 2022), as `Emotional Speech Dataset (ESD).zip` has it, with its folders of splits or without.

    0011/Angry/0011_000351.wav, or 0011/Angry/train/0011_000351.wav    speaker, emotion, number
    0011/0011.txt                                                      number, text and emotion, by tabs

Speakers 0001 to 0010 speak Chinese, 0011 to 0020 English. The texts come in several encodings. The makers' splits share
all speakers: of every emotion's 350 recordings the first 20 are for choosing, the next 30 for testing.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from clser.models.data.downloads import CHINESE, Found, Reader, Recording, Tree, by_name

LABELS = {"Angry": "anger", "Happy": "happiness", "Neutral": "neutral", "Sad": "sadness", "Surprise": "surprise"}
WOMEN = frozenset({1, 2, 3, 7, 9, 15, 16, 17, 18, 19})
FIRST_ENGLISH, LAST = 11, 20
EACH, CHOSEN_BY, TESTED = 350, 20, 30
SPLITS = {"evaluation": "dev", "test": "test", "train": "train"}
NAME = re.compile(r"(?:^|/)(\w+)/(?:(train|test|evaluation)/)?(00\d\d)_(\d{6})\.\w+$")


def read(tree: Tree) -> Found:
    """Names say nearly all; texts come from a file a speaker, where it is there."""
    texts = _texts(tree)
    return by_name(tree, NAME, lambda match, path: _recording(match, path, texts))


def _recording(match: re.Match[str], path: Path, texts: Mapping[str, str]) -> Recording | str:
    emotion, folder, speaker, number = match.groups()
    emotion = emotion.capitalize()
    if emotion not in LABELS or not 1 <= int(speaker) <= LAST:
        return "in a folder that is no emotion or no speaker of this corpus"
    gender = "female" if int(speaker) in WOMEN else "male"
    language = "en" if int(speaker) >= FIRST_ENGLISH else "zh"
    text = texts.get(f"{speaker}_{number}", "")
    split = SPLITS[folder] if folder else _split(int(number))
    return Recording(path, emotion, speaker, gender, language=language, text=text, split=split)


def _split(number: int) -> str:
    place = (number - 1) % EACH
    if place < CHOSEN_BY:
        return "dev"
    return "test" if place < CHOSEN_BY + TESTED else "train"


def _texts(tree: Tree) -> dict[str, str]:
    """What each recording says, of all speakers' files."""
    texts = {}
    for path in tree.files:
        if re.fullmatch(r"00\d\d\.txt", path.name):
            for line in tree.text(path, CHINESE).splitlines():
                parts = re.split(r"\t+", line.strip())
                if len(parts) >= 2 and re.fullmatch(r"\d{4}_\d{6}", parts[0]):
                    texts[parts[0]] = parts[1].strip()
    return texts


READER = Reader("ESD", "", "0011/Angry/0011_000351.wav (or with train, test, evaluation between)", LABELS, 35_000, read)
