"""eNTERFACE'05 (Martin et al. 2006), as `project2_database.zip` has it: videos.

    subject 1/anger/sentence 1/s1_an_1.avi

Files' names lie (those of subject 11 begin with `s12`, others lack a letter), so the folders are believed. Subject 6 was
never cut into sentences: what lies in an emotion's folder itself is left out. Every emotion has sentences of its own, so
the words tell the label. No table says who is a woman and who is a man.
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree, by_name

LABELS = {
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happiness": "happiness",
    "sadness": "sadness",
    "surprise": "surprise",
}
LONGEST_S = 20.0
NAME = re.compile(
    rf"(?:^|/)subject[ _-]?(\d+)/({'|'.join(LABELS)})/(?:sentence[ _-]?(\d)/)?[^/]+\.(?:avi|wav|flac)$", re.IGNORECASE
)


def read(tree: Tree) -> Found:
    """Folders say it; a sound file in the place of a video goes before it."""
    return by_name(tree, NAME, _recording, videos=True)


def _recording(match: re.Match[str], path: Path) -> Recording | str:
    subject, emotion, sentence = str(int(match[1])), match[2].lower(), match[3]
    if sentence is None:
        return "not cut into sentences (subject 6)"
    key = f"{subject}_{emotion}_{sentence}"
    return Recording(path, emotion, subject, sentence=f"{emotion} {sentence}", key=key, longest_s=LONGEST_S)


READER = Reader("eNTERFACE'05", "en", "subject 1/anger/sentence 1/s1_an_1.avi", LABELS, 1287, read)
