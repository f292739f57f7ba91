"""IEMOCAP (Busso et al. 2008), as `IEMOCAP_full_release` has it.

    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav
    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt      [6.2901 - 8.2357]  Ses01F_impro01_F000  neu  [2.5, 2.5, 2.5]
    Session1/dialog/transcriptions/Ses01F_impro01.txt     Ses01F_impro01_F000 [006.2901-008.2357]: ...

Who speaks is the letter before the turn's number: the one in `Ses01F` is who wears the markers in that dialogue. What
lies in folders below EmoEvaluation is one judge's opinion, not the label. `exc` is not happiness unless somebody says
so: most published figures of four classes count it there.
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree

LABELS = {
    "ang": "anger",
    "dis": "disgust",
    "fea": "fear",
    "hap": "happiness",
    "neu": "neutral",
    "sad": "sadness",
    "sur": "surprise",
    "exc": "excitement",
    "fru": "frustration",
    "oth": "other",
    "xxx": "no agreement",
}
TURN = r"(?P<turn>Ses0(?P<session>\d)[FM]_\w+_(?P<sex>[FM])(?:XX)?\d+)"
LABELLED = re.compile(rf"^\[[^\]]*\]\s+{TURN}\s+(?P<label>\w+)\s+\[(?P<scales>[^\]]*)\]", re.MULTILINE)
SAID = re.compile(rf"^{TURN}\s+\[[^\]]*\]:[ \t]*(?P<text>.*?)\s*$", re.MULTILINE)
NAME = re.compile(rf"^{TURN}$")
SCALES = ("valence", "activation", "dominance")


def read(tree: Tree) -> Found:
    """What was labelled, with its sound and its words."""
    found = Found()
    files = {path.stem: path for path in tree.sounds() if NAME.match(path.stem)}
    said = {match["turn"]: match["text"] for path in _in(tree, "transcriptions") for match in _all(tree, path, SAID)}
    labelled = set()
    for path in _in(tree, "EmoEvaluation"):
        for match in _all(tree, path, LABELLED):
            turn = match["turn"]
            labelled.add(turn)
            if turn in files:
                found.recordings.append(_recording(match, files[turn], said.get(turn, "")))
            else:
                found.missing.append(f"{turn}.wav")
    for turn, path in files.items():
        if turn not in labelled:
            found.leave_out("without a label in dialog/EmoEvaluation", path)
    return found


def _recording(match: re.Match[str], path: Path, text: str) -> Recording:
    dialogue = match["turn"].rpartition("_")[0]
    scales = ", ".join(
        f"{name} {value.strip()}" for name, value in zip(SCALES, match["scales"].split(","), strict=False)
    )
    played = "improvised" if "_impro" in dialogue else "scripted"
    return Recording(
        path,
        match["label"].lower(),
        f"{match['session']}{match['sex']}",
        "female" if match["sex"] == "F" else "male",
        text=text,
        dialogue=dialogue,
        note=f"{played}; {scales}",
    )


def _in(tree: Tree, folder: str) -> list[Path]:
    """Texts that lie in a folder of this name itself."""
    return [path for path in tree.files if path.suffix == ".txt" and path.parent.name == folder]


def _all(tree: Tree, path: Path, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    return list(pattern.finditer(tree.text(path)))


READER = Reader(
    "IEMOCAP",
    "en",
    "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt and "
    "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
    LABELS,
    10_039,
    read,
)
