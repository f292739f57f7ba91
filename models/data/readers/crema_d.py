"""CREMA-D (Cao et al. 2014), as its git repository (CheyneyComputerScience/CREMA-D) has it.

    AudioWAV/1001_DFA_ANG_XX.wav    actor, sentence, emotion, intensity
    VideoDemographics.csv           the actors' sex and age
    README.md                       the twelve sentences, each before its code: `... (DFA).`

The sound is kept by git-lfs: a checkout without it has pointers of some hundred bytes. Four recordings are broken, and
one has a name of its own (`1040_ITH_SAD_X`). The label is what the actor was told to play; listeners often hear another.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
INTENSITY = {"LO": "low", "MD": "medium", "HI": "high", "XX": "", "X": ""}
BROKEN = {
    "1076_MTI_NEU_XX": "nearly no sound",
    "1076_MTI_SAD_XX": "no sound",
    "1064_TIE_SAD_XX": "no length",
    "1064_IEO_DIS_MD": "every emotion in one file",
}
LONGEST_S = 15.0
NAME = re.compile(r"(?:^|/)((1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?))\.\w+$")
SENTENCE = re.compile(r"^[\s*>\d.-]*(?P<text>\S.*?)\s*\((?P<code>[A-Z]{3})\)", re.MULTILINE)


def read(tree: Tree) -> Found:
    """Names say nearly all; where the tables are there, they say the rest."""
    people, sentences = _people(tree), _sentences(tree)
    found = by_name(tree, NAME, lambda match, path: _recording(match, path, people, sentences))
    found.recordings.sort(key=lambda one: (one.path.suffix.lower() != ".wav", one.path))  # MP3s are copies
    return found


def _recording(
    match: re.Match[str], path: Path, people: Mapping[str, Mapping[str, str]], sentences: Mapping[str, str]
) -> Recording | str:
    name, actor, sentence, emotion, intensity = match.groups()
    if name in BROKEN:
        return f"known to be broken ({BROKEN[name]})"
    about = people.get(actor, {})
    text = sentences.get(sentence, "")
    return Recording(
        path,
        emotion,
        actor,
        gender=about.get("Sex", "").strip().lower(),
        text=text,
        sentence=sentence,
        intensity=INTENSITY[intensity],
        note=f"age {about['Age']}" if about.get("Age") else "",
        longest_s=LONGEST_S,
    )


def _people(tree: Tree) -> dict[str, Mapping[str, str]]:
    return {
        row["ActorID"].strip(): row
        for path in tree.named("VideoDemographics.csv")
        for row in tree.table(path, "ActorID", "Sex")
    }


def _sentences(tree: Tree) -> dict[str, str]:
    """What the corpus's own description says the codes stand for."""
    return {
        match["code"]: match["text"].rstrip(".") + "."
        for path in tree.named("README.md")
        for match in SENTENCE.finditer(tree.text(path))
    }


READER = Reader("CREMA-D", "en", "AudioWAV/1001_DFA_ANG_XX.wav", LABELS, 7442, read)
