"""nEMO (Christop 2024), as its git repository and the hub's copy (amu-cai/nEMO) have it.

samples/SM0_anger_1.wav    speaker, emotion, sentence
data.tsv                   file_id, emotion, raw_text, normalized_text, speaker_id, gender, age
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "anger": "anger",
    "fear": "fear",
    "happiness": "happiness",
    "neutral": "neutral",
    "sadness": "sadness",
    "surprised": "surprise",
    "surprise": "surprise",
}
TABLE = "data.tsv"
NAME = re.compile(rf"(?:^|/)([A-Z]{{2}}\d)_({'|'.join(LABELS)})_(\d+)\.\w+$")


def read(tree: Tree) -> Found:
    """The table names everything; without it, the files' names say the speaker and the emotion."""
    if not any(tree.named(TABLE)):
        return by_name(tree, NAME, _recording)
    found = Found()
    files = {path.stem: path for path in tree.sounds()}
    for table in tree.named(TABLE):
        for row in tree.table(table, "file_id", "emotion", "speaker_id"):
            name = row["file_id"].removesuffix(".wav")
            if name not in files:
                found.missing.append(f"{name}.wav")
                continue
            found.recordings.append(
                Recording(
                    files[name],
                    row["emotion"].strip(),
                    row["speaker_id"].strip(),
                    gender=row.get("gender", "").strip().lower(),
                    text=row.get("raw_text", "").strip(),
                    note=f"age {row['age']}" if row.get("age") else "",
                )
            )
    return found


def _recording(match: re.Match[str], path: Path) -> Recording:
    speaker, emotion, sentence = match.groups()
    return Recording(path, emotion, speaker, sentence=sentence)


READER = Reader("nEMO", "pl", "data.tsv beside samples/SM0_anger_1.wav", LABELS, 4481, read)
