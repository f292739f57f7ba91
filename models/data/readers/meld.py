"""MELD (Poria et al. 2019), as `MELD.Raw.tar.gz` and the archives in it have it: videos of a television series.

    train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv
    train_splits/dia0_utt0.mp4, dev_splits_complete/..., output_repeated_splits_test/...

Of some test utterances there are two videos; the one called `final_videos_testdia...` is the one the table speaks of.
One video is broken (train dia125_utt3) and one is missing (dev dia110_utt7); some are cut wrongly and last for minutes.
The six friends are in all splits, so the makers' splits are not independent of the speaker. Other parts ("Waiter") are
played by somebody else in each dialogue, and count as a speaker of that dialogue.
"""

import re
from pathlib import Path

from clser.models.data.downloads import Found, Reader, Recording, Tree
from clser.models.errors import GivenError

LABELS = {
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "joy": "happiness",
    "neutral": "neutral",
    "sadness": "sadness",
    "surprise": "surprise",
}
SPLITS = ("train", "dev", "test")
FRIENDS = {
    "Chandler": "male",
    "Joey": "male",
    "Ross": "male",
    "Monica": "female",
    "Phoebe": "female",
    "Rachel": "female",
}
SEVERAL = re.compile(r"\band\b|\bboth\b|\ball\b|\bothers\b|everyone|everybody|guys|women|kids|[,/&]", re.IGNORECASE)
BROKEN = frozenset({("train", 125, 3)})
MARGIN_S = 20.0
"""The tables' times are rough, sometimes a fraction of what is said; what is cut wrongly lasts for minutes."""
NAME = re.compile(r"^(final_videos_test)?dia(\d+)_utt(\d+)$", re.IGNORECASE)
MARKS = re.compile(r"[\x80-\x9f]")
"""Quotation marks and dashes that were saved in the wrong encoding."""
TIME = re.compile(r"(\d+):(\d+):(\d+)[,.](\d+)")

Turn = tuple[str, int, int]


def read(tree: Tree) -> Found:
    """What the three tables name, with its sound, or the video that has it."""
    found = Found()
    files, others = _files(tree)
    named = set[Turn]()
    for split in SPLITS:
        for table in tree.named(f"{split}_sent_emo.csv"):
            for row in tree.table(table, "Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID"):
                turn = split, _number(row, "Dialogue_ID", table), _number(row, "Utterance_ID", table)
                if turn in named:
                    continue  # the table lies there twice
                named.add(turn)
                if turn not in files:
                    found.missing.append("{} dia{}_utt{}".format(*turn))
                elif turn in BROKEN:
                    found.leave_out("known to be broken", files[turn])
                else:
                    found.recordings.append(_recording(turn, row, files[turn]))
    for turn, path in files.items():
        if turn not in named:
            found.leave_out("not named in a table", path)
    for path in others:
        found.leave_out("another file of the same utterance, or of no split", path)
    return found


def _recording(turn: Turn, row: dict[str, str], path: Path) -> Recording:
    split, dialogue, utterance = turn
    name = row["Speaker"].strip()
    where = f"{split}_dia{dialogue}"
    several = SEVERAL.search(name) is not None
    speaker = "" if several else name if name in FRIENDS else f"{where}_{name}"
    return Recording(
        path,
        row["Emotion"].strip().lower(),
        speaker,
        FRIENDS.get(name, ""),
        text=MARKS.sub(lambda mark: mark[0].encode("latin-1").decode("cp1252", "replace"), row["Utterance"]).strip(),
        dialogue=where,
        split=split,
        note=f"several speak: {name}" if several else "",
        key=f"{split} {dialogue} {utterance}",
        longest_s=_longest_s(row.get("StartTime", ""), row.get("EndTime", "")),
    )


def _number(row: dict[str, str], column: str, table: Path) -> int:
    if not row[column].strip().isdigit():
        raise GivenError(
            f"{table}: {column} is {row[column]!r}; a number is needed, so this is another table or a broken one"
        )
    return int(row[column])


def _files(tree: Tree) -> tuple[dict[Turn, Path], list[Path]]:
    """The file of each utterance, sound before videos; and the files that are second to it."""
    best: dict[Turn, tuple[bool, bool, Path]] = {}
    others = []
    sounds = set(tree.sounds())
    for path in tree.media():
        match = NAME.match(path.stem)
        if match is None:
            continue
        split = _split(path)
        if not split:
            others.append(path)
            continue
        turn = split, int(match[2]), int(match[3])
        this = match[1] is None, path not in sounds, path
        first, *second = sorted([this, best[turn]] if turn in best else [this])
        best[turn] = first
        others += [path for *_, path in second]
    return {turn: path for turn, (*_, path) in best.items()}, others


def _split(path: Path) -> str:
    """Of the nearest folder that names one."""
    for folder in reversed(path.parts[:-1]):
        for split in SPLITS:
            if split in folder.lower():
                return split
    return ""


def _longest_s(start: str, end: str) -> float:
    """Some room above what the table's times say; without times, no end."""
    times_s = []
    for text in (start, end):
        match = TIME.search(text)
        if match is None:
            return float("inf")
        hours, minutes, seconds, thousandths = map(int, match.groups())
        times_s.append(3600 * hours + 60 * minutes + seconds + thousandths / 1000)
    return 2 * max(0.0, times_s[1] - times_s[0]) + MARGIN_S


READER = Reader(
    "MELD",
    "en",
    "train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv, and train_splits/dia0_utt0.mp4 (or .wav)",
    LABELS,
    13_708,
    read,
)
